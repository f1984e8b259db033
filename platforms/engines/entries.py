"""What the entries of a platform file may be, for every engine.

An engine that builds itself from a description checks it here first, so that a mistake reads the
same whatever engine runs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from platforms.description import (
    AttributeValue,
    BoardDescription,
    Entry,
    Registration,
)
from platforms.devices.interrupt_controller import INTERRUPT_LINES, PRIORITY_MASK
from platforms.engines.address_map import SIGNATURE_PAGE
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
LARGEST_MEMORY = 0x400_0000  # 64 MB, a bank of the STM32F4's memory controller; RM0090 36.4
# Start and end of what the processor takes for peripherals and for its own; ARMv7-M ARM B3.1.
PERIPHERAL_REGION = (0x4000_0000, 0x6000_0000)
PRIVATE_REGION = (0xE000_0000, 0xE010_0000)
MODELLED_REGIONS = (
    (SIGNATURE_PAGE, SIGNATURE_PAGE + PAGE),
    PERIPHERAL_REGION,
    PRIVATE_REGION,
)
"""Where models may answer, and an address without one is an error that names it; ascending."""
_NO_MEMORY = (*MODELLED_REGIONS[:2], (PRIVATE_REGION[0], 1 << 32))
CONTROLLER_ADDRESS = 0xE000_E000
_PERIPHERAL_SIZE, _CONTROLLER_SIZE = 0x400, 0x1000
_BUS = "sysbus"
_PROCESSOR_TYPE = "cortex-m4f"
_REGISTER = range(1 << 32)

Allowed = range | tuple[AttributeValue, ...]
"""Values that an attribute may have: numbers from a range, or one of a few."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What an entry of one type may say.

    Attributes:
        required: attributes that must be there.
        optional: attributes that may be there.
        outputs: interrupt outputs that may be wired, "" for the default one.
        sized: whether its place on the bus needs a size with it.
    """

    required: Mapping[str, Allowed] = field(default_factory=dict)
    optional: Mapping[str, Allowed] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    sized: bool = False


# "nvic" of the processor is checked where the controller's name is known.
_KINDS: Mapping[str, _Kind] = {
    PROCESSOR: _Kind({"cpuType": (_PROCESSOR_TYPE,), "PerformanceInMips": range(1, 1001)}),
    CONTROLLER: _Kind(
        {"priorityMask": (PRIORITY_MASK,), "systickFrequency": range(1, 1_000_000_001)},
        outputs=("IRQ",),
    ),
    MEMORY: _Kind({"size": range(PAGE, LARGEST_MEMORY + 1, PAGE)}),
    UART: _Kind(outputs=("", "IRQ"), sized=True),
    SPI: _Kind(outputs=("IRQ",)),
    GPIO: _Kind(
        optional={"modeResetValue": _REGISTER, "pullUpPullDownResetValue": _REGISTER}, sized=True
    ),
}


def check(description: BoardDescription, models: BoardModels) -> None:
    """DescriptionError for a type, attribute, place or wiring that no board here can have."""
    for entry in description.entries:
        if entry.type not in SUPPORTED_TYPES:
            raise entry.error(
                f"type {entry.type} is not known here: expected one of {', '.join(SUPPORTED_TYPES)}"
            )
    processor, controller = description.only(PROCESSOR), description.only(CONTROLLER)
    for entry in description.entries:
        _check_attributes(entry, {"nvic": (controller.name,)} if entry is processor else {})
        _check_places(entry)
    _check_flash(description, models)
    _check_overlaps(description, models)
    _check_interrupts(description, processor, controller)
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


def _check_attributes(entry: Entry, more: Mapping[str, Allowed]) -> None:
    kind = _KINDS[entry.type]
    required = {**kind.required, **more}
    allowed = {**required, **kind.optional}
    for name, expected in required.items():
        if name not in entry.attributes:
            raise entry.error(f"has no {name!r}: expected {_words(expected)}")
    for name, value in entry.attributes.items():
        if name not in allowed:
            known = ", ".join(allowed) or "none at all"
            raise entry.error(f"attribute {name!r} is not known here: expected {known}")
        values = allowed[name]
        # True is 1 in Python, and no number in a platform file.
        if value not in values or type(value) not in {type(one) for one in values[:1]}:
            raise entry.error(f"{name!r} is {_word(value)}: expected {_words(values)}")


def _words(values: Allowed) -> str:
    if isinstance(values, tuple):
        return " or ".join(map(_word, values))
    step = f" in steps of {_word(values.step)}" if values.step != 1 else ""
    return f"a number from {_word(values[0])} to {_word(values[-1])}{step}"


def _word(value: AttributeValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"0x{value:x}" if isinstance(value, int) and value >= PAGE else repr(value)


def _check_places(entry: Entry) -> None:
    for place in entry.registrations:
        if place.parent != _BUS:
            raise entry.error(f"is attached to {place.parent!r}: expected {_BUS}")
    if entry.type == PROCESSOR:
        if entry.registrations != (Registration(_BUS),):
            raise entry.error(f"expected '@ {_BUS}' without an address: a processor has none")
        return
    if entry.type != MEMORY and len(entry.registrations) != 1:
        raise entry.error("is at several places: only a memory can be")
    for place in entry.registrations:
        _check_place(entry, place)


def _check_place(entry: Entry, place: Registration) -> None:
    if place.address is None:
        raise entry.error(f"has no address: expected '@ {_BUS} 0x...'")
    start, end = place.address, place.address + size_of(entry, place)
    if end > 1 << 32:
        raise entry.error(f"ends at 0x{end - 1:x}, behind the last address 0xffffffff")
    if entry.type == MEMORY:
        if place.size is not None:
            raise entry.error("the size of a memory is its attribute 'size', not part of its place")
        if start % PAGE:
            raise entry.error(f"memories lie on 0x{PAGE:x} bounds: 0x{start:08x} is none")
        for first, last in _NO_MEMORY:
            if start < last and first < end:
                raise entry.error(f"0x{first:08x} to 0x{last - 1:08x} is for peripherals only")
    elif entry.type == CONTROLLER:
        if start != CONTROLLER_ADDRESS or place.size not in (None, _CONTROLLER_SIZE):
            raise entry.error(f"is part of the processor: expected 0x{CONTROLLER_ADDRESS:08X}")
    else:
        if (place.size is None and _KINDS[entry.type].sized) or end - start != _PERIPHERAL_SIZE:
            raise entry.error(f"expected '@ {_BUS} <0x{start:08X}, +0x{_PERIPHERAL_SIZE:x}>'")
        if start % _PERIPHERAL_SIZE or start < PERIPHERAL_REGION[0] or end > PERIPHERAL_REGION[1]:
            raise entry.error(
                f"peripherals lie on 0x{_PERIPHERAL_SIZE:x} bounds from "
                f"0x{PERIPHERAL_REGION[0]:08x} to 0x{PERIPHERAL_REGION[1] - 1:08x}: "
                f"0x{start:08x} does not"
            )


def _check_flash(description: BoardDescription, models: BoardModels) -> None:
    flash = description.named(models.flash.memory)
    if flash.type != MEMORY:
        raise flash.error(f"the internal flash needs a {MEMORY} of this name")
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


def _check_interrupts(description: BoardDescription, processor: Entry, controller: Entry) -> None:
    wired: dict[int, str] = {}
    for entry in description.entries:
        outputs = _KINDS[entry.type].outputs
        for connection in entry.connections:
            if connection.source not in outputs:
                expected = " or ".join(f"{output} ->".strip() for output in outputs)
                raise entry.error(
                    f"interrupt output {connection.source or 'default'!r} is not known here: "
                    f"expected {expected or 'none'}"
                )
            if entry is controller:
                continue
            if connection.target != controller.name:
                raise entry.error(
                    f"is wired to {connection.target!r}: expected {controller.name!r}"
                )
            if connection.line >= INTERRUPT_LINES:
                raise entry.error(
                    f"interrupt line {connection.line} does not exist: there are {INTERRUPT_LINES}"
                )
            if connection.line in wired:
                raise entry.error(
                    f"interrupt line {connection.line} is {wired[connection.line]!r}'s already"
                )
            wired[connection.line] = entry.name
        if len(entry.connections) > 1:
            raise entry.error("its interrupt is wired twice: keep one of the lines")
    wires = [(wire.target, wire.line) for wire in controller.connections]
    if wires != [(processor.name, 0)]:
        raise controller.error(f"expected 'IRQ -> {processor.name}@0'")


def _check_wiring(description: BoardDescription, models: BoardModels) -> None:
    wanted = [(models.console, UART, "the console")]
    for chip in models.spi:
        wanted += [(chip.controller, SPI, "the flash chip"), (chip.port, GPIO, "its chip select")]
    for name, type_name, what in wanted:
        if description.named(name).type != type_name:
            raise description.named(name).error(f"{what} needs a {type_name} called {name!r}")
