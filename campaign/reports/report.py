"""All that is known of a campaign, and what every report says of it in the same words."""

import inspect
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import quote

from bootloader_model.decision import Reason
from campaign.boot import BootRun, LoaderFactory
from campaign.cells import Contents, Operation, Reading
from campaign.check import start_of, states_of
from campaign.damage import STUCK_BITS, WORN_SETS
from campaign.expand import LASTING, Life, Plan, State
from campaign.explore import Finding, Result
from campaign.faults import Fault
from campaign.golden import CutPoint, Golden
from campaign.scenario import Boot, Expectation, Scenario, Step
from campaign.story import Cut, Damage, Recovery, Story
from platforms.devices.reset_cause import ResetCause
from platforms.errors import OtasimError

DIRECTORY = "failing-board"
"""The state directory that reports propose."""


class Verdict(Enum):
    """What a result comes to; the value is the word in reports."""

    PROVEN = "proven"
    FAILS = "fails"
    UNFINISHED = "interrupted"
    DISTRUSTED = "not to be trusted"


EXIT_CODES: Mapping[Verdict, int] = {
    Verdict.PROVEN: 0,
    Verdict.FAILS: 1,
    Verdict.DISTRUSTED: 3,
    Verdict.UNFINISHED: 130,
}
"""Of the command."""


@dataclass(frozen=True, slots=True)
class LivedBoot:
    """One boot of a story.

    Attributes:
        before: what the flash holds when it begins.
        expectation: what may run.
        cause: what resets the board.
        reading: how marginal bits read.
        boot: what happened.
        cut: where the power goes; None when the boot comes to its end.
        cut_operation: the flash operation at which it goes.
    """

    before: Contents
    expectation: Expectation
    cause: ResetCause
    reading: Reading
    boot: BootRun
    cut: Cut | None = None
    cut_operation: Operation | None = None


@dataclass(frozen=True, slots=True)
class LivedStory:
    """A story, lived again.

    Attributes:
        start: what it begins with; None when the scenario goes wrong without a cut.
        step_boot: the boot of the scenario that goes wrong by itself, or goes on with damage to its
            end; None in all other cases.
        boots: the boots from then on.
    """

    start: CutPoint | None
    step_boot: LivedBoot | None
    boots: tuple[LivedBoot, ...]

    @property
    def all_boots(self) -> tuple[LivedBoot, ...]:
        """All boots in which something may be seen to go wrong."""
        return self.boots if self.step_boot is None else (self.step_boot, *self.boots)


@dataclass(frozen=True, slots=True)
class LivedFinding:
    """A failure and its story, lived again.

    Attributes:
        finding: the failure.
        story: the story; None when it could not be lived again.
        problem: why not; empty when it could.
    """

    finding: Finding
    story: LivedStory | None
    problem: str = ""

    @property
    def boots(self) -> tuple[LivedBoot, ...]:
        """All boots of the story."""
        return () if self.story is None else self.story.all_boots


@dataclass(frozen=True, slots=True)
class ScenarioReport:
    """What is known of a scenario and a fault.

    Attributes:
        life: the scenario without a cut, and all that can follow.
        result: what the campaign found.
        findings: the failures, with their stories.
    """

    life: Life
    result: Result
    findings: tuple[LivedFinding, ...]

    @property
    def scenario(self) -> Scenario:
        """The scenario."""
        return self.life.plan.scenario


@dataclass(frozen=True, slots=True)
class SourceLine:
    """Where a loader's class is: a file, as a URI relative to the working directory, and a line."""

    uri: str
    line: int


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a campaign.

    Attributes:
        scenarios: the results, in the order in which they came.
        loader_name: the loader as the command line names it; None = the shipped one.
        seed: chose among the outcomes of torn operations.
        not_run: what was asked for and not begun, with nothing found.
        loader_source: where the loader's class is; None when it is not below the working directory.
    """

    scenarios: tuple[ScenarioReport, ...]
    loader_name: str | None = None
    seed: int = 0
    not_run: tuple[Result, ...] = ()
    loader_source: SourceLine | None = None

    @property
    def results(self) -> tuple[Result, ...]:
        """The results alone."""
        return tuple(scenario.result for scenario in self.scenarios)

    @property
    def distrust(self) -> str:
        """What the campaign's own checks found wrong with it; empty when nothing is."""
        return next((result.distrust for result in self.results if result.distrust), "")

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What goes wrong in it."""
        return tuple(dict.fromkeys(result.fault for result in (*self.results, *self.not_run)))

    @property
    def verdict(self) -> Verdict:
        """What it all comes to: one failure is enough, and proven is only what was all done."""
        if self.distrust:
            return Verdict.DISTRUSTED
        found = {verdict_of(result) for result in self.results}
        if Verdict.FAILS in found:
            return Verdict.FAILS
        if Verdict.UNFINISHED in found or self.not_run or not found:
            return Verdict.UNFINISHED
        return Verdict.PROVEN

    def verdict_of(self, result: Result) -> Verdict:
        """What one of its results comes to; where one cannot be trusted, none can."""
        return Verdict.DISTRUSTED if self.distrust else verdict_of(result)

    def sentence(self, result: Result) -> str:
        """The verdict of one of its results, and how far it holds."""
        if self.distrust and not result.distrust:
            return f"{Verdict.DISTRUSTED.value}, as another scenario is not"
        return verdict_sentence(result)

    def command(self, story: Story) -> str:
        """The command line that replays a story."""
        return replay_command(story, self.loader_name, self.seed)

    def debugging_commands(self, story: Story) -> tuple[tuple[str, str], ...]:
        """What to type to look at the last boot of a story in a debugger, and what each is for."""
        replay = self.command(story)
        run = shlex.join(["otasim", "run", "--state", DIRECTORY, *_loader_option(self.loader_name)])
        return (
            (f"{replay} --state {DIRECTORY}", "keep the flash from just before the last boot"),
            (f"otasim state {DIRECTORY}", "every boot state record in it"),
            (run, "boot it on the board"),
            (f"{run} --engine renode --gdb 3333", "the same on Renode, with its GDB server"),
            ("arm-none-eabi-gdb -ex 'target remote :3333'", "the debugger"),
            (f"python3 -m pdb -m {replay}", "the loader, which is Python: stops at breakpoint()"),
        )


def replay_command(story: Story, loader_name: str | None, seed: int) -> str:
    """The command line that replays a story."""
    words = ["otasim", "campaign", "--replay", story.identifier, *_loader_option(loader_name)]
    return shlex.join([*words, *(["--seed", str(seed)] if seed else [])])


def _loader_option(loader_name: str | None) -> list[str]:
    return [] if loader_name is None else ["--loader", loader_name]


def make_report(
    plans: Sequence[Plan], results: Sequence[Result], *, loader_name: str | None = None
) -> Report:
    """Live the golden run of each scenario and the story of each finding again.

    Args:
        plans: the campaigns that were asked for, at least one; all of one loader and one seed.
        results: what was found, in the same order; fewer, when the last ones were not begun.
        loader_name: the loader as the command line names it; None = the shipped one.
    """
    shard = results[0].shard if results else (1, 1)
    return Report(
        tuple(_live(plan, result) for plan, result in zip(plans, results, strict=False)),
        loader_name,
        plans[0].settings.seed,
        tuple(
            Result(plan.scenario.name, plan.settings.fault, shard) for plan in plans[len(results) :]
        ),
        _source_of(plans[0].loader),
    )


def _live(plan: Plan, result: Result) -> ScenarioReport:
    life = Life(plan)
    findings = tuple(_live_finding(finding, life) for finding in result.findings)
    return ScenarioReport(life, result, findings)


def _live_finding(finding: Finding, life: Life) -> LivedFinding:
    try:
        return LivedFinding(finding, live_story(life, finding.story))
    except OtasimError as error:  # a loader that does not do the same twice
        return LivedFinding(finding, None, str(error))


def live_story(life: Life, story: Story) -> LivedStory:
    """Live a story again.

    Raises OtasimError when the story does not fit to scenario and loader.
    """
    if story.cut is None:
        return LivedStory(None, _failed_boot(life.golden), ())
    start = start_of(life, story)
    step_boot = _damaged_boot(life, start)
    if step_boot is None and not story.recoveries:
        raise OtasimError(f"{story.identifier}: no boot follows the cut: add one, as /stored>run")
    boots = tuple(
        _lived_boot(life, state, recovery, boot)
        for state, recovery, boot in states_of(life, story)
        if recovery is not None and boot is not None
    )
    return LivedStory(start, step_boot, boots)


def _failed_boot(golden: Golden) -> LivedBoot | None:
    if golden.failed_boot is None:
        return None
    step = golden.scenario.steps[len(golden.steps)]
    return _boot_in(step, golden.end, step.before, golden.failed_boot)


def _damaged_boot(life: Life, start: CutPoint) -> LivedBoot | None:
    if start.boot is None:
        return None
    return _boot_in(start.golden.step, start.golden.start, life.survivors, start.boot)


def _boot_in(step: Step, before: Contents, expectation: Expectation, boot: BootRun) -> LivedBoot:
    assert isinstance(step.act, Boot)  # noqa: S101 - nothing else has one
    return LivedBoot(before, expectation, step.act.cause, Reading.STORED, boot)


def _lived_boot(life: Life, state: State, recovery: Recovery, boot: BootRun) -> LivedBoot:
    operation = None
    if recovery.cut is not None:
        # The boot's own trace ends before what is torn.
        whole = life.boot(state, recovery.reading)
        operation = whole.trace[recovery.cut.operation].operation
    return LivedBoot(
        state.contents,
        life.expectation(state),
        life.cause(state),
        recovery.reading,
        boot,
        recovery.cut,
        operation,
    )


def _source_of(loader: LoaderFactory) -> SourceLine | None:
    kind = type(loader())
    try:
        file = Path(inspect.getfile(kind)).resolve()
        line = inspect.getsourcelines(kind)[1]
    except (OSError, TypeError):  # made at run time, or in C
        return None
    if not file.is_relative_to(Path.cwd()):
        return None
    return SourceLine(quote(file.relative_to(Path.cwd()).as_posix()), line)


def verdict_of(result: Result) -> Verdict:
    """What a result comes to by itself."""
    if result.distrust:
        return Verdict.DISTRUSTED
    if result.findings:
        return Verdict.FAILS
    return Verdict.UNFINISHED if result.is_interrupted else Verdict.PROVEN


def verdict_sentence(result: Result) -> str:
    """A result's verdict, and how far it holds."""
    part = f", in {part_of(result)} only" if part_of(result) else ""
    match verdict_of(result):
        case Verdict.DISTRUSTED:
            return f"{Verdict.DISTRUSTED.value}: {result.distrust}"
        case Verdict.FAILS:
            kinds = ", ".join(kind.value for kind in result.failures)
            stopped = " (interrupted: there may be more)" if result.is_interrupted else ""
            return f"FAILS: {kinds}{stopped}"
        case Verdict.UNFINISHED:
            return "interrupted: nothing found so far, nothing proven"
        case _ if result.is_closed:
            return f"proven for any number of cuts (no new state after {result.deepest}){part}"
        case _:
            return f"proven for {how_often(result.deepest, result.fault)}{part}"


def part_of(result: Result) -> str:
    """Which part of a campaign it is; empty when it is the whole."""
    number, parts = result.shard
    return "" if parts == 1 else f"part {number} of {parts}"


def how_often(depth: int, fault: Fault) -> str:
    """How often it goes wrong in a story: damage is done once, and the power may go after it."""
    if fault.interrupts:
        return times(depth)
    return "the damage alone" if depth == 1 else f"the damage and {times(depth - 1)}"


def headline(report: Report) -> str:
    """The verdict over all scenarios in one line."""
    results = report.results
    match report.verdict:
        case Verdict.FAILS:
            kinds = {kind for result in results for kind in result.failures}
            failing = sum(verdict_of(result) is Verdict.FAILS for result in results)
            return (
                f"{count(len(kinds), 'kind')} of failure in {failing} of"
                f" {count(len(results), _unit(report))}"
            )
        case Verdict.UNFINISHED:
            done = sum(verdict_of(result) is Verdict.PROVEN for result in results)
            asked = count(len(results) + len(report.not_run), _unit(report))
            return f"Interrupted: {done} of {asked} proven, nothing found so far"
        case Verdict.DISTRUSTED:
            return "Not to be trusted: the campaign's own checks fail"
        case Verdict.PROVEN:
            part = f" ({part_of(results[0])} only)" if part_of(results[0]) else ""
            return f"Proven {_how_far(results)}{part}: {_promise(results)}"


def _unit(report: Report) -> str:
    """What a result is of: a scenario, or one of the faults in a scenario."""
    return "scenario" if len(report.faults) == 1 else "campaign"


def _how_far(results: Sequence[Result]) -> str:
    if all(result.is_closed for result in results):
        return "for any number of power cuts"
    depth = min(result.deepest for result in results if not result.is_closed)
    what = "cut" if all(result.fault.interrupts for result in results) else "fault"
    return f"for {count(depth, what)} in each story"


def _promise(results: Sequence[Result]) -> str:
    boards = "every board boots"
    if any(result.tally.hopeless for result in results):
        boards = "every board boots that any loader could start"
    is_updated = not any(result.fault in LASTING for result in results)
    return f"{boards}, and can be updated" if is_updated else boards


def hopeless(results: Sequence[Result]) -> str:
    """In how many states nothing could be done, and where; empty when in none."""
    number = sum(result.tally.hopeless for result in results)
    if not number:
        return ""
    told = ", ".join(f"{label(r)} {r.tally.hopeless:,}" for r in results if r.tally.hopeless)
    return (
        f"in {count(number, 'state')} the fault has left nothing that any loader could start, which"
        f" is no failure and not counted as one: {told}"
    )


_SAMPLES = {
    Fault.STUCK_BIT: f"all bits that can stick: {STUCK_BITS} of each operation were tried",
    Fault.WORN_SECTOR: f"all ways in which a sector wears out: {WORN_SETS} were tried for each",
}


def limits(report: Report) -> tuple[str, ...]:
    """What the campaign has not shown, one after the other."""
    if report.distrust:
        return (f"anything at all: {report.distrust}",)
    told = []
    if report.not_run:
        told.append(f"anything of {_labels(report.not_run)}: not begun")
    if stopped := [result for result in report.results if result.is_interrupted]:
        told.append(f"all of {_labels(stopped)}: interrupted on the way")
    if parts := {part_of(result) for result in report.results if part_of(result)}:
        told.append(f"the other parts: this is {', '.join(sorted(parts))} (--shard)")
    bounded: dict[int, list[Result]] = {}
    for result in report.results:
        if verdict_of(result) is Verdict.PROVEN and not result.is_closed:
            bounded.setdefault(result.deepest, []).append(result)
    for depth, results in sorted(bounded.items()):
        what = "cut" if all(result.fault.interrupts for result in results) else "fault"
        told.append(
            f"more than {count(depth, what)} in one story (--depth {depth + 1}, or closure):"
            f" {_all_or(results, report)}"
        )
    if failing := [r for r in report.results if verdict_of(r) is Verdict.FAILS]:
        told.append(f"what lies behind a failure: {_all_or(failing, report)}")
    if lasting := [fault for fault in report.faults if fault in LASTING]:
        names = ", ".join(fault.value for fault in lasting)
        told.append(f"updates after {names}: no loader can promise them on cells that stay broken")
    told += [_SAMPLES[fault] for fault in report.faults if fault in _SAMPLES]
    if closed := [result for result in report.results if result.is_closed]:
        told.append(
            "what happens only at a certain number: closure does not follow sequence numbers to"
            f" their end: {_all_or(closed, report)}"
        )
    told.append("cuts of what the application writes after a cut: only boots are cut again")
    if other := [fault.value for fault in Fault if fault not in report.faults]:
        told.append(f"other faults: {', '.join(other)}")
    if report.results and not any(result.checked for result in report.results):
        told.append("that the board's own models do as computed: no state was made (--check-every)")
    return tuple(told)


def _labels(results: Iterable[Result]) -> str:
    return ", ".join(label(result) for result in results)


def _all_or(results: Sequence[Result], report: Report) -> str:
    is_all = len(results) == len(report.results) > 1
    return f"every {_unit(report)}" if is_all else _labels(results)


def times(cuts: int) -> str:
    """So many cuts."""
    return count(cuts, "cut")


def count(number: int, what: str) -> str:
    """So many of something."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def where(finding: Finding) -> str:
    """Where a failure's story begins, and how often it goes wrong in it, in words."""
    story = finding.story
    if story.cut is None:
        return f"step '{finding.step}', with no cut at all"
    fault = struck(story.fault, story.cut, finding.operation)
    what = "cut" if story.fault.interrupts else "fault"
    return f"step '{finding.step}', {fault}; {count(story.cuts, what)} in all"


def struck(fault: Fault, cut: Cut, operation: object) -> str:
    """A fault and where it strikes, in words."""
    told = f"{fault.value} at {operation}: {cut}"
    return told if cut.damage is None else f"{told} ({damage_in_words(fault, cut.damage)})"


def damage_in_words(fault: Fault, damage: Damage) -> str:
    """What a fault has damaged."""
    bit = f"bit {damage.number % 8} of the byte at 0x{damage.number // 8:06x} in {_flash(damage)}"
    match fault:
        case Fault.STUCK_BIT:
            return f"{bit} sticks as it is"
        case Fault.WORN_SECTOR:
            return f"the sector in {_flash(damage)} is worn out, choice {damage.number}"
        case Fault.STAYS_BUSY:
            return f"{_flash(damage)} stays busy"
        case _:
            return f"{bit} has flipped"


def _flash(damage: Damage) -> str:
    return f"{damage.flash.value} flash"


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which decisions the loader took.

    Attributes:
        taken: each named reason and how often, the most frequent first.
        never: the reasons of the shipped loader that were never taken, by name; None when the
            loader has reasons of its own, or names none.
    """

    taken: tuple[tuple[str, int], ...]
    never: tuple[str, ...] | None


def coverage(results: Iterable[Result]) -> Coverage:
    """The decisions taken in all boots."""
    taken: Counter[str] = Counter()
    for result in results:
        taken.update(result.reasons)
    names = {reason.value for reason in Reason}
    never = tuple(sorted(names - set(taken))) if taken and set(taken) <= names else None
    return Coverage(tuple(sorted(taken.items(), key=lambda item: (-item[1], item[0]))), never)


def label(result: Result) -> str:
    """Scenario, fault and part, as one name."""
    told = ", ".join(filter(None, (result.fault.value, part_of(result))))
    return f"{result.scenario} [{told}]"
