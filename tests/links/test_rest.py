import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.clock import Clock
from rpc_shim.bridge import UartBridge
from rpc_shim.dispatch import Channel, Dispatcher, RpcError
from rpc_shim.frame import (
    FrameError,
    JsonValue,
    ReplyAddress,
    ascii_json,
    decode_json,
    encode_error,
    encode_result,
    parse_request,
)
from rpc_shim.links.rest import (
    body_params,
    call_frame,
    challenge,
    encode_body,
    http_status,
    json_or_text,
    query_params,
    result_of,
    will_be_answered,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_utf_8_json_means_the_same_in_ascii(value: JsonValue) -> None:
    escaped = ascii_json(json.dumps(value, ensure_ascii=False).encode())
    assert escaped.isascii()
    assert decode_json(escaped) == value


@given(st.binary())
def test_what_is_no_utf_8_is_left_alone(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        assert ascii_json(data) == data
    else:
        assert ascii_json(data).isascii()


@given(TEXT.filter(bool), st.none() | st.lists(VALUES, max_size=3))
def test_a_call_becomes_a_frame_that_the_device_reads(method: str, params: list[JsonValue]) -> None:
    method = method[:255]
    request = parse_request(call_frame(7, method, params))
    assert (request.method, request.params, request.address) == (method, params, ReplyAddress(7))


FRAMES = st.one_of(
    st.binary(max_size=50),
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.sampled_from([1, "a", None, True, ""]),
            "method": st.sampled_from(["M", "Missing", "", 5]),
            "src": st.sampled_from(["me", 5]),
            "dst": st.sampled_from(["dev", "other", "", 5]),
            "params": st.sampled_from([{}, [], 5]),
            "result": st.just(1),
        },
    ).map(lambda members: json.dumps(members).encode()),
)


@given(FRAMES)
def test_who_will_be_answered_is_who_is(frame: bytes) -> None:
    answers: list[bytes] = []
    dispatcher = Dispatcher("dev", lambda _line: None)
    dispatcher.register("M", lambda _call: None)
    dispatcher.handle(frame, answers.append, Channel("HTTP"))
    assert will_be_answered(frame, "dev") == bool(answers)


@given(FRAMES)
def test_firmware_behind_a_bridge_may_answer_to_any_name(frame: bytes) -> None:
    answers: list[bytes] = []

    def firmware(line: bytes) -> None:
        bridge.uart_output(
            b"\n" + encode_result(parse_request(line[:-9]).address, "own", 1) + b"\n"
        )

    bridge = UartBridge("dev", lambda _line: None, firmware, Clock())
    bridge.handle(frame, answers.append, Channel("HTTP"))
    bridge.turn()
    assert will_be_answered(frame, None) == bool(answers)


@pytest.mark.parametrize(
    ("body", "params"),
    [
        (b"", None),
        (b" \r\n", None),
        (b"null", None),
        (b'{"a": [1]}', {"a": [1]}),
        (b"[1, 2]\n", [1, 2]),
        ('{"a":"\u00e4"}'.encode(), {"a": "\u00e4"}),
    ],
)
def test_params_in_a_body(body: bytes, params: JsonValue) -> None:
    assert body_params(body) == params


@pytest.mark.parametrize(
    "body", [b"5", b'"x"', b"{", b"\xff", b"[" * 5000, b'{"a":1,"a":2}', b'{"a":NaN}', b"a=1"]
)
def test_a_body_that_holds_no_params(body: bytes) -> None:
    with pytest.raises(FrameError):
        body_params(body)


def test_params_in_a_query() -> None:
    query = "n=1&s=%22x%22&url=http://x?y%3D1&empty=&flag=true&sum=1%2B1&words=a+b&u=%C3%A4&o={}"
    assert query_params(query) == {
        "n": 1,
        "s": "x",
        "url": "http://x?y=1",
        "empty": "",
        "flag": True,
        "sum": "1+1",
        "words": "a b",
        "u": "\u00e4",
        "o": {},
    }
    assert query_params("") == {}
    with pytest.raises(FrameError, match="'n' is there twice"):
        query_params("n=1&n=2")


@given(st.text(st.characters() | st.sampled_from("&=%+\udcff")))
def test_any_query_is_params_or_refused(query: str) -> None:
    try:
        params = query_params(query)
    except FrameError:
        return
    try:
        assert parse_request(call_frame(1, "M", params)).params == params
    except FrameError:
        # Bytes that are no UTF-8 arrive as half a surrogate pair: the device refuses them.
        assert any("\ud800" <= character <= "\udfff" for character in query)


@given(VALUES)
def test_values_that_somebody_types(value: JsonValue) -> None:
    assert json_or_text(json.dumps(value)) == value


@given(VALUES)
def test_a_result_comes_out_as_it_went_in(value: JsonValue) -> None:
    result = result_of(encode_result(ReplyAddress(1), "dev", value))
    assert json.loads(encode_body(result)) == value


def test_errors_in_answers() -> None:
    address = ReplyAddress(1)
    assert result_of(encode_error(address, "dev", 0, "done")) == "done"
    with pytest.raises(RpcError, match="no such") as caught:
        result_of(encode_error(address, "dev", 404, "no such"))
    assert caught.value.code == 404
    statuses = [http_status(code) for code in (400, 401, 403, 404, 418, 500, -1)]
    assert statuses == [400, 500, 403, 404, 500, 500, 500]


def test_the_challenge_of_http_is_that_of_frames() -> None:
    message = {"auth_type": "digest", "nonce": 1700000000, "nc": 1, "realm": "dev"}
    assert challenge(RpcError(401, json.dumps(message | {"algorithm": "SHA-256"}))) == (
        'Digest qop="auth", realm="dev", nonce="6553f100", algorithm=SHA-256'
    )
    stale = challenge(RpcError(401, json.dumps(message | {"stale": True})))
    assert stale == 'Digest qop="auth", realm="dev", nonce="6553f100", stale=true, algorithm=MD5'
    quoted = challenge(RpcError(401, json.dumps(message | {"realm": 'a"b\\c'})))
    assert quoted is not None
    assert 'realm="a\\"b\\\\c"' in quoted


@pytest.mark.parametrize(
    "message",
    [
        "go away",
        "5",
        "[" * 100,
        '{"auth_type":"basic","nonce":1,"realm":"x"}',
        '{"auth_type":"digest","nonce":"1","realm":"x"}',
        '{"auth_type":"digest","nonce":1}',
        '{"auth_type":"digest","nonce":1,"realm":"x\\r\\nSet-Cookie: y"}',
        '{"auth_type":"digest","nonce":1,"realm":"x","algorithm":"MD5\\r\\nX: y"}',
        '{"auth_type":"digest","nonce":1,"realm":"x","algorithm":5}',
    ],
)
def test_what_is_no_challenge(message: str) -> None:
    assert challenge(RpcError(401, message)) is None
    assert challenge(RpcError(403, '{"auth_type":"digest","nonce":1,"realm":"x"}')) is None
