"""What flash memories hold in a campaign: contents that share what is alike.

A campaign looks at millions of flash contents that differ in a page or two. Contents are immutable
here, and divided into regions, which are the partitions: an operation makes one region new, all
others are shared. Regions know a hash of what they hold, so contents are compared by adding up a
few numbers. The physics are those of `platforms.devices.flash_memory`: programming clears bits,
erasing sets them, a torn operation leaves what `platforms.devices.torn` says, marginal bits get
firm when they are driven.
"""

import hashlib
import random
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache

from bootloader_model.layout import DEFAULT_LAYOUT, DEFAULT_SLOTS, FlashName
from platforms.devices import stm32f405_flash, w25q32jv
from platforms.devices.damage import with_stuck_bits
from platforms.devices.flash_memory import BitSource, OperationKind
from platforms.devices.torn import TornOutcome, TornShape, torn_series
from platforms.flash import ERASED_BYTE, FlashGeometry

PAGE_SIZE = 256
_ERASED_PAGE = bytes([ERASED_BYTE]) * PAGE_SIZE
_HASH_SIZE = 16
_WORD = 4
_TORN_CACHE = 4096  # a torn erase of an internal sector holds two times 64 KB
_REGION_CACHE = 4096  # operations; each with as many regions as there are tears

JOURNAL_AREAS = tuple(DEFAULT_LAYOUT.partition(name) for name in DEFAULT_LAYOUT.journal_areas)
APPLICATIONS = tuple(DEFAULT_LAYOUT.partition(slot.configuration.app_dev) for slot in DEFAULT_SLOTS)
"""Where the image of each slot lies."""
_NOR_ERASE_NS = {erase.size: erase.duration.typical_ns for erase in w25q32jv.ERASE_TYPES}
_LARGEST_ERASE = max(erase.size for erase in w25q32jv.ERASE_TYPES)
GEOMETRIES: Mapping[FlashName, FlashGeometry] = {
    FlashName.NOR: w25q32jv.GEOMETRY,
    FlashName.INTERNAL: stm32f405_flash.GEOMETRY,
}


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


@dataclass(frozen=True, slots=True, eq=False)
class Tears:
    """Ways in which an operation can end; told from others by which object it is."""

    each: tuple[Tear, ...] = ()


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

    @property
    def end(self) -> int:
        """The address behind its last byte."""
        return self.address + len(self.after)

    def __str__(self) -> str:
        return f"{self.kind.value} {self.flash.value} 0x{self.address:06x} +0x{len(self.after):x}"


def is_record(operation: Operation) -> bool:
    """Whether an operation programs a boot state record."""
    return (
        operation.kind is OperationKind.PROGRAM
        and operation.flash is FlashName.NOR
        and any(
            area.offset <= operation.address < area.offset + area.size for area in JOURNAL_AREAS
        )
    )


def sectors_of(operation: Operation) -> tuple[int, ...]:
    """Addresses of the sectors that an operation lies in."""
    return _sectors_between(operation.flash, operation.address, operation.end)


@cache
def _sectors_between(flash: FlashName, address: int, end: int) -> tuple[int, ...]:
    sectors = GEOMETRIES[flash].sectors
    return tuple(each.address for each in sectors if each.address < end and each.end > address)


def duration_ns(operation: Operation) -> int:
    """How long an operation typically takes, in virtual nanoseconds (see both data sheets)."""
    size = len(operation.after)
    if operation.flash is FlashName.NOR:
        if operation.kind is OperationKind.PROGRAM:
            return w25q32jv.PAGE_PROGRAM_TIME.typical_ns
        return _NOR_ERASE_NS[size]
    if operation.kind is OperationKind.PROGRAM:
        return size // _WORD * stm32f405_flash.PROGRAM_TIME_NS
    return stm32f405_flash.ERASE_TIME_NS[size][stm32f405_flash.PSIZE_X32]


@cache
def erased(length: int) -> bytes:
    """Bytes of erased cells."""
    return bytes([ERASED_BYTE]) * length


def _digest(what: bytes, key: bytes = b"") -> bytes:
    return hashlib.blake2b(what, digest_size=_HASH_SIZE, key=key).digest()


def hash_of(what: object) -> bytes:
    """128 bits of hash of what something's `repr` says, the same in every process."""
    return _digest(repr(what).encode())


def _hash(what: bytes, key: bytes) -> int:
    return int.from_bytes(_digest(what, key), "little")


@cache
def _page_hash(number: int, content: bytes) -> int:
    return _hash(content, b"page" + number.to_bytes(4, "little"))


def _bits_hash(bits: object, what: bytes) -> int:
    return _hash(repr(bits).encode(), what) if bits else 0


class Region:
    """The contents of one region; never changed once made.

    Attributes:
        pages: number (from the start of the device) and content of every page not erased.
        weak_bits: bits (byte address * 8 + bit number) that read differently each time, ascending.
        stuck_bits: bits that keep a level whatever is done, in ascending order, and that level.
        identity: 128 bits of hash of all that, whichever way it came about.
    """

    __slots__ = ("_pages_hash", "identity", "pages", "stuck_bits", "weak_bits")

    def __init__(
        self,
        pages: Mapping[int, bytes],
        pages_hash: int,
        weak_bits: tuple[int, ...] = (),
        stuck_bits: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.pages = pages
        self.weak_bits = weak_bits
        self.stuck_bits = stuck_bits
        self._pages_hash = pages_hash
        bits_hash = _bits_hash(weak_bits, b"weak") ^ _bits_hash(stuck_bits, b"stuck")
        self.identity = pages_hash ^ bits_hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Region) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def stored(self, address: int, length: int) -> bytes:
        """The bytes as stored, whatever marginal bits may read as; within the region."""
        first, skipped = divmod(address, PAGE_SIZE)
        last = -(-(address + length) // PAGE_SIZE)
        get = self.pages.get
        content = b"".join([get(number, _ERASED_PAGE) for number in range(first, last)])
        if skipped or len(content) != length:
            return content[skipped : skipped + length]
        return content

    def weak_in(self, address: int, length: int) -> tuple[int, ...]:
        """Its marginal bits in a range."""
        weak = self.weak_bits
        if not weak:
            return weak
        return weak[bisect_left(weak, 8 * address) : bisect_left(weak, 8 * (address + length))]

    def read(self, address: int, length: int, bits: BitSource) -> bytes:
        """The bytes as the firmware reads them: one draw for each marginal bit, in their order."""
        content = self.stored(address, length)
        weak = self.weak_in(address, length)
        if not weak:
            return content
        drawn = bytearray(content)
        for bit in weak:
            if bits.getrandbits(1):
                drawn[bit // 8 - address] ^= 1 << bit % 8
        return bytes(drawn)

    def changed(
        self, address: int, before: bytes, after: bytes, weak_bits: tuple[int, ...]
    ) -> "Region":
        """The same with `after` where `before` is, and these marginal bits."""
        if self.stuck_bits:
            stuck = dict(self.stuck_bits)
            after = with_stuck_bits(after, address, stuck)
            weak_bits = tuple(bit for bit in weak_bits if bit not in stuck)
        if before == after:
            if weak_bits == self.weak_bits:
                return self
            return Region(self.pages, self._pages_hash, weak_bits, self.stuck_bits)
        first, skipped = divmod(address, PAGE_SIZE)
        rest = -(skipped + len(after)) % PAGE_SIZE
        if skipped or rest:
            end = address + len(after)
            after = self.stored(address - skipped, skipped) + after + self.stored(end, rest)
        pages, pages_hash = dict(self.pages), self._pages_hash
        numbers: Iterable[int] = range(first, first + len(after) // PAGE_SIZE)
        if after == erased(len(after)):
            numbers = [number for number in pages if number in numbers]
        for number in numbers:
            start = (number - first) * PAGE_SIZE
            new = after[start : start + PAGE_SIZE]
            old = pages.get(number, _ERASED_PAGE)
            if old == new:
                continue
            if old != _ERASED_PAGE:
                pages_hash ^= _page_hash(number, old)
            if new == _ERASED_PAGE:
                del pages[number]
            else:
                pages[number] = new
                pages_hash ^= _page_hash(number, new)
        return Region(pages, pages_hash, weak_bits, self.stuck_bits)

    def stuck(self, bits: Mapping[int, int]) -> "Region":
        """The same with more stuck bits: bit number from the start of the device, and its level."""
        all_stuck = tuple(sorted({**dict(self.stuck_bits), **bits}.items()))
        region = Region(self.pages, self._pages_hash, self.weak_bits, all_stuck)
        for address in sorted({bit // 8 for bit in bits}):
            cell = self.stored(address, 1)
            region = region.changed(address, cell, cell, region.weak_bits)
        return region

    def flipped(self, bit: int) -> "Region":
        """The same with a bit that has changed its level."""
        address = bit // 8
        cell = self.stored(address, 1)
        flipped = bytes([cell[0] ^ 1 << bit % 8])
        return self.changed(address, cell, flipped, self.weak_bits)

    def operation(
        self, flash: FlashName, kind: OperationKind, address: int, data: bytes, access_size: int
    ) -> Operation:
        """An operation that begins with these contents; for an erase `data` is zeros."""
        before = self.stored(address, len(data))
        if kind is OperationKind.ERASE:
            after = erased(len(data))
        else:
            bits = int.from_bytes(before, "little") & int.from_bytes(data, "little")
            after = bits.to_bytes(len(data), "little")
        if self.stuck_bits:
            after = with_stuck_bits(after, address, dict(self.stuck_bits))
        return Operation(flash, kind, address, data, before, after, access_size)

    def completed(self, operation: Operation) -> "Region":
        """The contents when the operation is done: the bits that it drives are firm."""
        weak, data, address = self.weak_bits, operation.data, operation.address
        if touched := self.weak_in(address, len(data)):
            driven = {bit for bit in touched if not data[bit // 8 - address] >> bit % 8 & 1}
            weak = tuple(bit for bit in weak if bit not in driven)
        return self.changed(address, operation.before, operation.after, weak)

    def torn(self, operation: Operation, tear: Tear) -> "Region":
        """The contents when power goes during the operation."""
        outcome = _torn(operation.before, operation.after, operation.access_size, tear)
        # As in FlashMemory.power_lost: bits that were weak before stay so, and new ones join them.
        weak = self.weak_bits
        if outcome.weak_bits:
            new = {8 * operation.address + bit for bit in outcome.weak_bits}
            weak = tuple(sorted(new.union(weak)))
        return self.changed(operation.address, operation.before, outcome.content, weak)


@lru_cache(maxsize=_TORN_CACHE)
def _torn(before: bytes, after: bytes, access_size: int, tear: Tear) -> TornOutcome:
    rng = random.Random(tear.seed)  # noqa: S311 - repeatable faults, not secrets
    return torn_series(before, after, access_size, tear.shape, rng, tear.progress)


@lru_cache(maxsize=_REGION_CACHE)
def _all_torn(
    region: Region, kind: OperationKind, address: int, data: bytes, access_size: int, tears: Tears
) -> tuple[Region, ...]:
    """What each of the tears makes of a region; the memory's name makes no difference."""
    operation = region.operation(FlashName.NOR, kind, address, data, access_size)
    return tuple(region.torn(operation, tear) for tear in tears.each)


@lru_cache(maxsize=_REGION_CACHE)
def _performed(
    region: Region,
    flash: FlashName,
    kind: OperationKind,
    address: int,
    data: bytes,
    access_size: int,
) -> tuple[Operation, Region]:
    """An operation, and what it leaves; boots do the same again and again."""
    operation = region.operation(flash, kind, address, data, access_size)
    return operation, region.completed(operation)


class Cells:
    """The contents of one flash memory; never changed once made.

    Attributes:
        starts: first address of each region. Regions are made so that no operation spans two.
        regions: their contents.
        identity: equal for equal contents, whichever way they came about.
    """

    __slots__ = ("identity", "regions", "starts")

    def __init__(self, starts: tuple[int, ...], regions: tuple[Region, ...], identity: int) -> None:
        self.starts = starts
        self.regions = regions
        self.identity = identity

    @classmethod
    def erased(cls, flash: FlashName) -> "Cells":
        """A memory as it leaves the factory."""
        starts = _region_starts(flash)
        return cls(starts, (Region({}, 0),) * len(starts), 0)

    def number_at(self, address: int) -> int:
        """The number of the region that an address is in."""
        return bisect_right(self.starts, address) - 1

    def with_region(self, number: int, region: Region) -> "Cells":
        """The same with another region."""
        old = self.regions[number]
        if region is old:
            return self
        regions = (*self.regions[:number], region, *self.regions[number + 1 :])
        return Cells(self.starts, regions, self.identity ^ old.identity ^ region.identity)

    def stored(self, address: int, length: int) -> bytes:
        """The bytes as stored, whatever marginal bits may read as."""
        number = self.number_at(address)
        if address + length <= self._end_of(number):
            return self.regions[number].stored(address, length)
        parts = self._parts(address, length)
        return b"".join(region.stored(start, part) for region, start, part in parts)

    def read(self, address: int, length: int, bits: BitSource) -> bytes:
        """The bytes as the firmware reads them: one draw for each marginal bit, in their order."""
        number = self.number_at(address)
        if address + length <= self._end_of(number):
            return self.regions[number].read(address, length, bits)
        parts = self._parts(address, length)
        return b"".join(region.read(start, part, bits) for region, start, part in parts)

    def is_weak(self, address: int, length: int) -> bool:
        """Whether a marginal bit lies in the range."""
        parts = self._parts(address, length)
        return any(region.weak_in(start, part) for region, start, part in parts)

    @property
    def weak_bits(self) -> tuple[int, ...]:
        """Bits (byte address * 8 + bit number) that read differently each time, ascending."""
        return tuple(bit for region in self.regions for bit in region.weak_bits)

    @property
    def stuck_bits(self) -> dict[int, int]:
        """Bits that keep a level whatever is done, and that level."""
        return {bit: level for region in self.regions for bit, level in region.stuck_bits}

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Address and content of every page that is not erased."""
        for region in self.regions:
            for number, content in region.pages.items():
                yield number * PAGE_SIZE, content

    def _end_of(self, number: int) -> int:
        """The address behind a region; there is no end to the last one here."""
        following = number + 1
        return self.starts[following] if following < len(self.starts) else sys.maxsize

    def _parts(self, address: int, length: int) -> Iterator[tuple[Region, int, int]]:
        end = address + length
        number = self.number_at(address)
        while address < end:
            border = min(end, self._end_of(number))
            yield self.regions[number], address, border - address
            address, number = border, number + 1


@cache
def _region_starts(flash: FlashName) -> tuple[int, ...]:
    """The partitions of a memory that stand by themselves, whatever erase command is used."""
    geometry = GEOMETRIES[flash]
    if len({sector.size for sector in geometry.sectors}) > 1:
        return (0,)  # the internal flash: bursts of words start anywhere, and it holds one slot
    partitions = [p.offset for p in DEFAULT_LAYOUT.partitions.values() if p.flash is flash]
    return (0, *sorted(start for start in partitions if start and start % _LARGEST_ERASE == 0))


@dataclass(frozen=True, slots=True)
class Contents:
    """What both flash memories of a board hold."""

    nor: Cells
    internal: Cells

    @classmethod
    def erased(cls) -> "Contents":
        """A board as it leaves the factory."""
        return cls(Cells.erased(FlashName.NOR), Cells.erased(FlashName.INTERNAL))

    @property
    def key(self) -> tuple[int, int]:
        """Equal for equal contents."""
        return self.nor.identity, self.internal.identity

    @property
    def is_weak(self) -> bool:
        """Whether any bit is marginal."""
        return any(r.weak_bits for r in (*self.nor.regions, *self.internal.regions))

    @property
    def extreme_readings(self) -> tuple[Reading, ...]:
        """The extreme ways in which these contents may read; one, where no bit is marginal."""
        return EXTREMES if self.is_weak else (Reading.STORED,)

    def of(self, flash: FlashName) -> Cells:
        """The contents of one of them."""
        return self.nor if flash is FlashName.NOR else self.internal

    def perform(
        self, flash: FlashName, kind: OperationKind, address: int, data: bytes, access_size: int
    ) -> tuple[Operation, "Contents"]:
        """An operation that begins here, and what it leaves; for an erase `data` is zeros."""
        cells = self.of(flash)
        number = cells.number_at(address)
        operation, region = _performed(
            cells.regions[number], flash, kind, address, data, access_size
        )
        return operation, self._with(flash, number, region)

    def completed(self, operation: Operation) -> "Contents":
        """The contents when the operation is done."""
        cells = self.of(operation.flash)
        number = cells.number_at(operation.address)
        return self._with(operation.flash, number, cells.regions[number].completed(operation))

    def torn(self, operation: Operation, tear: Tear) -> "Contents":
        """The contents when power goes during the operation."""
        cells = self.of(operation.flash)
        number = cells.number_at(operation.address)
        return self._with(operation.flash, number, cells.regions[number].torn(operation, tear))

    def all_torn(self, operation: Operation, tears: Tears) -> Iterator["Contents"]:
        """The contents for each of the tears, in their order."""
        cells = self.of(operation.flash)
        number = cells.number_at(operation.address)
        for region in _all_torn(
            cells.regions[number],
            operation.kind,
            operation.address,
            operation.data,
            operation.access_size,
            tears,
        ):
            yield self._with(operation.flash, number, region)

    def stuck(self, flash: FlashName, bits: Mapping[int, int]) -> "Contents":
        """The same with stuck bits, all in one region of a memory, and the level of each."""
        number, region = self._region_of(flash, min(bits))
        return self._with(flash, number, region.stuck(bits))

    def flipped(self, flash: FlashName, bit: int) -> "Contents":
        """The same with a bit of a memory that has changed its level."""
        number, region = self._region_of(flash, bit)
        return self._with(flash, number, region.flipped(bit))

    def _region_of(self, flash: FlashName, bit: int) -> tuple[int, Region]:
        cells = self.of(flash)
        number = cells.number_at(bit // 8)
        return number, cells.regions[number]

    def _with(self, flash: FlashName, number: int, region: Region) -> "Contents":
        if flash is FlashName.NOR:
            return Contents(self.nor.with_region(number, region), self.internal)
        return Contents(self.nor, self.internal.with_region(number, region))
