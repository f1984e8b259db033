"""Boards for tests, which know what a failed test has to show."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypedDict, Unpack, cast

import pytest

from bootloader_model.loader import describe_state
from bootloader_model.protocol import Loader
from campaign.boot import LoaderFactory
from otasim.board import Board, BoardClosedError
from otasim.engines import missing_engine
from otasim.pytest_plugin.transcript import UartTranscript
from otasim.settings import DeviceSettings
from otasim.stories import describe_event
from platforms.clock import NS_PER_S
from platforms.devices.torn import TornShape
from rpc_shim.links.network import LinkSettings

_MOST_EVENTS = 200


class _PlainOptions(TypedDict, total=False):
    """What is handed on to `Board` as it is."""

    image: str | Path | bytes
    factory_image: str | Path | bytes | None
    engine: str
    platform: str | Path
    state_directory: str | Path | None
    settings: DeviceSettings | None
    links: Sequence[LinkSettings]


class _BoardArguments(_PlainOptions, total=False):
    """The arguments of `Board`."""

    loader: Loader | str | None


class BoardOptions(_PlainOptions, total=False):
    """What can be chosen about a board: the arguments of `Board`.

    A `loader` may also be a class or function that makes one: each board gets its own then. The
    `engine` is that of the command line, unless a test can do with no other.
    """

    loader: Loader | LoaderFactory | str | None


class BoardUnderTest(Board):
    """A board that remembers what went over its UART.

    Args:
        seed: chooses among the outcomes of power cuts, where the test does not say.
        options: the arguments of `Board`.

    Attributes:
        seed: the seed.
        transcript: calls, answers and console text.
    """

    def __init__(self, *, seed: int, **options: Unpack[BoardOptions]) -> None:
        made = {**options, "loader": _loader_of(options.get("loader"))}
        super().__init__(**cast("_BoardArguments", made))
        self.seed = seed
        self.transcript = UartTranscript(lambda: self.now_s)
        self.outputs.append(self.transcript.received)

    def send(self, data: bytes) -> None:
        """Bytes from the host on the UART: console input or RPC frames."""
        super().send(data)
        self.transcript.sent(data)

    def cut_power(
        self,
        shape: TornShape = TornShape.RANDOM_BITS,
        seed: int | None = None,
        *,
        after_s: float = 0,
    ) -> None:
        """Cut the supply, as `Board.cut_power`; with the board's own seed unless one is given."""
        super().cut_power(shape, self.seed if seed is None else seed, after_s=after_s)


class MakeBoard(Protocol):
    """Makes a board for a test: more than one, or one that only the test itself can describe."""

    def __call__(self, **options: Unpack[BoardOptions]) -> BoardUnderTest:
        """A new board; `options` stand above what the test's fixtures and markers say."""
        ...


class BoardMaker:
    """Makes the boards of one test, and closes them.

    Args:
        options: what fixtures and markers say about them.
        seed: of the boards.
        again: the words of the command that runs the test again.
    """

    def __init__(self, options: BoardOptions, seed: int, again: Sequence[str]) -> None:
        self._options = options
        self._seed = seed
        self._again = again
        self._boards: list[BoardUnderTest] = []

    def __call__(self, **options: Unpack[BoardOptions]) -> BoardUnderTest:
        """A new board. Where its engine is not on this machine, the test is skipped."""
        chosen: BoardOptions = {**self._options, **options}
        if reason := missing_engine(chosen["engine"]):
            pytest.skip(reason)
        board = BoardUnderTest(seed=self._seed, **chosen)
        self._boards.append(board)
        return board

    def close(self) -> None:
        """Close the boards, the newest first."""
        for board in reversed(self._boards):
            board.close()

    def sections(self) -> Iterator[tuple[str, str]]:
        """What a failed test shows of each board: title and text."""
        for number, board in enumerate(self._boards, 1):
            name = "board" if len(self._boards) == 1 else f"board {number}"
            yield f"{name}: UART transcript", board.transcript.text()
            yield f"{name}: what happened", "\n".join(_events(board)) or "nothing"
            yield f"{name}: at the end", "\n".join(self._state(board))

    def _state(self, board: BoardUnderTest) -> Iterator[str]:
        what = f"version {board.version}, slot {board.slot}" if board.running else "no application"
        power = "" if board.powered else ", without power"
        yield f"{what}{power}, after {board.now_s:.3f} virtual seconds"
        yield f"boot state: {_boot_state(board)}"
        words = ["--otasim-engine", board.engine, "--otasim-seed", str(board.seed)]
        yield f"again: {shlex.join([*self._again, *words])}"


def options_of(item: pytest.Item) -> BoardOptions:
    """What the markers `board` of a test say, the nearest one above the others."""
    options: BoardOptions = {}
    for marker in reversed(list(item.iter_markers("board"))):
        if marker.args:
            pytest.fail(
                f"@pytest.mark.board takes keywords, such as image=..., found {marker.args!r}",
                pytrace=False,
            )
        options |= cast("BoardOptions", marker.kwargs)
    return options


def _loader_of(source: Loader | LoaderFactory | str | None) -> Loader | str | None:
    """The loader itself, where what makes one is given."""
    is_factory = isinstance(source, type) or (callable(source) and not hasattr(source, "boot"))
    return cast("LoaderFactory", source)() if is_factory else cast("Loader | str | None", source)


def _events(board: Board) -> list[str]:
    """The newest events that are worth a line: resets, decisions, starts, updates, commits."""
    told = [
        f"{event.at_ns / NS_PER_S:9.3f} s  {text}"
        for event in board.trace.events
        if (text := describe_event(event)) is not None
    ]
    left_out = len(told) - _MOST_EVENTS
    if left_out > 0:
        return [f"({left_out:,} events before are left out)", *told[left_out:]]
    return told


def _boot_state(board: Board) -> str:
    try:
        state = board.boot_state
    except BoardClosedError:
        return "not known any more, the board is closed"
    return "no valid record" if state is None else f"seq {state.seq}, {describe_state(state)}"
