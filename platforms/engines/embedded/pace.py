"""How virtual time passes with instructions: exactly, whatever slices they are run in."""

from platforms.clock import NS_PER_US, Clock


class Pace:
    """Moves the clock for the instructions executed.

    After any number of them the clock stands at the exact time, rounded up to a nanosecond: what
    was rounded is remembered, so that it makes no difference where a slice ends.
    """

    def __init__(self, clock: Clock, instructions_per_us: int) -> None:
        self._clock = clock
        self._rate = instructions_per_us
        self._ahead = 0  # how far the clock is ahead, in nanoseconds times the rate
        self._charged = 0  # instructions of the slice under way

    def restart(self) -> None:
        """The processor starts over, at this very moment."""
        self._ahead = 0

    def begin_slice(self) -> None:
        """The instructions charged next are the first ones of a slice."""
        self._charged = 0

    def instructions_until(self, at_ns: int) -> int:
        """How many more instructions it takes until the clock stands at `at_ns` or later."""
        left_ns = at_ns - self._clock.now_ns - 1
        return max(0, (left_ns * self._rate + self._ahead) // NS_PER_US + 1)

    def catch_up(self, executed: int) -> None:
        """So many instructions of the slice are done: bring the clock there.

        Time that a device lets pass in the middle of an instruction comes on top.
        """
        new = executed - self._charged
        if new > 0:
            self._charged = executed
            self.charge(new)

    def charge(self, instructions: int) -> None:
        """Let the time of `instructions` pass."""
        owed = instructions * NS_PER_US - self._ahead
        duration_ns = -(-owed // self._rate)
        self._ahead = duration_ns * self._rate - owed
        self._clock.advance_to(self._clock.now_ns + duration_ns)
