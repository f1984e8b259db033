"""What a loader starts really runs, and answers as itself; one that does not is found."""

from collections.abc import Iterator

import pytest

from bootloader_model.loader import MosLoader
from bootloader_model.provisioning import provision
from campaign.boot import BootRun, run_boot
from campaign.cells import Contents
from campaign.flash import FlashPair
from campaign.images import (
    FEED_FOR_EVER,
    NEW,
    NEXT,
    OLD,
    PROBE,
    Image,
    make_image,
    thumb,
)
from campaign.judge import Kind, Problem
from campaign.processor import answer_problem
from otasim import Board
from otasim.campaign_processor import BoardProcessor
from tests.engines.thumb import SELF, load, load_constant, move, put, store

FLASH_KEYR, FLASH_CR = 0x4002_3C04, 0x4002_3C10
RAM, FEED = 0x2000_0000, store(0xAAAA, 0x4000_3000)


@pytest.fixture(scope="module")
def processor() -> Iterator[BoardProcessor]:
    made = BoardProcessor()
    yield made
    made.close()


def booted(image: Image) -> BootRun:
    """The first boot of a board that has left the factory with an image."""
    flash = FlashPair(Contents.erased())
    provision(flash.nor, flash.internal, image.data, has_file_system=True)
    boot = run_boot(MosLoader(), flash.contents)
    assert boot.target is not None
    return boot


def running(program: bytes) -> BootRun:
    return booted(make_image("custom", 600, program))


def why_none(processor: BoardProcessor, boot: BootRun) -> str:
    answer = processor.answer(boot)
    assert isinstance(answer, Problem)
    assert answer.kind is Kind.NO_ANSWER
    return answer.text


def test_images_run_on_a_board_and_stay_alive() -> None:
    with Board(OLD.data) as board:
        board.run(12)
        assert board.call("Sys.GetInfo") == {**info(board), "app": "campaign", "fw_version": "old"}
        assert [event.details["cause"] for event in board.trace.of_kind("reset")] == ["power-on"]


def info(board: Board) -> dict[str, object]:
    answer = board.call("Sys.GetInfo")
    assert isinstance(answer, dict)
    return dict(answer)


@pytest.mark.parametrize("image", [OLD, NEW, NEXT, PROBE], ids=str)
def test_every_image_answers_as_itself(processor: BoardProcessor, image: Image) -> None:
    boot = booted(image)
    assert processor.answer(boot) == image.name
    assert answer_problem(processor, boot, image) is None


def test_another_version_than_the_one_that_was_started_is_a_problem() -> None:
    class Deaf:
        def answer(self, _boot: BootRun) -> str | Problem:
            return "old"

    problem = answer_problem(Deaf(), booted(NEW), NEW)
    assert problem is not None
    assert problem.kind is Kind.NO_ANSWER
    assert "image new runs, but version old answers" in problem.text


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (SELF, "reset before it answers (watchdog)"),
        (move(0, 1) + thumb(0xE7FE), "reset before it answers (watchdog)"),
        # A loop that does something, but feeds no watchdog: subs r2, #1; b back.
        (thumb(0x3A01, 0xE7FD), "reset before it answers (watchdog)"),
        (thumb(0xDE00), "took a fault: undefined instruction at 0x08010054"),
        # A jump to where there is no code, as by a wild pointer.
        (load_constant(0, 0x0900_0001) + thumb(0x4700), "took a fault"),
        # Resets itself: AIRCR.SYSRESETREQ.
        (store(0x05FA_0004, 0xE000_ED0C) + SELF, "reset before it answers (software)"),
        # An access to hardware that the board does not have.
        (load_constant(0, 0x5004_0000) + load(1, 0) + FEED_FOR_EVER, "0x50040000"),
    ],
    ids=["hangs", "hangs-later", "loops", "undefined", "astray", "resets", "no-such-hardware"],
)
def test_an_image_that_does_not_come_to_its_main_loop_gives_no_answer(
    processor: BoardProcessor, program: bytes, why: str
) -> None:
    assert why in why_none(processor, running(program))
    # And that has no effect on what comes next.
    assert processor.answer(booted(NEW)) == "new"


def test_no_state_sees_what_the_one_before_left_in_ram(processor: BoardProcessor) -> None:
    # Hangs when it finds what it writes itself.
    program = (
        load_constant(0, RAM + 0x100)
        + load_constant(2, 0x1234_5678)
        + load(1, 0)
        + put(2, 0)
        + thumb(0x4291, 0xD0FE)  # cmp r1, r2; beq itself
        + FEED_FOR_EVER
    )
    boot = running(program)
    assert [processor.answer(boot) for _ in range(3)] == ["custom"] * 3


def test_no_state_sees_what_the_one_before_wrote_to_flash(processor: BoardProcessor) -> None:
    # Clears the word at 0x08020000 for good, and hangs when it finds it cleared.
    word = 0x0802_0000
    program = (
        load_constant(0, word)
        + load(1, 0)
        + thumb(0x2900, 0xD0FE)  # cmp r1, #0; beq itself
        + store(0x4567_0123, FLASH_KEYR)
        + store(0xCDEF_89AB, FLASH_KEYR)
        + store(0x201, FLASH_CR)  # PSIZE = 32 bits, PG
        + store(0, word)
        + FEED_FOR_EVER
    )
    boot = running(program)
    assert [processor.answer(boot) for _ in range(3)] == ["custom"] * 3


def test_the_answer_takes_a_turn_of_the_main_loop(processor: BoardProcessor) -> None:
    late = load_constant(2, 4_000_000) + thumb(0x3A01, 0xD1FD) + FEED_FOR_EVER
    assert processor.answer(running(late)) == "custom"  # after half a second
    assert "took a fault" in why_none(processor, running(late[:12] + thumb(0xDE00)))


def test_code_that_feeds_once_is_enough(processor: BoardProcessor) -> None:
    assert processor.answer(running(FEED + SELF)) == "custom"
