"""Flash memories made for campaigns: contents that share pages, and operations kept as data.

A campaign looks at hundreds of thousands of flash contents that differ in a page or two. Contents
are immutable here: an operation gives new contents that share all untouched pages with the old.
The physics are those of `platforms.devices.flash_memory`: programming clears bits, erasing sets
them, a torn operation leaves what `platforms.devices.torn` says, marginal bits get firm when they
are driven. The devices split their work into the same operations as the real drivers do; the
campaign compares both (`campaign.real`).
"""

import hashlib
import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache, lru_cache

from bootloader_model.layout import FlashName
from platforms.devices import stm32f405_flash, w25q32jv
from platforms.devices.flash_memory import BitSource, OperationKind
from platforms.devices.torn import TornOutcome, TornShape, torn_series
from platforms.flash import ERASED_BYTE, FlashError, FlashGeometry

PAGE_SIZE = 256
_ERASED_PAGE = bytes([ERASED_BYTE]) * PAGE_SIZE
_WORD = 4
_HASH_SIZE = 16
_TORN_CACHE = 512  # a torn erase of an internal sector holds two times 64 KB


@dataclass(frozen=True, slots=True)
class _Constant:
    """Every marginal bit reads alike: 0 as it is stored, 1 the other way round."""

    bit: int

    def getrandbits(self, _k: int, /) -> int:
        return self.bit


class Reading(Enum):
    """How marginal bits read during one boot; the value is the name in identifiers.

    Silicon may give any sequence. Cells drift together with temperature and supply, so the two
    extremes are the likely ones, and what hurts: a record that reads as good now and as bad next
    time. Between boots every reading may follow every other.
    """

    STORED = "stored"
    FLIPPED = "flipped"
    RANDOM = "random"

    def bits(self, seed: int) -> BitSource:
        """A fresh source of readings for one flash memory in one boot."""
        if self is Reading.RANDOM:
            return random.Random(seed)  # noqa: S311 - repeatable faults, not secrets
        return _Constant(1 if self is Reading.FLIPPED else 0)


EXTREMES = (Reading.STORED, Reading.FLIPPED)
"""What stands for all readings where there are too many to be tried."""


@dataclass(frozen=True, slots=True)
class Tear:
    """One way in which an operation can end when power goes during it.

    Attributes:
        shape: what it leaves.
        progress: how far it had come, 0.0 to 1.0.
        seed: chooses among the outcomes that the shape allows.
    """

    shape: TornShape
    progress: float
    seed: int

    def __str__(self) -> str:
        return f"{self.shape.value}@{self.progress:g}~{self.seed}"


def tears(seed: int) -> tuple[Tear, ...]:
    """All tears of a campaign: every shape that is neither "not begun" nor "all done".

    Those two are the contents before and after the operation, which are cuts of their own. The
    progress is taken from both ends, where a check of the first or last bytes is misled, and from
    the middle. Weak bits also at 0.0 and 1.0: stored as before the operation or as after it, and
    not to be trusted.
    """
    wanted = (
        (TornShape.PREFIX, (0.02, 0.5, 0.99)),
        (TornShape.SUFFIX, (0.02, 0.5, 0.99)),
        (TornShape.HALF, (0.5,)),
        (TornShape.RANDOM_BITS, (0.05, 0.5, 0.95)),
        (TornShape.WEAK_BITS, (0.0, 0.5, 1.0)),
        (TornShape.MIXED_ROWS, (0.5,)),
    )
    found = [Tear(shape, progress, seed) for shape, steps in wanted for progress in steps]
    # Which half is drawn: take the other one, too.
    other = next(s for s in range(seed + 1, seed + 100) if _first_bit(s) != _first_bit(seed))
    return (*found, Tear(TornShape.HALF, 0.5, other))


def _first_bit(seed: int) -> int:
    return random.Random(seed).getrandbits(1)  # noqa: S311


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of flash content, as the chip sees it.

    Attributes:
        flash: which memory.
        kind: program or erase.
        address: first byte, from the start of the device.
        data: what was to be programmed; for an erase as many zeros as it covers (every bit driven).
        before: the bytes there when it began.
        after: the bytes there when it was done.
        access_size: bytes worked on at a time.
    """

    flash: FlashName
    kind: OperationKind
    address: int
    data: bytes
    before: bytes
    after: bytes
    access_size: int

    def __str__(self) -> str:
        return f"{self.kind.value} {self.flash.value} 0x{self.address:06x} +0x{len(self.after):x}"


@cache
def _page_hash(number: int, content: bytes) -> int:
    digest = hashlib.blake2b(content, digest_size=_HASH_SIZE, key=number.to_bytes(4, "little"))
    return int.from_bytes(digest.digest(), "little")


class Cells:
    """The contents of one flash memory; never changed once made.

    Attributes:
        weak_bits: bits (byte address * 8 + bit number) that read differently each time, ascending.
        digest: 128 bits of hash of the stored bytes, whichever way they came about.
    """

    __slots__ = ("_pages", "digest", "weak_bits")

    def __init__(
        self, pages: Mapping[int, bytes], digest: int, weak_bits: tuple[int, ...] = ()
    ) -> None:
        self._pages = pages
        self.digest = digest
        self.weak_bits = weak_bits

    @classmethod
    def erased(cls) -> "Cells":
        """A memory as it leaves the factory."""
        return cls({}, 0)

    @property
    def key(self) -> tuple[int, tuple[int, ...]]:
        """Equal for equal contents."""
        return self.digest, self.weak_bits

    def stored(self, address: int, length: int) -> bytes:
        """The bytes as stored, whatever marginal bits may read as."""
        first, skipped = divmod(address, PAGE_SIZE)
        last = -(-(address + length) // PAGE_SIZE)
        get = self._pages.get
        content = b"".join([get(number, _ERASED_PAGE) for number in range(first, last)])
        if skipped or len(content) != length:
            return content[skipped : skipped + length]
        return content

    def read(self, address: int, length: int, bits: BitSource) -> bytes:
        """The bytes as the firmware reads them: one draw for each marginal bit, in their order."""
        content = self.stored(address, length)
        weak = self._weak_in(address, length)
        if not weak:
            return content
        drawn = bytearray(content)
        for bit in weak:
            if bits.getrandbits(1):
                drawn[bit // 8 - address] ^= 1 << bit % 8
        return bytes(drawn)

    def is_weak(self, address: int, length: int) -> bool:
        """Whether a marginal bit lies in the range."""
        return bool(self._weak_in(address, length))

    def _weak_in(self, address: int, length: int) -> tuple[int, ...]:
        weak = self.weak_bits
        if not weak:
            return weak
        return weak[bisect_left(weak, 8 * address) : bisect_left(weak, 8 * (address + length))]

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Address and content of every page that is not erased."""
        for number, content in self._pages.items():
            yield number * PAGE_SIZE, content

    def _changed(self, address: int, before: bytes, after: bytes, weak: tuple[int, ...]) -> "Cells":
        """The same with `after` where `before` is."""
        if before == after:
            return self if weak == self.weak_bits else Cells(self._pages, self.digest, weak)
        first, skipped = divmod(address, PAGE_SIZE)
        rest = -(skipped + len(after)) % PAGE_SIZE
        if skipped or rest:
            end = address + len(after)
            before = self.stored(address - skipped, skipped) + before + self.stored(end, rest)
            after = before[:skipped] + after + before[len(before) - rest :]
        pages, digest = dict(self._pages), self.digest
        for start in range(0, len(after), PAGE_SIZE):
            new = after[start : start + PAGE_SIZE]
            number = first + start // PAGE_SIZE
            old = pages.get(number, _ERASED_PAGE)
            if old == new:
                continue
            if old != _ERASED_PAGE:
                digest ^= _page_hash(number, old)
            if new == _ERASED_PAGE:
                del pages[number]
            else:
                pages[number] = new
                digest ^= _page_hash(number, new)
        return Cells(pages, digest, weak)

    def completed(self, operation: Operation) -> "Cells":
        """The contents when the operation is done."""
        weak = self.weak_bits
        if driven := self._driven(operation):
            weak = tuple(bit for bit in weak if bit not in driven)
        return self._changed(operation.address, operation.before, operation.after, weak)

    def torn(self, operation: Operation, tear: Tear) -> "Cells":
        """The contents when power goes during the operation."""
        outcome = _torn(operation.before, operation.after, operation.access_size, tear)
        # As in FlashMemory.power_lost: bits that were weak before stay so, and new ones join them.
        weak = self.weak_bits
        if outcome.weak_bits:
            new = {8 * operation.address + bit for bit in outcome.weak_bits}
            weak = tuple(sorted(new.union(weak)))
        return self._changed(operation.address, operation.before, outcome.content, weak)

    def _driven(self, operation: Operation) -> set[int]:
        """Marginal bits that the operation gives a firm level."""
        data, address = operation.data, operation.address
        return {
            bit
            for bit in self._weak_in(address, len(data))
            if not data[bit // 8 - address] >> bit % 8 & 1
        }


@lru_cache(maxsize=_TORN_CACHE)
def _torn(before: bytes, after: bytes, access_size: int, tear: Tear) -> TornOutcome:
    rng = random.Random(tear.seed)  # noqa: S311 - repeatable faults, not secrets
    return torn_series(before, after, access_size, tear.shape, rng, tear.progress)


@dataclass(frozen=True, slots=True)
class Contents:
    """What both flash memories of a board hold."""

    nor: Cells
    internal: Cells

    @classmethod
    def erased(cls) -> "Contents":
        """A board as it leaves the factory."""
        return cls(Cells.erased(), Cells.erased())

    @property
    def key(self) -> tuple[tuple[int, tuple[int, ...]], tuple[int, tuple[int, ...]]]:
        """Equal for equal contents."""
        return self.nor.key, self.internal.key

    @property
    def is_weak(self) -> bool:
        """Whether any bit is marginal."""
        return bool(self.nor.weak_bits or self.internal.weak_bits)

    @property
    def extreme_readings(self) -> tuple[Reading, ...]:
        """The extreme ways in which these contents may read; one, where no bit is marginal."""
        return EXTREMES if self.is_weak else (Reading.STORED,)

    def of(self, flash: FlashName) -> Cells:
        """The contents of one of them."""
        return self.nor if flash is FlashName.NOR else self.internal

    def completed(self, operation: Operation) -> "Contents":
        """The contents when the operation is done."""
        return self._with(operation.flash, self.of(operation.flash).completed(operation))

    def torn(self, operation: Operation, tear: Tear) -> "Contents":
        """The contents when power goes during the operation."""
        return self._with(operation.flash, self.of(operation.flash).torn(operation, tear))

    def _with(self, flash: FlashName, cells: Cells) -> "Contents":
        if flash is FlashName.NOR:
            return replace(self, nor=cells)
        return replace(self, internal=cells)


@dataclass(frozen=True, slots=True)
class Traced:
    """An operation of a trace, and the contents when it began."""

    operation: Operation
    contents: Contents


class FlashPair:
    """Both flash memories of a board, with a driver for each, and the trace of what they did.

    Attributes:
        contents: what they hold now.
        trace: the operations so far.
        before_operation: called before an operation begins; raising there is a power cut before it.
        on_access: called at every call of a driver.
    """

    def __init__(
        self, contents: Contents, reading: Reading = Reading.STORED, seed: int = 0
    ) -> None:
        self.contents = contents
        self.trace: list[Traced] = []
        self.before_operation: Callable[[Operation], None] | None = None
        self.on_access: Callable[[], None] | None = None
        self.nor = NorDevice(self, reading.bits(seed))
        self.internal = InternalDevice(self, reading.bits(seed))

    def perform(
        self, flash: FlashName, kind: OperationKind, address: int, data: bytes, access_size: int
    ) -> None:
        """One operation of a chip; for an erase `data` is zeros."""
        before = self.contents.of(flash).stored(address, len(data))
        if kind is OperationKind.ERASE:
            after = _erased(len(data))
        else:
            bits = int.from_bytes(before, "little") & int.from_bytes(data, "little")
            after = bits.to_bytes(len(data), "little")
        operation = Operation(flash, kind, address, data, before, after, access_size)
        if self.before_operation is not None:
            self.before_operation(operation)
        self.trace.append(Traced(operation, self.contents))
        self.contents = self.contents.completed(operation)


@cache
def _erased(length: int) -> bytes:
    return bytes([ERASED_BYTE]) * length


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
        self._begin(address, length)
        if length == 0:
            return b""
        return self._pair.contents.of(self.flash).read(address, length, self._bits)

    def _begin(self, address: int, length: int) -> None:
        if self._pair.on_access is not None:
            self._pair.on_access()
        size = self.geometry.size
        if address < 0 or length < 0 or address + length > size:
            raise self._error(f"outside the device, which has 0x{size:x} bytes", address, length)

    def _error(self, message: str, address: int, length: int) -> FlashError:
        return FlashError(message, device=self.name, address=address, length=length)


class NorDevice(_Device):
    """The SPI NOR flash as its driver offers it: pages of 256 bytes, the largest fitting erases."""

    flash = FlashName.NOR
    geometry = w25q32jv.GEOMETRY
    _erase_sizes = sorted((erase.size for erase in w25q32jv.ERASE_TYPES), reverse=True)

    def program(self, address: int, data: bytes) -> None:
        """Clear bits, page by page."""
        self._begin(address, len(data))
        position = 0
        while position < len(data):
            start = address + position
            room = w25q32jv.PAGE_SIZE - start % w25q32jv.PAGE_SIZE
            page = bytes(data[position : position + room])
            self._pair.perform(self.flash, OperationKind.PROGRAM, start, page, len(page))
            position += len(page)

    def erase(self, address: int, length: int) -> None:
        """Set whole sectors to 0xFF; FlashError when the range is not made of sectors."""
        self._begin(address, length)
        if address % w25q32jv.SECTOR_SIZE or length % w25q32jv.SECTOR_SIZE:
            raise self._error("an erase covers whole sectors only", address, length)
        end = address + length
        while address < end:
            size = next(
                size for size in self._erase_sizes if address % size == 0 and address + size <= end
            )
            self._pair.perform(self.flash, OperationKind.ERASE, address, bytes(size), size)
            address += size


class InternalDevice(_Device):
    """The internal flash as its driver offers it: words in bursts of 1 KB, sector by sector."""

    flash = FlashName.INTERNAL
    geometry = stm32f405_flash.GEOMETRY

    def program(self, address: int, data: bytes) -> None:
        """Clear bits, word by word; an unaligned edge is filled up with 0xFF."""
        self._begin(address, len(data))
        if not data:
            return
        lead = address % _WORD
        start = address - lead
        filled = _erased(lead) + bytes(data)
        filled += _erased(-len(filled) % _WORD)
        for position in range(0, len(filled), stm32f405_flash.BURST_SIZE):
            burst = filled[position : position + stm32f405_flash.BURST_SIZE]
            self._pair.perform(self.flash, OperationKind.PROGRAM, start + position, burst, _WORD)

    def erase(self, address: int, length: int) -> None:
        """Set whole sectors to 0xFF; FlashError when the range is not made of sectors."""
        self._begin(address, length)
        end = address + length
        sectors = [s for s in self.geometry.sectors if s.address >= address and s.end <= end]
        if sum(sector.size for sector in sectors) != length:
            raise self._error("an erase covers whole sectors only", address, length)
        for sector in sectors:
            self._pair.perform(
                self.flash, OperationKind.ERASE, sector.address, bytes(sector.size), sector.size
            )
