"""The parser of platform files: what it takes, and how it refuses the rest."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from platforms.description import (
    BOARD_FILE,
    DescriptionError,
    load_description,
    parse_description,
)

PATH = Path("board.repl")
TEXT = BOARD_FILE.read_text(encoding="utf-8")


def understood(text: str) -> bool:
    try:
        return bool(parse_description(text, PATH).entries)
    except DescriptionError:
        return False


def refusal(text: str) -> DescriptionError:
    with pytest.raises(DescriptionError, match=r"^board\.repl") as caught:
        parse_description(text, PATH)
    return caught.value


def test_the_boards_own_file_is_understood() -> None:
    description = load_description()
    flash = description.named("flash")
    assert [place.address for place in flash.registrations] == [0x0800_0000, 0]
    assert flash.number("size") == 0x10_0000
    assert description.named("usart2").connections[0].line == 38


@given(st.text(max_size=300))
@example("x: A.B @ sysbus 0x")
@example("{")
@example('x: A @ sysbus 0\n    a: "')
def test_any_text_is_understood_or_refused_with_its_place(text: str) -> None:
    assert understood(text) or refusal(text).path == PATH


@given(st.data())
def test_a_damaged_board_file_is_understood_or_refused(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(TEXT)))
    length = data.draw(st.integers(0, 40))
    noise = data.draw(st.text(alphabet='\n :@<>{}[];,+-0x9aZ"./\t', max_size=20))
    text = TEXT[:place] + noise + TEXT[place + length :]
    if not understood(text):
        assert 0 <= refusal(text).line <= text.count("\n") + 1


@pytest.mark.parametrize(
    ("text", "line", "entry"),
    [
        ("a: B @ sysbus 0x0\na: B @ sysbus 0x4", 2, "a"),
        ("a: B @ sysbus zero", 1, "a"),
        ("a: B @ sysbus <0x0, 0x10>", 1, "a"),
        ("a: B @ { sysbus 0x0", 1, "a"),
        ("    size: 4", 1, ""),
        ("a: B @ sysbus 0x0\n    size = 4", 2, "a"),
        ("a: B @ sysbus 0x0\n    size: 4 KB", 2, "a"),
        ("a: B @ sysbus 0x0\n    -> nobody@3", 1, "a"),
        ("a: B @ sysbus 0x0\n    init:\n    x", 2, "a"),
        ("a: B @ sysbus 0x0\n    init: 1\n        x", 3, "a"),
        ("a: B @ sysbus 0x0\n  size: 1", 2, "a"),
        ("a: B @ sysbus 0x0\n\tsize: 1", 2, "a"),
        ("a: B @ sysbus 0x0\n    size: 1//", 2, "a"),
        ("a: B @ sysbus 0x0\n    size: 1\n    size: 1", 3, "a"),
        ("a: B @ sysbus 0X0", 1, "a"),
        ("a: B @ sysbus 00", 1, "a"),
        ("a: B @ { sysbus 0x0; }", 1, "a"),
        ("none: B @ sysbus 0x0", 1, "none"),
        ("sysbus: B @ sysbus 0x0", 1, "sysbus"),
        ("ä: B @ sysbus 0x0", 1, ""),
        ("using sysbus", 1, ""),
        ("", 0, ""),
    ],
)
def test_what_is_outside_the_subset_names_line_and_entry(text: str, line: int, entry: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        parse_description(text, PATH)
    assert (caught.value.line, caught.value.entry) == (line, entry)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match=r"nowhere\.repl"):
        load_description(tmp_path / "nowhere.repl")
    binary = tmp_path / "binary.repl"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DescriptionError, match=r"binary\.repl"):
        load_description(binary)
