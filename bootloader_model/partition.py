"""A partition of a flash memory, opened: the same operations, with addresses of its own."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter

from bootloader_model.layout import FlashName, Layout, Partition
from platforms.flash import FlashDevice, FlashError

CHUNK_SIZE = 4096
"""Bytes read at a time, and written between two watchdog feeds."""

_end_of = attrgetter("end")


class OpenPartition:
    """Reads and writes one partition and nothing beside it. Offsets count from its start.

    Every call may raise FlashError: outside the partition, or when the device refuses.
    """

    def __init__(self, partition: Partition, device: FlashDevice) -> None:
        self._partition = partition
        self._device = device

    @property
    def name(self) -> str:
        """What the partition is called."""
        return self._partition.name

    @property
    def size(self) -> int:
        """Bytes in the partition."""
        return self._partition.size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`."""
        return self._device.read(self._address(offset, length), length)

    def chunks(self, length: int) -> Iterator[bytes]:
        """The first `length` bytes, up to CHUNK_SIZE at a time."""
        for offset in range(0, length, CHUNK_SIZE):
            yield self.read(offset, min(CHUNK_SIZE, length - offset))

    def program(self, offset: int, data: bytes) -> None:
        """Clear bits: the new content is old AND `data`."""
        self._device.program(self._address(offset, len(data)), data)

    def erase(self, offset: int, length: int) -> None:
        """Set `length` bytes from `offset` to 0xFF; both on sector bounds."""
        self._device.erase(self._address(offset, length), length)

    def erase_runs(self, length: int, largest: int) -> list[tuple[int, int]]:
        """What to erase before `length` bytes are written from the start: (offset, length) each.

        Only sectors that are touched; neighbours are joined to runs of up to `largest` bytes that
        do not cross a multiple of it, so that a driver can use its larger erase commands, and a
        caller can feed the watchdog between runs.
        """
        start = self._partition.offset
        runs: list[tuple[int, int]] = []
        sectors = self._device.geometry.sectors
        for sector in islice(sectors, bisect_right(sectors, start, key=_end_of), None):
            if sector.address >= start + length:
                break
            offset = sector.address - start
            if runs and sector.address % largest and sum(runs[-1]) == offset:
                runs[-1] = (runs[-1][0], runs[-1][1] + sector.size)
            else:
                runs.append((offset, sector.size))
        return runs

    def _address(self, offset: int, length: int) -> int:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FlashError(
                f"outside partition {self.name} of 0x{self.size:x} bytes (offset 0x{offset:x})",
                device=self._device.name,
                address=self._partition.offset + offset,
                length=length,
            )
        return self._partition.offset + offset


class Partitions:
    """Opens the partitions of a board by name."""

    def __init__(self, layout: Layout, *, nor: FlashDevice, internal_flash: FlashDevice) -> None:
        self._layout = layout
        self._devices = {FlashName.NOR: nor, FlashName.INTERNAL: internal_flash}

    def open(self, name: str) -> OpenPartition:
        """The partition called `name`; UnknownPartitionError when there is none."""
        partition = self._layout.partition(name)
        return OpenPartition(partition, self._devices[partition.flash])

    @property
    def journal_areas(self) -> tuple[OpenPartition, OpenPartition]:
        """The two partitions that hold boot state records."""
        first, second = self._layout.journal_areas
        return self.open(first), self.open(second)
