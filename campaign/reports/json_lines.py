"""A campaign for machines: one JSON object a line, a finding each, and the result behind them."""

import json
from collections.abc import Iterator

from campaign.expand import Life
from campaign.explore import Finding, Result
from campaign.judge import EXPLANATIONS
from campaign.reports.dump import describe_contents
from campaign.reports.replay import ending_lines
from campaign.reports.report import LivedBoot, LivedFinding, Report, Verdict, damage_in_words


def json_lines(report: Report) -> str:
    """The whole report."""
    return "".join(f"{json.dumps(told)}\n" for told in _objects(report))


def _objects(report: Report) -> Iterator[dict[str, object]]:
    for scenario in report.scenarios:
        for lived in scenario.findings:
            yield finding_to_json(lived, scenario.result, report, scenario.life)
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


def finding_to_json(
    lived: LivedFinding, result: Result, report: Report, life: Life
) -> dict[str, object]:
    """A failure, and the boots of its story as a replay tells them."""
    finding = lived.finding
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
        "boots": [_boot_to_json(boot, life) for boot in lived.boots],
        "not_lived_again": lived.problem or None,
    }


def _boot_to_json(lived: LivedBoot, life: Life) -> dict[str, object]:
    boot = lived.boot
    return {
        "reset_cause": lived.cause.value,
        "marginal_bits": lived.reading.value,
        "may_run": lived.expectation.names(),
        "state_before": describe_contents(lived.before, lived.reading),
        "log": boot.log.splitlines(),
        "decisions": [str(decision) for decision in boot.decisions],
        "state_after": describe_contents(boot.contents),
        "ending": [line.strip() for line in ending_lines(lived, life)],
    }
