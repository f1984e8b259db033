from collections.abc import Callable
from dataclasses import replace

import pytest

from bootloader_model.boot_state import BootFlag, BootState, SlotFlag, SlotState, TransitionError
from bootloader_model.layout import APP0_ADDRESS, FACTORY_SLOT
from bootloader_model.provisioning import initial_state

IMAGE = b"application"
CRC = 0x12345678
PENDING = BootFlag.FIRST_BOOT_A | BootFlag.FIRST_BOOT_B | BootFlag.MERGE_FS


def fresh() -> BootState:
    return initial_state(IMAGE, factory_image=b"factory")


def updated(timeout: int | None = 60) -> BootState:
    return fresh().update_finished(
        1, length=5000, origin=APP0_ADDRESS, crc32=CRC, commit_timeout=timeout
    )


def uncommitted() -> BootState:
    return updated().backed_up(0, 2).activated(1, 0).begin_first_boot()


def test_a_fresh_board_is_committed_to_slot_0() -> None:
    state = fresh()
    assert state.is_committed
    assert not state.is_first_boot
    assert (state.active_slot, state.revert_slot) == (0, -1)
    assert state.slots[0].is_directly_bootable
    assert state.slots[FACTORY_SLOT].state.app_len == len(b"factory")


def test_an_update_takes_the_active_place_and_keeps_the_way_back() -> None:
    state = updated()
    assert (state.active_slot, state.revert_slot) == (1, 0)
    assert state.flags == PENDING
    assert state.is_first_boot
    assert state.commit_timeout == 60
    assert state.slots[1].state == SlotState(5000, APP0_ADDRESS, CRC)


@pytest.mark.parametrize("timeout", [None, 0])
def test_no_commit_timeout_and_one_of_0_are_the_same(timeout: int | None) -> None:
    assert updated(timeout).commit_timeout is None


def test_an_update_keeps_the_error_count_of_its_slot_but_not_the_flags_of_the_old_image() -> None:
    state = fresh().copy_failed(1)
    used = replace(state.slots[1], state=replace(state.slots[1].state, app_flags=1))
    state = replace(state, slots=(state.slots[0], used, *state.slots[2:]))
    state = state.update_finished(1, length=1, origin=0, crc32=0, commit_timeout=None)
    assert state.slots[1].state == SlotState(1, err_count=1)


def test_a_commit_keeps_the_active_slot_and_forgets_the_way_back() -> None:
    state = uncommitted().commit()
    assert (state.active_slot, state.revert_slot) == (0, -1)
    assert state.flags == BootFlag.COMMITTED
    assert state.commit_timeout is None


def test_a_revert_goes_to_the_way_back_and_is_committed() -> None:
    state = uncommitted().revert()
    assert (state.active_slot, state.revert_slot) == (2, -1)
    assert state.flags == BootFlag.COMMITTED
    assert state.commit_timeout is None


def test_a_snapshot_can_become_the_way_back() -> None:
    state = fresh().snapshot_taken(1)
    assert state.slots[1].state == state.slots[0].state
    assert state.is_committed
    state = state.set_as_revert(1, commit_timeout=30)
    assert not state.is_committed
    assert not state.is_first_boot
    assert (state.active_slot, state.revert_slot, state.commit_timeout) == (0, 1, 30)


def test_a_backup_is_a_stable_point() -> None:
    before = updated()
    state = before.backed_up(0, 2)
    assert (state.active_slot, state.revert_slot) == (1, 2)
    assert state.slots[2].state == before.slots[0].state
    assert state.slots[0].state == before.slots[0].state
    assert state.flags == before.flags


def test_file_systems_go_with_their_applications() -> None:
    def file_systems(state: BootState) -> list[str]:
        return [slot.configuration.fs_dev for slot in state.slots]

    state = uncommitted()
    assert file_systems(state) == ["fs1", "", "fs0", "fsF"]
    assert file_systems(state.revert().activated(2, 0)) == ["fs0", "", "fs1", "fsF"]


def test_the_factory_image_keeps_its_file_system() -> None:
    state = fresh().fall_back_to(FACTORY_SLOT).activated(FACTORY_SLOT, 0)
    assert state.slots[0].configuration.fs_dev == "fs0"
    assert state.slots[FACTORY_SLOT].configuration.fs_dev == "fsF"


def test_an_application_without_a_file_system_of_its_own_keeps_the_one_there_is() -> None:
    state = fresh().snapshot_taken(2).activated(2, 0)
    assert state.slots[0].configuration.fs_dev == "fs0"


def test_the_error_count_stops_at_its_largest_value() -> None:
    state = fresh()
    for _ in range(300):
        state = state.copy_failed(1)
    assert state.slots[1].state.err_count == 255


def test_falling_back_from_an_update_that_was_never_started_forgets_that_it_was_pending() -> None:
    assert updated().fall_back_to(0).flags == BootFlag.COMMITTED


def test_flags_without_a_name_are_left_alone() -> None:
    state = replace(uncommitted(), flags=uncommitted().flags | BootFlag(0x100))
    assert state.commit().flags == BootFlag.COMMITTED | 0x100


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: fresh().commit(), "committed already"),
        (lambda: fresh().revert(), "nothing to revert to"),
        (lambda: replace(updated(), revert_slot=-1).revert(), "no revert slot"),
        (lambda: replace(updated(), revert_slot=4).revert(), "no revert slot"),
        (lambda: updated().snapshot_taken(2), "commit or revert before a snapshot"),
        (lambda: updated().set_as_revert(2, commit_timeout=1), "commit or revert before"),
        (lambda: fresh().snapshot_taken(0), "slot 0 is active"),
        (lambda: fresh().snapshot_taken(3), "not both valid and writeable"),
        (lambda: fresh().snapshot_taken(4), "slot 4 does not exist"),
        (lambda: fresh().set_as_revert(0, commit_timeout=1), "cannot be the way back"),
        (lambda: fresh().set_as_revert(-1, commit_timeout=1), "cannot be the way back"),
        (
            lambda: updated().update_finished(2, length=1, origin=1, crc32=1, commit_timeout=None),
            "commit or revert before an update",
        ),
    ],
)
def test_what_the_state_does_not_allow_is_refused(
    act: Callable[[], BootState], message: str
) -> None:
    with pytest.raises(TransitionError, match=message):
        act()


def test_transitions_leave_the_state_they_start_from_alone() -> None:
    state = updated()
    state.backed_up(0, 2)
    state.begin_first_boot()
    state.copy_failed(1)
    assert state == updated()
    assert SlotFlag.WRITEABLE in state.slots[1].configuration.flags
