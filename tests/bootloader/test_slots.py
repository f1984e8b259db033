from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootloader_model.boot_state import BootState, Slot, SlotConfiguration, SlotFlag
from bootloader_model.layout import APP0_ADDRESS
from bootloader_model.provisioning import initial_state
from bootloader_model.slots import (
    find_bootable_slot,
    find_factory_slot,
    find_slot,
    find_update_slot,
)

USABLE = SlotFlag.VALID | SlotFlag.WRITEABLE
SLOTS = st.lists(
    st.builds(
        Slot,
        st.builds(
            SlotConfiguration.of,
            st.integers(0, 3).map(SlotFlag),
            st.just("app"),
            st.sampled_from([0, APP0_ADDRESS]),
            st.sampled_from(["", "fs"]),
        ),
    ),
    min_size=1,
    max_size=5,
).map(tuple)


def fresh() -> BootState:
    return initial_state(b"image")


def test_an_update_of_a_fresh_board_goes_to_slot_1() -> None:
    assert find_update_slot(fresh(), APP0_ADDRESS) == 1


def test_an_update_goes_to_a_directly_bootable_slot_when_there_is_one() -> None:
    assert find_update_slot(replace(fresh(), active_slot=1), APP0_ADDRESS) == 0


def test_the_search_starts_at_the_sequence_number_so_that_wear_spreads() -> None:
    found = [find_slot(replace(fresh(), seq=seq)) for seq in range(4)]
    assert found == [1, 1, 2, 1]


def test_the_slot_whose_writes_failed_least_is_preferred() -> None:
    assert find_slot(fresh().copy_failed(1)) == 2
    assert find_slot(fresh().copy_failed(1).copy_failed(2).copy_failed(2)) == 1


def test_excluded_slots_are_left_out() -> None:
    assert find_slot(fresh(), excluded={1}) == 2
    assert find_slot(fresh(), excluded={1, 2}) is None


def test_a_slot_for_swaps_needs_no_file_system_and_one_for_updates_does() -> None:
    state = replace(fresh(), seq=2)
    assert find_slot(state) == 2
    assert find_slot(state, want_fs=True) == 1


def test_an_image_is_started_where_it_is_linked_for() -> None:
    state = replace(fresh(), active_slot=1)
    assert find_bootable_slot(state, APP0_ADDRESS) == 0
    assert find_bootable_slot(state, 0x08020000) is None


def test_an_image_linked_for_0_is_not_started_from_a_slot_that_is_not_mapped() -> None:
    assert find_bootable_slot(replace(fresh(), active_slot=1), 0) is None


def test_the_factory_slot_is_the_one_that_cannot_be_written() -> None:
    state = fresh()
    assert find_factory_slot(state) == 3
    assert find_factory_slot(replace(state, slots=state.slots[:3])) is None


@given(
    slots=SLOTS,
    seq=st.integers(0, 2**32 - 1),
    active=st.integers(-1, 5),
    address=st.sampled_from([0, APP0_ADDRESS]),
    want_fs=st.booleans(),
    excluded=st.sets(st.integers(0, 4)),
)
def test_what_is_found_is_what_was_asked_for(
    slots: tuple[Slot, ...],
    seq: int,
    active: int,
    address: int,
    want_fs: bool,
    excluded: set[int],
) -> None:
    state = replace(fresh(), slots=slots, seq=seq, active_slot=active)

    def is_fit(number: int) -> bool:
        configuration = slots[number].configuration
        return (
            number != active
            and number not in excluded
            and configuration.flags == USABLE
            and (not address or configuration.app_map_addr == address)
            and (not want_fs or configuration.fs_dev != "")
        )

    found = find_slot(state, map_address=address, want_fs=want_fs, excluded=excluded)
    fit = [number for number in range(len(slots)) if is_fit(number)]
    assert found in fit if fit else found is None


@pytest.mark.parametrize("count", [1, 2])
def test_a_board_with_few_slots_has_no_room_for_more(count: int) -> None:
    state = replace(fresh(), slots=fresh().slots[:count])
    assert find_slot(state, excluded={1}) is None
