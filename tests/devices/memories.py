"""The cells of the board's two flashes as the factory leaves them, on a clock of the test's."""

from platforms.clock import Clock
from platforms.devices import stm32f405_flash, w25q32jv
from platforms.devices.flash_memory import FlashMemory, FlashOperation


def nor_memory(clock: Clock) -> FlashMemory:
    return FlashMemory(
        "nor",
        w25q32jv.GEOMETRY,
        clock,
        bytearray(b"\xff" * w25q32jv.SIZE),
        status_cells=bytearray(w25q32jv.FACTORY_STATUS),
    )


def internal_memory(clock: Clock) -> FlashMemory:
    return FlashMemory(
        "internal",
        stm32f405_flash.GEOMETRY,
        clock,
        bytearray(b"\xff" * stm32f405_flash.SIZE),
        status_cells=bytearray(stm32f405_flash.FACTORY_OPTIONS),
    )


def operations_of(memory: FlashMemory) -> list[FlashOperation]:
    """A list to which every operation from now on is added."""
    operations: list[FlashOperation] = []
    memory.on_operation.append(operations.append)
    return operations
