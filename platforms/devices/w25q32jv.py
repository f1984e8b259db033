"""The facts of the Winbond W25Q32JV (ordering option IQ), in one place.

Source: W25Q32JV data sheet, revision G; the comments name its sections. The chip model, its SFDP
table and its driver all read their numbers here.
"""

from dataclasses import dataclass

from platforms.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from platforms.flash import FlashGeometry

SIZE = 0x400000
PAGE_SIZE = 256
SECTOR_SIZE = 0x1000
GEOMETRY = FlashGeometry.of(*[SECTOR_SIZE] * (SIZE // SECTOR_SIZE), page_size=PAGE_SIZE)

# "Manufacturer and Device Identification" (8.1.1). Memory type 0x40 belongs to the IQ option,
# whose Quad Enable bit is fixed to 1.
MANUFACTURER_ID = 0xEF
JEDEC_ID = bytes([MANUFACTURER_ID, 0x40, 0x16])
DEVICE_ID = 0x15

# The non-volatile parts of status registers 1 to 3 as shipped ("Status Registers", 7.1): nothing
# protected, Quad Enable set, output driver strength 25 %.
FACTORY_STATUS = bytes([0x00, 0x02, 0x60])


@dataclass(frozen=True, slots=True)
class Duration:
    """How long an operation takes: typically, as in the model, and at most, as drivers wait."""

    typical_ns: int
    maximum_ns: int


@dataclass(frozen=True, slots=True)
class EraseType:
    """An erase instruction and the bytes it sets to 0xFF; `size` is also its alignment."""

    opcode: int
    size: int
    duration: Duration


# "AC Electrical Characteristics": tW, tPP, tCE, tSE, tBE1, tBE2, typical and maximum.
WRITE_STATUS_TIME = Duration(10 * NS_PER_MS, 15 * NS_PER_MS)
PAGE_PROGRAM_TIME = Duration(400 * NS_PER_US, 3 * NS_PER_MS)
CHIP_ERASE_TIME = Duration(10 * NS_PER_S, 50 * NS_PER_S)
ERASE_TYPES = (
    EraseType(0x20, SECTOR_SIZE, Duration(45 * NS_PER_MS, 400 * NS_PER_MS)),
    EraseType(0x52, 0x8000, Duration(120 * NS_PER_MS, 1600 * NS_PER_MS)),
    EraseType(0xD8, 0x10000, Duration(150 * NS_PER_MS, 2000 * NS_PER_MS)),
)
RELEASE_POWER_DOWN_NS = 3 * NS_PER_US
"""tRES1: chip select high to standby when no identification was read."""
RELEASE_POWER_DOWN_AND_READ_ID_NS = 1_800
"""tRES2: the same after the identification was read."""
SOFTWARE_RESET_NS = 30 * NS_PER_US
"""tRST: no instruction is accepted for so long after a software reset."""

# "Status Registers" (7.1).
SR1_BUSY = 1 << 0
SR1_WEL = 1 << 1
SR1_BP_SHIFT = 2
SR1_TB = 1 << 5
SR1_SEC = 1 << 6
SR2_SRL = 1 << 0
SR2_QE = 1 << 1
SR2_LB = 0b111 << 3
SR2_CMP = 1 << 6
SR3_WPS = 1 << 2

# Which bits an instruction can write; the rest are fixed (QE), reserved or status.
_WRITABLE = (0xFC, SR2_CMP | SR2_LB | SR2_SRL, 0xE4)


def protected_range(status_1: int, status_2: int) -> tuple[int, int]:
    """The write-protected addresses as (first, behind the last); equal when there are none.

    "Status Register Memory Protection", both tables. BP2-0 = 0 protects nothing and 7 everything;
    between, each step doubles the range, from one 64 KB block
    (SEC = 0) or one 4 KB sector (SEC = 1, at most 32 KB). It lies at the top, or at the bottom
    when TB is set. CMP exchanges protected and unprotected.
    """
    level = (status_1 >> SR1_BP_SHIFT) & 0b111
    if level == 0:
        length = 0
    elif level == 0b111:
        length = SIZE
    elif status_1 & SR1_SEC:
        length = min(SECTOR_SIZE << (level - 1), 0x8000)
    else:
        length = 0x10000 << (level - 1)
    at_bottom = bool(status_1 & SR1_TB)
    if status_2 & SR2_CMP:
        length = SIZE - length
        at_bottom = not at_bottom
    return (0, length) if at_bottom else (SIZE - length, SIZE)


def is_protected(status: bytes, address: int, length: int) -> bool:
    """Whether any byte of the range is write-protected by the three status registers.

    WPS = 1 asks the locks of single blocks instead of the BP bits. After power-on they are all
    set, and the model has no instruction to clear them.
    """
    if status[2] & SR3_WPS:
        return True
    first, behind = protected_range(status[0], status[1])
    return address < behind and first < address + length


def status_after_write(status: bytes, first: int, data: bytes, *, volatile: bool) -> bytes:
    """The three status registers after writing `data` into them from register `first` (0..2) on.

    "Write Status Register": fixed bits stay. The locks of the security registers (LB3-1) can only
    ever be set, and only by a non-volatile write.
    """
    after = bytearray(status)
    for register, wanted in enumerate(data, start=first):
        writable = _WRITABLE[register]
        after[register] = (status[register] & ~writable) | (wanted & writable)
    locks = status[1] if volatile else status[1] | after[1]
    after[1] = (after[1] & ~SR2_LB) | (locks & SR2_LB)
    return bytes(after)
