"""Wear: which sectors flash operations erase."""

from collections.abc import Iterable, Iterator
from functools import cache

from bootloader_model.layout import FlashName
from campaign.flash import Operation
from platforms.devices import stm32f405_flash, w25q32jv
from platforms.devices.flash_memory import OperationKind
from platforms.flash import FlashGeometry

GEOMETRIES: dict[FlashName, FlashGeometry] = {
    FlashName.INTERNAL: stm32f405_flash.GEOMETRY,
    FlashName.NOR: w25q32jv.GEOMETRY,
}


def erased_sectors(operations: Iterable[Operation]) -> Iterator[tuple[str, int]]:
    """Memory and address of each sector at each of its erases; a block erase wears several."""
    for operation in operations:
        if operation.kind is OperationKind.ERASE:
            yield from _sectors_in(operation.flash, operation.address, len(operation.after))


@cache
def _sectors_in(flash: FlashName, address: int, length: int) -> tuple[tuple[str, int], ...]:
    end = address + length
    sectors = GEOMETRIES[flash].sectors
    return tuple((flash.value, s.address) for s in sectors if address <= s.address < end)
