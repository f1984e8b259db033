"""The demo's stories on both engines: the same bytes, the same decisions, nearly the same times."""

from dataclasses import dataclass

import pytest

from otasim import Board
from otasim.bundle_server import BundleServer
from otasim.engines import EMBEDDED, RENODE, missing_engine
from otasim.stories import STORIES, Story, play
from platforms.clock import NS_PER_MS
from platforms.trace import Detail, TraceEvent

TOLERANCE_NS = 25 * NS_PER_MS
"""How far apart the same event may be on the two engines, in virtual time.

An instruction takes the same time on both, but Renode moves its clock by blocks of instructions: a
few microseconds. Who asks in steps of 10 ms (a call from the host does) may see that as a step more
for each of its requests.
"""


@dataclass(frozen=True)
class History:
    """What a story left behind."""

    problem: str
    transcript: str
    events: list[TraceEvent]
    nor: bytes
    internal: bytes

    def what_happened(self) -> list[tuple[str, dict[str, Detail]]]:
        """All events without their times, which are compared on their own."""
        return [(event.kind, dict(event.details)) for event in self.events]


def history(engine: str, story: Story, server: BundleServer) -> History:
    with Board(engine=engine) as board:
        outcome = play(story, board, server.publish_sample)
        models = board.machine.models
        return History(
            outcome.problem,
            board.console,
            list(board.trace.events),
            bytes(models.nor.memory.storage),
            bytes(models.internal_flash.memory.storage),
        )


@pytest.mark.skipif(bool(missing_engine(RENODE)), reason=missing_engine(RENODE) or "it is there")
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_both_engines_live_the_same_story(story: Story) -> None:
    with BundleServer() as server:
        embedded, renode = (history(engine, story, server) for engine in (EMBEDDED, RENODE))
    assert (embedded.problem, renode.problem) == ("", "")
    assert renode.transcript == embedded.transcript
    assert renode.what_happened() == embedded.what_happened()
    assert (renode.nor, renode.internal) == (embedded.nor, embedded.internal)
    apart_ns = [
        abs(ours.at_ns - theirs.at_ns)
        for ours, theirs in zip(embedded.events, renode.events, strict=True)
    ]
    assert max(apart_ns) <= TOLERANCE_NS
