"""A campaign for machines: one JSON object a line, a finding each, and the result behind them."""

import json
from collections.abc import Iterator

from campaign.explore import Finding, Result
from campaign.judge import EXPLANATIONS
from campaign.reports.report import Report, Verdict, damage_in_words


def json_lines(report: Report) -> str:
    """The whole report."""
    return "".join(f"{json.dumps(told)}\n" for told in _objects(report))


def _objects(report: Report) -> Iterator[dict[str, object]]:
    for scenario in report.scenarios:
        for lived in scenario.findings:
            yield finding_to_json(lived.finding, scenario.result, report)
        yield result_to_json(scenario.result, report)
    if report.distrust:
        yield {"event": "distrust", "problem": report.distrust}
    for result in report.not_run:
        yield {"event": "not-run", **_names(result), "proven": False}


def _names(result: Result) -> dict[str, object]:
    number, parts = result.shard
    return {
        "scenario": result.scenario,
        "fault": result.fault.value,
        "shard": number,
        "shards": parts,
    }


def result_to_json(result: Result, report: Report) -> dict[str, object]:
    """A scenario's result."""
    return {
        "event": "scenario",
        **_names(result),
        "proven": report.verdict_of(result) is Verdict.PROVEN,
        "interrupted": result.is_interrupted,
        "operations": result.operations,
        "cuts": result.cuts,
        "states": result.states,
        "boots": result.boots,
        "hopeless": result.tally.hopeless,
        "checked": result.checked,
        "seconds": round(result.seconds, 3),
        "deepest": result.deepest,
        "closed": result.is_closed,
        "reasons": dict(sorted(result.reasons.items())),
        "failures": {kind.value: count for kind, count in result.failures.items()},
        "erases": [
            {"flash": flash, "address": address, "erases": count}
            for (flash, address), count in sorted(result.tally.erases.items())
        ],
    }


def _damage(finding: Finding) -> str | None:
    cut = finding.story.cut
    if cut is None or cut.damage is None:
        return None
    return damage_in_words(finding.story.fault, cut.damage)


def finding_to_json(finding: Finding, result: Result, report: Report) -> dict[str, object]:
    """A failure."""
    return {
        "event": "finding",
        **_names(result),
        "kind": finding.problem.kind.value,
        "text": finding.problem.text,
        "explanation": EXPLANATIONS[finding.problem.kind],
        "story": finding.story.identifier,
        "cuts": finding.story.cuts,
        "step": finding.step,
        "operation": finding.operation,
        "damage": _damage(finding),
        "replay": report.command(finding.story),
    }
