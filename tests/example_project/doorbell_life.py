"""A scenario of the doorbell's own, beside those that come with otasim."""

from campaign.images import NEW, OLD
from campaign.scenario import Boot, Scenario, roll_back, steady, take_update
from platforms.devices.reset_cause import ResetCause

NIGHT = Scenario(
    "night",
    "An update arrives at night, and somebody pulls the plug before it is committed",
    (
        steady("power-on", Boot(ResetCause.POWER_ON), OLD),
        *take_update(NEW, OLD),
        *roll_back(NEW, OLD, ResetCause.POWER_ON),
    ),
)
