"""Builds what the embedded engine needs from the platform file and the board's Python models."""

from collections.abc import Callable
from dataclasses import dataclass

from platforms.description import BoardDescription, DescriptionError, Entry
from platforms.devices.gpio import MODER, PUPDR, GpioPort
from platforms.devices.interrupt_controller import INTERRUPT_LINES, InterruptController
from platforms.devices.peripheral import BusPeripheral
from platforms.devices.spi import SpiMaster
from platforms.devices.usart import Usart
from platforms.engines.bus import PeripheralBus
from platforms.engines.protocol import BoardModels, BusModel

PAGE = 0x1000  # Unicorn maps memory in pages of this size
DEFAULT_PERIPHERAL_SIZE = 0x400

PROCESSOR, CONTROLLER = "CPU.CortexM", "IRQControllers.NVIC"
MEMORY, UART, SPI, GPIO = (
    "Memory.MappedMemory",
    "UART.STM32_UART",
    "SPI.STM32SPI",
    "GPIOPort.STM32_GPIOPort",
)
SUPPORTED_TYPES = (PROCESSOR, CONTROLLER, MEMORY, UART, SPI, GPIO)


@dataclass(frozen=True, slots=True)
class Memory:
    """Cells that appear at one or more addresses."""

    name: str
    addresses: tuple[int, ...]
    cells: memoryview
    is_flash: bool


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of one board.

    Attributes:
        bus: every peripheral at its address.
        owned: the peripherals this engine made, which its reset resets.
        memories: all memories, the internal flash among them.
        console: the UART that is the board's console.
        instructions_per_us: the processor's speed in virtual time.
        system_timer_hz: the frequency SysTick counts.
    """

    bus: PeripheralBus
    owned: tuple[BusPeripheral, ...]
    memories: tuple[Memory, ...]
    console: Usart
    instructions_per_us: int
    system_timer_hz: int


def assemble(
    description: BoardDescription, models: BoardModels, interrupts: InterruptController
) -> Assembly:
    """Make every entry of `description` and wire the Python models to them.

    Raises DescriptionError for a type, a size or a wiring that this engine does not know, and
    EngineError for peripherals that overlap.
    """
    for entry in description.entries:
        if entry.type not in SUPPORTED_TYPES:
            raise entry.error(
                f"type {entry.type} is not known to the embedded engine, "
                f"which knows {', '.join(SUPPORTED_TYPES)}"
            )
    bus = PeripheralBus()
    usarts = {entry.name: Usart(entry.name) for entry in description.of_type(UART)}
    masters = {entry.name: SpiMaster(entry.name) for entry in description.of_type(SPI)}
    ports = {entry.name: _make_port(entry) for entry in description.of_type(GPIO)}
    owned: dict[str, Usart | SpiMaster | GpioPort] = {**usarts, **masters, **ports}
    for name, peripheral in owned.items():
        entry = description.named(name)
        size = entry.registrations[0].size or DEFAULT_PERIPHERAL_SIZE
        bus.attach(BusModel(entry.address(), size, peripheral))
        for connection in entry.connections:
            if isinstance(peripheral, GpioPort):
                raise entry.error("interrupts from GPIO pins are not known to the embedded engine")
            peripheral.set_interrupt = _interrupt_line(entry, connection.line, interrupts)
    for model in models.bus:
        bus.attach(model)
    for chip in models.spi:
        if chip.controller not in masters:
            raise DescriptionError(
                f"there is no SPI controller {chip.controller!r} for the flash chip",
                path=description.path,
            )
        if chip.port not in ports:
            raise DescriptionError(
                f"there is no GPIO port {chip.port!r} for a chip select", path=description.path
            )
        masters[chip.controller].slave = chip.chip
        ports[chip.port].connect(chip.pin, _active_low(chip.chip.chip_select))
    if models.console not in usarts:
        raise DescriptionError(
            f"there is no UART {models.console!r} for the console", path=description.path
        )
    return Assembly(
        bus=bus,
        owned=tuple(owned.values()),
        memories=_memories(description, models),
        console=usarts[models.console],
        instructions_per_us=description.only(PROCESSOR).number("PerformanceInMips"),
        system_timer_hz=description.only(CONTROLLER).number("systickFrequency"),
    )


def _make_port(entry: Entry) -> GpioPort:
    registers = {"modeResetValue": MODER, "pullUpPullDownResetValue": PUPDR}
    resets = {
        offset: entry.number(name) for name, offset in registers.items() if name in entry.attributes
    }
    return GpioPort(entry.name, resets)


def _interrupt_line(
    entry: Entry, line: int, interrupts: InterruptController
) -> Callable[[bool], None]:
    if line >= INTERRUPT_LINES:
        raise entry.error(f"interrupt line {line} does not exist: there are {INTERRUPT_LINES}")
    return lambda level: interrupts.set_line(line, level)


def _active_low(select: Callable[[bool], None]) -> Callable[[bool], None]:
    return lambda level: select(not level)


def _memories(description: BoardDescription, models: BoardModels) -> tuple[Memory, ...]:
    memories = []
    taken: list[tuple[int, int, str]] = []
    for entry in description.of_type(MEMORY):
        size = entry.number("size")
        addresses = tuple(
            place.address for place in entry.registrations if place.address is not None
        )
        if size <= 0 or size % PAGE or any(address % PAGE for address in addresses):
            raise entry.error(f"memories lie on 0x{PAGE:x} bounds: size 0x{size:x} does not")
        for address in addresses:
            for start, end, name in taken:
                if address < end and start < address + size:
                    raise entry.error(f"overlaps {name!r} at 0x{max(address, start):08x}")
            taken.append((address, address + size, entry.name))
        is_flash = entry.name == models.flash.memory
        cells = models.flash.cells if is_flash else memoryview(bytearray(size))
        if len(cells) != size:
            raise entry.error(f"has 0x{size:x} bytes, but its model has 0x{len(cells):x}")
        memories.append(Memory(entry.name, addresses, cells, is_flash))
    description.named(models.flash.memory)
    return tuple(memories)
