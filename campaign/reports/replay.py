"""A story told again: every boot, its log and decisions, and the flash before and after."""

from collections.abc import Iterable, Iterator

from campaign.cells import Contents, Reading
from campaign.expand import LASTING, Life
from campaign.judge import Problem
from campaign.reports.dump import describe_contents, dump_lines
from campaign.reports.report import LivedBoot, live_story, struck
from campaign.story import Story


def replay_lines(life: Life, story: Story) -> Iterator[str]:
    """A story lived again: boot logs, decisions, and the boot state before and after each boot.

    Raises OtasimError when the story does not fit to scenario and loader.
    """
    scenario, golden = life.plan.scenario, life.golden
    lived = live_story(life, story)
    yield f"{scenario.name}: {scenario.title}"
    if (start := lived.start) is not None:
        fault = struck(story.fault, start.cut, start.operation)
        yield f"step '{start.golden.step.name}', {fault}"
    elif golden.problem is None:
        yield "with no cut nothing goes wrong"
        return
    else:
        yield f"step '{golden.failed_step}', no cut"
    boots = lived.all_boots
    before, reading = (boots[0].before, boots[0].reading) if boots else (golden.end, Reading.STORED)
    yield "the flash before:"
    yield from _indented(dump_lines(before, life.images, reading))
    for number, boot in enumerate(boots, start=1):
        yield from _boot_lines(number, boot)
        yield from ending_lines(boot, life)
    if boots:
        yield "the flash after:"
        yield from _indented(dump_lines(boots[-1].boot.contents, life.images))
    if story.cut is None and golden.problem is not None:
        yield f"  {golden.problem.kind.value}: {golden.problem.text}"


def _boot_lines(number: int, lived: LivedBoot) -> Iterator[str]:
    boot, reading = lived.boot, lived.reading
    yield f"boot {number}, reset cause {lived.cause.value}, marginal bits {reading.value}"
    yield f"  may run: {lived.expectation.names()}"
    yield f"  boot state before: {describe_contents(lived.before, reading)}"
    yield from (f"  | {line}" for line in boot.log.splitlines())
    yield from (f"  decision: {decision}" for decision in boot.decisions)
    yield f"  boot state after:  {describe_contents(boot.contents)}"


def ending_lines(lived: LivedBoot, life: Life) -> Iterator[str]:
    """How a boot of a story ended, and what is wrong with that."""
    boot = lived.boot
    if lived.cut is not None:
        yield f"  {struck(life.plan.settings.cuts_by, lived.cut, lived.cut_operation)}"
        return
    yield f"  the loader {boot.ending.value}"
    image = life.judge(lived.expectation, boot).image
    if image is not None:
        yield f"  runs: {image}"
    problem = _problem_of(lived, life)
    if problem is not None:
        yield f"  {problem.kind.value}: {problem.text}"


def _problem_of(lived: LivedBoot, life: Life) -> Problem | None:
    """What is wrong with a boot of a story, or with what can be done behind it."""
    if lived.cut is not None:
        return None
    verdict = life.judge(lived.expectation, lived.boot)
    problem = verdict.problem
    if verdict.image is not None:
        problem = problem or life.answer_problem(lived.boot, verdict.image)
        if life.plan.settings.fault not in LASTING:
            problem = problem or life.update_problem(lived.boot)
    return problem


def problem_of_story(life: Life, story: Story) -> Problem | None:
    """What a story comes to; None when nothing is wrong at its end.

    Raises OtasimError when the story does not fit to scenario and loader.
    """
    if story.cut is None:
        return life.golden.problem
    boots = live_story(life, story).all_boots
    return _problem_of(boots[-1], life) if boots else None


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def state_before_last_boot(life: Life, story: Story) -> tuple[Contents, Reading]:
    """What the flash holds when the last boot of a story begins, and how marginal bits read then.

    Where no boot goes wrong it is what the last good step of the scenario leaves. Raises
    OtasimError when the story does not fit to scenario and loader.
    """
    boots = live_story(life, story).all_boots
    if boots:
        return boots[-1].before, boots[-1].reading
    return life.golden.end, Reading.STORED
