import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc_shim.frame import (
    MAX_NESTING,
    FrameError,
    JsonValue,
    ReplyAddress,
    Request,
    RequestId,
    decode_json,
    encode_error,
    encode_request,
    encode_result,
    parse_request,
)

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def refused(frame: str) -> FrameError:
    with pytest.raises(FrameError) as caught:
        parse_request(frame.encode())
    return caught.value


def test_mos_request() -> None:
    frame = b'{"src":"mos","id":2059605104477,"method":"RPC.Describe","params":{"name":"A.B"}}'
    assert parse_request(frame) == Request(
        method="RPC.Describe",
        address=ReplyAddress(2059605104477, "mos"),
        params={"name": "A.B"},
    )


def test_all_members() -> None:
    frame = (
        b'{"v":2,"jsonrpc":"2.0","id":"a","src":"s","dst":"d","tag":"t","key":"k",'
        b'"method":"M","args":[1],"auth":{"realm":"r"},"timeout":5,"nr":false}'
    )
    assert parse_request(frame) == Request(
        "M", ReplyAddress("a", "s", "t"), [1], "d", "k", {"realm": "r"}
    )


def test_notification_has_no_id() -> None:
    assert parse_request(b'{"method":"M"}').address == ReplyAddress(None)


@pytest.mark.parametrize(
    ("members", "params"),
    [
        ('"args":{"a":1}', {"a": 1}),
        ('"params":{"a":1},"args":{"a":2}', {"a": 1}),
        ('"params":null', None),
        ('"params":[]', []),
    ],
)
def test_params(members: str, params: JsonValue) -> None:
    assert parse_request(f'{{"method":"M",{members}}}'.encode()).params == params


@pytest.mark.parametrize("request_id", [0, -1, 2**64 - 1, -(2**63), "x", "1", "\u00e9" * 255])
def test_ids_are_echoed_as_they_came(request_id: RequestId) -> None:
    frame = json.dumps({"id": request_id, "method": "M"}).encode()
    address = parse_request(frame).address
    assert json.loads(encode_result(address, "dev", None))["id"] == request_id


@pytest.mark.parametrize(
    ("frame", "part_of_message"),
    [
        ("", "not JSON"),
        ("{", "not JSON at character 2"),
        ("{}}", "not JSON"),
        ("{'id':1}", "not JSON"),
        ('{"id":01}', "not JSON"),
        ('{"a":"\n"}', "not JSON"),
        ("[1]", "a frame is a JSON object, not a list"),
        ("null", "a frame is a JSON object, not null"),
        ("\u00e9", "byte 0xc3 at 0 is not ASCII"),
        ("[" * 4000, f"nested deeper than {MAX_NESTING}"),
        ('{"a":' * 800, f"nested deeper than {MAX_NESTING}"),
        ('{"id":true,"method":"M"}', "id must be an integer or a string, got true"),
        ('{"id":null,"method":"M"}', "id must be an integer or a string, got null"),
        ('{"id":1.0,"method":"M"}', "id must be an integer or a string, got 1.0"),
        ('{"id":[],"method":"M"}', "id must be an integer or a string, got a list"),
        ('{"id":"","method":"M"}', "id must have 1 to 255 characters"),
        ('{"id":1,"src":5,"method":"M"}', "src must be a string"),
        ('{"id":1,"tag":{},"method":"M"}', "tag must be a string"),
        (json.dumps({"id": "x" * 256, "method": "M"}), "id must have 1 to 255 characters"),
        ('{"id":7,"src":"me","result":5}', "an answer: it names no method"),
        ('{"id":7,"src":"me","error":{"code":1}}', "an answer: it names no method"),
    ],
)
def test_nobody_can_be_answered(frame: str, part_of_message: str) -> None:
    error = refused(frame)
    assert part_of_message in str(error)
    assert error.address is None


@pytest.mark.parametrize(
    ("members", "part_of_message"),
    [
        ("", "no request: it names no method"),
        (',"method":5', "method must be a name, got 5"),
        (',"method":""', "method must be a name, got ''"),
        (',"method":"M","params":5', "params must be an object or a list, got 5"),
        (',"method":"M","args":"x"', "args must be an object or a list, got 'x'"),
        (',"method":"M","dst":5', "dst must be a string"),
        (',"method":"M","key":5', "key must be a string"),
        (',"method":"M","auth":5', "auth must be an object"),
        (',"method":"M","params":{"n":NaN}', "NaN is no JSON value"),
        (',"method":"M","params":{"n":-Infinity}', "-Infinity is no JSON value"),
        (',"method":"M","params":{"n":1e999}', "the number 1e999 is too large"),
        (',"method":"M","params":{"n":18446744073709551616}', "does not fit 64 bits"),
        (',"method":"M","params":{"n":-9223372036854775809}', "does not fit 64 bits"),
        (',"method":"M","params":{"n":' + "9" * 3000 + "}", "does not fit 64 bits"),
        (',"method":"M","params":{"a":1,"a":1}', "the key 'a' is there twice"),
        (',"method":"M","method":"N"', "the key 'method' is there twice"),
        (',"method":"M","params":{"u":"\\ud800"}', "half a surrogate pair"),
        (',"method":"M","params":{"\\udfff":1}', "half a surrogate pair"),
    ],
)
def test_the_sender_can_be_told(members: str, part_of_message: str) -> None:
    error = refused('{"id":7,"src":"me","tag":"t"' + members + "}")
    assert part_of_message in str(error)
    assert error.address == ReplyAddress(7, "me", "t")
    assert len(str(error)) < 200
    assert str(error).isascii()


def test_nesting_up_to_the_limit_and_brackets_in_strings() -> None:
    depth = MAX_NESTING - 1
    frame = '{"method":"M","params":' + "[" * depth + "]" * depth + "}"
    assert parse_request(frame.encode()).method == "M"
    assert decode_json(b'["' + b"[" * 100 + b'\\"' + b"{" * 100 + b'"]')


def test_result() -> None:
    address = ReplyAddress(5, "mos", "t")
    assert encode_result(address, "dev", {"a": [1, None, "\u00e9\n"]}) == (
        b'{"id":5,"src":"dev","dst":"mos","tag":"t","result":{"a":[1,null,"\\u00e9\\n"]}}'
    )
    assert encode_result(ReplyAddress("a"), "dev", None) == b'{"id":"a","src":"dev","result":null}'


def test_error() -> None:
    assert encode_error(ReplyAddress(5, "mos"), "dev", -1, "no") == (
        b'{"id":5,"src":"dev","dst":"mos","error":{"code":-1,"message":"no"}}'
    )


@given(JSON_VALUES)
def test_answers_are_one_line_of_ascii_without_a_delimiter_and_read_back(value: JsonValue) -> None:
    answer = encode_result(ReplyAddress(1), "dev", value)
    assert all(0x20 <= byte < 0x80 for byte in answer)
    assert b'"""' not in answer
    members = decode_json(answer)
    assert isinstance(members, dict)
    assert members["result"] == value


@given(
    st.builds(
        Request,
        NAMES,
        st.builds(
            ReplyAddress,
            st.none() | st.integers(-(2**63), 2**64 - 1) | NAMES,
            st.just("") | NAMES,
            st.none() | NAMES,
        ),
        st.none() | st.dictionaries(NAMES, JSON_VALUES) | st.lists(JSON_VALUES),
        st.just("") | NAMES,
        st.none() | NAMES,
        st.none() | st.dictionaries(NAMES, JSON_VALUES),
    )
)
def test_requests_read_back(request: Request) -> None:
    assert parse_request(encode_request(request)) == request


@given(st.binary(max_size=200) | st.text('{}[]",:\\u0123dD9eE-.nulltruefase ').map(str.encode))
def test_random_bytes_raise_nothing_but_frame_errors(frame: bytes) -> None:
    try:
        parse_request(frame)
    except FrameError as error:
        assert str(error)  # noqa: PT017 - the point is that nothing else is raised
