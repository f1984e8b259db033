"""The JSON inside a frame: requests taken apart, answers put together.

A request is `{"id":..,"method":..,"params":..,"src":..,"dst":..,"tag":..,"key":..,"auth":..}`, of
which only `method` is always there; an answer repeats `id` and `tag`, swaps `src` and `dst`, and
carries `result` or `error`. Facts are from the public device source (mongoose-os-libs/rpc-common,
`mg_rpc.c`) and the frames `mos` sends. Members nobody here knows (`jsonrpc`, `v`, `timeout`, ...)
are ignored, as on the device.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from platforms.errors import OtasimError

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)
RequestId: TypeAlias = int | str

MAX_NESTING = 32
_MIN_INTEGER = -(2**63)
_MAX_INTEGER = 2**64 - 1
_MAX_NAME_LENGTH = 255

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


@dataclass(frozen=True, slots=True)
class ReplyAddress:
    """What an answer repeats of its request.

    Attributes:
        request_id: echoed as it came; None for a notification, which nobody answers.
        source: who asked (`src`), empty when unnamed; becomes the answer's `dst`.
        tag: echoed when there is one.
    """

    request_id: RequestId | None = None
    source: str = ""
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A call of a method.

    Attributes:
        method: its name, never empty.
        address: where the answer goes.
        params: its arguments: an object, a list, or None when there are none.
        destination: whom it is for (`dst`); empty means whoever receives it.
        key: pre-shared key, None when not given.
        auth: digest authentication fields, None when not given.
    """

    method: str
    address: ReplyAddress
    params: Mapping[str, JsonValue] | Sequence[JsonValue] | None = None
    destination: str = ""
    key: str | None = None
    auth: Mapping[str, JsonValue] | None = None


class FrameError(OtasimError):
    """A frame is no request that can be carried out.

    Attributes:
        address: where to send an error, or None when the frame does not say readably.
    """

    def __init__(self, message: str, address: ReplyAddress | None = None) -> None:
        super().__init__(message)
        self.address = address


def decode_json(text: bytes) -> JsonValue:
    """Parse one JSON value strictly.

    Refused besides what is not JSON at all: NaN and Infinity, integers that do not fit 64 bits,
    numbers too large for a double, an object with the same key twice, half a surrogate pair,
    nesting deeper than 32.

    Raises:
        FrameError: saying what and where; it carries no address.
    """
    value, problems = _decode(text)
    if problems:
        raise FrameError(problems[0])
    return value


def ascii_json(text: bytes) -> bytes:
    r"""The same JSON with `\uXXXX` for what is not ASCII, as the device's parser wants it.

    Clients on transports that carry all bytes send UTF-8. What is not UTF-8 is left for the parser
    to refuse.
    """
    if text.isascii():
        return text
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        return text
    return escape_to_ascii(decoded)


def escape_to_ascii(json_text: str) -> bytes:
    r"""The same JSON with `\uXXXX` for what is not ASCII."""
    return _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], json_text).encode("ascii")


def decode_object(text: bytes) -> dict[str, JsonValue]:
    """Parse one JSON object as strictly as `decode_json` does.

    Raises:
        FrameError: it is no JSON or no object; it carries no address.
    """
    value = decode_json(text)
    if not isinstance(value, dict):
        raise FrameError(f"a frame is a JSON object, not {describe(value)}")
    return value


def encode_object(members: Mapping[str, JsonValue]) -> bytes:
    """The JSON of a frame: one line of ASCII."""
    # Escaping all but ASCII keeps the frame on one line and free of bytes the protocol forbids.
    text = json.dumps(members, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def parse_request(frame: bytes) -> Request:
    """Parse and check the JSON of a request.

    `id` may be any integer of 64 bits, signed or unsigned, or a string of up to 255 characters.
    `args` is the older name of `params`, which wins when both are there.

    Raises:
        FrameError: with the address to answer to, as far as the frame could be read. A frame whose
            `id` does not fit 64 bits or is there twice names nobody who could be answered.
    """
    members, problems = _decode(frame)
    if not isinstance(members, dict):
        raise FrameError(f"a frame is a JSON object, not {describe(members)}")
    address = _reply_address(members)
    if problems:
        raise FrameError(problems[0], address)
    method = members.get("method")
    if method is None:
        if "result" in members or "error" in members:
            # Answering an answer could go on for ever between two devices that hear each other.
            raise FrameError("the frame is an answer: it names no method")
        raise FrameError("the frame is no request: it names no method", address)
    if not isinstance(method, str) or not 0 < len(method) <= _MAX_NAME_LENGTH:
        raise FrameError(f"method must be a name, got {describe(method)}", address)
    if address is None:
        raise FrameError(_address_problem(members))
    return Request(
        method=method,
        address=address,
        params=_params(members, address),
        destination=_text(members, "dst", address) or "",
        key=_text(members, "key", address),
        auth=_auth(members, address),
    )


def encode_result(address: ReplyAddress, device_id: str, result: JsonValue) -> bytes:
    """The answer to a request that succeeded: one line of ASCII JSON."""
    return encode_object(_reply_members(address, device_id) | {"result": result})


def encode_error(address: ReplyAddress, device_id: str, code: int, message: str) -> bytes:
    """The answer to a request that failed; code 0 counts as success with `mos`."""
    error: JsonValue = {"code": code, "message": message}
    return encode_object(_reply_members(address, device_id) | {"error": error})


def encode_request(request: Request) -> bytes:
    """The frame of a request, as a client sends it."""
    members: dict[str, JsonValue] = {}
    if request.address.source:
        members["src"] = request.address.source
    if request.destination:
        members["dst"] = request.destination
    if request.address.tag is not None:
        members["tag"] = request.address.tag
    if request.key is not None:
        members["key"] = request.key
    if request.address.request_id is not None:
        members["id"] = request.address.request_id
    members["method"] = request.method
    if request.params is not None:
        members["params"] = request.params
    if request.auth is not None:
        members["auth"] = request.auth
    return encode_object(members)


def describe(value: JsonValue) -> str:
    """A value as an error message shows it: short, ASCII, unmistakable."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _shortened(ascii(value))
    if isinstance(value, int | float):
        return str(value)
    return "an object" if isinstance(value, Mapping) else "a list"


def _shortened(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 4] + "..." + text[-1]


def _reply_members(address: ReplyAddress, device_id: str) -> dict[str, JsonValue]:
    members: dict[str, JsonValue] = {}
    if address.request_id is not None:
        members["id"] = address.request_id
    members["src"] = device_id
    if address.source:
        members["dst"] = address.source
    if address.tag is not None:
        members["tag"] = address.tag
    return members


def _decode(raw: bytes) -> tuple[JsonValue, list[str]]:
    """The value and what is wrong with it though it parses, so that its address can be read.

    What is no proper value of its own, a number too large or a key's two values, is None in it.
    """
    problems: list[str] = []

    def integer(digits: str) -> int | None:
        # The length is looked at first: converting thousands of digits is slow, and Python refuses.
        if len(digits) <= 20 and _MIN_INTEGER <= (value := int(digits)) <= _MAX_INTEGER:
            return value
        problems.append(f"the number {_shortened(digits)} does not fit 64 bits")
        return None

    def real(digits: str) -> float | None:
        if math.isfinite(value := float(digits)):
            return value
        problems.append(f"the number {_shortened(digits)} is too large")
        return None

    def constant(name: str) -> None:
        problems.append(f"{name} is no JSON value")

    def members(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
        result: dict[str, JsonValue] = {}
        for name, value in pairs:
            if name in result:
                problems.append(f"the key {describe(name)} is there twice")
            result[name] = None if name in result else value
        return result

    try:
        text = raw.decode("ascii")
        _check_nesting(text)
        value: JsonValue = json.loads(
            text,
            parse_int=integer,
            parse_float=real,
            parse_constant=constant,
            object_pairs_hook=members,
        )
    except UnicodeDecodeError as error:
        raise FrameError(
            f"byte 0x{raw[error.start]:02x} at {error.start} is not ASCII: write it as \\uXXXX"
        ) from error
    except json.JSONDecodeError as error:
        raise FrameError(f"not JSON at character {error.pos + 1}: {error.msg}") from error
    if "\\u" in text and not _encodable(value):
        problems.append("a string holds half a surrogate pair (\\uD800 to \\uDFFF)")
    return value, problems


def _encodable(value: JsonValue) -> bool:
    """Whether every string is text that can leave the program again."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_nesting(text: str) -> None:
    """Keep deep nesting away from the JSON parser, which would overflow its stack."""
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_NESTING:
            raise FrameError(f"nested deeper than {MAX_NESTING} levels")


def _reply_address(members: Mapping[str, JsonValue]) -> ReplyAddress | None:
    if _address_problem(members):
        return None
    request_id, source, tag = members.get("id"), members.get("src"), members.get("tag")
    return ReplyAddress(
        request_id if isinstance(request_id, int | str) else None,
        source if isinstance(source, str) else "",
        tag if isinstance(tag, str) else None,
    )


def _address_problem(members: Mapping[str, JsonValue]) -> str:
    """What keeps an answer from being addressed; empty when nothing does."""
    # A present but null id is refused as on the device: it is neither a request's nor absent.
    request_id = members.get("id", 0)
    if isinstance(request_id, bool) or not isinstance(request_id, int | str):
        return f"id must be an integer or a string, got {describe(request_id)}"
    if isinstance(request_id, str) and not 0 < len(request_id) <= _MAX_NAME_LENGTH:
        return f"id must have 1 to {_MAX_NAME_LENGTH} characters, got {len(request_id)}"
    for name in ("src", "tag"):
        value = members.get(name)
        if value is not None and not (isinstance(value, str) and len(value) <= _MAX_NAME_LENGTH):
            return f"{name} must be a string of up to {_MAX_NAME_LENGTH} characters"
    return ""


def _text(members: Mapping[str, JsonValue], name: str, address: ReplyAddress) -> str | None:
    value = members.get(name)
    if value is None or isinstance(value, str):
        return value
    raise FrameError(f"{name} must be a string, got {describe(value)}", address)


def _params(
    members: Mapping[str, JsonValue], address: ReplyAddress
) -> Mapping[str, JsonValue] | Sequence[JsonValue] | None:
    name = "params" if "params" in members else "args"
    value = members.get(name)
    if value is None or isinstance(value, dict | list):
        return value
    raise FrameError(f"{name} must be an object or a list, got {describe(value)}", address)


def _auth(
    members: Mapping[str, JsonValue], address: ReplyAddress
) -> Mapping[str, JsonValue] | None:
    value = members.get("auth")
    if value is None or isinstance(value, dict):
        return value
    raise FrameError(f"auth must be an object, got {describe(value)}", address)
