"""No power cut bricks a doorbell."""

import pytest
from doorbell_life import NIGHT

from otasim.pytest_plugin.campaigns import Campaign


@pytest.mark.parametrize("scenario", ["update-commit", "revert"])
def test_no_power_cut_bricks_it(campaign: Campaign, scenario: str) -> None:
    campaign(scenario)


def test_nor_does_one_at_night(campaign: Campaign) -> None:
    result = campaign(NIGHT)
    assert result.reasons["roll-back"] > 0
