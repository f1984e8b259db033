"""A campaign doubts itself: what was computed is made for real, and has to be the same."""

from collections.abc import Iterator
from dataclasses import replace

from campaign.boot import BootRun
from campaign.cells import Reading
from campaign.expand import Life, State
from campaign.golden import CutPoint, contents_after, noting_operation
from campaign.processor import WholeBoard
from campaign.real import MismatchError, RealBoot, UnrepeatableError, run_scenario_cut
from campaign.story import Recovery, Story
from platforms.errors import OtasimError

_REPETITIONS = 60
"""Boots of one state; a loader that counts its boots shows it within so many, as a rule."""


def states_of(life: Life, story: Story) -> Iterator[tuple[State, Recovery | None, BootRun | None]]:
    """Live a story again: each state, and the boot from it; the last state has none.

    Raises OtasimError when the story does not fit to scenario and loader.
    """
    state = life.first(start_of(life, story))
    for recovery in story.recoveries:
        boot = life.boot(state, recovery.reading)
        cut = recovery.cut
        if cut is None:
            yield state, recovery, boot
            image = life.judge(life.expectation(state), boot).image
            state = life.after_boot(state, boot, image)
            continue
        if cut.operation >= len(boot.trace):
            raise OtasimError(f"{story.identifier}: a boot has only {len(boot.trace)} operations")
        # The same again, with the supply gone in it: what the loader says up to then.
        where = (cut.operation + cut.is_after, cut.tear)
        yield state, recovery, life.boot(state, recovery.reading, where)
        contents = contents_after(boot.trace, cut, boot.contents)
        state = life.after_cut(state, noting_operation(boot.trace), cut, contents)
    yield state, None, None


def start_of(life: Life, story: Story) -> CutPoint:
    """What a story begins with; OtasimError when there is no such operation."""
    if story.cut is None:
        raise OtasimError(f"{story.identifier}: the scenario goes wrong without any cut: run it")
    return life.point(story.cut)


def check_for_real(life: Life, story: Story, board: WholeBoard | None) -> None:
    """Make the last state of a story, and its boots, on the board's own models.

    With a whole board they are made there, too.

    Raises MismatchError when they differ, and UnrepeatableError when that is the loader's doing.
    """
    try:
        _check_for_real(life, story, board)
    except MismatchError as error:
        *_, (state, _, _) = states_of(life, story)
        if any(_differs(life, state, reading) for reading in state.readings):
            raise UnrepeatableError(story.identifier, error.what) from error
        raise


def _differs(life: Life, state: State, reading: Reading) -> bool:
    """Whether the loader does not do the same twice."""
    first, *others = (life.boot(state, reading) for _ in range(_REPETITIONS))
    return any(
        (boot.ending, boot.target, boot.contents.key, boot.log)
        != (first.ending, first.target, first.contents.key, first.log)
        for boot in others
    )


def _check_for_real(life: Life, story: Story, board: WholeBoard | None) -> None:
    *before, (state, _, _) = states_of(life, story)
    loader, settings = life.plan.loader, life.plan.settings
    if before:
        parent, recovery, _ = before[-1]
        assert recovery is not None  # noqa: S101 - only the last state has none
        real = RealBoot(parent.contents, life.cause(parent), recovery.reading, settings.seed)
        flash = real.run(loader, recovery.cut)[0]
    else:
        point = start_of(life, story)
        flash = run_scenario_cut(life.golden, point.golden, point.cut, settings.fault, loader)
    _expect_same(story, flash.difference(state.contents))
    for reading in state.readings:
        boot = life.boot(state, reading)
        real = RealBoot(state.contents, life.cause(state), reading, settings.seed)
        flash, ending, target = real.run(loader)
        whole = replace(story, recoveries=(*story.recoveries, Recovery(reading)))
        _expect_same(whole, flash.difference(boot.contents))
        if (ending, target) != (boot.ending, boot.target):
            _expect_same(whole, f"the board {ending.value}, computed: {boot.ending.value}")
        if board is not None:
            image = life.judge(life.expectation(state), boot).image
            board.compare(whole.identifier, real, loader, image)


def _expect_same(story: Story, difference: str | None) -> None:
    if difference is not None:
        raise MismatchError(story.identifier, difference)
