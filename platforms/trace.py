"""What happened on a board, in virtual time: for tests, for the demo's telling, for pictures."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from platforms.clock import Clock

Detail = int | str | bool | None

DEFAULT_LIMIT = 100_000
"""Events kept: a board that runs for days must not grow without end."""


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One thing that happened.

    Attributes:
        at_ns: virtual time in nanoseconds.
        kind: what it was: `reset`, `boot-decision`, `flash`, `update-started`, ...
        details: named facts about it.
    """

    at_ns: int
    kind: str
    details: Mapping[str, Detail]


class Trace:
    """The newest events of a board, and whoever listens to them as they happen."""

    def __init__(self, clock: Clock, limit: int = DEFAULT_LIMIT) -> None:
        self._clock = clock
        self.events: deque[TraceEvent] = deque(maxlen=limit)
        self.listeners: list[Callable[[TraceEvent], None]] = []

    def record(self, kind: str, **details: Detail) -> None:
        """Note that something happened now."""
        event = TraceEvent(self._clock.now_ns, kind, details)
        self.events.append(event)
        for listener in self.listeners:
            listener(event)

    def of_kind(self, kind: str) -> list[TraceEvent]:
        """The events of one kind, oldest first."""
        return [event for event in self.events if event.kind == kind]
