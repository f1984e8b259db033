"""The cells of a flash memory: the one place that every change of flash content passes.

The chip models (the SPI NOR flash, the STM32's internal flash) decide whether an operation may
start; here it happens. An operation takes effect in the cells at once and stays revocable until its
time is over: the chip models answer "busy" for so long, and a power cut in that time replaces the
effect by what `platforms.devices.torn` says. Completion needs no event, only a look at the clock.

What breaks in the field can be made to happen here, on any board: a bit flips at rest (`flip`),
bits stick (`stick`, with `platforms.devices.damage` for a worn-out sector), an operation never ends
(`hang`). Such damage lives as long as this object; only what it did to the cells is in a mapped
file.
"""

import enum
import mmap
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from platforms.clock import NEVER_NS, Clock, ClockEvent
from platforms.devices.damage import with_stuck_bits
from platforms.devices.torn import TornShape, torn_series
from platforms.errors import InvalidArgumentError
from platforms.flash import ERASED_BYTE, FlashError, FlashGeometry

Cells = bytearray | mmap.mmap

WEAR_COUNT_SIZE = 4
"""Bytes of one sector's erase count."""


class OperationKind(enum.Enum):
    """What a flash operation does to the cells."""

    PROGRAM = "program"
    ERASE = "erase"
    WRITE_STATUS = "write-status"


class Moment(enum.Enum):
    """When the interceptor of a flash memory is called for an operation."""

    BEFORE = "before"
    """Nothing has happened yet. Raising here means the operation never started."""

    DURING = "during"
    """It has started and the memory is busy. `FlashMemory.power_lost` called here, or from an
    event scheduled here for a later moment of its duration, tears it."""

    AFTER = "after"
    """Its time is over to the nanosecond and nothing else has happened yet."""


@dataclass(frozen=True, slots=True)
class FlashOperation:
    """One change of flash content.

    Attributes:
        number: counts the operations of this memory, from 0.
        device: name of the flash memory.
        kind: what it does.
        address: first byte touched, from the start of the device; for WRITE_STATUS the number of
            the first status byte.
        length: bytes touched.
        data: what was asked to be programmed or written; empty for an erase.
        start_ns: virtual time of its beginning.
        duration_ns: how long the memory is busy with it.
        access_size: bytes that are worked on at a time; less than `length` when the operation
            stands for a series of equal ones, of which a power cut tears only one.
    """

    number: int
    device: str
    kind: OperationKind
    address: int
    length: int
    data: bytes
    start_ns: int
    duration_ns: int
    access_size: int

    @property
    def end_ns(self) -> int:
        """Virtual time from which the memory is idle again."""
        return self.start_ns + self.duration_ns


OperationListener = Callable[[FlashOperation], None]
ChangeListener = Callable[[int, int], None]
Interceptor = Callable[[FlashOperation, Moment], None]


class BitSource(Protocol):
    """Where readings of weak bits come from; `random.Random` is one."""

    def getrandbits(self, k: int, /) -> int:
        """So many bits."""
        ...


@dataclass(slots=True)
class _InProgress:
    operation: FlashOperation
    cells: Cells
    before: bytes
    weak_before: frozenset[int]
    completion: ClockEvent | None


class FlashMemory:
    """Flash cells with their physics: programming clears bits, erasing sets whole sectors.

    Attributes:
        name: what the device is called in logs and traces.
        geometry: how it is divided.
        storage: the array of cells, `geometry.size` bytes. It may be a mapped file, so that it
            survives a killed process; it is changed in place and never replaced.
        status_cells: the non-volatile bytes behind the chip's registers (status registers, option
            bytes), kept in the same manner.
        wear: how often each of `geometry.sectors` has been erased. Like the cells it may be in a
            mapped file.
        weak_bits: array bits (byte address * 8 + bit number) that read differently each time.
        stuck_bits: array bits that keep a level, 0 or 1, whatever is done; made by `stick`.
        on_operation: called with each operation when it begins.
        on_change: called with (address, length) whenever bytes of the array have changed, so that
            whoever keeps a copy can refresh it.
        weak_rng: where the readings of weak bits are drawn from.
        interceptor: called with each operation and a Moment; it may raise, and it may tear the
            operation. This is where fault campaigns take hold.
    """

    def __init__(
        self,
        name: str,
        geometry: FlashGeometry,
        clock: Clock,
        storage: Cells,
        *,
        status_cells: Cells | None = None,
        wear: Cells | None = None,
    ) -> None:
        if len(storage) != geometry.size:
            raise InvalidArgumentError(
                f"{name}: storage holds {len(storage)} bytes, but the device has "
                f"{geometry.size}; give it exactly that many, erased flash being 0xFF"
            )
        self.name = name
        self.geometry = geometry
        self.storage = storage
        self.status_cells = bytearray() if status_cells is None else status_cells
        counts = bytearray(WEAR_COUNT_SIZE * len(geometry.sectors)) if wear is None else wear
        self.wear = memoryview(counts).cast("I")
        self.weak_bits: set[int] = set()
        self.stuck_bits: dict[int, int] = {}
        self.weak_rng: BitSource = _generator(0)
        self.on_operation: list[OperationListener] = []
        self.on_change: list[ChangeListener] = []
        self.interceptor: Interceptor | None = None
        self._clock = clock
        self._next_number = 0
        self._busy_until_ns = 0
        self._hangs = False
        self._in_progress: _InProgress | None = None
        self._sector_starts = [sector.address for sector in geometry.sectors]

    @property
    def busy(self) -> bool:
        """Whether an operation is under way at this virtual time."""
        return self._clock.now_ns < self.busy_until_ns

    @property
    def busy_until_ns(self) -> int:
        """When the last operation ends or ended; 0 when there has been none since power-on.

        NEVER_NS while the memory hangs.
        """
        return NEVER_NS if self._hangs else self._busy_until_ns

    @property
    def remaining_ns(self) -> int:
        """How long the operation under way still takes; 0 when idle."""
        return max(0, self.busy_until_ns - self._clock.now_ns)

    @property
    def hangs(self) -> bool:
        """Whether it stays busy until `power_lost`."""
        return self._hangs

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address`; FlashError when that is outside the device.

        Weak bits are drawn anew at every call. Reading does not look at `busy`: what a busy chip
        answers is its model's business.
        """
        self._check_bounds(address, length)
        content = bytes(self.storage[address : address + length])
        return self._with_weak_bits(address, content) if self.weak_bits else content

    def begin_program(
        self, address: int, data: bytes, duration_ns: int, *, access_size: int | None = None
    ) -> FlashOperation:
        """Clear bits: each byte becomes old AND new.

        Args:
            address: first byte, from the start of the device.
            data: what to program.
            duration_ns: how long it takes.
            access_size: bytes programmed at a time; None: all at once.

        Raises FlashError when an operation is under way or the bytes are outside the device.
        """
        length = len(data)
        self._check_bounds(address, length)
        operation = self._announce(
            OperationKind.PROGRAM, address, length, data, duration_ns, access_size
        )
        before = self.storage[address : address + length]
        after = int.from_bytes(before, "little") & int.from_bytes(data, "little")
        return self._change(operation, data, after.to_bytes(length, "little"))

    def begin_erase(self, address: int, length: int, duration_ns: int) -> FlashOperation:
        """Set every bit of whole sectors.

        Raises FlashError when an operation is under way or the range is not made of sectors.
        """
        first, behind = self._sectors(address, length)
        operation = self._announce(OperationKind.ERASE, address, length, b"", duration_ns)
        for index in range(first, behind):
            self.wear[index] += 1
        return self._change(operation, bytes(length), bytes([ERASED_BYTE]) * length)

    def begin_write_status(self, index: int, data: bytes, duration_ns: int) -> FlashOperation:
        """Replace non-volatile register bytes from byte number `index` on; bits go both ways.

        Raises FlashError when an operation is under way or there are no such bytes.
        """
        if index < 0 or index + len(data) > len(self.status_cells):
            raise self._error(
                f"there are {len(self.status_cells)} non-volatile register bytes",
                index,
                len(data),
            )
        operation = self._announce(OperationKind.WRITE_STATUS, index, len(data), data, duration_ns)
        before = bytes(self.status_cells[index : index + len(data)])
        return self._carry_out(operation, self.status_cells, before, data)

    def flip(self, bit: int) -> None:
        """A cell at rest changes its level: charge leaked, or reads of its neighbours disturbed it.

        Both directions happen; a stuck bit stays. Raises FlashError outside the device.

        Args:
            bit: byte address * 8 + bit number.
        """
        address = bit // 8
        self._check_bounds(address, 1)
        flipped = bytes([self.storage[address] ^ 1 << bit % 8])
        self._store(address, with_stuck_bits(flipped, address, self.stuck_bits))

    def stick(self, bits: Mapping[int, int]) -> None:
        """Cells break: from now on each holds this level, whatever is programmed or erased.

        Where a sector wears out in an erase, call this from `interceptor` before that erase.

        Args:
            bits: byte address * 8 + bit number, to level. 0: an erase does not set it; 1: a program
                does not clear it.

        Raises FlashError outside the device and InvalidArgumentError for another level.
        """
        for bit, level in bits.items():
            self._check_bounds(bit // 8, 1)
            if level not in (0, 1):
                raise InvalidArgumentError(f"a bit sticks at 0 or 1, not at {level}")
        self.stuck_bits.update(bits)
        self.weak_bits -= bits.keys()
        for address in sorted({bit // 8 for bit in bits}):
            cell = bytes([self.storage[address]])
            self._store(address, with_stuck_bits(cell, address, bits))

    def hang(self) -> None:
        """Stay busy until `power_lost`: the operation under way, or none at all, never ends.

        A dip of the supply or an electrostatic discharge can throw the chip's own controller off
        its track; and an erase need not come to an end on worn cells. No instruction helps then.
        """
        if not self.busy:
            self._in_progress = None  # it has ended, and cannot be torn any more
        self._hangs = True

    def power_lost(self, shape: TornShape, seed: int, progress: float | None = None) -> None:
        """End the operation in progress without completing it; nothing happens when idle.

        Args:
            shape: what the operation leaves in the cells.
            seed: chooses among the outcomes that the shape allows.
            progress: how far the operation had come, from 0.0 to 1.0; None takes the share of its
                duration that has passed.
        """
        in_progress, self._in_progress = self._in_progress, None
        was_busy = self.busy
        self._busy_until_ns = 0
        self._hangs = False
        if in_progress is None:
            return
        if in_progress.completion is not None:
            in_progress.completion.cancel()
        if not was_busy:
            return
        operation = in_progress.operation
        if progress is None:
            progress = (self._clock.now_ns - operation.start_ns) / operation.duration_ns
        cells = in_progress.cells
        where = slice(operation.address, operation.address + operation.length)
        rng = _generator(seed)
        after = bytes(cells[where])
        outcome = torn_series(
            in_progress.before, after, operation.access_size, shape, rng, progress
        )
        if cells is not self.storage:
            cells[where] = outcome.content
            return
        if shape is not TornShape.COMPLETE:
            self.weak_bits |= in_progress.weak_before
        self.weak_bits |= {8 * operation.address + bit for bit in outcome.weak_bits}
        self.weak_bits -= self.stuck_bits.keys()
        self.weak_rng = rng
        content = with_stuck_bits(outcome.content, operation.address, self.stuck_bits)
        self._store(operation.address, content)

    def _announce(
        self,
        kind: OperationKind,
        address: int,
        length: int,
        data: bytes,
        duration_ns: int,
        access_size: int | None = None,
    ) -> FlashOperation:
        """Give the operation its number and let the interceptor forbid it."""
        if self.busy:
            end = (
                "and never ends; cycle the supply"
                if self._hangs
                else f"until {self._busy_until_ns} ns; wait for it"
            )
            raise self._error(f"an operation is under way {end}", address, length)
        operation = FlashOperation(
            number=self._next_number,
            device=self.name,
            kind=kind,
            address=address,
            length=length,
            data=bytes(data),
            start_ns=self._clock.now_ns,
            duration_ns=duration_ns,
            access_size=length if access_size is None else access_size,
        )
        self._next_number += 1
        if self.interceptor is not None:
            self.interceptor(operation, Moment.BEFORE)
        return operation

    def _change(self, operation: FlashOperation, driven: bytes, after: bytes) -> FlashOperation:
        """Let an operation on the array begin; `driven` has a 0 for each bit that it drives."""
        address = operation.address
        before = bytes(self.storage[address : address + operation.length])
        weak_before = self._firm_up(address, driven)
        after = with_stuck_bits(after, address, self.stuck_bits)
        return self._carry_out(operation, self.storage, before, after, weak_before)

    def _carry_out(
        self,
        operation: FlashOperation,
        cells: Cells,
        before: bytes,
        after: bytes,
        weak_before: frozenset[int] = frozenset(),
    ) -> FlashOperation:
        cells[operation.address : operation.address + operation.length] = after
        completion = None
        if self.interceptor is not None:
            completion = self._clock.call_at(operation.end_ns, lambda: self._complete(operation))
        self._in_progress = _InProgress(operation, cells, before, weak_before, completion)
        self._busy_until_ns = operation.end_ns
        for listener in self.on_operation:
            listener(operation)
        if cells is self.storage:
            self._notify_change(operation.address, operation.length)
        self._intercept(operation, Moment.DURING)
        return operation

    def _complete(self, operation: FlashOperation) -> None:
        if not self._hangs:
            self._intercept(operation, Moment.AFTER)

    def _intercept(self, operation: FlashOperation, moment: Moment) -> None:
        if self.interceptor is not None:
            self.interceptor(operation, moment)

    def _store(self, address: int, content: bytes) -> None:
        self.storage[address : address + len(content)] = content
        self._notify_change(address, len(content))

    def _notify_change(self, address: int, length: int) -> None:
        for listener in self.on_change:
            listener(address, length)

    def _with_weak_bits(self, address: int, content: bytes) -> bytes:
        drawn = bytearray(content)
        # Sorted, because the order of a set must not decide which bit gets which draw.
        for bit_address in sorted(self.weak_bits):
            index = bit_address // 8 - address
            if 0 <= index < len(drawn) and self.weak_rng.getrandbits(1):
                drawn[index] ^= 1 << (bit_address % 8)
        return bytes(drawn)

    def _firm_up(self, address: int, data: bytes) -> frozenset[int]:
        """Bits that `data` drives (0 = driven) get a firm level; returns those that were weak."""
        firm = frozenset(
            bit
            for bit in self.weak_bits
            if 0 <= (index := bit // 8 - address) < len(data) and not (data[index] >> bit % 8) & 1
        )
        self.weak_bits -= firm
        return firm

    def _check_bounds(self, address: int, length: int) -> None:
        if address < 0 or length < 0 or address + length > self.geometry.size:
            raise self._error(
                f"outside the device, which has 0x{self.geometry.size:x} bytes", address, length
            )

    def _sectors(self, address: int, length: int) -> tuple[int, int]:
        """The first sector of the range and the one behind its last."""
        self._check_bounds(address, length)
        starts = self._sector_starts
        first = bisect_right(starts, address) - 1
        behind = bisect_right(starts, address + length - 1)
        end = self.geometry.sectors[behind - 1].end
        if length == 0 or starts[first] != address or end != address + length:
            raise self._error("an erase covers whole sectors only", address, length)
        return first, behind

    def _error(self, message: str, address: int, length: int) -> FlashError:
        return FlashError(message, device=self.name, address=address, length=length)


def _generator(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - repeatable faults, not secrets
