"""A story: one cut in a scenario, and what happens to the board from then on; with an identifier.

The identifier says everything, so that one line replays exactly that cut:

    update-commit/17:half@0.5~0/stored>3:before/flipped>run

is the scenario, the cut in it (operation 17, torn in half), then one part for each boot: how
marginal bits read, and where the power goes in it, or `run` when the boot comes to its end. Another
fault than the loss of power is named behind the scenario; what it damages is said before the cut:

    update-commit+stuck-bit/17:nor.264%before/stored>run
"""

import math
import re
from dataclasses import dataclass

from bootloader_model.layout import FlashName
from campaign.cells import Reading, Tear
from campaign.faults import Fault
from platforms.devices.torn import TornShape
from platforms.errors import OtasimError

_BEFORE, _AFTER, _RUN = "before", "after", "run"
_CUT = re.compile(r"(\d+):(?:(nor|internal)\.(\d+)%)?(?:(before|after)|([a-z-]+)@([0-9.]+)~(\d+))")


class StoryIdError(OtasimError):
    """This is no identifier of a story.

    Attributes:
        identifier: what was given.
    """

    def __init__(self, identifier: str, problem: str) -> None:
        super().__init__(
            f"story {identifier!r}: {problem}; expected what a campaign printed, such as "
            "update-commit/17:half@0.5~0/stored>run"
        )
        self.identifier = identifier


@dataclass(frozen=True, slots=True)
class Damage:
    """What a fault damages, in a scenario.

    Attributes:
        flash: the memory.
        number: the bit (byte address * 8 + bit number) that flips or sticks; the seed that chooses
            the bits of a worn-out sector.
    """

    flash: FlashName
    number: int

    def __str__(self) -> str:
        return f"{self.flash.value}.{self.number}"


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the power goes, or another fault happens.

    Attributes:
        operation: number of the flash operation, from 0: of the scenario, or of the boot.
        tear: what becomes of it; None: power goes before it has begun.
        is_after: power goes when it is done, and nothing else has happened.
        damage: what the fault damages, for those that damage something.
    """

    operation: int
    tear: Tear | None = None
    is_after: bool = False
    damage: Damage | None = None

    def __str__(self) -> str:
        moment = self.tear or (_AFTER if self.is_after else _BEFORE)
        damage = "" if self.damage is None else f"{self.damage}%"
        return f"{self.operation}:{damage}{moment}"


@dataclass(frozen=True, slots=True)
class Recovery:
    """One boot after the first cut.

    Attributes:
        reading: how marginal bits read in it.
        cut: where the power goes; None when the boot comes to its end.
    """

    reading: Reading
    cut: Cut | None = None

    def __str__(self) -> str:
        return f"{self.reading.value}>{_RUN if self.cut is None else self.cut}"


@dataclass(frozen=True, slots=True)
class Story:
    """A story in full.

    Attributes:
        scenario: its name.
        cut: the first cut; None: the scenario itself goes wrong, with no cut at all.
        recoveries: the boots from then on.
        fault: what happens at each cut; a fault that damages something happens at the first one,
            and the power goes at the others.
    """

    scenario: str
    cut: Cut | None
    recoveries: tuple[Recovery, ...] = ()
    fault: Fault = Fault.POWER_LOSS

    @property
    def cuts(self) -> int:
        """How often the power goes."""
        return (self.cut is not None) + sum(r.cut is not None for r in self.recoveries)

    @property
    def identifier(self) -> str:
        """What replays it."""
        named = self.fault is not Fault.POWER_LOSS
        parts = [f"{self.scenario}+{self.fault.value}" if named else self.scenario]
        if self.cut is not None:
            parts += [str(self.cut), *map(str, self.recoveries)]
        return "/".join(parts)

    @classmethod
    def parse(cls, identifier: str) -> "Story":
        """The story of an identifier; StoryIdError when it is none."""
        name, *parts = identifier.split("/")
        scenario, separator, fault_name = name.partition("+")
        if not scenario:
            raise StoryIdError(identifier, "no scenario")
        if separator and fault_name not in {known.value for known in Fault}:
            raise StoryIdError(identifier, f"no fault {fault_name!r}")
        fault = Fault(fault_name) if separator else Fault.POWER_LOSS
        if not parts:
            return cls(scenario, None, fault=fault)
        recoveries = []
        for part in parts[1:]:
            reading, separator, what = part.partition(">")
            if not separator or reading not in {known.value for known in Reading}:
                raise StoryIdError(identifier, f"{part!r} is no boot")
            cut = None if what == _RUN else _parse_cut(identifier, what)
            recoveries.append(Recovery(Reading(reading), cut))
        return cls(scenario, _parse_cut(identifier, parts[0]), tuple(recoveries), fault)


def _parse_cut(identifier: str, text: str) -> Cut:
    match = _CUT.fullmatch(text)
    if match is None:
        raise StoryIdError(identifier, f"{text!r} is no cut")
    number, flash, damaged, moment, shape, progress, seed = match.groups()
    damage = None if flash is None else Damage(FlashName(flash), int(damaged))
    if moment is not None:
        return Cut(int(number), is_after=moment == _AFTER, damage=damage)
    if shape not in {known.value for known in TornShape}:
        raise StoryIdError(identifier, f"no torn shape {shape!r}")
    try:
        share = float(progress)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise StoryIdError(identifier, f"{progress} is no share from 0 to 1")
    return Cut(int(number), Tear(TornShape(shape), share, int(seed)), damage=damage)
