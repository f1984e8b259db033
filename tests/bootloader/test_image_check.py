from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootloader_model.boot_state import Slot, SlotFlag, SlotState
from bootloader_model.image_check import (
    VectorTableHead,
    check_configuration,
    check_crc,
    check_vector_table,
)
from bootloader_model.layout import APP0_ADDRESS, DEFAULT_SLOTS

LENGTH = 5000
GOOD = VectorTableHead(0x2002_0000, APP0_ADDRESS + 0x201)


def slot(length: int = LENGTH) -> Slot:
    return replace(DEFAULT_SLOTS[0], state=SlotState(length, APP0_ADDRESS, 0xABCD))


@pytest.mark.parametrize(
    "stack_pointer", [0x2000_0004, 0x2002_0000, 0x2001_FFF8, 0x1001_0000, 0x1000_0400]
)
def test_a_stack_may_begin_anywhere_in_ram(stack_pointer: int) -> None:
    head = replace(GOOD, stack_pointer=stack_pointer)
    assert check_vector_table(head, APP0_ADDRESS, LENGTH) is None


@pytest.mark.parametrize(
    ("stack_pointer", "problem"),
    [
        (0, "outside RAM"),
        (0x2000_0000, "outside RAM"),
        (0x2002_0004, "outside RAM"),
        (0x1001_0004, "outside RAM"),
        (0x0801_0000, "outside RAM"),
        (0x2001_0002, "not aligned"),
        (0xFFFF_FFFF, "not aligned"),
    ],
)
def test_a_stack_outside_ram_is_refused(stack_pointer: int, problem: str) -> None:
    head = replace(GOOD, stack_pointer=stack_pointer)
    assert problem in str(check_vector_table(head, APP0_ADDRESS, LENGTH))


@pytest.mark.parametrize(
    ("reset_vector", "problem"),
    [
        (APP0_ADDRESS + 0x200, "not Thumb"),
        (APP0_ADDRESS - 1, "outside the image"),
        (APP0_ADDRESS + LENGTH + 1, "outside the image"),
        (0xFFFF_FFFF, "outside the image"),
        (0, "not Thumb"),
    ],
)
def test_a_reset_vector_outside_the_image_is_refused(reset_vector: int, problem: str) -> None:
    head = replace(GOOD, reset_vector=reset_vector)
    assert problem in str(check_vector_table(head, APP0_ADDRESS, LENGTH))


@given(st.binary(min_size=8, max_size=8), st.integers(8, 2**20))
def test_what_passes_can_be_started(raw: bytes, length: int) -> None:
    head = VectorTableHead.parse(raw)
    if check_vector_table(head, APP0_ADDRESS, length) is None:
        assert head.stack_pointer % 4 == 0
        assert APP0_ADDRESS <= head.reset_vector - 1 < APP0_ADDRESS + length


def test_a_crc_that_is_not_the_recorded_one_is_named() -> None:
    assert check_crc(slot(), 0xABCD) is None
    assert check_crc(slot(), 1) == "its image has CRC32 0x00000001 instead of 0x0000abcd"


@pytest.mark.parametrize(
    ("length", "problem"),
    [(0, "no image"), (7, "too short"), (8, None), (6000, None), (6001, "longer than its room")],
)
def test_the_length_must_make_sense(length: int, problem: str | None) -> None:
    found = check_configuration(slot(length), 6000)
    assert found is None if problem is None else problem in str(found)


def test_a_slot_that_is_not_valid_is_not_looked_at() -> None:
    unusable = replace(DEFAULT_SLOTS[0].configuration, flags=SlotFlag.WRITEABLE)
    assert "not marked valid" in str(
        check_configuration(replace(slot(), configuration=unusable), 6000)
    )
