"""A small client for a device's RPC service, for tests and for those without `mos`.

It speaks the newer line framing, JSON CRC newline, and skips everything in the device's output that
is not the answer it waits for. It is a program on the host: its timeouts are in real time.
"""

import errno
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from types import TracebackType
from typing import Protocol, Self

import serial

from platforms.errors import OtasimError
from rpc_shim.access.digest import Challenge, answer_in_frame
from rpc_shim.dispatch import UNAUTHENTICATED
from rpc_shim.frame import (
    FrameError,
    JsonValue,
    ReplyAddress,
    Request,
    RequestId,
    decode_json,
    describe,
    encode_request,
)
from rpc_shim.framing import (
    END_OF_TRANSMISSION,
    NEWLINE_DELIMITER,
    QUOTES_DELIMITER,
    Delimiter,
    FrameReceived,
    Handshake,
    LineDemultiplexer,
    LineEvent,
    ReplyStyle,
    crc32_hex,
    encode_frame,
)

DEFAULT_TIMEOUT_S = 20.0

_BAUD_RATE = 115_200
_MAX_ANSWER_SIZE = 1024 * 1024
_HANDSHAKE = QUOTES_DELIMITER + END_OF_TRANSMISSION + QUOTES_DELIMITER + NEWLINE_DELIMITER * 2
_HANDSHAKE_INTERVAL_S = 0.2
_CHUNK_SIZE = 16
_WRITE_TIMEOUT_S = 10.0
_CNONCES = 1 << 32
_QUOTED_WITH_CRC = ReplyStyle(Delimiter.QUOTES, with_crc=True)


class RpcClientError(OtasimError):
    """The device answered with an error.

    Attributes:
        code: the device's code: 400 for a bad request, 401 when it wants a user's password, 403
            when it wants another user's, 404 for something unknown, -1 for failed.
        message: the device's words.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"the device answers with error {code}: {message}")
        self.code = code
        self.message = message


class RpcTimeoutError(OtasimError):
    """No answer in time. Whether the call was carried out is not known.

    Attributes:
        method: what was called.
        timeout_s: how long the answer was waited for, in seconds.
    """

    def __init__(self, method: str, timeout_s: float) -> None:
        super().__init__(
            f"no answer to {method} within {timeout_s:g} s: is it the right port, "
            "and does the application run?"
        )
        self.method = method
        self.timeout_s = timeout_s


class PortError(OtasimError):
    """A serial port cannot be opened or does not work any more.

    Attributes:
        port: its path.
    """

    def __init__(self, port: str, problem: str) -> None:
        super().__init__(f"serial port {port}: {problem}")
        self.port = port


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of the device and the password, which never leaves this program."""

    user: str
    password: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read `USER:PASSWORD`; None when it is not that."""
        user, colon, password = text.partition(":")
        return cls(user, password) if user and colon else None


class Framing(Enum):
    """How to frame requests."""

    LINES = auto()
    """JSON CRC newline, as newer clients do."""

    QUOTES = auto()
    """As `mos` does by default: a handshake before every request, three quotes around it."""


class ByteStream(Protocol):
    """Something that carries bytes to a device and back."""

    def read(self, timeout_s: float) -> bytes:
        """At least one byte, or none when `timeout_s` seconds have brought nothing."""
        ...

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        ...

    def close(self) -> None:
        """Let the device go."""
        ...


class SerialPort:
    """A serial port as a byte stream: 115200 baud, 8N1, nobody else on it who locks ports.

    Args:
        port: path of the device file, or of a symbolic link to it.

    Raises:
        PortError: from every method, when the port is not there, in use, or gone.
    """

    def __init__(self, port: str) -> None:
        self._port = port
        try:
            # Opening discards what the device said before: it answers none of our requests.
            self._serial = serial.Serial(
                port, _BAUD_RATE, exclusive=True, write_timeout=_WRITE_TIMEOUT_S
            )
        except OSError as error:
            raise PortError(port, f"cannot be opened: {_reason(error)}") from error

    def read(self, timeout_s: float) -> bytes:
        """At least one byte, or none when `timeout_s` seconds have brought nothing."""
        try:
            self._serial.timeout = timeout_s
            first = self._serial.read(1)
            return first + self._serial.read(self._serial.in_waiting) if first else b""
        except OSError as error:
            raise PortError(self._port, f"is gone: {error}") from error

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            self._serial.write(data)
        except OSError as error:
            raise PortError(self._port, f"is gone: {error}") from error

    def close(self) -> None:
        """Close the port."""
        self._serial.close()


def _reason(error: OSError) -> str:
    """Why a port cannot be opened, without the path that pyserial repeats in it."""
    if error.errno in {errno.EAGAIN, errno.EBUSY}:
        return "another program uses it"
    if error.errno is None:
        return f"it is no serial port ({error})"
    return os.strerror(error.errno)


class RpcClient:
    """Calls methods of a device.

    Args:
        stream: the way to the device; `close` closes it.
        framing: how to frame requests.
        source: who we say we are (`src`).
        credentials: what to prove who we are with, where the device wants to know.
        first_id: id of the first request; the following ones count up from there. An answer to a
            request that an earlier client gave up on may still come: ids that differ keep it apart.
        monotonic: seconds that only go up, to measure timeouts with.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        framing: Framing = Framing.LINES,
        source: str = "otasim",
        credentials: Credentials | None = None,
        first_id: int = 1,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._framing = framing
        self._source = source
        self._credentials = credentials
        self._next_id = first_id
        self._monotonic = monotonic
        self._received = LineDemultiplexer(_MAX_ANSWER_SIZE, frames_within_lines=False)

    @classmethod
    def open(
        cls,
        port: str,
        *,
        framing: Framing = Framing.LINES,
        credentials: Credentials | None = None,
        first_id: int = 1,
    ) -> Self:
        """A client on a serial port; PortError when it cannot be opened."""
        return cls(SerialPort(port), framing=framing, credentials=credentials, first_id=first_id)

    def call(
        self,
        method: str,
        params: Mapping[str, JsonValue] | Sequence[JsonValue] | None = None,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> JsonValue:
        """Call `method` once and return its result.

        An error with code 0 is a success without a result: real devices end `OTA.Update` that way
        (this board answers it with the result null). Where the device wants to know who is
        calling, the request is sent again with the proof.

        Raises:
            RpcClientError: the device answered with an error.
            RpcTimeoutError: no answer came within `timeout_s` seconds.
            PortError: the port does not work any more.
        """
        deadline_s = self._monotonic() + timeout_s
        request_id = self._next_id
        self._next_id += 1
        address = ReplyAddress(request_id, self._source)
        request = Request(method, address, params)
        answer = self._exchange(request, deadline_s)
        if answer is not None and self._credentials is not None:
            challenge = _challenge(answer)
            if challenge is not None:
                user, password = self._credentials.user, self._credentials.password
                auth = answer_in_frame(challenge, user, password, secrets.randbelow(_CNONCES))
                answer = self._exchange(replace(request, auth=auth), deadline_s)
        if answer is None:
            raise RpcTimeoutError(method, timeout_s)
        return _result(answer)

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _exchange(self, request: Request, deadline_s: float) -> dict[str, JsonValue] | None:
        """The members of the answer to `request`, or None when the deadline has come."""
        json = encode_request(request)
        if self._framing is Framing.LINES:
            self._stream.write(json + crc32_hex(json) + NEWLINE_DELIMITER)
        elif self._shake_hands(deadline_s):
            self._write_in_chunks(encode_frame(json, _QUOTED_WITH_CRC))
        while (events := self._receive(deadline_s)) is not None:
            for event in events:
                answer = _answer_to(request.address.request_id, event)
                if answer is not None:
                    return answer
        return None

    def _receive(self, deadline_s: float) -> list[LineEvent] | None:
        """What the next bytes bring, or None when the deadline has come."""
        left_s = deadline_s - self._monotonic()
        if left_s <= 0:
            return None
        data = self._stream.read(left_s)
        return self._received.feed(data) if data else None

    def _shake_hands(self, deadline_s: float) -> bool:
        while self._monotonic() < deadline_s:
            self._write_in_chunks(_HANDSHAKE)
            retry_s = min(deadline_s, self._monotonic() + _HANDSHAKE_INTERVAL_S)
            while (events := self._receive(retry_s)) is not None:
                if any(isinstance(event, Handshake) for event in events):
                    self._write_in_chunks(QUOTES_DELIMITER)
                    return True
        return False

    def _write_in_chunks(self, data: bytes) -> None:
        for start in range(0, len(data), _CHUNK_SIZE):
            self._stream.write(data[start : start + _CHUNK_SIZE])


def _answer_to(request_id: RequestId | None, event: LineEvent) -> dict[str, JsonValue] | None:
    """The members of an answer to this request; None for everything else the device says."""
    if not isinstance(event, FrameReceived):
        return None
    try:
        members = decode_json(event.json)
    except FrameError:
        return None  # log text in braces
    if not isinstance(members, dict) or "method" in members or members.get("id") != request_id:
        return None
    return members


def _challenge(answer: Mapping[str, JsonValue]) -> Challenge | None:
    """What the device wants proven; None when it has answered something else."""
    error = answer.get("error")
    if not isinstance(error, Mapping) or error.get("code") != UNAUTHENTICATED:
        return None
    message = error.get("message")
    return Challenge.parse(message) if isinstance(message, str) else None


def _result(answer: Mapping[str, JsonValue]) -> JsonValue:
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    code = error.get("code") if isinstance(error, Mapping) else None
    message = error.get("message") if isinstance(error, Mapping) else None
    if not isinstance(code, int):
        raise RpcClientError(-1, f"an error without a code: {describe(error)}")
    if code == 0:
        return None
    raise RpcClientError(code, message if isinstance(message, str) else "no reason given")
