"""The four stories that `otasim demo` tells: the life of a device, as real code lives it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from otasim.board import Board, TimeLimitError
from platforms.trace import Detail, TraceEvent
from rpc_shim.client import RpcClientError, RpcTimeoutError
from rpc_shim.frame import JsonValue

Publish = Callable[[str], str]
"""Makes a bundle of a sample firmware downloadable and returns its URL."""


class StoryError(Exception):
    """The story did not go as it is told."""


@dataclass(frozen=True, slots=True)
class Story:
    """One story.

    Attributes:
        name: what it is called in `--json`.
        title: one line for people.
        play: makes it happen on a fresh board; StoryError when it does not.
    """

    name: str
    title: str
    play: Callable[[Board, Publish], None]


def _expect(actual: object, expected: object, what: str) -> None:
    if actual != expected:
        raise StoryError(f"{what}: expected {expected!r}, found {actual!r}")


def _state_of(board: Board) -> dict[str, JsonValue]:
    state = board.call("OTA.GetBootState")
    if not isinstance(state, dict):
        raise StoryError(f"OTA.GetBootState answered {state!r}")
    return state


def _wait_for_version(board: Board, version: str, timeout_s: float) -> None:
    def runs() -> bool:
        return board.running and board.version == version

    try:
        board.run_until(runs, timeout_s=timeout_s)
    except TimeLimitError as error:
        raise StoryError(f"version {version} did not start within {timeout_s:g} s") from error


def _wait_for_reset(board: Board, cause: str, timeout_s: float) -> None:
    seen = len(board.trace.of_kind("reset"))

    def was_reset() -> bool:
        return any(e.details["cause"] == cause for e in board.trace.of_kind("reset")[seen:])

    try:
        board.run_until(was_reset, timeout_s=timeout_s)
    except TimeLimitError as error:
        raise StoryError(f"no {cause} reset within {timeout_s:g} s") from error


def _expect_reason(board: Board, reason: str) -> None:
    reasons = [event.details["reason"] for event in board.trace.of_kind("boot-decision")]
    if reason not in reasons:
        raise StoryError(f"the loader never decided {reason!r}, only {reasons}")


def _update_and_commit(board: Board, publish: Publish) -> None:
    _wait_for_version(board, "1.0", 5)
    board.call("OTA.Update", {"url": publish("sample-2.0"), "commit_timeout": "30"})
    _wait_for_version(board, "2.0", 30)
    _expect(_state_of(board)["is_committed"], False, "committed before the commit")
    board.call("OTA.Commit")
    board.run(60)
    _expect(board.version, "2.0", "version long after the commit")
    board.power_cycle()
    _wait_for_version(board, "2.0", 10)
    state = _state_of(board)
    _expect((state["active_slot"], state["is_committed"]), (0, True), "active slot, committed")


def _update_that_hangs(board: Board, publish: Publish) -> None:
    _wait_for_version(board, "1.0", 5)
    board.call("OTA.Update", {"url": publish("hang-2.1"), "commit_timeout": 300})
    _wait_for_version(board, "2.1", 30)
    _wait_for_reset(board, "watchdog", 30)
    if "\nhanging\n" not in board.console:
        raise StoryError("the watchdog bit before the firmware hung")
    _wait_for_version(board, "1.0", 30)
    _expect_reason(board, "rollback-uncommitted")
    _expect(_state_of(board)["is_committed"], True, "committed after the rollback")


def _update_never_committed(board: Board, publish: Publish) -> None:
    _wait_for_version(board, "1.0", 5)
    board.call("OTA.Update", {"url": publish("sample-2.0"), "commit_timeout": 20})
    _wait_for_version(board, "2.0", 30)
    started_s = board.now_s
    _wait_for_reset(board, "software", 30)
    waited_s = board.now_s - started_s
    if not 20 <= waited_s < 22:
        raise StoryError(f"the commit timeout of 20 s ended after {waited_s:.1f} s")
    _wait_for_version(board, "1.0", 30)
    _expect(_state_of(board)["is_committed"], True, "committed after the rollback")


def _snapshot_and_revert(board: Board, _publish: Publish) -> None:
    _wait_for_version(board, "1.0", 5)
    answer = board.call("OTA.CreateSnapshot", {"set_as_revert": True, "commit_timeout": "120"})
    slot = answer["slot"] if isinstance(answer, dict) else None
    state = _state_of(board)
    _expect(
        (state["active_slot"], state["is_committed"], state["revert_slot"]),
        (0, False, slot),
        "active slot, committed, revert slot after the snapshot",
    )
    board.call("OTA.Revert")
    _wait_for_reset(board, "software", 10)
    _wait_for_version(board, "1.0", 30)
    _expect(_state_of(board)["is_committed"], True, "committed after the revert")


STORIES = (
    Story("update-and-commit", "An update arrives, runs, and is committed", _update_and_commit),
    Story(
        "update-hangs",
        "An update hangs: the watchdog bites and the loader rolls back",
        _update_that_hangs,
    ),
    Story(
        "commit-timeout",
        "An update is never committed: the timeout rolls it back",
        _update_never_committed,
    ),
    Story(
        "snapshot-and-revert",
        "A snapshot becomes the way back, and is taken",
        _snapshot_and_revert,
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a story ended: `problem` is empty when it ended as told."""

    problem: str

    @property
    def ok(self) -> bool:
        """Whether it ended as told."""
        return not self.problem


def play(story: Story, board: Board, publish: Publish) -> Outcome:
    """Play a story on a fresh board."""
    try:
        story.play(board, publish)
    except (StoryError, RpcClientError, RpcTimeoutError) as error:
        return Outcome(str(error))
    return Outcome("")


# What is too small, or too often, to be told: the console shows what matters of it.
_UNTOLD = ("flash", "update-progress")


def describe_event(event: TraceEvent) -> str | None:
    """One line for people about an event; None for what is too small to tell."""
    details = event.details
    match event.kind:
        case kind if kind in _UNTOLD:
            return None
        case "reset":
            return f"reset, cause: {details['cause']}"
        case "boot-decision":
            decision = {key: value for key, value in details.items() if key != "reason"}
            return f"loader decides: {details['reason']}{_facts(decision)}"
        case "application-started":
            return f"version {details['version']} starts from slot {details['slot']}"
        case kind:
            return kind.replace("-", " ") + _facts(details)


def _facts(details: Mapping[str, Detail]) -> str:
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in details.items())
    return f" ({told})" if told else ""
