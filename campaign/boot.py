"""One boot of a loader on campaign flash, bounded: it ends, whatever the loader asks of the board.

A loader that spins without asking anything ends only where `limit_boots` was called.
"""

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FrameType

from bootloader_model.protocol import BootTarget, Loader
from campaign.cells import Contents, Operation, Reading, Tear
from campaign.flash import FlashPair, Traced
from platforms.clock import NS_PER_S
from platforms.devices.reset_cause import ResetCause
from platforms.devices.watchdog import registers_for
from platforms.flash import FlashDevice
from platforms.machine import ResetAsserted

LoaderFactory = Callable[[], Loader]

# A boot of the shipped loader makes about a hundred calls with the small images of a campaign. One
# that reads byte by byte makes some ten thousand reads for each check of an image.
_MOST_CALLS = 20_000
_MOST_READS = 500_000
_LONGEST_WAIT_NS = 600 * NS_PER_S
LONGEST_BOOT_S = 30
"""Real seconds; a boot takes milliseconds."""


class Ending(Enum):
    """How a boot ended; the value is the name in reports."""

    STARTED = "started an application"
    WATCHDOG = "reset by the watchdog"
    HUNG = "does not end"
    RAISED = "raised an exception"
    CUT = "power cut"


class PowerCut(ResetAsserted):
    """The supply is gone. As on a real board, not for the loader to catch."""


class _WatchdogBite(ResetAsserted):
    """The watchdog was not fed in time."""


class _Spins(ResetAsserted):
    """The loader computes for ever, and asks nothing of the board.

    Attributes:
        limit_s: real seconds; 0 = no limit.
    """

    limit_s = 0


class _Endless(ResetAsserted):
    """The loader has done more than any boot needs."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that the loader put on record."""

    reason: str
    details: dict[str, int | str]

    def __str__(self) -> str:
        told = ", ".join(f"{name} {value}" for name, value in self.details.items())
        return f"{self.reason} ({told})" if told else self.reason


@dataclass(frozen=True, slots=True)
class BootRun:
    """What happened in one boot.

    Attributes:
        ending: how it ended.
        target: what was started; None when nothing was.
        trace: the flash operations, with the contents before each.
        contents: what the flash holds afterwards.
        decisions: what the loader decided.
        log: what it said on the console.
        problem: what it raised, or what else is wrong; empty when nothing is.
        has_watchdog: whether the watchdog runs when the application takes over.
        reading: how marginal bits have read.
        unwatched: how many flash operations were made before it ran.
    """

    ending: Ending
    target: BootTarget | None
    trace: tuple[Traced, ...]
    contents: Contents
    decisions: tuple[Decided, ...]
    log: str
    problem: str
    has_watchdog: bool
    reading: Reading
    unwatched: int = 0

    @property
    def reasons(self) -> tuple[str, ...]:
        """The names of the decisions."""
        return tuple(decision.reason for decision in self.decisions)


class Hardware:
    """What a loader sees of the board; time passes only where it waits.

    Args:
        nor: the SPI NOR flash.
        internal_flash: the internal flash.
        reset_cause: what led to this boot.
    """

    def __init__(
        self, nor: FlashDevice, internal_flash: FlashDevice, reset_cause: ResetCause
    ) -> None:
        self._nor = nor
        self._internal_flash = internal_flash
        self._cause = reset_cause
        self._calls = 0
        self._reads = 0
        self._unfed_ns = 0
        self._waited_ns = 0
        self._timeout_ns: int | None = None
        self._ended: ResetAsserted | None = None
        self.text: list[str] = []
        self.decisions: list[Decided] = []

    @property
    def nor(self) -> FlashDevice:
        """The SPI NOR flash."""
        return self._nor

    @property
    def internal_flash(self) -> FlashDevice:
        """The internal flash."""
        return self._internal_flash

    @property
    def reset_cause(self) -> ResetCause:
        """What led to this boot."""
        return self._cause

    @property
    def has_watchdog(self) -> bool:
        """Whether the watchdog has been started."""
        return self._timeout_ns is not None

    def start_watchdog(self, timeout_s: float) -> None:
        """Start the independent watchdog."""
        self.count_call()
        registers_for(timeout_s)  # the same limits as on the board
        self._timeout_ns = int(timeout_s * NS_PER_S)
        self._unfed_ns = 0

    def feed_watchdog(self) -> None:
        """Give the watchdog its full time again."""
        self.count_call()
        self._unfed_ns = 0

    def log(self, text: str) -> None:
        """Console text."""
        self.count_call()
        self.text.append(text)

    def wait(self, duration_ns: int) -> None:
        """Let virtual time pass."""
        self.count_call()
        self._waited_ns += duration_ns
        self.spend(duration_ns)
        if self._waited_ns > _LONGEST_WAIT_NS:
            self.end(_Endless())

    def spend(self, duration_ns: int) -> None:
        """Virtual time has passed, in a wait or in a flash operation."""
        self._unfed_ns += duration_ns
        if self._timeout_ns is not None and self._unfed_ns > self._timeout_ns:
            self.end(_WatchdogBite())

    def record_decision(self, reason: str, **details: int | str) -> None:
        """Put a decision on record."""
        self.count_call()
        self.decisions.append(Decided(reason, details))

    def count_call(self) -> None:
        """One more call of anything. A processor without power or in reset makes no more."""
        self.check_alive()
        self._calls += 1
        if self._calls > _MOST_CALLS:
            self.end(_Endless())

    def count_read(self) -> None:
        """One more reading of a flash memory."""
        self.check_alive()
        self._reads += 1
        if self._reads > _MOST_READS:
            self.end(_Endless())

    def check_alive(self) -> None:
        """Raise what has taken control from the loader, if something has, and it goes on."""
        if self._ended is not None:
            raise self._ended

    def end(self, why: ResetAsserted) -> None:
        """Take control from the loader, for good."""
        self._ended = why
        raise why


def limit_boots(seconds: int) -> None:
    """From now on a boot that takes so many real seconds hangs; for the main thread of a process.

    It takes the process's alarm signal (SIGALRM) for that.
    """

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise _Spins

    signal.signal(signal.SIGALRM, end)
    _Spins.limit_s = seconds


def run_boot(
    loader: Loader,
    contents: Contents,
    *,
    cause: ResetCause = ResetCause.POWER_ON,
    reading: Reading = Reading.STORED,
    seed: int = 0,
    cut: tuple[int, Tear | None] | None = None,
    arm: Callable[[FlashPair], None] | None = None,
) -> BootRun:
    """Boot a board.

    Args:
        loader: the boot loader; for each boot a new one.
        contents: what the flash holds.
        cause: what led to this boot.
        reading: how marginal bits read.
        seed: for Reading.RANDOM.
        cut: the power goes at this operation of the boot, counted from 0: torn as given, or before
            it begins when that is None. None = no cut.
        arm: called with the flash before the boot, to prepare damage in it.
    """
    flash = FlashPair(contents, reading, seed)
    hardware = Hardware(flash.nor, flash.internal, cause)
    flash.on_read, flash.on_change, flash.on_time = (
        hardware.count_read,
        hardware.count_call,
        hardware.spend,
    )
    if arm is not None:
        arm(flash)
    strike = flash.before_operation
    unwatched = 0

    def begin(operation: Operation) -> None:
        nonlocal unwatched
        if strike is not None:
            strike(operation)
        if cut is not None and len(flash.trace) == cut[0]:
            if cut[1] is not None:
                flash.contents = flash.contents.torn(operation, cut[1])
            hardware.end(PowerCut())
        unwatched += not hardware.has_watchdog

    flash.before_operation = begin
    ending, target, problem = carry_out(loader, hardware)
    return BootRun(
        ending,
        target,
        tuple(flash.trace),
        flash.contents,
        tuple(hardware.decisions),
        "".join(hardware.text),
        problem,
        hardware.has_watchdog,
        reading,
        unwatched,
    )


@contextmanager
def _limited() -> Iterator[None]:
    if not _Spins.limit_s:
        yield
        return
    signal.alarm(_Spins.limit_s)
    try:
        yield
    finally:
        signal.alarm(0)


def carry_out(loader: Loader, hardware: Hardware) -> tuple[Ending, BootTarget | None, str]:
    """Run the loader to its end: how it ended, what it starts, and what is wrong."""
    try:
        with _limited():
            target: object = loader.boot(hardware)
        hardware.check_alive()
    except _WatchdogBite:
        return Ending.WATCHDOG, None, "the loader stopped feeding the watchdog"
    except _Endless:
        return Ending.HUNG, None, f"no end after {_MOST_CALLS:,} calls or 600 s of waiting"
    except _Spins:
        return Ending.HUNG, None, f"no end after {_Spins.limit_s} s of computing"
    except PowerCut:
        return Ending.CUT, None, ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a user's loader may raise anything: a finding
        return Ending.RAISED, None, f"{type(error).__name__}: {error}{_place_of(error)}"
    if not isinstance(target, BootTarget):
        return Ending.RAISED, None, f"boot() returned {target!r}, expected a BootTarget"
    return Ending.STARTED, target, ""


def _place_of(error: BaseException) -> str:
    """Where in the loader's code it was raised, for people: the innermost line that is not ours."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__
    ]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
