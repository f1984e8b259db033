import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc_shim.arguments import (
    NO_ARGUMENTS,
    Argument,
    ArgumentError,
    Arguments,
    base64_bytes,
    flag,
    integer,
    seconds,
    text,
)
from rpc_shim.frame import JsonValue

URL = text("url", required=True, max_length=20)
TIMEOUT = seconds("commit_timeout", maximum=2_592_000)
SLOT = integer("slot", minimum=-1, maximum=3)
FORCE = flag("force")
DATA = base64_bytes("data")
UPDATE = Arguments(URL, TIMEOUT)


def test_format_is_the_devices() -> None:
    assert UPDATE.format == "{url: %T, commit_timeout: %d}"
    assert Arguments(FORCE, SLOT, text("s", conversion="%Q")).format == (
        "{force: %B, slot: %d, s: %Q}"
    )
    assert Arguments(integer("n", minimum=0, maximum=1, conversion="%ld"), DATA).format == (
        "{n: %ld, data: %V}"
    )
    assert NO_ARGUMENTS.format == ""


def test_values() -> None:
    values = UPDATE.check({"url": "http://x", "commit_timeout": "300", "more": 1})
    assert values.require(URL) == "http://x"
    assert values.get(TIMEOUT) == 300
    assert UPDATE.check({"url": "x", "commit_timeout": None}).get(TIMEOUT) is None


@pytest.mark.parametrize("params", [None, {}, [], {"url": None}])
def test_missing(params: dict[str, JsonValue] | list[JsonValue] | None) -> None:
    with pytest.raises(ArgumentError, match=r"^url is required$") as caught:
        UPDATE.check(params)
    assert caught.value.argument == "url"


def test_a_list_is_refused_where_names_are_needed_and_ignored_elsewhere() -> None:
    with pytest.raises(ArgumentError, match=r"must be an object such as \{url: %T, .*got a list"):
        UPDATE.check(["http://x"])
    NO_ARGUMENTS.check([1, 2])


@pytest.mark.parametrize(
    ("argument", "given_value", "value"),
    [
        (TIMEOUT, 0, 0),
        (TIMEOUT, 2_592_000, 2_592_000),
        (TIMEOUT, "0300", 300),
        (TIMEOUT, 300.0, 300),
        (SLOT, -1, -1),
        (SLOT, 3.0, 3),
        (FORCE, False, False),
        (URL, "u" * 20, "u" * 20),
        (DATA, "", b""),
        (DATA, "AAEC/+8=", b"\x00\x01\x02\xff\xef"),
    ],
)
def test_accepted(argument: Argument[object], given_value: JsonValue, value: object) -> None:
    assert Arguments(argument).check({argument.name: given_value}).get(argument) == value


@pytest.mark.parametrize(
    ("argument", "given_value", "message"),
    [
        (
            TIMEOUT,
            "soon",
            "commit_timeout must be a number of seconds (0 to 2,592,000) or a numeric string, "
            "got 'soon'",
        ),
        (TIMEOUT, -1, "got -1"),
        (TIMEOUT, 2_592_001, "got 2592001"),
        (TIMEOUT, "9" * 4000, "got '999"),
        (TIMEOUT, "3.5", "got '3.5'"),
        (TIMEOUT, 3.5, "got 3.5"),
        (TIMEOUT, "", "got ''"),
        (TIMEOUT, " 3", "got ' 3'"),
        (TIMEOUT, "-3", "got '-3'"),
        (TIMEOUT, "\u0663", "got '\\u0663'"),
        (TIMEOUT, "\u00b2", "got '\\xb2'"),
        (TIMEOUT, True, "got true"),
        (TIMEOUT, [300], "got a list"),
        (TIMEOUT, {"s": 300}, "got an object"),
        (SLOT, "1", "slot must be a whole number (-1 to 3), got '1'"),
        (SLOT, 4, "got 4"),
        (SLOT, 1e300, "got 1e+300"),
        (FORCE, 1, "force must be true or false, got 1"),
        (FORCE, "true", "got 'true'"),
        (URL, 5, "url must be a string of 1 to 20 characters, got 5"),
        (URL, "", "got ''"),
        (URL, "u" * 21, "got 'uuu"),
        (DATA, "AAE", "data must be bytes in base64, padded with =, got 'AAE'"),
        (DATA, "AA-_", "got 'AA-_'"),
        (DATA, "AA==AAAA", "got 'AA==AAAA'"),
        (DATA, "=", "got '='"),
        (DATA, "AA\n==", "got 'AA"),
        (DATA, "\u0410\u0410==", "got '"),
        (DATA, 5, "got 5"),
    ],
)
def test_refused(argument: Argument[object], given_value: JsonValue, message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Arguments(argument).check({argument.name: given_value})
    assert message in str(caught.value)
    assert caught.value.argument == argument.name
    assert len(str(caught.value)) < 160


def test_undeclared() -> None:
    assert UPDATE.undeclared({"url": "x", "comit_timeout": 3, "a": 1}) == ["comit_timeout", "a"]
    assert UPDATE.undeclared([1]) == []
    assert UPDATE.undeclared(None) == []


@given(st.binary(), st.data())
def test_base64(content: bytes, data: st.DataObject) -> None:
    text = base64.b64encode(content).decode()
    assert Arguments(DATA).check({"data": text}).require(DATA) == content
    position = data.draw(st.integers(0, len(text)))
    wrong = data.draw(st.sampled_from(" \n-_.\xe9"))
    with pytest.raises(ArgumentError):
        Arguments(DATA).check({"data": text[:position] + wrong + text[position:]})


@given(
    st.sampled_from([URL, TIMEOUT, SLOT, FORCE, DATA]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([]),
)
def test_nothing_but_argument_errors(argument: Argument[object], value: JsonValue) -> None:
    try:
        Arguments(argument).check({argument.name: value})
    except ArgumentError as error:
        assert error.argument == argument.name  # noqa: PT017 - nothing else is raised
