"""What the entries of a platform file may be, for every engine.

An engine that builds itself from a description checks it here first, so that a mistake reads the
same whatever engine runs.
"""

from collections.abc import Iterator

from platforms.description import BoardDescription, DescriptionError, Entry, Registration
from platforms.devices.interrupt_controller import INTERRUPT_LINES
from platforms.engines.protocol import BoardModels

PROCESSOR, CONTROLLER = "CPU.CortexM", "IRQControllers.NVIC"
MEMORY, UART, SPI, GPIO = (
    "Memory.MappedMemory",
    "UART.STM32_UART",
    "SPI.STM32SPI",
    "GPIOPort.STM32_GPIOPort",
)
SUPPORTED_TYPES = (PROCESSOR, CONTROLLER, MEMORY, UART, SPI, GPIO)

PAGE = 0x1000  # memories lie on bounds of pages of this size
# Start and end of what the processor takes for peripherals and for its own; ARMv7-M ARM B3.1.
PERIPHERAL_REGION = (0x4000_0000, 0x6000_0000)
PRIVATE_REGION = (0xE000_0000, 0xE010_0000)
_PERIPHERAL_SIZE, _CONTROLLER_SIZE = 0x400, 0x1000


def check(description: BoardDescription, models: BoardModels) -> None:
    """DescriptionError for a type, a size, a place or a wiring that no board here can have."""
    for entry in description.entries:
        if entry.type not in SUPPORTED_TYPES:
            raise entry.error(
                f"type {entry.type} is not known here: expected one of {', '.join(SUPPORTED_TYPES)}"
            )
        for connection in entry.connections:
            if entry.type == GPIO:
                raise entry.error("interrupts from GPIO pins are not known here")
            if entry.type != CONTROLLER and connection.line >= INTERRUPT_LINES:
                raise entry.error(
                    f"interrupt line {connection.line} does not exist: there are {INTERRUPT_LINES}"
                )
    description.only(PROCESSOR).number("PerformanceInMips")
    description.only(CONTROLLER).number("systickFrequency")
    _check_memories(description, models)
    _check_overlaps(description, models)
    _check_wiring(description, models)


def size_of(entry: Entry, place: Registration) -> int:
    """How many bytes of the bus an entry takes at one of its places."""
    if entry.type == MEMORY:
        return entry.number("size")
    return place.size or (_CONTROLLER_SIZE if entry.type == CONTROLLER else _PERIPHERAL_SIZE)


def ranges(description: BoardDescription) -> Iterator[tuple[int, int, Entry]]:
    """The ranges of the bus that the entries take: start, end, entry."""
    for entry in description.entries:
        for place in entry.registrations:
            if place.address is not None:
                yield place.address, place.address + size_of(entry, place), entry


def _check_memories(description: BoardDescription, models: BoardModels) -> None:
    for entry in description.of_type(MEMORY):
        size = entry.number("size")
        addresses = [place.address or 0 for place in entry.registrations]
        if size <= 0 or size % PAGE or any(address % PAGE for address in addresses):
            raise entry.error(f"memories lie on 0x{PAGE:x} bounds: size 0x{size:x} does not")
        for start, end in (PERIPHERAL_REGION, PRIVATE_REGION):
            if any(address < end and start < address + size for address in addresses):
                raise entry.error(f"0x{start:08x} to 0x{end - 1:08x} is for peripherals only")
    flash = description.named(models.flash.memory)
    if flash.number("size") != len(models.flash.cells):
        raise flash.error(
            f"has 0x{flash.number('size'):x} bytes, but its model has "
            f"0x{len(models.flash.cells):x}: keep the model's size"
        )


def _check_overlaps(description: BoardDescription, models: BoardModels) -> None:
    taken = [
        (model.address, model.address + model.size, f"{model.peripheral.name} (a model)")
        for model in models.bus
    ]
    for start, end, entry in ranges(description):
        for first, last, name in taken:
            if start < last and first < end:
                raise entry.error(f"overlaps {name} at 0x{max(start, first):08x}: move one of them")
        taken.append((start, end, entry.name))


def _check_wiring(description: BoardDescription, models: BoardModels) -> None:
    wanted = [(models.console, UART, "the console")]
    for chip in models.spi:
        wanted += [(chip.controller, SPI, "the flash chip"), (chip.port, GPIO, "its chip select")]
    for name, type_name, what in wanted:
        if description.named(name).type != type_name:
            raise DescriptionError(
                f"{what} needs a {type_name} called {name!r}",
                path=description.path,
                line=description.named(name).line,
                entry=name,
            )
