"""The shipped loader in every scenario, and that a campaign says the same each time."""

from collections.abc import Callable

import pytest

from bootloader_model.decision import Reason
from bootloader_model.loader import MosLoader
from campaign.boot import run_boot
from campaign.explore import Explorer, LikenessError, Result, Settings
from campaign.golden import run_golden
from campaign.real import MismatchError
from campaign.scenario import SCENARIOS, Boot, Scenario, keeps, steady
from campaign.images import OLD


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
def test_no_single_cut_does_harm(scenario: Scenario) -> None:
    result = Explorer(scenario, MosLoader, Settings(depth=1, check_every=150)).run()
    assert not result.findings
    assert result.checked >= 1
    assert result.boots >= result.states > result.operations
    assert set(result.reasons) <= {reason.value for reason in Reason}


def test_the_journal_wraps_in_both_directions() -> None:
    golden = run_golden(next(s for s in SCENARIOS if s.name == "journal-wrap"), MosLoader)
    erased = {
        traced.operation.address
        for step in golden.steps
        for traced in step.trace
        if traced.operation.kind.value == "erase" and traced.operation.address < 0x4000
    }
    assert {0x0000, 0x2000} <= erased
    programs = [
        traced
        for step in golden.steps
        for traced in step.trace
        if traced.operation.kind.value == "program" and traced.operation.address < 0x4000
    ]
    assert len(programs) > 64


_POWER_ON = Scenario("power-on", "Nothing but a power-on", (steady("on", Boot(), OLD),))


def test_a_campaign_comes_to_its_end_and_says_so() -> None:
    from platforms.devices.reset_cause import ResetCause

    scenario = Scenario("power-on", "Power-on", (steady("on", Boot(ResetCause.POWER_ON), OLD),))
    result = Explorer(scenario, MosLoader, Settings(depth=None, check_every=100)).run()
    assert result.is_closed
    assert not result.findings
    assert result.deepest > 2
    assert result.likenesses > 0
