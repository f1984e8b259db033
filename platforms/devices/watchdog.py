"""The independent watchdog (IWDG) of the STM32F4; RM0090 section 21.

It runs on its own 32 kHz oscillator (LSI), cannot be stopped once it is started, and resets the
board when its counter is not reloaded in time. Only a reset stops it.
"""

from collections.abc import Callable

from platforms.clock import NS_PER_S, Clock, ClockEvent
from platforms.devices.peripheral import UnsupportedRegisterError
from platforms.errors import InvalidArgumentError

LSI_HZ = 32_000
KEY_RELOAD = 0xAAAA
KEY_ENABLE_ACCESS = 0x5555
KEY_START = 0xCCCC

KR, PR, RLR, SR = 0x00, 0x04, 0x08, 0x0C
SR_PVU, SR_RVU = 1 << 0, 1 << 1

MAX_RELOAD = 0xFFF
_PRESCALER_CODES = range(7)  # divider 4 << code; code 7 means 256 as well
_UPDATE_LSI_CYCLES = 5  # RM0090 21.4.4: a new PR or RLR is taken over within five LSI cycles


class IndependentWatchdog:
    """KR, PR, RLR and SR, and the counter behind them.

    Attributes:
        on_timeout: called when the counter runs out (the board resets).
        on_feed: called when running firmware reloads the counter: one turn of its main loop.
    """

    name = "IWDG"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.on_timeout: Callable[[], None] = lambda: None
        self.on_feed: Callable[[], None] | None = None
        self._event: ClockEvent | None = None
        self._deadline_ns: int | None = None
        self._prescaler_code = 0
        self._reload = MAX_RELOAD
        self._access_enabled = False
        self._prescaler_updated_ns = 0
        self._reload_updated_ns = 0

    @property
    def running(self) -> bool:
        """Whether the watchdog has been started since the last reset."""
        return self._deadline_ns is not None

    @property
    def deadline_ns(self) -> int | None:
        """The virtual time at which it will bite, or None while it is not running."""
        return self._deadline_ns

    @property
    def timeout_ns(self) -> int:
        """From a reload to the bite, as the registers stand, in nanoseconds."""
        return (self._reload + 1) * self._divider * NS_PER_S // LSI_HZ

    def reset(self) -> None:
        """A system reset stops the watchdog and restores PR and RLR."""
        self._deadline_ns = None
        if self._event is not None:
            self._event.cancel()
            self._event = None
        self._prescaler_code = 0
        self._reload = MAX_RELOAD
        self._access_enabled = False
        self._prescaler_updated_ns = self._reload_updated_ns = 0

    def read(self, offset: int, width: int) -> int:  # noqa: ARG002 - bus signature
        """KR reads as zero; SR shows updates of PR and RLR that are under way."""
        match offset:
            case 0x00:
                return 0
            case 0x04:
                return self._prescaler_code
            case 0x08:
                return self._reload
            case 0x0C:
                now_ns = self._clock.now_ns
                return (SR_PVU if now_ns < self._prescaler_updated_ns else 0) | (
                    SR_RVU if now_ns < self._reload_updated_ns else 0
                )
        raise UnsupportedRegisterError(self.name, offset, "read")

    def write(self, offset: int, width: int, value: int) -> None:  # noqa: ARG002 - bus signature
        """Keys go to KR; PR and RLR are taken only after KEY_ENABLE_ACCESS."""
        match offset:
            case 0x00:
                self._write_key(value & 0xFFFF)
            case 0x04:
                # RM0090 21.4: both can be written only while no update of them is under way.
                if self._access_enabled and self._clock.now_ns >= self._prescaler_updated_ns:
                    self._set_prescaler(value & 7)
                    self._prescaler_updated_ns = self._update_end_ns()
            case 0x08:
                if self._access_enabled and self._clock.now_ns >= self._reload_updated_ns:
                    self._reload = value & MAX_RELOAD
                    self._reload_updated_ns = self._update_end_ns()
            case 0x0C:
                pass  # SR is read-only
            case _:
                raise UnsupportedRegisterError(self.name, offset, "write")

    def start(self) -> None:
        """Start the counter, as KEY_START does; the hardware watchdog option does so at reset."""
        self._reload_counter()

    def set_timeout(self, timeout_s: float) -> None:
        """Set PR and RLR as firmware does, and reload the counter.

        Raises InvalidArgumentError when the time is out of reach (see `registers_for`).
        """
        prescaler, reload = registers_for(timeout_s)
        self.write(KR, 4, KEY_ENABLE_ACCESS)
        self.write(PR, 4, prescaler)
        self.write(RLR, 4, reload)
        self.feed()

    def feed(self) -> None:
        """Reload the counter without that counting as a turn of the firmware's main loop."""
        if self._deadline_ns is not None:
            self._reload_counter()

    def _update_end_ns(self) -> int:
        return self._clock.now_ns + _UPDATE_LSI_CYCLES * NS_PER_S // LSI_HZ

    def _write_key(self, key: int) -> None:
        # Any other key than "enable access" protects PR and RLR again.
        self._access_enabled = key == KEY_ENABLE_ACCESS
        if key == KEY_START:
            self.start()
        elif key == KEY_RELOAD:
            if self._deadline_ns is not None:
                self._reload_counter()
            if self.on_feed is not None:
                self.on_feed()

    def _set_prescaler(self, code: int) -> None:
        """The counter goes on from where it is, at the new rate."""
        old_divider = self._divider
        self._prescaler_code = code
        if self._deadline_ns is not None:
            left_ns = self._deadline_ns - self._clock.now_ns
            self._set_deadline(self._clock.now_ns + left_ns * self._divider // old_divider)

    @property
    def _divider(self) -> int:
        return 4 << min(self._prescaler_code, 6)

    def _reload_counter(self) -> None:
        self._set_deadline(self._clock.now_ns + self.timeout_ns)

    def _set_deadline(self, deadline_ns: int) -> None:
        self._deadline_ns = deadline_ns
        if self._event is None or self._event.cancelled or self._deadline_ns < self._event.at_ns:
            self._arm(self._deadline_ns)

    def _arm(self, at_ns: int) -> None:
        if self._event is not None:
            self._event.cancel()
        self._event = self._clock.call_at(at_ns, self._check)

    def _check(self) -> None:
        # Feeding only moves the deadline; the event in the queue follows when it comes due. That
        # keeps a feed cheap, and it happens at every turn of the firmware's main loop.
        self._event = None
        if self._deadline_ns is None:
            return
        if self._clock.now_ns < self._deadline_ns:
            self._arm(self._deadline_ns)
        else:
            self._deadline_ns = None
            self.on_timeout()


def registers_for(timeout_s: float) -> tuple[int, int]:
    """The (PR, RLR) pair with the finest resolution that reaches `timeout_s` seconds.

    Raises InvalidArgumentError when the time is not between one LSI period and 32.768 s.
    """
    for code in _PRESCALER_CODES:
        ticks = round(timeout_s * LSI_HZ / (4 << code))
        if 1 <= ticks <= MAX_RELOAD + 1:
            return code, ticks - 1
    raise InvalidArgumentError(
        f"a watchdog timeout of {timeout_s} s cannot be set: "
        f"IWDG counts from {4 / LSI_HZ * 1e6:.0f} us to {256 * (MAX_RELOAD + 1) / LSI_HZ:.3f} s"
    )
