"""A campaign as one page that needs nothing else: no network, no script.

The page is XML as well as HTML, so that a test can tell whether it is well-formed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bootloader_model.decision import SENTENCES, Reason
from campaign.cells import Reading
from campaign.expand import Life
from campaign.judge import EXPLANATIONS
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
    hopeless,
    label,
    limits,
    struck,
    where,
)
from campaign.reports.timeline import golden_timeline, story_timeline
from campaign.reports.wear_map import WearMap, wear_maps

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
        hopeless=hopeless(report.results),
        limits=limits(report),
        faults=", ".join(fault.value for fault in report.faults),
        not_run=tuple(label(result) for result in report.not_run),
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
    life = scenario.life
    stretches = golden_timeline(scenario)
    title = f"{label(result)}: flash operations, boots and slots over virtual time"
    picture = timeline_svg(stretches, life.images, title, is_story=False) if stretches else None
    return _ScenarioView(
        anchor,
        scenario,
        label(result),
        *_LOOKS[report.verdict_of(result)],
        report.sentence(result),
        picture,
        wear_maps((scenario,)),
        tuple(
            _finding(n, f"{anchor}-finding-{n}", lived, life, report)
            for n, lived in enumerate(scenario.findings, start=1)
        ),
    )


def _finding(
    number: int, anchor: str, lived: LivedFinding, life: Life, report: Report
) -> _FindingView:
    finding = lived.finding
    problem = finding.problem
    stretches = story_timeline(lived, life)
    title = f"{problem.kind.value}: the boots after {finding.story.fault.value}"
    picture = timeline_svg(stretches, life.images, title, is_story=True) if stretches else None
    before, after = _dumps(lived, life)
    return _FindingView(
        number,
        anchor,
        problem.kind.value,
        problem.text,
        EXPLANATIONS[problem.kind],
        where(finding),
        lived.problem,
        report.command(finding.story),
        report.debugging_commands(finding.story),
        picture,
        tuple(_boot(n, each, life) for n, each in enumerate(lived.boots, start=1)),
        before,
        after,
    )


def _dumps(lived: LivedFinding, life: Life) -> tuple[str, str]:
    """The flash before and after all boots of a story, or before the step that fails without."""
    boots = lived.boots
    if boots:
        before = dump_lines(boots[0].before, life.images, boots[0].reading)
        after = dump_lines(boots[-1].boot.contents, life.images)
        return "\n".join(before), "\n".join(after)
    if lived.finding.story.cut is None:
        return "\n".join(dump_lines(life.golden.end, life.images, Reading.STORED)), ""
    return "", ""


def _boot(number: int, lived: LivedBoot, life: Life) -> _BootView:
    boot, reading = lived.boot, lived.reading
    if lived.cut is not None:
        ending = struck(life.plan.settings.cuts_by, lived.cut, lived.cut_operation)
    else:
        ending = _ending(lived, life)
    return _BootView(
        f"Boot {number}: reset cause {lived.cause.value}, marginal bits read as {reading.value}",
        lived.expectation.names(),
        describe_contents(lived.before, reading),
        describe_contents(boot.contents),
        boot.log,
        tuple(str(decision) for decision in boot.decisions),
        ending,
    )


def _ending(lived: LivedBoot, life: Life) -> str:
    """How a boot that was not cut ended."""
    boot = lived.boot
    image = life.judge(lived.expectation, boot).image
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
