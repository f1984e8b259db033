"""A campaign as SARIF 2.1.0 (OASIS standard), for code scanning: a rule for each kind of failure.

A result says where it is in the scenario (logical location), and, where that is known, where the
loader's class is (physical location), without which some readers show nothing.
"""

import hashlib
import json

from campaign.explore import Finding, Result
from campaign.judge import EXPLANATIONS, Kind
from campaign.reports.report import (
    EXIT_CODES,
    Report,
    Verdict,
    label,
    part_of,
    where,
)

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)

_RULES = tuple(Kind)


def sarif_log(report: Report) -> str:
    """The whole report, as JSON."""
    return json.dumps(_log(report), indent=2) + "\n"


def _log(report: Report) -> dict[str, object]:
    results = [
        _result(lived.finding, scenario.result, report)
        for scenario in report.scenarios
        for lived in scenario.findings
    ]
    run = {
        "tool": {
            "driver": {
                "name": "otasim campaign",
                "rules": [_rule(kind) for kind in _RULES],
            }
        },
        "invocations": [_invocation(report)],
        "results": results,
        "properties": {
            "loader": report.loader_name or "shipped",
            "seed": report.seed,
            "scenarios": {label(result): _facts(result, report) for result in report.results},
        },
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(kind: Kind) -> dict[str, object]:
    text = EXPLANATIONS[kind]
    name = "".join(word.capitalize() for word in kind.value.split("-"))
    help_text = (
        f"{text} Each result has a shortest story that leads there; its replay command tells it"
        " boot by boot, with the flash before and after."
    )
    return {
        "id": kind.value,
        "name": name,
        "shortDescription": {"text": text},
        "fullDescription": {"text": text},
        "help": {"text": help_text},
        "defaultConfiguration": {"level": "error"},
    }


def _result(finding: Finding, result: Result, report: Report) -> dict[str, object]:
    problem, story = finding.problem, finding.story
    command = report.command(story)
    location: dict[str, object] = {"logicalLocations": _logical_locations(finding)}
    if (source := report.loader_source) is not None:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": source.uri},
            "region": {"startLine": source.line},
        }
    return {
        "ruleId": problem.kind.value,
        "ruleIndex": _RULES.index(problem.kind),
        "kind": "fail",
        "level": "error",
        "message": {
            "text": f"{problem.text} ({story.scenario}, {where(finding)}). Replay: {command}"
        },
        "locations": [location],
        "partialFingerprints": {"scenarioStepKind/v1": _fingerprint(finding, result, report)},
        "properties": {
            "fault": result.fault.value,
            "story": story.identifier,
            "cuts": story.cuts,
            "replay": command,
        },
    }


def _logical_locations(finding: Finding) -> list[dict[str, object]]:
    """The operation, or the step where no power cut is needed. Parents are in the full name."""
    path = [finding.story.scenario, finding.step]
    if finding.story.cut is not None:
        path.append(f"operation {finding.story.cut.operation}")
    return [{"name": path[-1], "fullyQualifiedName": "/".join(path)}]


def _fingerprint(finding: Finding, result: Result, report: Report) -> str:
    """The same for the same failure, as long as it is in the same step: operations may move."""
    facts = [
        report.loader_name or "",
        result.fault.value,
        finding.story.scenario,
        finding.step,
        finding.problem.kind.value,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _invocation(report: Report) -> dict[str, object]:
    stopped = [*(r for r in report.results if r.is_interrupted), *report.not_run]
    problems = [report.distrust] if report.distrust else []
    if stopped:
        problems.append(f"Interrupted, nothing is proven for: {', '.join(map(label, stopped))}")
    invocation: dict[str, object] = {
        "executionSuccessful": not problems,
        "exitCode": EXIT_CODES[report.verdict],
        "exitCodeDescription": report.verdict.value,
    }
    if problems:
        invocation["toolExecutionNotifications"] = [
            {"level": "error", "message": {"text": problem}} for problem in problems
        ]
    return invocation


def _facts(result: Result, report: Report) -> dict[str, object]:
    return {
        "verdict": report.sentence(result),
        "proven": report.verdict_of(result) is Verdict.PROVEN,
        "fault": result.fault.value,
        "part": part_of(result) or "the whole",
        "operations": result.operations,
        "cuts": result.cuts,
        "states": result.states,
        "boots": result.boots,
        "hopeless": result.tally.hopeless,
        "depth": result.deepest,
        "closed": result.is_closed,
    }
