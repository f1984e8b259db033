"""What every engine accepts as a platform file, and how it refuses the rest."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otasim.engines import EMBEDDED
from platforms.description import BOARD_FILE, DescriptionError, load_description
from tests.platforms.platform_files import BAD, GOOD, PATH, TEXT, build, refusal


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_what_is_right_is_accepted(text: str, tmp_path: Path) -> None:
    assert refusal(text) is None
    build(EMBEDDED, text, tmp_path)


@pytest.mark.parametrize(
    ("text", "entry", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_what_is_wrong_names_file_line_and_entry(text: str, entry: str, said: str) -> None:
    error = refusal(text)
    assert error is not None
    assert (error.path, error.entry) == (PATH, entry)
    assert said in str(error)
    lines = text.split("\n")
    # The line is the entry's own or one of those that belong to it.
    own = next(n for n in range(error.line, 0, -1) if not lines[n - 1].startswith((" ", "\t", "}")))
    assert lines[own - 1].startswith(f"{entry}:")
    assert str(error).startswith(f"{PATH}:{error.line}: ")
    assert "\n" not in str(error)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """The board's file with pieces of it left out, doubled, swapped or changed."""
    lines = TEXT.split("\n")
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                del lines[place]
            case 1:
                lines.insert(place, lines[draw(st.integers(0, len(lines) - 1))])
            case 2:
                words = lines[place].split(" ")
                word = draw(st.integers(0, len(words) - 1))
                words[word] = draw(
                    st.sampled_from(
                        ("0", "1", "0x40004800", "0xFFFFFFFF", "true", "sysbus", "cpu", "nvic@1",
                         "->", "IRQ", "size:", "x:", "{", "}", ";", "@", '""', "", "<0x0, +0x400>")
                    )
                )  # fmt: skip
                lines[place] = " ".join(words)
            case _:
                at = draw(st.integers(0, len(lines[place])))
                lines[place] = lines[place][:at] + draw(st.characters()) + lines[place][at:]
        if not lines:
            break
    return "\n".join(lines)


@given(mutated())
def test_a_damaged_file_is_accepted_and_can_be_built_or_refused_with_its_place(text: str) -> None:
    error = refusal(text)
    if error is not None:
        assert error.path == PATH
        assert 0 <= error.line <= text.count("\n") + 1


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "board.repl"
    path.write_text(TEXT, encoding="utf-8")
    assert load_description(path).named("sram").number("size") == 0x2_0000
    path.write_text(TEXT.replace("size: 0x20000", "size: 0x30000"), encoding="utf-8")
    assert load_description(path).named("sram").number("size") == 0x3_0000


def test_the_engines_refuse_what_the_check_refuses(tmp_path: Path) -> None:
    for _, text, entry, _ in BAD:
        with pytest.raises(DescriptionError) as caught:
            build(EMBEDDED, text, tmp_path)
        assert caught.value.entry == entry


def test_the_boards_own_file_is_the_default() -> None:
    assert load_description().path == BOARD_FILE
