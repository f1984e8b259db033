"""Requests from the network for firmware that has an RPC service of its own, on its UART.

The UART belongs to the firmware then, and to whoever is on the serial line. A `UartBridge` stands
where a `Dispatcher` would: it passes requests on as lines on the same UART and finds the answers
among everything else that the firmware sends. It lives in the RAM of one boot of the application,
is made anew at every boot, and runs on the board's thread only.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from platforms.clock import NS_PER_S, Clock
from rpc_shim.dispatch import BAD_REQUEST, FAILED, Channel, PendingReply, Reply, read_request
from rpc_shim.frame import (
    FrameError,
    ReplyAddress,
    Request,
    decode_object,
    describe,
    encode_object,
)
from rpc_shim.framing import (
    DEFAULT_MAX_FRAME_SIZE,
    NEWLINE_DELIMITER,
    FrameReceived,
    FrameRejected,
    LineDemultiplexer,
    crc32_hex,
)

DEFAULT_MAX_WAITING = 256
DEFAULT_QUEUE_SIZE = 64 * 1024
MAX_ANSWER_SIZE = 64 * 1024

FIRST_ID = 2**52
"""Ids of the bridge count up from here, so that no client on the serial line has the same ones.

`mos` draws ids below 2**41 and others count from 1 or take the time in milli- or microseconds, all
of which are less. Up to 2**53 firmware that computes with doubles repeats them to the digit.
"""

HOST_SILENCE_NS = 10 * NS_PER_S
"""A client on the serial line that says nothing for so long will not finish its frame.

`mos` sends a frame in chunks, 5 ms apart, which are seconds to a board that runs at full speed. It
waits 20 s for an answer, so a request that comes by the bridge meanwhile is not too late yet.
"""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that the firmware has not answered yet."""

    address: ReplyAddress
    reply: Reply


class UartBridge:
    """Passes requests on to the firmware, and its answers back.

    Each request gets an id of the bridge's own on its way, because clients do not know of each
    other's. A line goes out in each `turn`: characters take no time on this UART, and the firmware
    must have read one request before the next one comes. No line goes out in the middle of a frame
    from the serial line, whose bytes pass through `host_bytes` for that reason.

    The firmware's answers go to the serial line as well, like all that it sends: clients ignore
    answers to questions that they have not asked.

    Args:
        device_id: `src` of the errors that the bridge itself answers with.
        log: takes one line of text, for anywhere but the UART, which is the firmware's.
        to_firmware: takes the bytes for the firmware's UART.
        clock: virtual time.
        max_frame_size: longest request that the firmware takes, JSON and CRC together, in bytes.
        max_waiting: requests that may wait for their answer; more, and the oldest gets an error.
        queue_size: bytes of requests that may wait for a turn; more are answered with an error.
    """

    def __init__(
        self,
        device_id: str,
        log: Callable[[str], None],
        to_firmware: Callable[[bytes], None],
        clock: Clock,
        *,
        max_frame_size: int = DEFAULT_MAX_FRAME_SIZE,
        max_waiting: int = DEFAULT_MAX_WAITING,
        queue_size: int = DEFAULT_QUEUE_SIZE,
    ) -> None:
        self._device_id = device_id
        self._log = log
        self._to_firmware = to_firmware
        self._clock = clock
        self._max_frame_size = max_frame_size
        self._max_waiting = max_waiting
        self._queue_size = queue_size
        self._queue: deque[bytes] = deque()
        self._queued_size = 0
        self._waiting: dict[int, _Waiting] = {}  # by the bridge's id, the oldest first
        self._next_id = FIRST_ID
        self._from_firmware = LineDemultiplexer(MAX_ANSWER_SIZE, frames_within_lines=False)
        self._from_host = LineDemultiplexer()
        self._host_heard_ns = 0
        self._closed = False

    def handle(self, frame: bytes, reply: Reply, channel: Channel) -> None:
        """Take a request for the firmware.

        One that is malformed or too long is answered with error 400, and one more than fit in the
        queue with error -1, as far as they say whom to answer.

        Args:
            frame: the JSON of the request.
            reply: takes the answer's JSON, at once or later; never called for a notification.
            channel: what the frame came over.
        """
        if self._closed:
            return
        request = read_request(frame, reply, self._device_id, self._log)
        if request is None:
            return
        line = self._line(frame, request)
        # The newline is no part of the frame.
        if len(line) - 1 > self._max_frame_size:
            problem = (
                f"the request has {len(line) - 1} bytes with its CRC-32, "
                f"the firmware takes {self._max_frame_size}"
            )
            self._refuse(request, reply, channel, BAD_REQUEST, problem)
        elif self._queued_size + len(line) > self._queue_size:
            problem = f"{len(self._queue)} requests wait for the UART already: try again later"
            self._refuse(request, reply, channel, FAILED, problem)
        else:
            self._queue.append(line)
            self._queued_size += len(line)
            if request.address.request_id is not None:
                self._expect(_Waiting(request.address, reply))

    def turn(self) -> None:
        """One turn of the main loop: a line for the firmware, unless a client is in mid-frame."""
        if not self._queue:
            return
        if self._from_host.in_frame:
            if self._clock.now_ns - self._host_heard_ns < HOST_SILENCE_NS:
                return
            self._log("rpc: a client on the serial line left a frame unfinished: it is ended")
            self.host_bytes(NEWLINE_DELIMITER)
        line = self._queue.popleft()
        self._queued_size -= len(line)
        self._to_firmware(line)

    def host_bytes(self, data: bytes) -> None:
        """Pass on to the firmware what a client on the serial line sends."""
        if self._closed:
            return
        self._host_heard_ns = self._clock.now_ns
        self._from_host.feed(data)
        self._to_firmware(data)

    def uart_output(self, data: bytes) -> None:
        """Take what the firmware sends, in any portions, and answer with what is an answer."""
        if self._closed:
            return
        for event in self._from_firmware.feed(data):
            if isinstance(event, FrameReceived):
                self._answer(event.json)
            elif isinstance(event, FrameRejected):
                self._log_dropped(event.message)

    def close(self) -> None:
        """The RAM is gone: nothing is taken, sent or answered any more."""
        self._closed = True
        self._queue.clear()
        self._waiting.clear()

    def _line(self, frame: bytes, request: Request) -> bytes:
        """The frame on one line, with the next id if it has any. Members unknown here stay."""
        members = decode_object(frame)
        if request.address.request_id is not None:
            members["id"] = self._next_id
        json = encode_object(members)
        return json + crc32_hex(json) + NEWLINE_DELIMITER

    def _expect(self, waiting: _Waiting) -> None:
        if len(self._waiting) >= self._max_waiting:
            oldest = self._waiting.pop(next(iter(self._waiting)))
            problem = f"no answer from the firmware, and {self._max_waiting} newer requests wait"
            self._log(f"rpc: a request is given up: {problem}")
            PendingReply(oldest.address, self._device_id, oldest.reply).error(FAILED, problem)
        self._waiting[self._next_id] = waiting
        self._next_id += 1

    def _refuse(
        self, request: Request, reply: Reply, channel: Channel, code: int, problem: str
    ) -> None:
        self._log(f"rpc: {describe(request.method)} over {channel.kind} refused: {problem}")
        PendingReply(request.address, self._device_id, reply).error(code, problem)

    def _answer(self, json: bytes) -> None:
        try:
            members = decode_object(json)
        except FrameError as error:
            self._log_dropped(f"what the firmware sent is no answer: {error}")
            return
        own_id = members.get("id")
        # A frame with a method is a request: the firmware's own, or its echo of one of ours.
        if "method" in members or not isinstance(own_id, int):
            return
        waiting = self._waiting.pop(own_id, None)
        if waiting is not None:
            waiting.reply(encode_object(members | {"id": waiting.address.request_id}))

    def _log_dropped(self, message: str) -> None:
        """While nobody waits, no answer is lost: a brace began some other line of the firmware."""
        if self._waiting:
            self._log(f"rpc: from the firmware: {message}")
