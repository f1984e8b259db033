"""A loader and a scenario as a user would write them."""

import struct

from bootloader_model.protocol import BootTarget, LoaderHardware
from campaign.images import OLD
from campaign.scenario import Boot, Scenario, steady

IDLE = Scenario("idle", "Nothing but a boot", (steady("boot", Boot(), OLD),))
NO_SCENARIO = "idle"


class FirstSlot:
    """Starts slot 0, whatever is there."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        """Take the stack pointer and the reset vector from the image."""
        hardware.start_watchdog(10)
        head = hardware.internal_flash.read(0x10000, 8)
        return BootTarget(0x08010000, *struct.unpack("<II", head))
