"""A flash memory in RAM that keeps the rules of silicon and can lose power at any operation."""

import random
from enum import Enum
from typing import TYPE_CHECKING

from platforms.flash import FlashError, FlashGeometry

if TYPE_CHECKING:
    from collections.abc import Callable


class PowerCutError(Exception):
    """The supply went away. Not for the code under test to catch."""


class Moment(Enum):
    """When in an operation the power goes."""

    BEFORE = "before"
    TORN = "torn"
    """Some of the bits have changed."""
    WEAK = "weak"
    """As torn, and some of the cells read differently each time."""
    AFTER = "after"


class PowerSupply:
    """Counts the operations of all flash memories of a board, and cuts the power at one of them."""

    def __init__(self) -> None:
        self.operations = 0
        self.on_operation: list[Callable[[str, int], None]] = []
        self._cut_at: int | None = None
        self._moment = Moment.BEFORE
        self.rng = random.Random(0)  # noqa: S311

    def cut(self, operation: int, moment: Moment, seed: int = 0) -> None:
        """Cut the power at the `operation`th operation from now, 0 being the next one."""
        self._cut_at = self.operations + operation
        self._moment = moment
        self.rng = random.Random(seed)  # noqa: S311

    def restore(self) -> None:
        self._cut_at = None

    def begin(self, kind: str, length: int) -> Moment | None:
        """An operation begins; the moment at which it is cut short, or None when it is not."""
        for listener in self.on_operation:
            listener(kind, length)
        number = self.operations
        self.operations += 1
        return self._moment if number == self._cut_at else None


class FakeFlash:
    """Program clears bits, and only in erased bytes; erase sets whole sectors."""

    def __init__(self, name: str, geometry: FlashGeometry, power: PowerSupply) -> None:
        self._name = name
        self._geometry = geometry
        self._power = power
        self.cells = bytearray(b"\xff" * geometry.size)
        self.weak: set[int] = set()
        """Numbers of bits that read differently each time."""
        self.allow_overwrite = False
        self.broken: dict[int, int] = {}
        """Bits that cannot be set by an erase nor cleared by a program: address -> mask."""
        self.is_protected = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def geometry(self) -> FlashGeometry:
        return self._geometry

    def read(self, address: int, length: int) -> bytes:
        self._check(address, length)
        data = bytearray(self.cells[address : address + length])
        for bit in self.weak:
            if address <= bit // 8 < address + length and self._power.rng.random() < 0.5:
                data[bit // 8 - address] ^= 1 << bit % 8
        return bytes(data)

    def program(self, address: int, data: bytes) -> None:
        self._check(address, len(data))
        if self.is_protected:
            self._refuse(address, len(data))
        page = self._geometry.page_size
        position = 0
        while position < len(data):
            start = address + position
            size = min(page - start % page, len(data) - position)
            self._program_page(start, data[position : position + size])
            position += size

    def erase(self, address: int, length: int) -> None:
        self._check(address, length)
        if self.is_protected:
            self._refuse(address, length)
        bounds = {sector.address for sector in self._geometry.sectors} | {self._geometry.size}
        assert {address, address + length} <= bounds, f"erase 0x{address:x} + 0x{length:x}"
        before = bytes(self.cells[address : address + length])
        self._finish("erase", address, before, b"\xff" * length)

    def _program_page(self, address: int, data: bytes) -> None:
        before = bytes(self.cells[address : address + len(data)])
        if not self.allow_overwrite:
            for offset, (cell, byte) in enumerate(zip(before, data, strict=True)):
                # Without an erase all bits can be cleared (records are blotted out), and the
                # same ones once more (the newest record is made firm).
                is_writeable = (
                    0xFF in (byte, cell)
                    or byte in (0, cell)
                    or address + offset in self.broken.keys() | {bit // 8 for bit in self.weak}
                )
                assert is_writeable, f"not erased: 0x{address + offset:x}"
        after = _bits(before) & _bits(data)
        self._finish("program", address, before, after.to_bytes(len(data), "little"))

    def _finish(self, kind: str, address: int, before: bytes, after: bytes) -> None:
        moment = self._power.begin(kind, len(after))
        if moment is Moment.BEFORE:
            raise PowerCutError
        if moment in (Moment.TORN, Moment.WEAK):
            torn = self._torn(before, after)
            self._store(address, torn)
            if moment is Moment.WEAK:
                self._weaken(address, before, after)
            raise PowerCutError
        self._store(address, after)
        if kind == "erase":
            first, end = address * 8, (address + len(after)) * 8
            self.weak = {bit for bit in self.weak if not first <= bit < end}
        else:
            self.weak = {bit for bit in self.weak if self.cells[bit // 8] >> bit % 8 & 1}
        if moment is Moment.AFTER:
            raise PowerCutError

    def _torn(self, before: bytes, after: bytes) -> bytes:
        rng = self._power.rng
        changing = _bits(before) ^ _bits(after)
        shape = rng.choice(("mix", "few", "most", "prefix", "suffix"))
        if shape == "prefix":
            done = (1 << rng.randrange(8 * len(after))) - 1
        elif shape == "suffix":
            done = -1 << rng.randrange(8 * len(after))
        else:
            done = rng.getrandbits(8 * len(after))
            if shape == "few":
                done &= rng.getrandbits(8 * len(after)) & rng.getrandbits(8 * len(after))
            elif shape == "most":
                done |= rng.getrandbits(8 * len(after)) | rng.getrandbits(8 * len(after))
        return (_bits(before) ^ (changing & done)).to_bytes(len(after), "little")

    def _weaken(self, address: int, before: bytes, after: bytes) -> None:
        changing = _bits(before) ^ _bits(after)
        for _ in range(8):
            bit = self._power.rng.randrange(8 * len(after))
            if changing >> bit & 1:
                self.weak.add(address * 8 + bit)

    def _store(self, address: int, data: bytes) -> None:
        old = {at: self.cells[at] for at in self.broken if address <= at < address + len(data)}
        self.cells[address : address + len(data)] = data
        for at, cell in old.items():
            mask = self.broken[at]
            self.cells[at] = (self.cells[at] & ~mask) | (cell & mask)

    def _check(self, address: int, length: int) -> None:
        if address < 0 or address + length > self._geometry.size:
            raise FlashError(
                "outside the device", device=self._name, address=address, length=length
            )

    def _refuse(self, address: int, length: int) -> None:
        raise FlashError("write protected", device=self._name, address=address, length=length)


def _bits(data: bytes) -> int:
    return int.from_bytes(data, "little")
