"""SysTick, the processor's 24-bit timer; ARMv7-M ARM B3.3."""

from collections.abc import Callable

from platforms.clock import NS_PER_S, Clock, ClockEvent
from platforms.devices.peripheral import UnsupportedRegisterError

CTRL, LOAD, VAL, CALIB = 0x10, 0x14, 0x18, 0x1C
CTRL_ENABLE, CTRL_TICKINT, CTRL_CLKSOURCE, CTRL_COUNTFLAG = 1, 2, 4, 1 << 16
EXTERNAL_CLOCK_DIVIDER = 8  # RM0090 7.2: without CLKSOURCE the timer counts HCLK / 8


class SystemTimer:
    """Counts down from LOAD and raises SysTick when it wraps.

    Attributes:
        on_tick: called at each wrap with TICKINT set.
    """

    def __init__(self, clock: Clock, frequency_hz: int) -> None:
        self._clock = clock
        self._frequency_hz = frequency_hz
        self.on_tick: Callable[[], None] = lambda: None
        self._event: ClockEvent | None = None
        self.reset()

    def reset(self) -> None:
        """Stopped, all zero."""
        self._stop()
        self._control = 0
        self._load = 0
        self._count_flag = False
        self._started_ns = 0
        self._origin_ns = 0  # when the count was last set off, and how far it goes from there
        self._ticks = 0
        self._stopped_value = 0

    def read(self, offset: int) -> int:
        """The register's value; reading CTRL clears COUNTFLAG."""
        match offset:
            case 0x10:
                value = self._control | (CTRL_COUNTFLAG if self._count_flag else 0)
                self._count_flag = False
                return value
            case 0x14:
                return self._load
            case 0x18:
                return self._value()
            case 0x1C:
                return 0  # TENMS is not known
        raise UnsupportedRegisterError("SysTick", offset, "read")

    def write(self, offset: int, value: int) -> None:
        """Store into the register; any write to VAL restarts the count."""
        match offset:
            case 0x10:
                self._write_control(value & 7)
            case 0x14:
                self._load = value & 0xFF_FFFF
                if self._event is None and self._control & CTRL_ENABLE:
                    self._start()
            case 0x18:
                self._count_flag = False
                self._stopped_value = 0
                if self._control & CTRL_ENABLE:
                    self._start()
            case 0x1C:
                pass  # CALIB is read-only
            case _:
                raise UnsupportedRegisterError("SysTick", offset, "write")

    def _write_control(self, control: int) -> None:
        changed = control ^ self._control
        if changed & (CTRL_ENABLE | CTRL_CLKSOURCE):
            self._stopped_value = self._value()
            self._stop()
        self._control = control
        if control & CTRL_ENABLE and self._event is None:
            self._start()

    def _ticks_to_ns(self, ticks: int) -> int:
        divider = 1 if self._control & CTRL_CLKSOURCE else EXTERNAL_CLOCK_DIVIDER
        return ticks * divider * NS_PER_S // self._frequency_hz

    def _start(self) -> None:
        self._stop()
        if self._load:
            first = self._stopped_value or self._load + 1
            self._stopped_value = 0
            self._started_ns = self._clock.now_ns - self._ticks_to_ns(self._load + 1 - first)
            self._origin_ns = self._clock.now_ns
            self._ticks = first
            self._await_wrap()

    def _await_wrap(self) -> None:
        # From the beginning each time: a period need not be a whole number of nanoseconds.
        due_ns = self._origin_ns + self._ticks_to_ns(self._ticks)
        self._event = self._clock.call_at(due_ns, self._wrap)

    def _stop(self) -> None:
        if self._event is not None:
            self._event.cancel()
            self._event = None

    def _wrap(self) -> None:
        self._count_flag = True
        self._event = None
        if self._load:
            self._started_ns = self._clock.now_ns
            self._ticks += self._load + 1
            self._await_wrap()
        if self._control & CTRL_TICKINT:
            self.on_tick()

    def _value(self) -> int:
        if self._event is None:
            return self._stopped_value
        elapsed_ns = self._clock.now_ns - self._started_ns
        divider = 1 if self._control & CTRL_CLKSOURCE else EXTERNAL_CLOCK_DIVIDER
        ticks = elapsed_ns * self._frequency_hz // (divider * NS_PER_S)
        return (self._load - ticks) % (self._load + 1)
