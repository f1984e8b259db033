"""A boot loader as a user would write it."""

import struct

from bootloader_model.protocol import BootTarget, LoaderHardware


class FirstSlotLoader:
    """Starts slot 0, whatever is there."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        """Take the stack pointer and the reset vector from the image."""
        hardware.start_watchdog(10)
        stack_pointer, program_counter = struct.unpack(
            "<II", hardware.internal_flash.read(0x10000, 8)
        )
        return BootTarget(0x08010000, stack_pointer, program_counter)
