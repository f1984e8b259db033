"""What a campaign says at the terminal: a line for each scenario, and a summary at the end."""

from collections.abc import Iterator

from campaign.explore import Finding, Result
from campaign.judge import EXPLANATIONS
from campaign.reports.report import (
    EXIT_CODES,
    Report,
    Verdict,
    count,
    coverage,
    headline,
    hopeless,
    how_often,
    label,
    limits,
    verdict_sentence,
    where,
)

_EXIT_MEANINGS = {
    Verdict.PROVEN: "proven, as far as is said above",
    Verdict.FAILS: "a counter-example was found",
    Verdict.DISTRUSTED: "trust nothing of this campaign",
    Verdict.UNFINISHED: "interrupted, and not all is proven that was asked for",
}


def scenario_line(result: Result) -> str:
    """A scenario's result in one line."""
    return (
        f"{label(result):<34} {result.operations:>4} operations {result.cuts:>9,} cuts"
        f" {result.states:>8,} states {result.boots:>8,} boots  {verdict_sentence(result)}"
    )


def summary_lines(report: Report) -> Iterator[str]:
    """Failures, verdict, what is left open, and coverage."""
    for scenario in report.scenarios:
        for lived in scenario.findings:
            yield ""
            yield from finding_lines(lived.finding, report.command(lived.finding.story))
    yield ""
    yield headline(report)
    proven = [r for r in report.results if report.verdict_of(r) is Verdict.PROVEN]
    if proven and report.verdict is not Verdict.PROVEN:
        yield f"proven: {', '.join(f'{label(r)} ({_how_far(r)})' for r in proven)}"
    if dead := hopeless(report.results):
        yield f"hopeless: {dead}"
    for limit in limits(report):
        yield f"not shown: {limit}"
    yield from _effort(report)
    yield from _decisions(report)


def exit_line(report: Report) -> str:
    """What the exit code means."""
    return f"exit code {EXIT_CODES[report.verdict]}: {_EXIT_MEANINGS[report.verdict]}"


def _how_far(result: Result) -> str:
    return "any number of cuts" if result.is_closed else how_often(result.deepest, result.fault)


def _effort(report: Report) -> Iterator[str]:
    results = report.results
    cuts, boots = sum(r.cuts for r in results), sum(r.boots for r in results)
    seconds = sum(r.seconds for r in results)
    checked = sum(r.checked for r in results)
    rate = f"{cuts / seconds:,.0f} cuts/s, {boots / seconds:,.0f} boots/s" if seconds else "no time"
    yield f"looked at: {cuts:,} cuts, {boots:,} boots in {seconds:.1f} s ({rate})"
    if checked and not report.distrust:
        yield (
            f"trust: {count(checked, 'state')} made on the board's own models as well, equal to the"
            " byte"
        )


def _decisions(report: Report) -> Iterator[str]:
    found = coverage(report.results)
    if not found.taken:
        yield "decisions: this loader put none on record"
        return
    yield f"decisions: {', '.join(f'{reason} {number:,}' for reason, number in found.taken)}"
    if found.never is not None:
        yield f"never taken: {', '.join(found.never) or 'none'}"


def finding_lines(finding: Finding, command: str) -> Iterator[str]:
    """A failure, with the command that replays it."""
    kind, story = finding.problem.kind, finding.story
    yield f"{kind.value}: {finding.problem.text}"
    yield f"  {EXPLANATIONS[kind]}"
    yield f"  in {story.scenario}, {where(finding)}"
    yield f"  {command}"
