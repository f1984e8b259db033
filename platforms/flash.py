"""What a loader or an updater sees of a flash memory, whichever chip it is."""

import mmap
from dataclasses import dataclass
from typing import Protocol

from platforms.errors import OtasimError

ERASED_BYTE = 0xFF


class FlashError(OtasimError):
    """A flash operation could not be carried out.

    Attributes:
        device: name of the flash device.
        address: where the operation was to start, in bytes from the start of the device.
        length: how many bytes it was to cover.
    """

    def __init__(self, message: str, *, device: str, address: int, length: int) -> None:
        super().__init__(f"{device} at 0x{address:06x}, {length} bytes: {message}")
        self.device = device
        self.address = address
        self.length = length


@dataclass(frozen=True, slots=True)
class Sector:
    """One erasable unit: `address` from the start of the device and `size`, both in bytes."""

    address: int
    size: int

    @property
    def end(self) -> int:
        """The first address behind the sector."""
        return self.address + self.size


@dataclass(frozen=True, slots=True)
class FlashGeometry:
    """How a flash device is divided.

    Attributes:
        sectors: the smallest erasable units, in ascending order, without gaps, from address 0.
        page_size: the largest number of bytes one program operation can take.
    """

    sectors: tuple[Sector, ...]
    page_size: int

    @classmethod
    def of(cls, *sector_sizes: int, page_size: int) -> "FlashGeometry":
        """A geometry from the sizes of its sectors in bytes, in ascending order of address."""
        sectors = []
        address = 0
        for size in sector_sizes:
            sectors.append(Sector(address, size))
            address += size
        return cls(tuple(sectors), page_size)

    @property
    def size(self) -> int:
        """The whole device, in bytes."""
        return self.sectors[-1].end

    def sector_index(self, address: int) -> int:
        """Which sector holds `address`; IndexError outside the device."""
        for index, sector in enumerate(self.sectors):
            if sector.address <= address < sector.end:
                return index
        raise IndexError(f"address 0x{address:x} is outside the device of 0x{self.size:x} bytes")


class FlashDevice(Protocol):
    """A flash memory as a driver offers it. Addresses count from the start of the device.

    Every call takes the virtual time the real operation takes, with the processor held as if it
    were polling the busy flag. A reset or a power cut on the way raises ResetAsserted (in
    `platforms.machine`) through the caller, who loses control at that very point as real code does.
    """

    @property
    def name(self) -> str:
        """What the device is called in logs and traces."""
        ...

    @property
    def geometry(self) -> FlashGeometry:
        """How the device is divided."""
        ...

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address`; FlashError when that is outside the device."""
        ...

    def program(self, address: int, data: bytes) -> None:
        """Clear bits: the new content is old AND `data`. Page bounds are the driver's business.

        Raises FlashError outside the device or when the device refuses (write protection).
        """
        ...

    def erase(self, address: int, length: int) -> None:
        """Set `length` bytes from `address` to 0xFF; both on sector bounds (FlashError)."""
        ...


class FlashContents:
    """The bytes of a flash memory as something to look at: a dump, or a board from outside.

    Reading takes no virtual time; program and erase are refused with FlashError.
    """

    def __init__(
        self, name: str, geometry: FlashGeometry, cells: bytes | bytearray | mmap.mmap
    ) -> None:
        self.name = name
        self.geometry = geometry
        self._cells = cells

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address`; FlashError when that is outside the device."""
        if address < 0 or length < 0 or address + length > len(self._cells):
            raise FlashError(
                f"outside the {len(self._cells):,} bytes there are",
                device=self.name,
                address=address,
                length=length,
            )
        return bytes(self._cells[address : address + length])

    def program(self, address: int, data: bytes) -> None:
        """Refused."""
        raise self._read_only(address, len(data))

    def erase(self, address: int, length: int) -> None:
        """Refused."""
        raise self._read_only(address, length)

    def _read_only(self, address: int, length: int) -> FlashError:
        return FlashError(
            "this is a view to look at, it cannot be changed",
            device=self.name,
            address=address,
            length=length,
        )
