"""A story told again: every boot, its log and decisions, and the flash before and after."""

from collections.abc import Iterator

from campaign.boot import Ending, LoaderFactory
from campaign.flash import Contents, Reading
from campaign.golden import run_golden
from campaign.images import PROBE
from campaign.judge import judge, update_problem
from campaign.reports.dump import describe_contents, dump_lines
from campaign.reports.report import LivedBoot, live_story
from campaign.scenario import Scenario
from campaign.story import Story


def replay_lines(
    scenario: Scenario, loader: LoaderFactory, story: Story, seed: int
) -> Iterator[str]:
    """A story lived again: boot logs, decisions, and the boot state before and after each boot.

    Raises OtasimError when the story does not fit to scenario and loader.
    """
    yield f"{scenario.name}: {scenario.title}"
    if story.cut is None:
        yield from _golden_lines(scenario, loader)
        return
    boots = live_story(scenario, loader, story, seed)
    images = (*scenario.images, PROBE)
    for number, lived in enumerate(boots, start=1):
        if number == 1:
            yield first_cut(lived)
            yield "the flash before:"
            yield from _indented(dump_lines(lived.node.contents, images, lived.recovery.reading))
        yield from _boot_lines(number, lived)
        yield from ending_lines(lived, scenario, loader)
    yield "the flash after:"
    yield from _indented(dump_lines(boots[-1].boot.contents, images))


def first_cut(lived: LivedBoot) -> str:
    """Where the power goes first, in a story's first boot."""
    point = lived.node.point
    assert point is not None  # noqa: S101 - every story begins with one
    operation = point.golden.trace[point.cut.operation - point.golden.first_operation].operation
    return f"step '{point.golden.step.name}', power cut at {operation}: {point.cut}"


def _boot_lines(number: int, lived: LivedBoot) -> Iterator[str]:
    node, recovery, boot = lived.node, lived.recovery, lived.boot
    reading = recovery.reading.value
    yield f"boot {number}, reset cause {node.cause.value}, marginal bits {reading}"
    yield f"  may run: {node.expectation.names()}"
    yield f"  boot state before: {describe_contents(node.contents, recovery.reading)}"
    yield from (f"  | {line}" for line in boot.log.splitlines())
    yield from (f"  decision: {decision}" for decision in boot.decisions)
    yield f"  boot state after:  {describe_contents(boot.contents)}"


def ending_lines(lived: LivedBoot, scenario: Scenario, loader: LoaderFactory) -> Iterator[str]:
    """How a boot of a story ended, and what is wrong with that."""
    boot = lived.boot
    if boot.ending is Ending.CUT:
        yield f"  power cut at {lived.cut_operation}: {lived.recovery.cut}"
        return
    yield f"  the loader {boot.ending.value}"
    verdict = judge(boot, lived.node.expectation, (*scenario.images, PROBE))
    problem = verdict.problem
    if verdict.image is not None:
        yield f"  runs: {verdict.image}"
        problem = problem or update_problem(loader, boot)
    if problem is not None:
        yield f"  {problem.kind.value}: {problem.text}"


def _golden_lines(scenario: Scenario, loader: LoaderFactory) -> Iterator[str]:
    """A scenario that is to go wrong with no cut at all."""
    golden = run_golden(scenario, loader)
    if golden.problem is None:
        yield "with no cut nothing goes wrong"
        return
    yield f"step '{golden.failed_step}', no cut"
    if golden.steps:
        yield "the flash before:"
        yield from _indented(dump_lines(golden.steps[-1].end, scenario.images))
    if (boot := golden.failed_boot) is not None:
        yield from (f"  | {line}" for line in boot.log.splitlines())
        yield from (f"  decision: {decision}" for decision in boot.decisions)
        yield f"  the loader {boot.ending.value}"
        yield "the flash after:"
        yield from _indented(dump_lines(boot.contents, scenario.images))
    yield f"  {golden.problem.kind.value}: {golden.problem.text}"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def state_before_last_boot(
    scenario: Scenario, loader: LoaderFactory, story: Story, seed: int
) -> tuple[Contents, Reading]:
    """What the flash holds when the last boot of a story begins, and how marginal bits read then.

    Without a cut it is what the last good step of the scenario leaves. Raises OtasimError when the
    story does not fit to scenario and loader.
    """
    boots = live_story(scenario, loader, story, seed)
    if boots:
        return boots[-1].node.contents, boots[-1].recovery.reading
    steps = run_golden(scenario, loader).steps
    return (steps[-1].end if steps else Contents.erased()), Reading.STORED
