"""Block protection and status registers of the NOR flash, against the data sheet's tables."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platforms.devices import w25q32jv as chip

KB = 1024
MB = 1024 * KB

# "Status Register Memory Protection" with CMP = 0: SEC, TB, BP2-0 and the protected addresses.
PROTECTION = [
    (0, 0, 0b000, None),
    (0, 1, 0b000, None),
    (0, 0, 0b001, (0x3F0000, 0x3FFFFF)),
    (0, 0, 0b010, (0x3E0000, 0x3FFFFF)),
    (0, 0, 0b011, (0x3C0000, 0x3FFFFF)),
    (0, 0, 0b100, (0x380000, 0x3FFFFF)),
    (0, 0, 0b101, (0x300000, 0x3FFFFF)),
    (0, 0, 0b110, (0x200000, 0x3FFFFF)),
    (0, 1, 0b001, (0x000000, 0x00FFFF)),
    (0, 1, 0b010, (0x000000, 0x01FFFF)),
    (0, 1, 0b011, (0x000000, 0x03FFFF)),
    (0, 1, 0b100, (0x000000, 0x07FFFF)),
    (0, 1, 0b101, (0x000000, 0x0FFFFF)),
    (0, 1, 0b110, (0x000000, 0x1FFFFF)),
    (0, 0, 0b111, (0x000000, 0x3FFFFF)),
    (0, 1, 0b111, (0x000000, 0x3FFFFF)),
    (1, 0, 0b001, (0x3FF000, 0x3FFFFF)),
    (1, 0, 0b010, (0x3FE000, 0x3FFFFF)),
    (1, 0, 0b011, (0x3FC000, 0x3FFFFF)),
    (1, 0, 0b100, (0x3F8000, 0x3FFFFF)),
    (1, 0, 0b101, (0x3F8000, 0x3FFFFF)),
    (1, 1, 0b001, (0x000000, 0x000FFF)),
    (1, 1, 0b010, (0x000000, 0x001FFF)),
    (1, 1, 0b011, (0x000000, 0x003FFF)),
    (1, 1, 0b100, (0x000000, 0x007FFF)),
    (1, 1, 0b101, (0x000000, 0x007FFF)),
    (1, 0, 0b111, (0x000000, 0x3FFFFF)),
    (1, 1, 0b111, (0x000000, 0x3FFFFF)),
]


def status_1(sec: int, tb: int, bp: int) -> int:
    return (sec << 6) | (tb << 5) | (bp << 2)


@pytest.mark.parametrize(("sec", "tb", "bp", "expected"), PROTECTION)
def test_protected_range_is_the_data_sheets(
    sec: int, tb: int, bp: int, expected: tuple[int, int] | None
) -> None:
    first, behind = chip.protected_range(status_1(sec, tb, bp), 0)
    assert (None if first == behind else (first, behind - 1)) == expected


@settings(deadline=None)
@given(st.integers(0, 0x7C), st.integers(0, chip.SIZE - 1))
def test_cmp_exchanges_protected_and_unprotected(status: int, address: int) -> None:
    plain = bytes([status, 0, 0])
    complemented = bytes([status, chip.SR2_CMP, 0])
    assert chip.is_protected(plain, address, 1) != chip.is_protected(complemented, address, 1)


@settings(deadline=None)
@given(st.integers(0, 255), st.integers(0, 255), st.data())
def test_a_range_is_protected_when_any_byte_of_it_is(
    first: int, second: int, data: st.DataObject
) -> None:
    status = bytes([first, second, 0])
    start = data.draw(st.integers(0, chip.SIZE // 0x1000 - 1)) * 0x1000
    length = data.draw(st.integers(1, (chip.SIZE - start) // 0x1000)) * 0x1000
    # Protection has 4 KB steps, so a look at each sector finds it.
    any_byte = any(chip.is_protected(status, at, 1) for at in range(start, start + length, 0x1000))
    assert chip.is_protected(status, start, length) == any_byte


def test_individual_locks_protect_everything() -> None:
    assert chip.is_protected(bytes([0, 0, chip.SR3_WPS]), 0x100000, 1)


@settings(deadline=None)
@given(
    st.binary(min_size=3, max_size=3),
    st.integers(0, 2),
    st.binary(min_size=1, max_size=2),
    st.booleans(),
)
def test_writing_status_registers_changes_writable_bits_only(
    before: bytes,
    first: int,
    data: bytes,
    volatile: bool,
) -> None:
    data = data[: 3 - first]
    after = chip.status_after_write(before, first, data, volatile=volatile)
    writable = (0b11111100, 0b01111001, 0b11100100)
    for register in range(3):
        changed = before[register] ^ after[register]
        assert changed & ~writable[register] == 0
        if not first <= register < first + len(data):
            assert changed == 0
        else:
            other = writable[register] & ~(chip.SR2_LB if register == 1 else 0)
            assert after[register] & other == data[register - first] & other
    assert before[1] & chip.SR2_LB & ~after[1] == 0, "a security register lock was cleared"
    if volatile:
        assert (before[1] ^ after[1]) & chip.SR2_LB == 0


def test_the_times_are_consistent() -> None:
    for erase in chip.ERASE_TYPES:
        assert erase.size % chip.SECTOR_SIZE == 0
        assert 0 < erase.duration.typical_ns < erase.duration.maximum_ns
    assert chip.GEOMETRY.size == chip.SIZE == 4 * MB
    assert len(chip.GEOMETRY.sectors) == 1024
