"""A campaign as JUnit XML: a suite for each scenario and fault, a test case in it.

A scenario that fails is one failure, whatever it fails by, because most readers show only the first
of several. One that was interrupted is an error, one that was not begun is skipped, and where the
campaign distrusts itself everything is an error: none of them is ever a test that passed.
"""

from collections.abc import Iterator

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from campaign.judge import EXPLANATIONS
from campaign.reports.printable import printable
from campaign.reports.report import (
    LivedFinding,
    Report,
    ScenarioReport,
    Verdict,
    label,
    part_of,
    where,
)

_CLASS_NAME = "otasim.campaign"


def junit_xml(report: Report) -> bytes:
    """The whole report."""
    document = JUnitXml("otasim campaign")
    for scenario in report.scenarios:
        document.add_testsuite(_suite(scenario, report))
    for result in report.not_run:
        document.add_testsuite(_skipped_suite(printable(label(result))))
    document.update_statistics()
    xml: bytes = document.tostring()
    return xml


def _skipped_suite(name: str) -> TestSuite:
    suite = TestSuite(name)
    case = TestCase(name, _CLASS_NAME, 0)
    case.result = [Skipped("not run: the campaign ended before it")]
    suite.add_testcase(case)
    return suite


def _suite(scenario: ScenarioReport, report: Report) -> TestSuite:
    result = scenario.result
    name = printable(label(result))
    suite = TestSuite(name)
    case = TestCase(name, _CLASS_NAME, round(result.seconds, 3))
    outcome: Failure | Error | None = None
    match report.verdict_of(result):
        case Verdict.FAILS:
            kinds = ", ".join(kind.value for kind in result.failures)
            outcome = Failure(report.sentence(result), kinds)
            outcome.text = printable("\n".join(_failure_lines(scenario, report)))
        case Verdict.UNFINISHED | Verdict.DISTRUSTED as verdict:
            outcome = Error(printable(report.sentence(result)), verdict.value)
    if outcome is not None:
        case.result = [outcome]
    if logs := "\n".join(_log_lines(scenario)):
        case.system_out = printable(logs)
    suite.add_testcase(case)
    for fact, value in _properties(scenario, report).items():
        suite.add_property(fact, printable(value))
    return suite


def _properties(scenario: ScenarioReport, report: Report) -> dict[str, str]:
    result = scenario.result
    facts = {
        "verdict": report.sentence(result),
        "fault": result.fault.value,
        "part": part_of(result) or "the whole",
        "loader": report.loader_name or "shipped",
        "seed": report.seed,
        "operations": result.operations,
        "cuts": result.cuts,
        "states": result.states,
        "boots": result.boots,
        "hopeless": result.tally.hopeless,
        "checked": result.checked,
        "depth": result.deepest,
        "closed": str(result.is_closed).lower(),
    }
    return {name: str(value) for name, value in facts.items()}


def _failure_lines(scenario: ScenarioReport, report: Report) -> Iterator[str]:
    for lived in scenario.findings:
        finding = lived.finding
        yield f"{finding.problem.kind.value}: {finding.problem.text}"
        yield f"  {EXPLANATIONS[finding.problem.kind]}"
        yield f"  story: {finding.story.identifier}"
        yield f"  {where(finding)}"
        yield f"  replay: {report.command(finding.story)}"
        if lived.problem:
            yield f"  the story could not be lived again: {lived.problem}"
        yield from (f"  | {line}" for line in _logs(lived))
        yield ""


def _log_lines(scenario: ScenarioReport) -> Iterator[str]:
    for lived in scenario.findings:
        yield f"{lived.finding.story.identifier}:"
        yield from _logs(lived)


def _logs(lived: LivedFinding) -> Iterator[str]:
    """What the loader said in the boots of a story."""
    for boot in lived.boots:
        yield from boot.boot.log.splitlines()
