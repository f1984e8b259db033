"""No power cut bricks a doorbell."""

from doorbell_life import NIGHT

from otasim.pytest_plugin.campaigns import Campaign


def test_no_power_cut_bricks_it(campaign: Campaign) -> None:
    campaign("update-commit")


def test_nor_does_one_at_night(campaign: Campaign) -> None:
    result = campaign(NIGHT)
    assert result.reasons["roll-back"] > 0
