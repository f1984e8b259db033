"""The flash memories of a board made for campaigns: operations are kept as data.

The devices split their work into the same operations as the real drivers do; the campaign compares
both (`campaign.real`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NoReturn

from bootloader_model.layout import FlashName
from campaign.cells import Contents, Operation, Reading, duration_ns, erased, sectors_of
from platforms.devices import stm32f405_flash, w25q32jv
from platforms.devices.flash_memory import BitSource, OperationKind
from platforms.flash import FlashError, FlashGeometry

_WORD = 4


@dataclass(frozen=True, slots=True)
class Traced:
    """An operation of a trace, and the contents when it began."""

    operation: Operation
    contents: Contents


def erased_sectors(trace: Iterable[Traced]) -> Iterator[tuple[str, int]]:
    """Name of the memory and address of each sector, every time that it is erased."""
    for traced in trace:
        operation = traced.operation
        if operation.kind is OperationKind.ERASE:
            for sector in sectors_of(operation):
                yield operation.flash.value, sector


class FlashPair:
    """Both flash memories of a board, with a driver for each, and the trace of what they did.

    Attributes:
        contents: what they hold now.
        trace: the operations so far.
        before_operation: called before an operation begins; raising there is a power cut before it,
            and contents that it damages are those that the operation meets.
        hangs: the NOR flash stays busy: no call of its driver comes to an end any more.
        on_read: called before each reading.
        on_change: called before each program and erase.
        on_time: called behind each operation with the time that it takes, in virtual ns.
    """

    def __init__(
        self, contents: Contents, reading: Reading = Reading.STORED, seed: int = 0
    ) -> None:
        self.contents = contents
        self.trace: list[Traced] = []
        self.before_operation: Callable[[Operation], None] | None = None
        self.on_read: Callable[[], None] | None = None
        self.on_change: Callable[[], None] | None = None
        self.on_time: Callable[[int], None] | None = None
        self.hangs = False
        self.nor = NorDevice(self, reading.bits(seed))
        self.internal = InternalDevice(self, reading.bits(seed))

    def hang(self, operation: Operation) -> NoReturn:
        """Let an operation of the NOR flash never end: FlashError, as from its driver."""
        self.hangs = True
        raise self.nor.still_busy(operation.address, len(operation.data))

    def perform(
        self, flash: FlashName, kind: OperationKind, address: int, data: bytes, access_size: int
    ) -> None:
        """One operation of a chip; for an erase `data` is zeros."""
        before = self.contents
        operation, after = before.perform(flash, kind, address, data, access_size)
        if self.before_operation is not None:
            self.before_operation(operation)
            if self.contents is not before:
                before = self.contents
                operation, after = before.perform(flash, kind, address, data, access_size)
        self.trace.append(Traced(operation, before))
        self.contents = after
        if self.on_time is not None:
            self.on_time(duration_ns(operation))


@cache
def _zeros(length: int) -> bytes:
    """What an erase drives: every bit. The same object each time, whose hash is known."""
    return bytes(length)


class _Device:
    """What both drivers have in common; see `platforms.flash.FlashDevice`."""

    flash: FlashName
    geometry: FlashGeometry

    def __init__(self, pair: FlashPair, bits: BitSource) -> None:
        self._pair = pair
        self._bits = bits

    @property
    def name(self) -> str:
        """What the device is called."""
        return self.flash.value

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address`; FlashError when that is outside the device."""
        self._begin(address, length, self._pair.on_read)
        if length == 0:
            return b""
        return self._pair.contents.of(self.flash).read(address, length, self._bits)

    def _begin(self, address: int, length: int, call: Callable[[], None] | None) -> None:
        if call is not None:
            call()
        if self._pair.hangs and self.flash is FlashName.NOR:
            raise self.still_busy(address, length)
        size = self.geometry.size
        if address < 0 or length < 0 or address + length > size:
            raise self._error(f"outside the device, which has 0x{size:x} bytes", address, length)

    def still_busy(self, address: int, length: int) -> FlashError:
        """What the driver says when the chip does not come to an end."""
        return self._error("still busy when the driver gives up", address, length)

    def _error(self, message: str, address: int, length: int) -> FlashError:
        return FlashError(message, device=self.name, address=address, length=length)


class NorDevice(_Device):
    """The SPI NOR flash as its driver offers it: pages of 256 bytes, the largest fitting erases."""

    flash = FlashName.NOR
    geometry = w25q32jv.GEOMETRY
    _erase_sizes = sorted((erase.size for erase in w25q32jv.ERASE_TYPES), reverse=True)

    def program(self, address: int, data: bytes) -> None:
        """Clear bits, page by page."""
        self._begin(address, len(data), self._pair.on_change)
        position = 0
        while position < len(data):
            start = address + position
            room = w25q32jv.PAGE_SIZE - start % w25q32jv.PAGE_SIZE
            page = bytes(data[position : position + room])
            self._pair.perform(self.flash, OperationKind.PROGRAM, start, page, len(page))
            position += len(page)

    def erase(self, address: int, length: int) -> None:
        """Set whole sectors to 0xFF; FlashError when the range is not made of sectors."""
        self._begin(address, length, self._pair.on_change)
        if address % w25q32jv.SECTOR_SIZE or length % w25q32jv.SECTOR_SIZE:
            raise self._error("an erase covers whole sectors only", address, length)
        end = address + length
        while address < end:
            size = next(
                size for size in self._erase_sizes if address % size == 0 and address + size <= end
            )
            self._pair.perform(self.flash, OperationKind.ERASE, address, _zeros(size), size)
            address += size


class InternalDevice(_Device):
    """The internal flash as its driver offers it: words in bursts of 1 KB, sector by sector."""

    flash = FlashName.INTERNAL
    geometry = stm32f405_flash.GEOMETRY

    def program(self, address: int, data: bytes) -> None:
        """Clear bits, word by word; an unaligned edge is filled up with 0xFF."""
        self._begin(address, len(data), self._pair.on_change)
        if not data:
            return
        lead = address % _WORD
        start = address - lead
        filled = erased(lead) + bytes(data)
        filled += erased(-len(filled) % _WORD)
        for position in range(0, len(filled), stm32f405_flash.BURST_SIZE):
            burst = filled[position : position + stm32f405_flash.BURST_SIZE]
            self._pair.perform(self.flash, OperationKind.PROGRAM, start + position, burst, _WORD)

    def erase(self, address: int, length: int) -> None:
        """Set whole sectors to 0xFF; FlashError when the range is not made of sectors."""
        self._begin(address, length, self._pair.on_change)
        end = address + length
        sectors = [s for s in self.geometry.sectors if s.address >= address and s.end <= end]
        if sum(sector.size for sector in sectors) != length:
            raise self._error("an erase covers whole sectors only", address, length)
        for sector in sectors:
            self._pair.perform(
                self.flash, OperationKind.ERASE, sector.address, _zeros(sector.size), sector.size
            )
