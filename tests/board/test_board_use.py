"""Using a board the wrong way, and interrupting it: what comes out is a clear error."""

import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

from bootloader_model.protocol import BootTarget, LoaderHardware
from otasim import Board, OtasimError
from otasim.board import BoardClosedError, NoPowerError, TimeLimitError
from otasim.interrupts import HeldInterrupt
from platforms.engines.embedded.processor import Processor


@pytest.mark.parametrize(
    "use",
    [
        lambda board: board.run(1),
        lambda board: board.run_until(lambda: False),
        lambda board: board.call("RPC.Ping"),
        lambda board: board.type("help\n"),
        lambda board: board.send(b"x"),
        lambda board: board.reset(),
        lambda board: board.cut_power(),
        lambda board: board.cut_power(after_s=1),
        lambda board: board.power_on(),
        lambda board: board.power_cycle(),
        lambda board: board.boot_state,
    ],
)
def test_a_closed_board_says_so(use: Callable[[Board], object]) -> None:
    with Board() as board:
        board.run(0.5)
    with pytest.raises(BoardClosedError, match="closed"):
        use(board)
    assert "ready" in board.console
    assert board.version == "1.0"
    board.close()


def test_a_board_without_power_answers_at_once_that_it_cannot(board: Board) -> None:
    board.cut_power()
    before_s = board.now_s
    with pytest.raises(NoPowerError, match=r"no power.*power_on"):
        board.call("RPC.Ping")
    assert board.now_s == before_s
    board.run(3)
    assert board.now_s == before_s + 3
    board.power_on()
    board.run(0.5)
    board.call("RPC.Ping")


def never() -> bool:
    return False


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (never, "never did not come true within 0.5 virtual seconds"),
        (lambda: False, rf"the condition in line \d+ of .*{Path(__file__).name} did not"),
        (partial(never), "what was waited for did not"),
    ],
)
def test_the_time_limit_names_what_did_not_come(condition: Callable[[], bool], words: str) -> None:
    with Board() as board, pytest.raises(TimeLimitError, match=words) as caught:
        board.run_until(condition, timeout_s=0.5)
    assert caught.value.timeout_s == 0.5


def test_paths_may_be_strings(tmp_path: Path) -> None:
    platform = tmp_path / "board.repl"
    platform.write_text((Path("platforms") / "stm32f405.repl").read_text())
    with Board(platform=str(platform), state_directory=str(tmp_path / "state")) as board:
        board.run(0.5)
        assert "ready" in board.console
    assert (tmp_path / "state" / "nor.bin").is_file()


class NoTarget:
    def boot(self, hardware: LoaderHardware) -> BootTarget | None:
        hardware.log("nothing to start\n")
        return None


def test_a_loader_that_returns_no_target_is_named(engine: str) -> None:
    with (
        Board(loader="tests.board.test_board_use:NoTarget", engine=engine) as board,
        pytest.raises(OtasimError, match=r"NoTarget.*boot returned None.*BootTarget"),
    ):
        board.run(1)


# --- Ctrl-C ---------------------------------------------------------------------------------


def press_once(board: Board, words: str) -> None:
    """Press Ctrl-C when the board has said `words`: in a callback of the engine."""
    said = bytearray()

    def listen(data: bytes) -> None:
        said.extend(data)
        if words.encode() in said:
            board.outputs.remove(listen)
            signal.raise_signal(signal.SIGINT)

    board.outputs.append(listen)


@pytest.mark.parametrize(
    "wait",
    [
        lambda board: board.run(5),
        lambda board: board.run_until(lambda: False, timeout_s=5),
        lambda board: board.call("No.Such"),
    ],
    ids=["run", "run_until", "call"],
)
def test_ctrl_c_comes_out_and_the_board_goes_on(
    wait: Callable[[Board], object], board: Board
) -> None:
    board.type("version\n")
    press_once(board, "sample 1.0 (build")
    with pytest.raises(KeyboardInterrupt):
        wait(board)
    assert board.now_s < 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    board.run(1)
    assert board.call("RPC.Ping")


def test_ctrl_c_is_not_lost_at_the_very_beginning_of_a_callback() -> None:
    """There the engine's binding has no hold of it yet, and ctypes prints and forgets it."""
    pressed = 0

    def press_at_the_door(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal pressed
        caller = frame.f_back
        if event == "call" and caller is not None and caller.f_code is Processor.run.__code__:
            sys.settrace(None)
            pressed += 1
            signal.raise_signal(signal.SIGINT)

    with Board() as board:
        board.run(0.5)
        before = sys.gettrace()
        sys.settrace(press_at_the_door)
        try:
            with pytest.raises(KeyboardInterrupt):
                board.run(5)
        finally:
            sys.settrace(before)
        assert pressed == 1
        assert board.now_s < 3
        assert board.call("RPC.Ping")


def press_twice() -> str:
    signal.raise_signal(signal.SIGINT)
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return "struck"
    return "held"


def test_ctrl_c_strikes_at_once_when_pressed_again() -> None:
    outcome = ""

    def wait() -> None:
        nonlocal outcome
        with HeldInterrupt():
            outcome = press_twice()

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert outcome == "struck"


def test_somebody_elses_handler_is_left_alone() -> None:
    pressed = []

    def handler(number: int, _frame: FrameType | None) -> None:
        pressed.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with Board() as board:
            press_once(board, "ready")
            board.run(1)
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [signal.SIGINT]
