"""The seam between the board and what runs its processor.

An engine owns the processor, its memories, its interrupt controller and the peripherals that the
platform file describes. Everything above it speaks this protocol and never asks which engine it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol, runtime_checkable

from platforms.clock import Clock
from platforms.devices.peripheral import BusPeripheral
from platforms.devices.reset_cause import ResetCause
from platforms.devices.spi import SpiSlave
from platforms.errors import OtasimError


class EngineError(OtasimError):
    """The engine cannot go on; the message says where and why."""


class FaultKind(Enum):
    """What kept the processor from going on."""

    UNMAPPED_READ = "read of unmapped memory"
    UNMAPPED_WRITE = "write to unmapped memory"
    UNMAPPED_FETCH = "jump into unmapped memory"
    EXECUTE_NEVER = "jump to an address that never holds code"
    INVALID_STATE = "branch to an even address"
    UNDEFINED_INSTRUCTION = "undefined instruction"
    BREAKPOINT = "BKPT without a debugger"
    INVALID_EXCEPTION_RETURN = "invalid exception return"
    INVALID_VECTOR = "invalid entry in the vector table"
    STACKING = "stack pointer outside RAM at exception entry (stack overflow)"
    UNSTACKING = "stack pointer outside RAM at exception return"
    SUPERVISOR_CALL_BLOCKED = "SVC at a priority that blocks it"


@dataclass(frozen=True, slots=True)
class ProcessorFault:
    """A fault the processor took, as a trace and a person want it.

    Attributes:
        kind: what happened.
        program_counter: where the instruction stands.
        address: the address that was accessed, if the fault has one.
        exception: number of the exception taken (3 HardFault, ...), or None when the processor is
            locked up and waits for a reset.
    """

    kind: FaultKind
    program_counter: int
    address: int | None
    exception: int | None


@dataclass(frozen=True, slots=True)
class BusModel:
    """A Python model on the bus: `peripheral` answers from `address` over `size` bytes."""

    address: int
    size: int
    peripheral: BusPeripheral


@dataclass(frozen=True, slots=True)
class SpiModel:
    """A Python model on an SPI controller, selected by a GPIO pin.

    Attributes:
        chip: the slave.
        controller: name of the controller in the platform file.
        port: name of the GPIO port in the platform file that drives chip select.
        pin: the pin of that port.
    """

    chip: SpiSlave
    controller: str
    port: str
    pin: int


@dataclass(frozen=True, slots=True)
class FlashImage:
    """The internal flash as the processor sees it.

    Attributes:
        memory: name of the memory in the platform file that holds these cells.
        cells: the content, shared with the model that programs and erases it.
        program: called with (offset, data) when firmware stores into the flash.
        programming: whether such a store would change the cells.
        busy_until_ns: when an operation under way ends; the processor stalls until then. NEVER_NS:
            only a reset of the board ends it.
    """

    memory: str
    cells: memoryview
    program: Callable[[int, bytes], None]
    programming: Callable[[], bool]
    busy_until_ns: Callable[[], int]


@dataclass(frozen=True, slots=True)
class BoardModels:
    """The Python models of a board, which every engine wires to its own bus in the same way.

    Attributes:
        bus: the peripherals.
        spi: the chips on SPI controllers.
        flash: the internal flash.
        console: name of the UART in the platform file that is the board's console.
    """

    bus: tuple[BusModel, ...]
    spi: tuple[SpiModel, ...]
    flash: FlashImage
    console: str


@dataclass(slots=True)
class EngineEvents:
    """What an engine reports. The board sets these before the engine first runs.

    Attributes:
        uart_output: bytes that the firmware sent on the console UART.
        reset_requested: the firmware asked for a system reset.
        fault: the processor took a fault or is locked up.
    """

    uart_output: Callable[[bytes], None]
    reset_requested: Callable[[ResetCause], None]
    fault: Callable[[ProcessorFault], None]


class Engine(Protocol):
    """A processor that runs in virtual time."""

    @property
    def name(self) -> str:
        """What the user calls it: `embedded` or `renode`."""
        ...

    @property
    def clock(self) -> Clock:
        """The board's one clock, which this engine moves."""
        ...

    def reset(self) -> None:
        """System reset of processor and engine-owned peripherals; the processor is held then."""
        ...

    def power_lost(self, seed: int) -> None:
        """The supply went away: RAM holds what `seed` makes of it. `reset` follows."""
        ...

    def start(self, *, vector_table: int, stack_pointer: int, program_counter: int) -> None:
        """Release the processor with VTOR, MSP and PC set as a boot loader leaves them."""
        ...

    def run_until(self, deadline_ns: int) -> None:
        """Run until virtual time reaches `deadline_ns` or `stop`. Held: only time passes."""
        ...

    def advance(self, duration_ns: int) -> None:
        """Let virtual time pass with the processor held, from anywhere but an event's action."""
        ...

    def stop(self) -> None:
        """Make `run_until` return as soon as it can; the processor executes nothing more before."""
        ...

    def call_held(self, action: Callable[[], None]) -> None:
        """Run `action` with the processor held where it is; virtual time may be advanced in it.

        Called by a device in the middle of an instruction. An exception of `action` comes out of
        `run_until`.
        """
        ...

    def uart_input(self, data: bytes) -> int:
        """Bytes arrive at the console UART; returns how many it took."""
        ...

    def flash_changed(self, offset: int, length: int) -> None:
        """The cells of the internal flash changed under the processor."""
        ...

    def read_memory(self, address: int, length: int) -> bytes:
        """Memory as a debugger sees it; raises OtasimError where there is none."""
        ...

    def write_memory(self, address: int, data: bytes) -> None:
        """Write RAM as a debugger does; raises OtasimError where there is none."""
        ...

    def registers(self) -> Mapping[str, int]:
        """The processor's registers by name: r0 ... r12, sp, lr, pc, xpsr."""
        ...

    def close(self) -> None:
        """Give back what the engine holds; it is not used afterwards."""
        ...


@runtime_checkable
class DebugTools(Protocol):
    """What an engine offers besides, when it has a monitor and a debugger of its own.

    Attributes:
        attention: called several times a second while a debugger holds the board; what it raises
            comes out of `run_until`.
    """

    attention: Callable[[], None]

    def open_monitor(self, port: int) -> None:
        """Let people talk to the engine's monitor on a TCP port."""
        ...

    def start_gdb_server(self, port: int) -> None:
        """Let a debugger attach on a TCP port."""
        ...

    def log_to(self, path: Path) -> None:
        """Write the engine's own log to a file."""
        ...
