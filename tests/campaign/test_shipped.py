"""The shipped loader in every scenario, and when a campaign comes to its end."""

import pytest

from bootloader_model.boot_state import BootState
from bootloader_model.decision import Reason
from bootloader_model.loader import MosLoader
from campaign import cells, work
from campaign.cells import Contents, Operation, Region, Tear
from campaign.expand import Life, Plan, Settings
from campaign.explore import Explorer, LikenessError, Result
from campaign.golden import run_golden
from campaign.images import OLD
from campaign.normal_form import NormalForms
from campaign.processor import WholeBoard
from campaign.real import MismatchError
from campaign.scenario import SCENARIOS, Boot, Call, Scenario, steady
from campaign.story import Story
from otasim.campaigns import find_scenario
from platforms.devices.flash_memory import OperationKind
from platforms.devices.reset_cause import ResetCause

ONE_RECORD = Scenario(
    "one-record",
    "The application writes one record",
    (
        steady("reset", Boot(ResetCause.PIN), OLD),
        steady("write", Call("OTA.SetBootState", {"commit_timeout": 60}), OLD),
    ),
)


def explore_all(scenario: Scenario, settings: Settings) -> Result:
    return Explorer(Plan(scenario, MosLoader, settings)).run()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
def test_no_single_cut_does_harm(scenario: Scenario) -> None:
    result = explore_all(scenario, Settings(depth=1, check_every=150))
    assert not result.findings
    assert result.checked >= 1
    assert result.boots >= result.states > result.operations
    assert set(result.reasons) <= {reason.value for reason in Reason}
    assert not result.is_closed


def test_the_journal_scenario_fills_more_than_both_areas() -> None:
    golden = run_golden(find_scenario("journal-wrap"), MosLoader)
    journal = [
        traced.operation
        for step in golden.steps
        for traced in step.trace
        if traced.operation.flash.value == "nor" and traced.operation.address < 0x4000
    ]
    records = [operation for operation in journal if operation.kind is OperationKind.PROGRAM]
    erased = {o.address & 0x2000 for o in journal if o.kind is OperationKind.ERASE}
    assert len(records) > 64
    assert erased == {0x0000, 0x2000}


def test_a_campaign_is_repeatable() -> None:
    results = [explore_all(ONE_RECORD, Settings(depth=2, seed=5)) for _ in range(2)]
    for result in results:
        result.seconds = 0
    assert results[0] == results[1]
    assert results[0].deepest == 2


def test_what_is_computed_wrongly_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Region.torn

    def wrong(region: Region, operation: Operation, tear: Tear) -> Region:
        return right(region, operation, Tear(tear.shape, tear.progress, tear.seed + 1))

    monkeypatch.setattr(Region, "torn", wrong)
    monkeypatch.setattr(cells, "_all_torn", cells._all_torn.__wrapped__)
    with pytest.raises(MismatchError, match="computed"):
        explore_all(ONE_RECORD, Settings(depth=1, check_every=1))


def test_states_that_are_not_alike_are_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_form(_forms: NormalForms, contents: Contents) -> bytes:
        return bytes([contents.is_weak])

    def no_check(_life: Life, _story: Story, _board: WholeBoard | None) -> None:
        """Slow, and not the point."""

    monkeypatch.setattr(NormalForms, "of", one_form)
    monkeypatch.setattr(work, "check_for_real", no_check)
    scenario = find_scenario("update-watchdog")
    with pytest.raises(LikenessError, match="normal form"):
        explore_all(scenario, Settings(depth=None, check_every=7))


def test_closure_is_reached_where_a_boot_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # As the loader was: without the copy of the newest record there is nothing more to cut.
    def nothing(_run: object, _state: BootState) -> None:
        return

    monkeypatch.setattr("bootloader_model.loader._BootRun._make_firm", nothing)
    result = explore_all(ONE_RECORD, Settings(depth=None, check_every=20))
    assert result.is_closed
    assert not result.findings
