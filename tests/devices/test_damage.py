"""Broken cells: which bits they are, and what they make of a content."""

from hypothesis import given
from hypothesis import strategies as st

from platforms.devices.damage import WORN_BITS, with_stuck_bits, worn_bits

contents = st.binary(max_size=40)
addresses = st.integers(0, 60)
stuck = st.dictionaries(st.integers(0, 8 * 100), st.integers(0, 1))


def bit_of(content: bytes, index: int) -> int:
    return content[index // 8] >> index % 8 & 1


@given(contents, addresses, stuck)
def test_stuck_bits_have_their_level_and_all_others_the_wanted_one(
    content: bytes, address: int, bits: dict[int, int]
) -> None:
    result = with_stuck_bits(content, address, bits)
    assert len(result) == len(content)
    for index in range(8 * len(content)):
        wanted = bits.get(8 * address + index, bit_of(content, index))
        assert bit_of(result, index) == wanted


def test_a_content_apart_from_all_stuck_bits_is_itself() -> None:
    assert with_stuck_bits(b"ab", 2, {8: 0, 15: 1, 32: 0}) == b"ab"
    assert with_stuck_bits(b"", 0, {0: 0}) == b""


@given(st.integers(0, 1 << 22), st.integers(1, 0x20000), st.integers(0, 2**32))
def test_worn_bits_are_spread_over_their_sector(address: int, length: int, seed: int) -> None:
    bits = sorted(worn_bits(address, length, seed))
    parts = [(bit - 8 * address) * WORN_BITS // (8 * length) for bit in bits]
    assert parts == list(range(WORN_BITS))


def test_worn_bits_repeat_with_their_seed() -> None:
    assert worn_bits(0x1000, 0x1000, 3) == worn_bits(0x1000, 0x1000, 3)
    assert worn_bits(0x1000, 0x1000, 3) != worn_bits(0x1000, 0x1000, 4)
