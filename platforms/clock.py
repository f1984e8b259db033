"""The one virtual clock of a board.

Everything on the board happens in virtual time, counted in integer nanoseconds since the board was
made. Events are kept in a queue ordered by time and, for equal times, by the order in which they
were asked for, so that a run is repeatable to the byte.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
NEVER_NS = 1 << 62
"""A time that no board lives to see: 146 years of virtual time."""


@dataclass(order=True, slots=True)
class ClockEvent:
    """An action that waits for its time; `cancel` it when it is no longer wanted."""

    at_ns: int
    order: int
    action: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Never run the action. Harmless when it has run already."""
        self.cancelled = True


class Clock:
    """Virtual time and what is due in it. Engines move it; devices read it and ask for events."""

    def __init__(self) -> None:
        self._now_ns = 0
        self._order = count()
        self._queue: list[ClockEvent] = []

    @property
    def now_ns(self) -> int:
        """Virtual nanoseconds since the board was made."""
        return self._now_ns

    def call_at(self, at_ns: int, action: Callable[[], None]) -> ClockEvent:
        """Run `action` when virtual time reaches `at_ns`; a time gone by means at once."""
        event = ClockEvent(max(at_ns, self._now_ns), next(self._order), action)
        heapq.heappush(self._queue, event)
        return event

    def call_after(self, delay_ns: int, action: Callable[[], None]) -> ClockEvent:
        """Run `action` when `delay_ns` of virtual time have passed."""
        return self.call_at(self._now_ns + delay_ns, action)

    @property
    def next_event_ns(self) -> int | None:
        """When the next event is due, or None when nothing is awaited."""
        while self._queue and self._queue[0].cancelled:
            heapq.heappop(self._queue)
        return self._queue[0].at_ns if self._queue else None

    def advance_to(self, target_ns: int) -> None:
        """Move virtual time forward, running on the way every event that becomes due, in order.

        An action may ask for more events; those due by `target_ns` run too. An exception raised by
        an action leaves the clock at that event's time, with the later events still queued.
        """
        while (due_ns := self.next_event_ns) is not None and due_ns <= target_ns:
            event = heapq.heappop(self._queue)
            self._now_ns = max(self._now_ns, event.at_ns)
            event.action()
        self._now_ns = max(self._now_ns, target_ns)
