"""What a campaign says: a summary for people, and one JSON object a line for machines."""

from collections import Counter
from collections.abc import Iterator, Sequence

from bootloader_model.decision import Reason
from bootloader_model.journal import Journal
from bootloader_model.layout import DEFAULT_LAYOUT
from bootloader_model.loader import describe_state
from bootloader_model.partition import Partitions
from campaign.boot import Ending
from campaign.cells import Contents, Reading
from campaign.check import start_of, states_of
from campaign.expand import Life
from campaign.explore import Finding, Result
from campaign.flash import FlashPair
from campaign.story import Story


def result_to_json(result: Result) -> dict[str, object]:
    """A scenario's result."""
    return {
        "event": "scenario",
        "scenario": result.scenario,
        "fault": result.fault.value,
        "proven": not result.findings and not result.is_interrupted,
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
    }


def finding_to_json(finding: Finding) -> dict[str, object]:
    """A failure."""
    return {
        "event": "finding",
        "scenario": finding.story.scenario,
        "kind": finding.problem.kind.value,
        "text": finding.problem.text,
        "story": finding.story.identifier,
        "cuts": finding.story.cuts,
        "step": finding.step,
        "operation": finding.operation,
    }


def scenario_line(result: Result) -> str:
    """A scenario's result in one line."""
    if result.findings:
        verdict = f"FAILS: {', '.join(kind.value for kind in result.failures)}"
    elif result.is_interrupted:
        verdict = "interrupted: nothing found so far"
    elif result.is_closed:
        verdict = f"proven for any number of cuts (no new state after {result.deepest})"
    else:
        verdict = f"proven for {_times(result.deepest)}"
    return (
        f"{result.scenario:<18} {result.operations:>4} operations {result.cuts:>9,} cuts"
        f" {result.states:>8,} states {result.boots:>8,} boots  {verdict}"
    )


def _times(cuts: int) -> str:
    return "1 cut" if cuts == 1 else f"{cuts} cuts"


def summary_lines(results: Sequence[Result]) -> Iterator[str]:
    """Speed and coverage over all scenarios."""
    cuts, boots = sum(r.cuts for r in results), sum(r.boots for r in results)
    seconds = sum(r.seconds for r in results)
    checked = sum(r.checked for r in results)
    rate = f"{cuts / seconds:,.0f} cuts/s, {boots / seconds:,.0f} boots/s" if seconds else "no time"
    yield f"{cuts:,} cuts, {boots:,} boots in {seconds:.1f} s: {rate}"
    yield f"{checked:,} states were made on the board's own models as well: equal to the byte"
    yield from _coverage(results)


def _coverage(results: Sequence[Result]) -> Iterator[str]:
    taken: Counter[str] = Counter()
    for result in results:
        taken.update(result.reasons)
    if not taken:
        yield "decisions: this loader put none on record"
        return
    told = ", ".join(f"{reason} {count:,}" for reason, count in taken.most_common())
    yield f"decisions: {told}"
    names = {reason.value for reason in Reason}
    if set(taken) <= names:
        yield f"never taken: {', '.join(sorted(names - set(taken))) or 'none'}"


def finding_lines(finding: Finding, command: str) -> Iterator[str]:
    """A failure for people, with the command that replays it."""
    yield f"{finding.problem.kind.value}: {finding.problem.text}"
    if finding.story.cut is None:
        yield f"  in {finding.story.scenario}, step '{finding.step}', with no cut at all"
    else:
        yield (
            f"  in {finding.story.scenario}, step '{finding.step}', cut at {finding.operation};"
            f" {_times(finding.story.cuts)} in all"
        )
    yield f"  {command}"


def replay_lines(life: Life, story: Story) -> Iterator[str]:
    """A story lived again: boot logs, decisions, and the boot state before and after each boot.

    Raises OtasimError when the story does not fit to scenario and loader.
    """
    scenario, point = life.plan.scenario, start_of(life, story)
    operation = point.golden.trace[point.cut.operation - point.golden.first_operation].operation
    yield f"{scenario.name}: {scenario.title}"
    yield f"step '{point.golden.step.name}', {story.fault.value} at {operation}: {point.cut}"
    for number, (state, recovery, boot) in enumerate(states_of(life, story), 1):
        if recovery is None or boot is None:
            continue
        reading = recovery.reading.value
        yield f"boot {number}, reset cause {life.cause(state).value}, marginal bits {reading}"
        yield f"  may run: {life.expectation(state).names()}"
        yield f"  boot state before: {describe_contents(state.contents, recovery.reading)}"
        yield from (f"  | {line}" for line in boot.log.splitlines())
        yield from (f"  decision: {decision}" for decision in boot.decisions)
        yield f"  boot state after:  {describe_contents(boot.contents)}"
        if boot.ending is Ending.CUT:
            yield f"  power cut: {recovery.cut}"
            continue
        yield f"  the loader {boot.ending.value}"
        verdict = life.judge(life.expectation(state), boot)
        problem = verdict.problem
        if verdict.image is not None:
            yield f"  runs: {verdict.image}"
            problem = problem or life.update_problem(boot)
        if problem is not None:
            yield f"  {problem.kind.value}: {problem.text}"


def describe_contents(contents: Contents, reading: Reading = Reading.STORED) -> str:
    """The boot state in some flash contents, in a few words."""
    flash = FlashPair(contents, reading)
    partitions = Partitions(DEFAULT_LAYOUT, nor=flash.nor, internal_flash=flash.internal)
    winner = Journal(partitions.journal_areas).load().winner
    if winner is None:
        return "no valid record"
    return f"seq {winner.state.seq} in {winner.location}: {describe_state(winner.state)}"
