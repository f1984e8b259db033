"""Plain HTTP calls as RPC frames, and their answers as HTTP has them: decisions without effects.

Facts are from mongoose-os-libs/rpc-common (`mg_rpc_channel_http.c`, `mgos_rpc.c`).
"""

import json
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from rpc_shim.access.digest import Challenge
from rpc_shim.dispatch import (
    BAD_REQUEST,
    FORBIDDEN,
    INTERNAL_ERROR,
    NOT_FOUND,
    UNAUTHENTICATED,
    RpcError,
)
from rpc_shim.frame import (
    FrameError,
    JsonValue,
    ReplyAddress,
    Request,
    ascii_json,
    decode_json,
    describe,
    encode_request,
    parse_request,
)

Params = Mapping[str, JsonValue] | Sequence[JsonValue] | None


def will_be_answered(frame: bytes, device_id: str | None) -> bool:
    """Whether the device answers a frame at some time, be it with an error.

    Args:
        frame: its JSON.
        device_id: the name that the device answers to; None when it does to any.
    """
    try:
        request = parse_request(frame)
    except FrameError as error:
        return error.address is not None and error.address.request_id is not None
    is_for_device = device_id is None or request.destination in {"", device_id}
    return request.address.request_id is not None and is_for_device


def call_frame(request_id: int, method: str, params: Params) -> bytes:
    """The frame of a call."""
    return encode_request(Request(method, ReplyAddress(request_id), params))


def body_params(body: bytes) -> Params:
    """The params that the body of a `POST /rpc/METHOD` holds; an empty one has none.

    Raises:
        FrameError: it is neither an object nor a list.
    """
    if not body.strip():
        return None
    params = decode_json(ascii_json(body))
    if params is None or isinstance(params, Mapping):
        return params
    if isinstance(params, Sequence) and not isinstance(params, str):
        return params
    raise FrameError(f"the body must be a JSON object or a list, got {describe(params)}")


def query_params(query: str) -> dict[str, JsonValue]:
    """The params in the query of a `GET /rpc/METHOD`.

    Args:
        query: what stands after the question mark: `a=1&b="x"`.

    Raises:
        FrameError: a name is there twice.
    """
    params: dict[str, JsonValue] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in params:
            raise FrameError(f"{describe(name)} is there twice")
        params[name] = json_or_text(text)
    return params


def json_or_text(text: str) -> JsonValue:
    """A value that somebody typed: JSON, or else a string such as `http://x`.

    The device takes JSON only.
    """
    try:
        return decode_json(ascii_json(text.encode("utf-8", "surrogatepass")))
    except FrameError:
        return text


def result_of(answer: bytes) -> JsonValue:
    """The result in an answer of the device.

    Error code 0 is a success with words to it, which are the result then.

    Raises:
        RpcError: the error in it.
    """
    members = json.loads(answer)
    error = members.get("error")
    if error is None:
        result: JsonValue = members.get("result")
        return result
    code, message = int(error["code"]), str(error.get("message", ""))
    if code:
        raise RpcError(code, message)
    return message


def encode_body(value: JsonValue) -> bytes:
    """A JSON value as the body of an answer, ending in a line break as the device's do."""
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\r\n"


def http_status(code: int) -> int:
    """The HTTP status for an error code."""
    return code if code in {BAD_REQUEST, FORBIDDEN, NOT_FOUND} else INTERNAL_ERROR


def challenge(error: RpcError) -> str | None:
    """The `WWW-Authenticate` header that says what error 401 says in a frame, if it says it."""
    asked = Challenge.parse(error.message) if error.code == UNAUTHENTICATED else None
    return None if asked is None else asked.as_header()
