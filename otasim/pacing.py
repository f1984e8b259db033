"""The one place where virtual time meets real time: for boards that people and host tools use."""

import select
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from platforms.clock import NS_PER_S, Clock

_LARGEST_LAG_S = 0.5
_LONGEST_WAIT_S = 0.1  # a signal does not end a wait, and what it asks for is looked at in between


class Input(Protocol):
    """Something of the outside world with a file descriptor."""

    def fileno(self) -> int:
        """For `select`."""
        ...


class Pacer:
    """Keeps a board at `speed` times real time and hands it what arrives from outside.

    Args:
        clock: the board's clock.
        speed: virtual seconds per real second; None for as fast as it goes.
        inputs: what to watch, and what to call when there is something to read.
        after: called at every look at the outside world, to send what waits.
    """

    def __init__(
        self,
        clock: Clock,
        speed: float | None,
        inputs: Mapping[Input, Callable[[], None]],
        after: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._speed = speed
        self._inputs = dict(inputs)
        self._after = after
        self._origin_s = time.monotonic()
        self._origin_ns = clock.now_ns

    def watch(self, source: Input, action: Callable[[], None]) -> None:
        """Watch one more input."""
        self._inputs[source] = action

    def forget(self, source: Input) -> None:
        """Watch an input no more."""
        self._inputs.pop(source, None)

    def __call__(self) -> None:
        """Look at the outside world until real time has caught up with the board's."""
        while True:
            self._after()
            wait_s = min(max(0.0, self._ahead_s()), _LONGEST_WAIT_S)
            ready, _, _ = select.select(list(self._inputs), [], [], wait_s)
            for source in ready:
                action = self._inputs.get(source)
                if action is not None:
                    action()
            if self._ahead_s() <= 0:
                return

    def _ahead_s(self) -> float:
        """How far the board is ahead of real time, in real seconds; 0 at full speed."""
        if self._speed is None:
            return 0.0
        virtual_s = (self._clock.now_ns - self._origin_ns) / NS_PER_S / self._speed
        ahead_s = virtual_s - (time.monotonic() - self._origin_s)
        if ahead_s < -_LARGEST_LAG_S:
            # This machine was busy or asleep: go on from here rather than race to catch up.
            self._origin_s = time.monotonic()
            self._origin_ns = self._clock.now_ns
            return 0.0
        return ahead_s
