"""Every seeded bug is caught, and by its own reason; what the shipped loader had is kept here."""

from collections.abc import Callable

import pytest

from bootloader_model.loader import MosLoader
from bootloader_model.protocol import Loader
from campaign.check import states_of
from campaign.expand import Life, Plan, Settings
from campaign.explore import Explorer, Result
from campaign.images import NEW, OLD
from campaign.judge import Kind
from campaign.scenario import SCENARIOS, Boot, Call, Scenario, steady, take_update
from campaign.story import Story
from platforms.devices.reset_cause import ResetCause
from tests.campaign import bugs

Bug = Callable[[], Loader]

# "Last read" is not "newest" once the journal has come back to its first area.
OVER_THE_WRAP = Scenario(
    "over-the-wrap",
    "An update when both areas have been filled",
    (
        steady("power-on", Boot(ResetCause.POWER_ON), OLD),
        steady("fill", Call("OTA.SetBootState", {"commit_timeout": 60}, times=66), OLD),
        *take_update(NEW, OLD),
    ),
)

BUGS: tuple[tuple[Bug, str, Kind], ...] = (
    (bugs.record_before_copy, "update-watchdog", Kind.BRICK),
    (bugs.no_backup, "update-commit", Kind.WAY_BACK_LOST),
    (bugs.backup_not_recorded, "update-commit", Kind.NOT_ROLLED_BACK),
    (bugs.started_copy_trusted, "update-commit", Kind.WRONG_IMAGE),
    (bugs.first_boot_noted_too_early, "update-commit", Kind.UPDATE_LOST),
    (bugs.first_boot_never_noted, "update-commit", Kind.NOT_ROLLED_BACK),
    (bugs.rollback_not_recorded, "second-update", Kind.CANNOT_UPDATE),
    (bugs.never_rolls_back, "update-watchdog", Kind.NOT_ROLLED_BACK),
    (bugs.commit_ignored, "update-commit", Kind.COMMIT_LOST),
    (bugs.copy_not_erased, "update-commit", Kind.MARGINAL_IMAGE),
    (bugs.torn_record_accepted, "update-commit", Kind.BRICK),
    (bugs.sequence_not_compared, "over-the-wrap", Kind.UPDATE_LOST),
    (bugs.newest_erased_first, "update-commit", Kind.UPDATE_LOST),
    (bugs.marginal_record_trusted, "update-commit", Kind.COMMIT_LOST),
    (bugs.NoWatchdog, "update-commit", Kind.NO_WATCHDOG),
    (bugs.WrongEntry, "update-commit", Kind.WRONG_ENTRY),
    (bugs.OldStart, "update-commit", Kind.UPDATE_LOST),
    (bugs.ExpectsNoTornRecord, "update-commit", Kind.RAISED),
    (bugs.WaitsForever, "update-commit", Kind.HANG),
    (bugs.original, "update-commit", Kind.BRICK),
)


def scenario(name: str) -> Scenario:
    return next(known for known in (*SCENARIOS, OVER_THE_WRAP) if known.name == name)


def explore(loader: Bug, name: str, depth: int | None = 1) -> Result:
    return Explorer(Plan(scenario(name), loader, Settings(depth, check_every=0))).run()


def replayed(loader: Bug, story: Story) -> Kind | None:
    """What the last boot of a story comes to."""
    life = Life(Plan(scenario(story.scenario), loader, Settings()))
    *_, (state, _, boot), _ = states_of(life, story)
    assert boot is not None
    problem = life.judge(life.expectation(state), boot).problem
    return None if problem is None else problem.kind


@pytest.mark.parametrize(("bug", "name", "kind"), BUGS, ids=[bug.__name__ for bug, *_ in BUGS])
def test_a_seeded_bug_is_caught_by_its_own_reason(bug: Bug, name: str, kind: Kind) -> None:
    result = explore(bug, name)
    found = {finding.problem.kind: finding for finding in result.findings}
    assert kind in found
    story = found[kind].story
    assert Story.parse(story.identifier) == story
    assert story.cuts <= 1
    if story.cut is not None and kind is not Kind.CANNOT_UPDATE:
        assert replayed(bug, story) is kind


def test_every_bug_has_a_docstring_that_says_what_it_is() -> None:
    assert all(bug.__doc__ for bug, *_ in BUGS)
    assert len(BUGS) >= 12


def test_an_update_that_ran_as_committed_stays_though_its_record_was_marginal() -> None:
    """Found by the first campaign: the record read as good once, and then no more."""
    story = Story.parse("update-commit/20:weak-bits@1~0/stored>run/flipped>run")
    assert replayed(bugs.marginal_record_trusted, story) is Kind.COMMIT_LOST
    assert not explore(MosLoader, "update-commit").findings


def test_the_older_records_are_not_erased_on_the_strength_of_a_marginal_one() -> None:
    """Found at five cuts: the area of the older records was erased, then the newest read as bad."""
    story = Story.parse(
        "snapshot/12:weak-bits@1~0/stored>2:weak-bits@0~0/flipped>2:weak-bits@1~0"
        "/stored>0:prefix@0.02~0/stored>1:prefix@0.5~0/flipped>run"
    )
    assert replayed(bugs.newest_not_made_firm, story) is Kind.MARGINAL_IMAGE
