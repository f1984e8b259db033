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
from campaign.boot import BootRun, LoaderFactory, run_boot
from campaign.explore import Finding, Node, Result, story_nodes
from campaign.flash import Operation
from campaign.golden import Golden, run_golden
from campaign.scenario import Scenario
from campaign.story import Recovery, Story
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
        node: the state before it.
        recovery: how marginal bits read, and where the power goes.
        boot: what happened.
        cut_operation: the flash operation at which the power goes; None when it does not.
    """

    node: Node
    recovery: Recovery
    boot: BootRun
    cut_operation: Operation | None


@dataclass(frozen=True, slots=True)
class LivedFinding:
    """A failure and its story, lived again.

    Attributes:
        finding: the failure.
        boots: the boots after the first cut; none when the scenario fails without one.
        problem: why the story could not be lived again; empty when it could.
    """

    finding: Finding
    boots: tuple[LivedBoot, ...]
    problem: str = ""

    @property
    def where(self) -> str:
        """Where the story begins, in words."""
        finding, cut = self.finding, self.finding.story.cut
        if cut is None:
            return f"step '{finding.step}', with no cut at all"
        return f"step '{finding.step}', power cut at {finding.operation}: {cut}"


@dataclass(frozen=True, slots=True)
class ScenarioReport:
    """What is known of a scenario.

    Attributes:
        scenario: the scenario.
        result: what the campaign found.
        golden: the scenario without a cut.
        findings: the failures, with their stories.
    """

    scenario: Scenario
    result: Result
    golden: Golden
    findings: tuple[LivedFinding, ...]


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
        not_run: names of the scenarios that were asked for and not begun.
        distrust: what the campaign's own checks found wrong with it; empty when nothing is.
        loader_source: where the loader's class is; None when it is not below the working directory.
    """

    scenarios: tuple[ScenarioReport, ...]
    loader_name: str | None = None
    seed: int = 0
    not_run: tuple[str, ...] = ()
    distrust: str = ""
    loader_source: SourceLine | None = None

    @property
    def results(self) -> tuple[Result, ...]:
        """The results alone."""
        return tuple(scenario.result for scenario in self.scenarios)

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
        """What one of its results comes to."""
        return Verdict.DISTRUSTED if self.distrust else verdict_of(result)

    def sentence(self, result: Result) -> str:
        """The verdict of one of its results, and how far it holds."""
        return self.verdict.value if self.distrust else verdict_sentence(result)

    def command(self, story: Story) -> str:
        """The command line that replays a story."""
        words = ["otasim", "campaign"]
        words += [story.scenario] if story.cut is None else ["--replay", story.identifier]
        return shlex.join([*words, *self._options()])

    def debugging_commands(self, story: Story) -> tuple[tuple[str, str], ...]:
        """What to type to look at the last boot of a story in a debugger, and what each is for."""
        replay = shlex.join(["otasim", "campaign", "--replay", story.identifier, *self._options()])
        run = shlex.join(["otasim", "run", "--state", DIRECTORY, *self._loader_option()])
        return (
            (f"{replay} --state {DIRECTORY}", "keep the flash from just before the last boot"),
            (f"otasim state {DIRECTORY}", "every boot state record in it"),
            (run, "boot it on the board"),
            (f"{run} --engine renode --gdb 3333", "the same on Renode, with its GDB server"),
            ("arm-none-eabi-gdb -ex 'target remote :3333'", "the debugger"),
            (f"python3 -m pdb -m {replay}", "the loader, which is Python: stops at breakpoint()"),
        )

    def _options(self) -> list[str]:
        seed = ["--seed", str(self.seed)] if self.seed else []
        return [*self._loader_option(), *seed]

    def _loader_option(self) -> list[str]:
        return [] if self.loader_name is None else ["--loader", self.loader_name]


def make_report(
    lived: Sequence[tuple[Scenario, Result]],
    loader: LoaderFactory,
    *,
    loader_name: str | None = None,
    seed: int = 0,
    not_run: Iterable[str] = (),
    distrust: str = "",
) -> Report:
    """Live the golden run of each scenario and the story of each finding again.

    Args:
        lived: the scenarios, and what was found.
        loader: makes the boot loader.
        loader_name: the loader as the command line names it; None = the shipped one.
        seed: the campaign's.
        not_run: names of the scenarios that were not begun.
        distrust: what the campaign's own checks found wrong with it.
    """
    return Report(
        tuple(_live(scenario, result, loader, seed) for scenario, result in lived),
        loader_name,
        seed,
        tuple(not_run),
        distrust,
        _source_of(loader),
    )


def _live(scenario: Scenario, result: Result, loader: LoaderFactory, seed: int) -> ScenarioReport:
    findings = tuple(_live_finding(f, scenario, loader, seed) for f in result.findings)
    return ScenarioReport(scenario, result, run_golden(scenario, loader), findings)


def _live_finding(
    finding: Finding, scenario: Scenario, loader: LoaderFactory, seed: int
) -> LivedFinding:
    try:
        return LivedFinding(finding, live_story(scenario, loader, finding.story, seed))
    except OtasimError as error:  # a loader that does not do the same twice
        return LivedFinding(finding, (), str(error))


def live_story(
    scenario: Scenario, loader: LoaderFactory, story: Story, seed: int
) -> tuple[LivedBoot, ...]:
    """The boots of a story; none where there is no cut.

    Raises OtasimError when the story does not fit to scenario and loader.
    """
    if story.cut is None:
        return ()
    if not story.recoveries:
        raise OtasimError(f"{story.identifier}: no boot follows the cut: add one, as /stored>run")
    return tuple(
        LivedBoot(node, recovery, boot, _cut_operation(node, recovery, loader, seed))
        for node, recovery, boot in story_nodes(scenario, loader, story, seed)
    )


def _cut_operation(
    node: Node, recovery: Recovery, loader: LoaderFactory, seed: int
) -> Operation | None:
    """What a boot does where the power is to go, as its own trace ends before that."""
    if recovery.cut is None:
        return None
    reading = recovery.reading
    whole = run_boot(loader(), node.contents, cause=node.cause, reading=reading, seed=seed)
    return whole.trace[recovery.cut.operation].operation


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
    """What a result comes to, if the campaign can be trusted."""
    if result.findings:
        return Verdict.FAILS
    return Verdict.UNFINISHED if result.is_interrupted else Verdict.PROVEN


def verdict_sentence(result: Result) -> str:
    """A result's verdict, and how far it holds."""
    match verdict_of(result):
        case Verdict.FAILS:
            kinds = ", ".join(kind.value for kind in result.failures)
            stopped = " (interrupted: there may be more)" if result.is_interrupted else ""
            return f"FAILS: {kinds}{stopped}"
        case Verdict.UNFINISHED:
            return "interrupted: nothing found so far, nothing proven"
        case _ if result.is_closed:
            return f"proven for any number of cuts (no new state after {result.deepest})"
        case _:
            return f"proven for {times(result.deepest)}"


def headline(report: Report) -> str:
    """The verdict over all scenarios in one line."""
    results = report.results
    match report.verdict:
        case Verdict.FAILS:
            kinds = {kind for result in results for kind in result.failures}
            failing = sum(verdict_of(result) is Verdict.FAILS for result in results)
            return (
                f"{count(len(kinds), 'kind')} of failure in {failing} of"
                f" {count(len(results), 'scenario')}"
            )
        case Verdict.UNFINISHED:
            done = sum(verdict_of(result) is Verdict.PROVEN for result in results)
            asked = len(results) + len(report.not_run)
            return f"Interrupted: {done} of {count(asked, 'scenario')} proven, nothing found so far"
        case Verdict.DISTRUSTED:
            return "Not to be trusted: the campaign's own checks fail"
        case Verdict.PROVEN:
            return f"Proven {_how_far(results)}: every board boots, and can be updated"


def _how_far(results: Sequence[Result]) -> str:
    if all(result.is_closed for result in results):
        return "for any number of power cuts"
    depth = min(result.deepest for result in results if not result.is_closed)
    return f"for {times(depth)} in each story"


def limits(report: Report) -> tuple[str, ...]:
    """What the campaign has not shown, one after the other."""
    if report.distrust:
        return (f"anything at all: {report.distrust}",)
    told = []
    if report.not_run:
        told.append(f"anything of {', '.join(report.not_run)}: not begun")
    stopped = [r.scenario for r in report.results if r.is_interrupted]
    if stopped:
        told.append(f"all of {', '.join(stopped)}: interrupted on the way")
    bounded: dict[int, list[str]] = {}
    for result in report.results:
        if verdict_of(result) is Verdict.PROVEN and not result.is_closed:
            bounded.setdefault(result.deepest, []).append(result.scenario)
    for depth, names in sorted(bounded.items()):
        told.append(
            f"more than {times(depth)} in one story (--depth {depth + 1}, or closure):"
            f" {_all_or(names, report)}"
        )
    failing = [r.scenario for r in report.results if verdict_of(r) is Verdict.FAILS]
    if failing:
        told.append(f"what lies behind a failure: {_all_or(failing, report)}")
    if faults := sorted({result.fault for result in report.results}):
        told.append(f"any other fault than {', '.join(faults)}")
    if report.results and not any(result.checked for result in report.results):
        told.append("that the board's own models do as computed: no state was made (--check-every)")
    return tuple(told)


def _all_or(names: Sequence[str], report: Report) -> str:
    is_all = len(names) == len(report.results) > 1
    return "every scenario" if is_all else ", ".join(names)


def times(cuts: int) -> str:
    """So many cuts."""
    return count(cuts, "cut")


def count(number: int, what: str) -> str:
    """So many of something."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


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
    """Scenario and fault, as one name."""
    return f"{result.scenario} [{result.fault}]"
