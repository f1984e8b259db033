"""Finds instructions in flash that Unicorn executes without telling anybody.

Data that looks like such an instruction does no harm: what is hooked there never happens.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_CPSIE = tuple(bytes((low, 0xB6)) for low in (0x61, 0x62, 0x63))  # CPSIE f, i, if
# MSR PRIMASK, BASEPRI, BASEPRI_MAX, FAULTMASK and CONTROL: second halfword, behind 0xF380 | Rn.
_MSR = tuple(bytes((register, 0x88)) for register in (0x10, 0x11, 0x12, 0x13, 0x14))
_SEV, _SEV_WIDE = b"\x40\xbf", b"\xaf\xf3\x04\x80"
_WFE, _WFE_WIDE = b"\x20\xbf", b"\xaf\xf3\x02\x80"


@dataclass(frozen=True, slots=True)
class Findings:
    """Offsets in the flash.

    Attributes:
        after_mask_writes: the instruction behind each one that may unmask an exception or change
            the privilege. A block of Unicorn's begins there.
        events: each SEV.
        waits: each WFE.
    """

    after_mask_writes: frozenset[int]
    events: frozenset[int]
    waits: frozenset[int]


def scan(content: bytes, offset: int) -> Findings:
    """What stands in `content`, which begins at the even `offset` of the flash."""
    content = content.rstrip(b"\xff")  # erased flash, most of it at first
    after = {place + 2 for place in _places(content, *_CPSIE)}
    for place in _places(content, *_MSR):
        first = int.from_bytes(content[max(0, place - 2) : place], "little")
        if first & 0xFFF0 == 0xF380:
            after.add(place + 2)
    return Findings(
        frozenset(offset + place for place in after),
        frozenset(offset + place for place in _places(content, _SEV, _SEV_WIDE)),
        frozenset(offset + place for place in _places(content, _WFE, _WFE_WIDE)),
    )


def ends_in_mask_write(block: bytes) -> bool:
    """Whether a block of code, which such an instruction always ends, ends in one."""
    return len(block) in scan(block, 0).after_mask_writes


def _places(content: bytes, *needles: bytes) -> Iterator[int]:
    for needle in needles:
        place = content.find(needle)
        while place != -1:
            if place % 2 == 0:
                yield place
            place = content.find(needle, place + 1)
