"""The SFDP table, read by the rules of JESD216B and not by the code that wrote it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.devices import w25q32jv as chip
from platforms.devices.sfdp import SFDP_SIZE, build_sfdp, encode_time

SFDP = build_sfdp()


def basic_table() -> tuple[int, ...]:
    address = int.from_bytes(SFDP[12:15], "little")
    return struct.unpack_from("<16I", SFDP, address)


def bits(word: int, high: int, low: int) -> int:
    return (word >> low) & ((1 << (high - low + 1)) - 1)


def dword(number: int) -> int:
    """The standard counts from 1."""
    return basic_table()[number - 1]


def test_the_headers_are_those_of_jesd216b() -> None:
    assert len(SFDP) == SFDP_SIZE
    assert SFDP[0:4] == b"SFDP"
    assert (SFDP[5], SFDP[4]) == (1, 6)
    assert SFDP[6] == 0  # one parameter header, told as its number minus one
    assert (SFDP[15] << 8) | SFDP[8] == 0xFF00  # the basic flash parameter table
    assert (SFDP[10], SFDP[9]) == (1, 6)
    assert SFDP[11] == 16
    assert int.from_bytes(SFDP[12:15], "little") % 4 == 0


def test_density_and_addresses() -> None:
    assert bits(dword(2), 31, 31) == 0
    assert bits(dword(2), 30, 0) + 1 == 8 * 4 * 1024 * 1024
    assert bits(dword(1), 18, 17) == 0  # 3-byte addresses only


def test_erase_instructions_and_their_sizes() -> None:
    types = {}
    for word in (dword(8), dword(9)):
        for low in (0, 16):
            if exponent := bits(word, low + 7, low):
                types[1 << exponent] = bits(word, low + 15, low + 8)
    assert types == {4096: 0x20, 32768: 0x52, 65536: 0xD8}
    assert bits(dword(1), 1, 0) == 0b01
    assert bits(dword(1), 15, 8) == 0x20


def test_erase_times_cover_the_data_sheet() -> None:
    factor = 2 * (bits(dword(10), 3, 0) + 1)
    for index, erase in enumerate(chip.ERASE_TYPES):
        low = 4 + 7 * index
        unit_ms = (1, 16, 128, 1000)[bits(dword(10), low + 6, low + 5)]
        typical_ns = (bits(dword(10), low + 4, low) + 1) * unit_ms * 1_000_000
        assert erase.duration.typical_ns <= typical_ns <= 1.1 * erase.duration.typical_ns
        assert typical_ns * factor >= erase.duration.maximum_ns


def test_program_and_chip_erase_times_cover_the_data_sheet() -> None:
    word = dword(11)
    assert 1 << bits(word, 7, 4) == 256
    typical_ns = (bits(word, 12, 8) + 1) * (8_000, 64_000)[bits(word, 13, 13)]
    assert 400_000 <= typical_ns <= 450_000
    assert typical_ns * 2 * (bits(word, 3, 0) + 1) >= chip.PAGE_PROGRAM_TIME.maximum_ns
    chip_ms = (bits(word, 28, 24) + 1) * (16, 256, 4000, 64000)[bits(word, 30, 29)]
    assert 10_000 <= chip_ms <= 12_000


def test_no_transfer_is_announced_that_the_model_does_not_know() -> None:
    assert bits(dword(1), 22, 19) == 0
    assert bits(dword(1), 16, 16) == 0
    assert (bits(dword(5), 0, 0), bits(dword(5), 4, 4)) == (0, 0)
    assert bits(dword(12), 31, 31) == 1  # no suspend


def test_power_down_reset_and_status_register_access() -> None:
    word = dword(14)
    assert bits(word, 31, 31) == 0
    assert (bits(word, 30, 23), bits(word, 22, 15)) == (0xB9, 0xAB)
    unit_ns = (128, 1000, 8000, 64000)[bits(word, 14, 13)]
    assert (bits(word, 12, 8) + 1) * unit_ns >= chip.RELEASE_POWER_DOWN_NS
    assert bits(word, 2, 2) == 1  # busy is bit 0 of what 05h reads
    assert bits(dword(16), 12, 12) == 1  # 66h, 99h
    assert bits(dword(16), 3, 3) == 1  # 06h writes for good, 50h for now


@given(st.integers(1, 32 * 1000))
def test_an_encoded_time_is_never_shorter_and_as_close_as_the_units_allow(time: int) -> None:
    units = (1, 16, 128, 1000)
    field, told = encode_time(time, units, count_bits=5)
    assert field < 1 << 7
    assert told == ((field & 0x1F) + 1) * units[field >> 5]
    representable = [count * unit for unit in units for count in range(1, 33)]
    assert told == min(value for value in representable if value >= time)


def test_a_time_that_no_unit_can_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="more than the SFDP field"):
        encode_time(33, (1,), count_bits=5)
