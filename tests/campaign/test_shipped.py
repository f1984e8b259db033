"""The shipped loader in every scenario, and when a campaign comes to its end."""

import pytest

from bootloader_model.boot_state import BootState
from bootloader_model.decision import Reason
from bootloader_model.loader import MosLoader
from campaign import explore
from campaign.cells import Contents, Operation, Tear
from campaign.explore import Explorer, LikenessError, Settings
from campaign.golden import run_golden
from campaign.images import OLD
from campaign.real import MismatchError
from campaign.scenario import SCENARIOS, Boot, Call, Scenario, steady
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


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
def test_no_single_cut_does_harm(scenario: Scenario) -> None:
    result = Explorer(scenario, MosLoader, Settings(depth=1, check_every=150)).run()
    assert not result.findings
    assert result.checked >= 1
    assert result.boots >= result.states > result.operations
    assert set(result.reasons) <= {reason.value for reason in Reason}
    assert not result.is_closed


def test_the_journal_scenario_fills_more_than_both_areas() -> None:
    golden = run_golden(next(s for s in SCENARIOS if s.name == "journal-wrap"), MosLoader)
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
    results = [Explorer(ONE_RECORD, MosLoader, Settings(depth=2, seed=5)).run() for _ in range(2)]
    for result in results:
        result.seconds = 0
    assert results[0] == results[1]
    assert results[0].deepest == 2


def test_what_is_computed_wrongly_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Contents.torn

    def wrong(contents: Contents, operation: Operation, tear: Tear) -> Contents:
        return right(contents, operation, Tear(tear.shape, tear.progress, tear.seed + 1))

    monkeypatch.setattr(Contents, "torn", wrong)
    with pytest.raises(MismatchError, match="computed"):
        Explorer(ONE_RECORD, MosLoader, Settings(depth=1, check_every=1)).run()


def test_states_that_are_not_alike_are_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_form(contents: Contents, _images: object) -> object:
        return contents.is_weak

    monkeypatch.setattr(explore, "normal_form", one_form)
    monkeypatch.setattr(Explorer, "_check_for_real", lambda *_: None)  # slow, and not the point
    scenario = next(s for s in SCENARIOS if s.name == "update-watchdog")
    with pytest.raises(LikenessError, match="normal form"):
        Explorer(scenario, MosLoader, Settings(depth=None, check_every=7)).run()


def test_closure_is_reached_where_a_boot_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # As the loader was: without the copy of the newest record there is nothing more to cut.
    def nothing(_run: object, _state: BootState) -> None:
        return

    monkeypatch.setattr("bootloader_model.loader._BootRun._make_firm", nothing)
    result = Explorer(ONE_RECORD, MosLoader, Settings(depth=None, check_every=20)).run()
    assert result.is_closed
    assert not result.findings
