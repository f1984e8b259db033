"""Flash cells that are broken for good: which they are, and what they make of a content.

A cell that no longer takes one of its two levels is stuck. Firmware meets two kinds: a bit stuck at
0, which an erase does not set, and a bit stuck at 1, which a program does not clear. Neither is
reported: the status registers of this board's NOR flash (W25Q32JV data sheet, 7.1) have no bit for
a failed program or erase, and firmware that does not read back goes on as if all were well. The
emulated block device of littlefs (bd/lfs_emubd.h) has the same failures block by block.
"""

import random
from collections.abc import Mapping

WORN_BITS = 8
"""How many bits of a worn-out sector stay at 0.

An erase repeats its pulses until every cell verifies as erased, and gives up after so many. What
is left then are the slowest cells of the sector, the tail of a distribution: a handful, not a
sector full of zeros, and just what a check of a few bytes for 0xFF does not see.
"""


def with_stuck_bits(content: bytes, address: int, stuck_bits: Mapping[int, int]) -> bytes:
    """`content` as it stands in cells some of which are stuck.

    Args:
        content: the bytes that the cells should hold.
        address: of the first of them, from the start of the device.
        stuck_bits: bit address (byte address * 8 + bit number) to level, 0 or 1. Bits outside the
            range are left alone.
    """
    changed = bytearray(content)
    for bit, level in stuck_bits.items():
        index, mask = bit // 8 - address, 1 << bit % 8
        if 0 <= index < len(changed):
            changed[index] = changed[index] | mask if level else changed[index] & ~mask
    return bytes(changed)


def worn_bits(address: int, length: int, seed: int) -> frozenset[int]:
    """The bits of a worn-out sector that an erase no longer sets: `WORN_BITS` of them.

    An erase programs all cells before it erases them, lest some are erased too deeply; those that
    are not erased any more end at 0, whatever they held.

    One bit is taken from each of as many equal parts, so that they are spread over the sector and
    whatever is kept there meets one.

    Args:
        address: first byte of the sector, from the start of the device.
        length: of the sector, in bytes; at least 1.
        seed: chooses among the bits.

    Returns bit addresses (byte address * 8 + bit number); `dict.fromkeys(..., 0)` makes stuck bits
    of them.
    """
    rng = random.Random(seed)  # noqa: S311 - repeatable faults, not secrets
    part = 8 * length // WORN_BITS
    return frozenset(8 * address + part * n + rng.randrange(part) for n in range(WORN_BITS))
