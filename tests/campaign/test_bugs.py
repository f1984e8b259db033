"""Every seeded bug is caught, and by its own reason; what the shipped loader had is kept here."""

import re

import pytest

from bootloader_model.layout import DEFAULT_LAYOUT
from bootloader_model.loader import MosLoader
from campaign.boot import BootRun, LoaderFactory
from campaign.check import states_of
from campaign.expand import Life, Plan, Settings
from campaign.explore import Explorer, Finding, Result
from campaign.judge import Kind
from campaign.scenario import Scenario
from campaign.story import Story
from tests.campaign import bugs
from tests.campaign.seeded import BUGS, KNOWN, Evidence, SeededBug

LIVES = sorted({(bug.scenario, bug.depth) for bug in BUGS})


def explore(loader: LoaderFactory, scenario: Scenario, depth: int = 1) -> Result:
    return Explorer(Plan(scenario, loader, Settings(depth, check_every=0))).run()


def replayed(life: Life, story: Story) -> tuple[Kind | None, BootRun]:
    """What the last boot of a story comes to, and that boot."""
    *_, (state, _, boot), _ = states_of(life, story)
    assert boot is not None
    problem = life.judge(life.expectation(state), boot).problem
    return None if problem is None else problem.kind, boot


def life_of(scenario: str, loader: LoaderFactory) -> Life:
    return Life(Plan(KNOWN[scenario], loader, Settings()))


def evidence(bug: SeededBug, finding: Finding) -> Evidence:
    """What a finding tells, when its story is lived again."""
    story, kind = finding.story, finding.problem.kind
    assert Story.parse(story.identifier) == story
    life = life_of(bug.scenario, bug.loader)
    boot, cut = life.golden.failed_boot, ""
    if story.cut is not None:
        assert 1 <= story.cuts <= bug.depth
        last, boot = replayed(life, story)
        # Whether the board takes an update is found out behind the last boot.
        assert last is (None if kind is Kind.CANNOT_UPDATE else kind)
        step = life.golden.find(story.cut)
        assert step is not None
        operation = step.trace[story.cut.operation - step.first_operation].operation
        places = [
            place.name
            for place in DEFAULT_LAYOUT.partitions.values()
            if place.flash is operation.flash
            and place.offset <= operation.address < place.offset + place.size
        ]
        cut = f"{operation.kind.value} {places[0]}"
    log = "" if boot is None else boot.log
    return Evidence(kind, finding.step, cut, f"{finding.problem.text}\n{log}")


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_seeded_bug_is_caught_by_its_own_reason(bug: SeededBug) -> None:
    with bug.application():
        findings = explore(bug.loader, KNOWN[bug.scenario], bug.depth).findings
        found = {each.problem.kind: each for each in findings}
        assert bug.caught.kind in found
        told = evidence(bug, found[bug.caught.kind])
    assert [other.name for other in BUGS if other.caught.fits(told)] == [bug.name], told


@pytest.mark.parametrize(("scenario", "depth"), LIVES)
def test_without_the_bug_there_is_nothing_to_find(scenario: str, depth: int) -> None:
    assert not explore(MosLoader, KNOWN[scenario], depth).findings


def test_every_bug_says_what_it_is_and_what_it_resembles() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 50
    assert all(bug.rule.__doc__ for bug in BUGS)
    threads = [bug.resembles for bug in BUGS if bug.resembles is not None]
    assert len(set(threads)) == len(threads) >= 40
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", thread.number) for thread in threads)


def test_an_update_that_ran_as_committed_stays_though_its_record_was_marginal() -> None:
    """Found by the first campaign: the record read as good once, and then no more."""
    story = Story.parse("update-commit/20:weak-bits@1~0/stored>run/flipped>run")
    life = life_of(story.scenario, bugs.marginal_record_trusted)
    assert replayed(life, story)[0] is Kind.COMMIT_LOST


def test_the_older_records_are_not_erased_on_the_strength_of_a_marginal_one() -> None:
    """Found at five cuts: the area of the older records was erased, then the newest read as bad."""
    story = Story.parse(
        "snapshot/12:weak-bits@1~0/stored>2:weak-bits@0~0/flipped>2:weak-bits@1~0"
        "/stored>0:prefix@0.02~0/stored>1:prefix@0.5~0/flipped>run"
    )
    life = life_of(story.scenario, bugs.newest_not_made_firm)
    assert replayed(life, story)[0] is Kind.MARGINAL_IMAGE
