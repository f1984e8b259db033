"""Builds what the embedded engine needs from the platform file and the board's Python models."""

from collections.abc import Callable
from dataclasses import dataclass

from platforms.description import BoardDescription, Entry
from platforms.devices.gpio import MODER, PUPDR, GpioPort
from platforms.devices.interrupt_controller import InterruptController
from platforms.devices.peripheral import BusPeripheral
from platforms.devices.spi import SpiMaster
from platforms.devices.usart import Usart
from platforms.engines.bus import PeripheralBus
from platforms.engines.entries import (
    CONTROLLER,
    GPIO,
    MEMORY,
    PROCESSOR,
    SPI,
    UART,
    check,
    size_of,
)
from platforms.engines.protocol import BoardModels, BusModel


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

    Raises DescriptionError for what no board here can have, see `platforms/engines/entries.py`.
    """
    check(description, models)
    bus = PeripheralBus()
    usarts = {entry.name: Usart(entry.name) for entry in description.of_type(UART)}
    masters = {entry.name: SpiMaster(entry.name) for entry in description.of_type(SPI)}
    ports = {entry.name: _make_port(entry) for entry in description.of_type(GPIO)}
    owned: dict[str, Usart | SpiMaster | GpioPort] = {**usarts, **masters, **ports}
    for name, peripheral in owned.items():
        entry = description.named(name)
        size = size_of(entry, entry.registrations[0])
        bus.attach(BusModel(entry.address(), size, peripheral))
        if isinstance(peripheral, GpioPort):
            continue
        for connection in entry.connections:
            peripheral.set_interrupt = _interrupt_line(connection.line, interrupts)
    for model in models.bus:
        bus.attach(model)
    for chip in models.spi:
        masters[chip.controller].slave = chip.chip
        ports[chip.port].connect(chip.pin, _active_low(chip.chip.chip_select))
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


def _interrupt_line(line: int, interrupts: InterruptController) -> Callable[[bool], None]:
    return lambda level: interrupts.set_line(line, level)


def _active_low(select: Callable[[bool], None]) -> Callable[[bool], None]:
    return lambda level: select(not level)


def _memories(description: BoardDescription, models: BoardModels) -> tuple[Memory, ...]:
    memories = []
    for entry in description.of_type(MEMORY):
        addresses = tuple(
            place.address for place in entry.registrations if place.address is not None
        )
        is_flash = entry.name == models.flash.memory
        cells = models.flash.cells if is_flash else memoryview(bytearray(entry.number("size")))
        memories.append(Memory(entry.name, addresses, cells, is_flash))
    return tuple(memories)
