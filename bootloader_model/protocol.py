"""What a boot loader is, to the board; and what the board is, to a boot loader.

Bring your own: write a class with a method `boot` as below and name it `package.module:Class`
wherever a board is made. It is made once, without arguments, and called at every reset:

    class FirstSlotLoader:
        def boot(self, hardware: LoaderHardware) -> BootTarget:
            hardware.start_watchdog(10)
            head = hardware.internal_flash.read(0x10000, 8)
            stack_pointer, program_counter = struct.unpack("<II", head)
            return BootTarget(0x08010000, stack_pointer, program_counter)

A loader runs while the processor is held. Like real code it loses control at the very point where a
reset or a power cut comes: an exception that is not the loader's to catch passes through it out of
whatever call it is in. All it may remember from one boot to the next is what it has written to
flash.
"""

from dataclasses import dataclass
from typing import Protocol

from platforms.devices.reset_cause import ResetCause
from platforms.flash import FlashDevice


@dataclass(frozen=True, slots=True)
class BootTarget:
    """Where the processor starts.

    Attributes:
        vector_table: its address, for VTOR.
        stack_pointer: initial value of the main stack pointer.
        program_counter: the reset vector, with bit 0 set (Thumb).
    """

    vector_table: int
    stack_pointer: int
    program_counter: int


class LoaderHardware(Protocol):
    """The board, as far as a boot loader needs it. All of it happens in virtual time."""

    @property
    def nor(self) -> FlashDevice:
        """The SPI NOR flash."""
        ...

    @property
    def internal_flash(self) -> FlashDevice:
        """The internal flash; its address 0 is where the processor sees 0x08000000."""
        ...

    @property
    def reset_cause(self) -> ResetCause:
        """What led to this boot."""
        ...

    def start_watchdog(self, timeout_s: float) -> None:
        """Start the independent watchdog. Nothing but a reset stops it again."""
        ...

    def feed_watchdog(self) -> None:
        """Give the watchdog its full time again."""
        ...

    def log(self, text: str) -> None:
        r"""Send text to the console as it is: lines end where the text has `\n`."""
        ...

    def wait(self, duration_ns: int) -> None:
        """Let virtual time pass, in nanoseconds."""
        ...

    def record_decision(self, reason: str, **details: int | str) -> None:
        """Put a decision on record, for the trace; costs no time."""
        ...


class Loader(Protocol):
    """A boot loader."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        """Decide what to start, prepare it, and say where the processor begins.

        Called once for each reset.
        """
        ...
