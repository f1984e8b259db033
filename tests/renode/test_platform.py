"""Platform files on Renode: what the shared check accepts, Renode accepts too."""

import random
from pathlib import Path

import pytest

from otasim.engines import RENODE, missing_engine
from platforms.description import DescriptionError
from tests.platforms.platform_files import BAD, GOOD, TEXT, build, changed, refusal

pytestmark = pytest.mark.skipif(
    bool(missing_engine(RENODE)), reason=missing_engine(RENODE) or "it is there"
)
SAMPLES = 40
WORDS = ("0", "1", "0x40004800", "0x60000000", "true", "sysbus", "nvic@1", "->", "IRQ", "{", "")


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_renode_accepts_what_the_check_accepts(text: str, tmp_path: Path) -> None:
    build(RENODE, text, tmp_path)


def test_a_mistake_reads_the_same_as_on_the_embedded_engine(tmp_path: Path) -> None:
    for _, text, _, _ in BAD:
        with pytest.raises(DescriptionError) as caught:
            build(RENODE, text, tmp_path)
        expected = refusal(text, caught.value.path)
        assert str(caught.value) == str(expected)


@pytest.mark.parametrize("seed", range(SAMPLES))
def test_a_damaged_file_that_the_check_accepts_is_accepted_by_renode(
    seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)  # noqa: S311 - chance, not secrecy
    text = TEXT
    while text == TEXT or refusal(text) is not None:
        lines = TEXT.split("\n")
        for _ in range(chance.randint(1, 2)):
            place = chance.randrange(len(lines))
            words = lines[place].split(" ")
            words[chance.randrange(len(words))] = chance.choice((*WORDS, *TEXT.split()))
            lines[place : place + 1] = chance.choice(
                ([" ".join(words)], [], [lines[place], ""], [lines[place], "// more"])
            )
        text = "\n".join(lines)
    build(RENODE, text, tmp_path)


def test_what_only_renode_refuses_names_file_line_and_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(RENODE, TEXT, tmp_path)
    monkeypatch.setattr(
        "platforms.engines.renode.hardware.check", lambda _description, _models: None
    )
    text = changed("    -> nvic@38", "    BOGUS -> nvic@38")
    with pytest.raises(DescriptionError, match="Renode does not accept it: Error E") as caught:
        build(RENODE, text, tmp_path)
    line = text.split("\n").index("    BOGUS -> nvic@38") + 1
    assert (caught.value.line, caught.value.entry) == (line, "usart2")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_put_together_is_no_exception_of_nets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(RENODE, TEXT, tmp_path)
    monkeypatch.setattr(
        "platforms.engines.renode.hardware.check", lambda _description, _models: None
    )
    with pytest.raises(DescriptionError, match="Renode does not accept it"):
        build(RENODE, changed("0xA8000000", "0x1A8000000"), tmp_path)
    build(RENODE, TEXT, tmp_path)  # and the next board is none the worse
