"""The faults that a campaign can make happen, each by name, and where physics allow them.

Four interrupt the firmware at an operation of the flash. What becomes of the operation depends on
whose reset or supply it is: both memories lose their supply together, but a reset of the processor
reaches the internal flash only (RM0090 3.6: the contents are not guaranteed then), while the NOR
flash goes on to the end. Four damage the storage itself, as `platforms.devices.flash_memory` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from bootloader_model.layout import FlashName
from campaign.flash import Tear
from campaign.story import Cut
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


def possible_tears(fault: Fault, flash: FlashName, tears: Sequence[Tear]) -> tuple[Tear, ...]:
    """How an operation of this memory can end that the fault interrupts.

    Args:
        fault: one that interrupts; the others tear nothing.
        flash: whose operation it is.
        tears: the ways of a power cut (`campaign.flash.tears`).

    Returns `tears` where the operation is torn, with GARBLED ones behind them for a brown-out, one
    set for each seed; and nothing where the operation goes on to its end.
    """
    match fault:
        case Fault.POWER_LOSS:
            return tuple(tears)
        case Fault.BROWN_OUT:
            seeds = dict.fromkeys(tear.seed for tear in tears)
            garbled = [
                Tear(TornShape.GARBLED, progress, seed)
                for seed in seeds
                for progress in _GARBLED_PROGRESS
            ]
            return (*tears, *garbled)
        case Fault.WATCHDOG_BITE | Fault.RESET:
            return tuple(tears) if flash is FlashName.INTERNAL else ()
        case _:
            return ()


def possible_cuts(
    fault: Fault, flash: FlashName, operation: int, tears: Sequence[Tear]
) -> tuple[Cut, ...]:
    """Where in an operation the fault can end the firmware: before, torn in each way, and after.

    A reset in the middle of a NOR operation is the cut after it: the operation ends by itself, the
    loader waits for that, and the firmware never gets to hear of it.

    Args:
        fault: one that interrupts; of the others there are no cuts.
        flash: whose operation it is.
        operation: its number.
        tears: the ways of a power cut.
    """
    if not fault.interrupts:
        return ()
    torn = [Cut(operation, tear) for tear in possible_tears(fault, flash, tears)]
    return (Cut(operation), *torn, Cut(operation, is_after=True))
