"""Flash operations, boots and slots over virtual time: what the pictures of a report show.

Flash operations take the typical times of the data sheets, waits take what the scenario says.
Computing takes no time in a campaign.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from campaign.cells import Contents, Operation, Reading, duration_ns
from campaign.expand import LASTING, Life
from campaign.golden import CutPoint, Golden, GoldenStep
from campaign.images import Image
from campaign.records import winner_of
from campaign.reports.dump import SlotContents, slots_of
from campaign.reports.report import LivedBoot, LivedFinding, ScenarioReport, damage_in_words
from campaign.scenario import Boot, Wait
from campaign.story import Cut
from platforms.clock import NS_PER_S


@dataclass(frozen=True, slots=True)
class SlotView:
    """What lies in a slot, and what the boot state says of the slot.

    Attributes:
        contents: what lies in it.
        is_active: the next boot uses it.
        is_revert: it is the way back.
    """

    contents: SlotContents
    is_active: bool
    is_revert: bool


@dataclass(frozen=True, slots=True)
class OperationView:
    """A flash operation in a timeline.

    Attributes:
        number: its number in the scenario, or in the boot.
        operation: the operation.
        slots: the slots when it began.
        ways: in how many ways the campaign's fault is tried at it; 0 = not counted.
        findings: numbers of the findings whose story begins at it.
        cut: how the fault strikes or the power goes at it, in a story; None when it does not.
        goes_on: it is carried out nevertheless, on damaged cells.
    """

    number: int
    operation: Operation
    slots: tuple[SlotView, ...]
    ways: int = 0
    findings: tuple[int, ...] = ()
    cut: Cut | None = None
    goes_on: bool = False

    @property
    def is_begun(self) -> bool:
        """Whether anything of it happens."""
        cut = self.cut
        return cut is None or self.goes_on or cut.is_after or cut.tear is not None

    @property
    def progress(self) -> float:
        """How far it comes, 0.0 to 1.0."""
        if not self.is_begun:
            return 0.0
        return 1.0 if self.cut is None or self.cut.tear is None else self.cut.tear.progress

    @property
    def time_ns(self) -> int:
        """Virtual nanoseconds until it is done, or the power goes."""
        return round(self.progress * duration_ns(self.operation))


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a timeline: a step of a scenario, or a boot of a story.

    Attributes:
        name: what it is.
        reset: what resets the board at its beginning; empty when nothing does.
        reasons: the decisions that the loader takes, by name.
        operations: the flash operations, in order.
        wait_ns: virtual time that passes behind them.
        slots: the slots when all is done.
        ending: how it ends; empty when there is nothing to say.
        is_bad: it ends in a failure.
    """

    name: str
    reset: str
    reasons: tuple[str, ...]
    operations: tuple[OperationView, ...]
    wait_ns: int
    slots: tuple[SlotView, ...]
    ending: str = ""
    is_bad: bool = False

    @property
    def duration_ns(self) -> int:
        """Virtual time from its beginning to its end."""
        return self.wait_ns + sum(view.time_ns for view in self.operations)


def _slot_views(
    contents: Contents, images: Iterable[Image], reading: Reading = Reading.STORED
) -> tuple[SlotView, ...]:
    winner = winner_of(contents, reading)
    active, revert = (
        (None, None) if winner is None else (winner.state.active_slot, winner.state.revert_slot)
    )
    return tuple(
        SlotView(slot, slot.number == active, slot.number == revert)
        for slot in slots_of(contents, images)
    )


def golden_timeline(report: ScenarioReport) -> tuple[Stretch, ...]:
    """A scenario without a cut, with the ways that were tried and where the findings are."""
    life = report.life
    ways = life.number_of_points()
    findings: dict[int, tuple[int, ...]] = {}
    for number, lived in enumerate(report.findings, start=1):
        if (cut := lived.finding.story.cut) is not None:
            findings[cut.operation] = (*findings.get(cut.operation, ()), number)
    stretches = [_golden_stretch(step, life.images, ways, findings) for step in life.golden.steps]
    if (problem := life.golden.problem) is not None:
        stretches.append(_failed_stretch(life.golden, life.images, problem.kind.value))
    return tuple(stretches)


def _golden_stretch(
    step: GoldenStep,
    images: tuple[Image, ...],
    ways: Counter[int],
    findings: dict[int, tuple[int, ...]],
) -> Stretch:
    act, numbers = (
        step.step.act,
        range(step.first_operation, step.first_operation + len(step.trace)),
    )
    return Stretch(
        step.step.name,
        act.cause.value if isinstance(act, Boot) else "",
        () if step.boot is None else step.boot.reasons,
        tuple(
            OperationView(
                number,
                traced.operation,
                _slot_views(traced.contents, images),
                ways[number],
                findings.get(number, ()),
            )
            for number, traced in zip(numbers, step.trace, strict=True)
        ),
        int(act.seconds * NS_PER_S) if isinstance(act, Wait) else 0,
        _slot_views(step.end, images),
    )


def _failed_stretch(golden: Golden, images: tuple[Image, ...], kind: str) -> Stretch:
    """The step in which a scenario goes wrong without a cut."""
    boot = golden.failed_boot
    if boot is None:
        slots = _slot_views(golden.end, images)
        return Stretch(golden.failed_step, "", (), (), 0, slots, kind, True)
    act = golden.scenario.steps[len(golden.steps)].act
    views = (
        OperationView(golden.operations + number, t.operation, _slot_views(t.contents, images))
        for number, t in enumerate(boot.trace)
    )
    return Stretch(
        golden.failed_step,
        act.cause.value if isinstance(act, Boot) else "",
        boot.reasons,
        tuple(views),
        0,
        _slot_views(boot.contents, images),
        kind,
        True,
    )


def story_timeline(lived: LivedFinding, life: Life) -> tuple[Stretch, ...]:
    """A story: the step in which the fault strikes, and each boot from then on.

    Args:
        lived: the story; of one without a cut there is nothing to draw.
        life: its scenario.
    """
    return tuple(_story_stretches(lived, life))


def _story_stretches(lived: LivedFinding, life: Life) -> Iterator[Stretch]:
    if lived.story is None or lived.story.start is None:
        return
    boots = lived.story.boots
    failure = lived.finding.problem.kind.value
    yield _start_stretch(lived.story.start, life, None if boots else failure)
    for number, each in enumerate(boots, start=1):
        yield _boot_stretch(number, each, life, failure if number == len(boots) else None)


def _start_stretch(point: CutPoint, life: Life, failure: str | None) -> Stretch:
    """The step in which a story begins: up to the fault, or to its end if it is known."""
    step, index = point.golden, point.index
    act, boot, fault = step.step.act, point.boot or step.boot, life.plan.settings.fault
    begun = step.trace[: index + 1]
    if point.boot is not None:  # what hangs is not in its trace
        begun = (*point.boot.trace, *begun[len(point.boot.trace) :])
    damage = point.cut.damage
    struck = f"cut {point.cut}" if damage is None else damage_in_words(fault, damage)
    return Stretch(
        step.step.name,
        act.cause.value if isinstance(act, Boot) else "",
        () if boot is None else boot.reasons,
        tuple(
            OperationView(
                step.first_operation + number,
                traced.operation,
                _slot_views(traced.contents, life.images),
                cut=point.cut if number == index else None,
                goes_on=fault in LASTING,
            )
            for number, traced in enumerate(begun)
        ),
        0,
        _slot_views(point.contents, life.images),
        failure or struck,
        failure is not None,
    )


def _boot_stretch(number: int, lived: LivedBoot, life: Life, failure: str | None) -> Stretch:
    boot, cut = lived.boot, lived.cut
    begun = [(traced.operation, traced.contents) for traced in boot.trace]
    if cut is not None and lived.cut_operation is not None and not cut.is_after:
        # The torn operation is not in the trace, and what it leaves is not what it began with.
        begun.append((lived.cut_operation, boot.contents))
    views = [
        OperationView(
            each,
            operation,
            _slot_views(contents, life.images, lived.reading),
            cut=cut if cut is not None and each == cut.operation else None,
        )
        for each, (operation, contents) in enumerate(begun)
    ]
    if failure is not None:
        ending = failure
    elif cut is not None:
        ending = f"cut {cut}"
    else:
        image = life.judge(lived.expectation, boot).image
        ending = boot.ending.value if image is None else f"starts {image}"
    return Stretch(
        f"boot {number}",
        lived.cause.value,
        boot.reasons,
        tuple(views),
        0,
        _slot_views(boot.contents, life.images, lived.reading),
        ending,
        failure is not None,
    )
