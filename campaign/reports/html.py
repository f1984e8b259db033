"""A campaign as one page that needs nothing else: no network, no script.

The page is XML as well as HTML, so that a test can tell whether it is well-formed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bootloader_model.decision import SENTENCES, Reason
from campaign.boot import BootRun, Ending
from campaign.flash import Reading
from campaign.images import PROBE, Image
from campaign.judge import EXPLANATIONS, judge
from campaign.reports.dump import describe_contents, dump_lines
from campaign.reports.picture import timeline_svg
from campaign.reports.printable import printable
from campaign.reports.report import (
    Coverage,
    LivedBoot,
    LivedFinding,
    Report,
    ScenarioReport,
    Verdict,
    coverage,
    headline,
    label,
    limits,
)
from campaign.reports.timeline import golden_timeline, story_timeline
from campaign.reports.wear_map import WearMap, wear_maps
from campaign.scenario import Expectation

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_LOOKS = {
    Verdict.PROVEN: ("✓", "proven"),
    Verdict.FAILS: ("✗", "fails"),
    Verdict.UNFINISHED: ("…", "open"),
    Verdict.DISTRUSTED: ("!", "fails"),
}
"""How verdicts are marked: by a sign, and by a class of the style sheet."""


@dataclass(frozen=True, slots=True)
class _BootView:
    """A boot of a story, in words."""

    title: str
    may_run: str
    before: str
    after: str
    log: str
    decisions: tuple[str, ...]
    ending: str


@dataclass(frozen=True, slots=True)
class _FindingView:
    """A failure: picture, words, and what to type."""

    number: int
    anchor: str
    kind: str
    text: str
    explanation: str
    where: str
    problem: str
    replay: str
    commands: tuple[tuple[str, str], ...]
    picture: str | None
    boots: tuple[_BootView, ...]
    dump_before: str
    dump_after: str


@dataclass(frozen=True, slots=True)
class _ScenarioView:
    """A scenario: its result, picture, wear, and failures."""

    anchor: str
    report: ScenarioReport
    name: str
    mark: str
    look: str
    sentence: str
    picture: str | None
    wear: tuple[WearMap, ...]
    findings: tuple[_FindingView, ...]


@dataclass(frozen=True, slots=True)
class _ReasonView:
    """A decision, how often it was taken, and the share of the most frequent one in percent."""

    name: str
    sentence: str
    taken: int
    share: float


def html_page(report: Report) -> str:
    """The whole report."""
    scenarios = [_scenario(number, each, report) for number, each in enumerate(report.scenarios)]
    found = coverage(report.results)
    mark, look = _LOOKS[report.verdict]
    page = _TEMPLATES.get_template("page.html.jinja").render(
        report=report,
        mark=mark,
        look=look,
        headline=headline(report),
        limits=limits(report),
        loader=report.loader_name or "the shipped loader",
        cuts=sum(result.cuts for result in report.results),
        states=sum(result.states for result in report.results),
        boots=sum(result.boots for result in report.results),
        checked=sum(result.checked for result in report.results),
        seconds=sum(result.seconds for result in report.results),
        scenarios=scenarios,
        reasons=tuple(_reasons(found)),
        knows_all_reasons=found.never is not None,
        wear=wear_maps(report.scenarios),
    )
    return printable(page)


def _scenario(number: int, scenario: ScenarioReport, report: Report) -> _ScenarioView:
    result = scenario.result
    anchor = f"scenario-{number + 1}"
    stretches = golden_timeline(scenario, report.seed)
    title = f"{scenario.scenario.name}: flash operations, boots and slots over virtual time"
    images = (*scenario.scenario.images, PROBE)
    picture = timeline_svg(stretches, images, title, is_story=False) if stretches else None
    return _ScenarioView(
        anchor,
        scenario,
        label(result),
        *_LOOKS[report.verdict_of(result)],
        report.sentence(result),
        picture,
        wear_maps((scenario,)),
        tuple(
            _finding(n, f"{anchor}-finding-{n}", lived, scenario, report)
            for n, lived in enumerate(scenario.findings, start=1)
        ),
    )


def _finding(
    number: int, anchor: str, lived: LivedFinding, scenario: ScenarioReport, report: Report
) -> _FindingView:
    finding, images = lived.finding, (*scenario.scenario.images, PROBE)
    problem = finding.problem
    stretches = story_timeline(lived, images)
    title = f"{problem.kind.value}: the boots after the first cut"
    picture = timeline_svg(stretches, images, title, is_story=True) if stretches else None
    boots = tuple(_boot(n, each, images) for n, each in enumerate(lived.boots, start=1))
    before, after = _dumps(lived, scenario, images)
    return _FindingView(
        number,
        anchor,
        problem.kind.value,
        problem.text,
        EXPLANATIONS[problem.kind],
        lived.where,
        lived.problem,
        report.command(finding.story),
        report.debugging_commands(finding.story),
        picture,
        boots if finding.story.cut is not None else tuple(_golden_boot(scenario)),
        before,
        after,
    )


def _dumps(
    lived: LivedFinding, scenario: ScenarioReport, images: tuple[Image, ...]
) -> tuple[str, str]:
    """The flash before and after all boots of a story, or around the step that fails without."""
    before = after = None
    reading = Reading.STORED
    if lived.boots:
        first = lived.boots[0]
        before, reading, after = (
            first.node.contents,
            first.recovery.reading,
            lived.boots[-1].boot.contents,
        )
    elif lived.finding.story.cut is None:
        if scenario.golden.steps:
            before = scenario.golden.steps[-1].end
        if scenario.golden.failed_boot is not None:
            after = scenario.golden.failed_boot.contents
    return (
        "" if before is None else "\n".join(dump_lines(before, images, reading)),
        "" if after is None else "\n".join(dump_lines(after, images)),
    )


def _boot(number: int, lived: LivedBoot, images: tuple[Image, ...]) -> _BootView:
    node, boot, reading = lived.node, lived.boot, lived.recovery.reading
    if boot.ending is Ending.CUT:
        ending = f"power cut at {lived.cut_operation}: {lived.recovery.cut}"
    else:
        ending = _ending(boot, node.expectation, images)
    return _BootView(
        f"Boot {number}: reset cause {node.cause.value}, marginal bits read as {reading.value}",
        node.expectation.names(),
        describe_contents(node.contents, reading),
        describe_contents(boot.contents),
        boot.log,
        tuple(str(decision) for decision in boot.decisions),
        ending,
    )


def _golden_boot(scenario: ScenarioReport) -> Iterator[_BootView]:
    """The boot that goes wrong without a cut, where it is one."""
    golden = scenario.golden
    boot = golden.failed_boot
    if boot is None:
        return
    expectation = scenario.scenario.steps[len(golden.steps)].before
    yield _BootView(
        f"Step '{golden.failed_step}'",
        expectation.names(),
        describe_contents(golden.steps[-1].end) if golden.steps else "as it left the factory",
        describe_contents(boot.contents),
        boot.log,
        tuple(str(decision) for decision in boot.decisions),
        _ending(boot, expectation, scenario.scenario.images),
    )


def _ending(boot: BootRun, expectation: Expectation, images: tuple[Image, ...]) -> str:
    """How a boot that was not cut ended."""
    image = judge(boot, expectation, images).image
    told = boot.ending.value if image is None else f"{boot.ending.value}: {image}"
    return f"{told} ({boot.problem})" if boot.problem else told


def _reasons(found: Coverage) -> Iterator[_ReasonView]:
    most = max((number for _, number in found.taken), default=1)
    sentences = {
        reason.value: SENTENCES[reason].format(slot="A", target="B", spare="C", why="...")
        for reason in Reason
    }
    for name, number in found.taken:
        yield _ReasonView(name, sentences.get(name, ""), number, 100 * number / most)
    for name in found.never or ():
        yield _ReasonView(name, sentences[name], 0, 0)
