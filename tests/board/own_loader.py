"""A boot loader as a user would write it."""

import struct

from bootloader_model.protocol import BootTarget, LoaderHardware


class FirstSlotLoader:
    """Starts slot 0, whatever is there."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        """Take the stack pointer and the reset vector from the image."""
        hardware.start_watchdog(10)
        return start(hardware)


class NoWatchdogLoader:
    """The same without a watchdog."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        """Start slot 0."""
        return start(hardware)


def start(hardware: LoaderHardware) -> BootTarget:
    """Slot 0 as it is."""
    head = hardware.internal_flash.read(0x10000, 8)
    stack_pointer, program_counter = struct.unpack("<II", head)
    return BootTarget(0x08010000, stack_pointer, program_counter)
