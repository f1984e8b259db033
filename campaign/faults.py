"""The faults that a campaign can make happen, each by name, and where physics allow them.

Four interrupt the firmware at an operation of the flash. What becomes of the operation depends on
whose reset or supply it is: both memories lose their supply together, but a reset of the processor
reaches the internal flash only (RM0090 3.6: the contents are not guaranteed then), while the NOR
flash goes on to the end. Four damage the storage itself, as `platforms.devices.flash_memory` does.
"""

import random
from dataclasses import dataclass
from enum import Enum
from functools import cache

from bootloader_model.layout import FlashName
from campaign.cells import Tear, Tears
from platforms.devices.reset_cause import ResetCause
from platforms.devices.torn import TornShape

_GARBLED_PROGRESS = (0.0, 0.5, 1.0)  # hardly begun, half done, all done: and damaged each time


@dataclass(frozen=True, slots=True)
class _Facts:
    """What `Fault` says of each of its members."""

    title: str
    interrupts: bool
    cause: ResetCause | None


class Fault(Enum):
    """What goes wrong; the value is the name on the command line and in reports."""

    POWER_LOSS = "power-loss"
    WATCHDOG_BITE = "watchdog-bite"
    RESET = "reset"
    BROWN_OUT = "brown-out"
    BIT_FLIP = "bit-flip"
    STUCK_BIT = "stuck-bit"
    WORN_SECTOR = "worn-sector"
    STAYS_BUSY = "stays-busy"

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return _FACTS[self].title

    @property
    def interrupts(self) -> bool:
        """Whether it ends the firmware at an operation; the others damage the storage."""
        return _FACTS[self].interrupts

    @property
    def cause(self) -> ResetCause | None:
        """The cause of the boot that follows; None: none follows from it, life goes on."""
        return _FACTS[self].cause


_FACTS = {
    Fault.POWER_LOSS: _Facts("the supply goes away", True, ResetCause.POWER_ON),
    Fault.WATCHDOG_BITE: _Facts("the watchdog bites", True, ResetCause.WATCHDOG),
    Fault.RESET: _Facts("the reset pin is pulled", True, ResetCause.PIN),
    Fault.BROWN_OUT: _Facts("the supply sags", True, ResetCause.BROWN_OUT),
    Fault.BIT_FLIP: _Facts("a bit flips while the board is off", False, ResetCause.POWER_ON),
    Fault.STUCK_BIT: _Facts("a bit sticks at one level", False, None),
    Fault.WORN_SECTOR: _Facts("a sector is no longer erased whole", False, None),
    # Nothing but the supply ends it, so somebody switches the board off and on.
    Fault.STAYS_BUSY: _Facts("a flash operation never ends", False, ResetCause.POWER_ON),
}


@cache
def tears_of(fault: Fault, flash: FlashName, seed: int) -> Tears:
    """How an operation of this memory can end that a fault interrupts.

    Nothing where the operation goes on to its end: a reset in the middle of a NOR operation is the
    cut after it, since the operation ends by itself, the loader waits for that, and the firmware
    never gets to hear of it.

    Args:
        fault: one that interrupts; after the others the power may go.
        flash: whose operation it is.
        seed: chooses among the outcomes of torn operations.
    """
    match fault:
        case Fault.BROWN_OUT:
            garbled = [Tear(TornShape.GARBLED, share, seed) for share in _GARBLED_PROGRESS]
            return Tears((*power_cut_tears(seed), *garbled))
        case Fault.WATCHDOG_BITE | Fault.RESET if flash is FlashName.NOR:
            return Tears()
        case _:
            return Tears(power_cut_tears(seed))


def power_cut_tears(seed: int) -> tuple[Tear, ...]:
    """What a power cut can do to an operation that is neither "not begun" nor "all done".

    Those two are the contents before and after the operation, which are cuts of their own. The
    progress is taken from both ends, where a check of the first or last bytes is misled, and from
    the middle. Weak bits also at 0.0 and 1.0: stored as before the operation or as after it, and
    not to be trusted.
    """
    wanted = (
        (TornShape.PREFIX, (0.02, 0.5, 0.99)),
        (TornShape.SUFFIX, (0.02, 0.5, 0.99)),
        (TornShape.HALF, (0.5,)),
        (TornShape.RANDOM_BITS, (0.05, 0.5, 0.95)),
        (TornShape.WEAK_BITS, (0.0, 0.5, 1.0)),
        (TornShape.MIXED_ROWS, (0.5,)),
    )
    found = [Tear(shape, progress, seed) for shape, steps in wanted for progress in steps]
    # Which half is drawn: take the other one, too.
    other = next(s for s in range(seed + 1, seed + 100) if _first_bit(s) != _first_bit(seed))
    return (*found, Tear(TornShape.HALF, 0.5, other))


def _first_bit(seed: int) -> int:
    return random.Random(seed).getrandbits(1)  # noqa: S311 - repeatable faults, not secrets
