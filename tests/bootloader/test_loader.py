"""The shipped loader on a small board: what it starts, what it writes, and what it says."""

from dataclasses import replace

import pytest

from bootloader_model.boot_state import NO_SLOT, BootFlag, BootState
from bootloader_model.layout import APP0_ADDRESS, FACTORY_SLOT
from bootloader_model.loader import LoaderSettings, WatchdogSilentError
from bootloader_model.protocol import BootTarget
from platforms.devices.reset_cause import ResetCause
from tests.bootloader.fake_board import FakeBoard, WatchdogResetError, make_image
from tests.bootloader.fake_flash import Moment, PowerCutError

OLD = make_image("1.0")
NEW = make_image("2.0", 1200)
FACTORY = make_image("0.9", 700)
STARTED = BootTarget(APP0_ADDRESS, 0x2002_0000, APP0_ADDRESS + 0x41)


def board_with(
    image: bytes = OLD, factory_image: bytes | None = None, *, strict: bool = False
) -> FakeBoard:
    board = FakeBoard(settings=LoaderSettings(strict_original=strict))
    board.provision(image, factory_image)
    return board


def lines(board: FakeBoard) -> list[str]:
    text = board.hardware.text
    assert text.endswith("\n")
    return text.splitlines()


def says(board: FakeBoard, *parts: str) -> bool:
    return all(any(part in line for line in lines(board)) for part in parts)


def fails(board: FakeBoard) -> None:
    with pytest.raises(WatchdogResetError):
        board.boot()


def test_a_fresh_board_starts_its_application() -> None:
    board = board_with()
    assert board.boot() == STARTED
    assert board.hardware.reasons == ["boot-active"]
    assert lines(board) == [
        "boot: reset cause power-on; state seq 1 in bcfg0+0x0000: active 0, revert none, committed",
        "boot: slot 0 is active and committed",
        "boot: starting slot 0: sample 1.0",
    ]


@pytest.mark.parametrize("cause", [ResetCause.PIN, ResetCause.SOFTWARE, ResetCause.WATCHDOG])
def test_an_ordinary_boot_writes_nothing(cause: ResetCause) -> None:
    board = board_with()
    before = board.power.operations
    board.boot(cause)
    assert board.power.operations == before


@pytest.mark.parametrize("cause", [ResetCause.POWER_ON, ResetCause.BROWN_OUT])
def test_after_a_loss_of_power_nothing_rests_on_a_record_that_may_be_marginal(
    cause: ResetCause,
) -> None:
    board = board_with()
    before = board.state()
    board.boot(cause)
    assert board.state() == replace(before, seq=before.seq + 1)
    assert board.hardware.reasons == ["boot-active"]


def test_a_flash_that_takes_no_record_after_a_loss_of_power_still_boots() -> None:
    board = board_with()
    board.nor.is_protected = True
    board.boot(ResetCause.POWER_ON)
    assert board.running_image(len(OLD)) == OLD
    assert says(board, "the boot state cannot be written")


def test_the_watchdog_runs_from_the_first_moment_and_is_handed_over_fresh() -> None:
    board = FakeBoard(settings=LoaderSettings(watchdog_timeout_s=3))
    board.provision(OLD)
    board.boot()
    assert board.hardware.watchdog_timeout_s == 3
    assert board.hardware.feeds > 0
    assert LoaderSettings().watchdog_timeout_s == 10


def test_an_update_its_first_boot_and_its_commit() -> None:
    board = board_with()
    assert board.update(NEW, commit_timeout=60) == 1
    assert board.boot(ResetCause.SOFTWARE) == STARTED
    assert board.running_image(len(NEW)) == NEW
    assert board.hardware.reasons == ["first-boot", "swap-with-backup"]
    assert board.hardware.decisions[1][1] == {"slot": 1, "target": 0, "spare": 2}
    state = board.state()
    assert (state.active_slot, state.revert_slot, state.commit_timeout) == (0, 2, 60)
    assert state.flags == BootFlag.FIRST_BOOT_A | BootFlag.MERGE_FS
    assert board.image_in(2) == OLD
    assert lines(board)[0] == (
        "boot: reset cause software; state seq 2 in bcfg0+0x0100: active 1, revert 0,"
        " not committed, not started yet"
    )
    assert lines(board)[3].startswith(
        "boot: copying slot 0 (app at 0x08010000, 1,000 bytes) to slot 2 ... verified, CRC32 0x"
    )
    assert lines(board)[-1] == "boot: starting slot 0: sample 2.0"

    board.change(BootState.commit)
    board.boot(ResetCause.WATCHDOG)
    assert board.hardware.reasons == ["boot-active"]
    assert board.running_image(len(NEW)) == NEW


def test_a_reset_without_commit_brings_the_old_firmware_back() -> None:
    board = board_with()
    board.update(NEW)
    board.boot()
    board.boot(ResetCause.WATCHDOG)
    assert board.hardware.reasons == ["rollback-uncommitted", "swap-without-backup"]
    assert says(
        board,
        "reset cause watchdog; state seq 5 in bcfg0+0x0400: active 0, revert 2, not committed",
        "boot: no commit before this reset: rolling back to slot 2",
        "boot: starting slot 0: sample 1.0",
    )
    assert board.running_image(len(OLD)) == OLD
    state = board.state()
    assert state.is_committed
    assert (state.active_slot, state.revert_slot, state.commit_timeout) == (0, NO_SLOT, None)


def test_a_revert_by_the_application_is_carried_out() -> None:
    board = board_with()
    board.update(NEW)
    board.boot()
    board.change(BootState.revert)
    board.boot(ResetCause.SOFTWARE)
    assert board.running_image(len(OLD)) == OLD


def test_a_snapshot_set_as_revert_is_where_a_reset_without_commit_goes() -> None:
    board = board_with()
    state = board.state()
    board.access().copy_image(state.slots[0], state.slots[1])
    board.change(lambda now: now.snapshot_taken(1).set_as_revert(1, commit_timeout=30))
    board.boot()
    assert board.hardware.reasons == ["rollback-uncommitted", "swap-without-backup"]
    assert board.hardware.decisions[0][1] == {"slot": 1}
    assert board.running_image(len(OLD)) == OLD


def test_many_updates_in_a_row_use_all_the_slots_there_are() -> None:
    board = board_with()
    used = set()
    for number in range(12):
        image = make_image(f"3.{number}", 600 + number)
        used.add(board.update(image))
        board.boot()
        assert board.running_image(len(image)) == image
        if number % 3 == 2:
            board.boot()
        else:
            board.change(BootState.commit)
            board.boot()
            assert board.running_image(len(image)) == image
    assert used == {1, 2}


def test_a_damaged_update_is_given_up_with_the_old_firmware_untouched() -> None:
    board = board_with()
    board.update(NEW)
    board.damage(1)
    board.boot()
    assert board.hardware.reasons == ["fallback-revert"]
    assert says(board, "slot 1: its image has CRC32 0x", "falling back to the revert slot 0")
    assert board.running_image(len(OLD)) == OLD
    assert board.state().is_committed


def test_an_update_whose_vector_table_is_nonsense_is_given_up() -> None:
    board = board_with()
    board.update(make_image("2.0", reset_vector=APP0_ADDRESS + 10**6 + 1))
    board.boot()
    assert board.hardware.reasons == ["fallback-revert"]
    assert says(board, "its reset vector 0x081", "outside the image")


def test_damaged_firmware_is_replaced_by_the_factory_image() -> None:
    board = board_with(OLD, FACTORY)
    board.damage(0)
    board.boot()
    assert board.hardware.reasons == ["fallback-factory", "swap-without-backup"]
    assert says(board, "falling back to the factory image in slot 3", "starting slot 0: sample 0.9")
    assert board.running_image(len(FACTORY)) == FACTORY
    board.boot()
    assert board.hardware.reasons == ["boot-active"]
    # What is committed can be updated again.
    board.update(NEW)
    board.boot()
    assert board.running_image(len(NEW)) == NEW


def test_without_any_image_the_loader_says_what_to_do_and_waits_for_the_watchdog() -> None:
    board = board_with()
    board.damage(0)
    fails(board)
    assert board.hardware.reasons == ["no-bootable-image"]
    assert says(board, "slot 0: its image has CRC32", "slot 3: it holds no image", "programmer")
    assert board.hardware.unfed_ns > 10_000_000_000


def test_a_watchdog_that_never_comes_does_not_hang_the_simulation() -> None:
    board = board_with()
    board.damage(0)
    board.has_watchdog = False
    with pytest.raises(WatchdogSilentError, match="check the board's watchdog"):
        board.boot()


def test_empty_journals_get_the_default_and_slot_0_is_started() -> None:
    board = board_with()
    board.nor.cells[:0x4000] = b"\0" * 0x4000
    assert board.boot() == STARTED
    assert board.hardware.reasons == ["defaults-written", "boot-active"]
    assert says(board, "no boot state", "writing the default, slot 0 active and committed")
    state = board.state()
    assert state.seq == 1
    assert state.slots[0].state.app_len == 0x4000
    board.boot()
    assert board.hardware.reasons == ["boot-active"]
    board.update(NEW)
    board.boot()
    assert board.running_image(len(NEW)) == NEW


def test_a_board_with_nothing_in_it_says_so() -> None:
    board = FakeBoard()
    fails(board)
    assert board.hardware.reasons == ["defaults-written", "no-bootable-image"]
    assert says(board, "slot 0: its stack pointer 0xffffffff")


def test_a_spare_slot_that_is_worn_out_stops_the_update_and_not_the_board() -> None:
    board = board_with()
    board.update(NEW)
    board.nor.broken = {board.layout.partition("appT").offset + 10: 0xFF}
    board.boot()
    assert board.hardware.reasons[-1] == "fallback-revert"
    assert says(board, "to slot 2 ... failed: copying app0 to appT: CRC32 0x")
    assert board.running_image(len(OLD)) == OLD
    assert board.state().slots[2].state.err_count == 2


def test_a_copy_that_fails_once_is_tried_again() -> None:
    board = board_with()
    board.update(NEW)
    offset = board.layout.partition("appT").offset + 10
    board.nor.broken = {offset: 0xFF}

    def heal(kind: str, length: int) -> None:
        # The failed copy is answered with a record; after it the cell works again.
        if kind == "program" and length == 256 and board.hardware.text.endswith("\n"):
            board.nor.broken = {}

    board.power.on_operation.append(heal)
    board.boot(ResetCause.SOFTWARE)
    assert board.hardware.reasons == ["first-boot", "swap-with-backup"] * 2
    assert board.running_image(len(NEW)) == NEW
    assert board.state().slots[2].state.err_count == 1


def test_slot_0_that_does_not_take_the_update_gets_the_old_firmware_back() -> None:
    board = board_with()
    board.update(NEW)
    board.internal.broken = {0x1000 + 500: 0xFF}
    board.boot()
    assert board.hardware.reasons[-2:] == ["fallback-revert", "swap-without-backup"]
    assert says(board, "copying it to slot 0 fails: falling back", "sample 1.0")
    assert board.running_image(len(OLD)) == OLD


def test_slot_0_that_takes_no_image_at_all_ends_in_words_and_not_in_a_loop() -> None:
    board = board_with(OLD, FACTORY)
    board.update(NEW)
    board.power.cut(operation_of(board, "erase", 2), Moment.BEFORE)
    with pytest.raises(PowerCutError):
        board.boot()
    board.power.restore()
    board.internal.cells[0x1000 + 500] ^= 0xFF
    board.internal.broken = {0x1000 + 500: 0xFF}
    fails(board)
    assert board.hardware.reasons[-1] == "no-bootable-image"
    assert says(board, "slot 1: copying it to slot 0 fails", "slot 3: copying it to slot 0 fails")
    assert board.image_in(2) == OLD


def test_a_boot_state_that_cannot_be_written_is_told_in_words() -> None:
    board = board_with()
    board.update(NEW)
    board.nor.is_protected = True
    assert board.boot() == STARTED
    assert says(board, "FAIL: the boot state cannot be written", "write protected")
    assert board.hardware.reasons == ["first-boot", "swap-with-backup", "state-unwritable"]
    assert board.running_image(len(OLD)) == OLD


def test_a_board_whose_journal_takes_no_record_runs_what_it_has() -> None:
    """Found with stuck bits: the area whose turn it was had a bad first record, and no boot ended.

    The update had been copied when its record was refused: it lies in slot 0, and slot 1 says so.
    """
    board = board_with()
    board.update(NEW)
    twin = board.copy()
    begun = twin.power.operations
    twin.boot()
    board.power.cut(twin.power.operations - begun - 1, Moment.BEFORE)
    with pytest.raises(PowerCutError):
        board.boot()
    board.power.restore()
    board.nor.is_protected = True
    assert board.boot() == STARTED
    assert board.hardware.reasons[-1] == "state-unwritable"
    assert board.running_image(len(NEW)) == NEW


def test_the_original_gives_up_when_nothing_can_be_written() -> None:
    board = board_with(strict=True)
    board.update(NEW)
    board.nor.is_protected = True
    fails(board)
    assert says(board, "FAIL: the boot state cannot be written")


def test_committed_firmware_starts_even_when_nothing_can_be_written() -> None:
    board = board_with()
    board.nor.is_protected = True
    assert board.boot() == STARTED


def test_a_swap_stands_on_a_record_written_in_the_same_boot() -> None:
    """The first record of the backup was torn: it is read once, and gone after the next cut."""
    board = board_with()
    board.update(NEW)
    erase_of_slot_0 = operation_of(board, "erase", 2)
    board.power.cut(erase_of_slot_0, Moment.BEFORE)
    with pytest.raises(PowerCutError):
        board.boot()
    board.power.restore()
    torn = board.journal().newest
    assert torn is not None
    assert torn.state.revert_slot == 2
    # Resumed, with slot 0 erased this time, and the power gone again.
    board.power.cut(2, Moment.BEFORE)
    with pytest.raises(PowerCutError):
        board.boot()
    board.power.restore()
    assert board.running_image(100) == b"\xff" * 100
    board.nor.cells[torn.offset + 30] &= 0x0F
    board.boot()
    assert board.running_image(len(NEW)) == NEW
    board.boot()
    assert board.running_image(len(OLD)) == OLD


def operation_of(board: FakeBoard, kind: str, number: int) -> int:
    """Which operation of the next boot is the `number`th of its kind, counted from 1."""
    twin = board.copy()
    kinds: list[str] = []
    twin.power.on_operation.append(lambda each, _length: kinds.append(each))
    twin.boot()
    return [at for at, each in enumerate(kinds) if each == kind][number - 1]


def test_an_application_without_a_descriptor_is_started_all_the_same() -> None:
    image = bytearray(OLD)
    image[8:16] = b"\0" * 8
    board = board_with(bytes(image))
    assert board.boot() == STARTED
    assert lines(board)[-1] == "boot: starting slot 0: application at 0x08010000"


@pytest.mark.parametrize("cause", list(ResetCause))
def test_the_reset_cause_is_told_and_decides_nothing(cause: ResetCause) -> None:
    board = board_with()
    board.update(NEW)
    board.boot()
    board.boot(cause)
    assert board.hardware.reasons[0] == "rollback-uncommitted"
    assert lines(board)[0].startswith(f"boot: reset cause {cause.value};")


@pytest.mark.parametrize("active", [-1, 7])
def test_a_state_that_points_nowhere_does_not_crash_the_loader(active: int) -> None:
    board = board_with(OLD, FACTORY)
    board.set_fields(active_slot=active)
    board.boot()
    assert board.hardware.reasons[0] == "fallback-factory"
    assert says(board, f"slot {active} does not exist")


def test_strict_a_damaged_image_loops_for_ever() -> None:
    board = board_with(OLD, FACTORY, strict=True)
    board.damage(0)
    for _ in range(2):
        fails(board)
        assert board.hardware.reasons == ["boot-active"]
        assert says(board, "slot 0: its image has CRC32", "FAIL: verifying slot 0 failed")


def test_strict_a_whole_update_and_a_rollback_work_as_ever() -> None:
    board = board_with(strict=True)
    board.update(NEW)
    board.boot()
    assert board.running_image(len(NEW)) == NEW
    board.boot()
    assert board.running_image(len(OLD)) == OLD
    assert board.hardware.reasons == ["rollback-uncommitted", "swap-without-backup"]


def test_strict_a_failed_copy_is_counted_and_ends_the_boot() -> None:
    board = board_with(strict=True)
    board.update(NEW)
    board.nor.broken = {board.layout.partition("appT").offset + 10: 0xFF}
    fails(board)
    assert says(board, "FAIL: copying slot 0 to slot 2 failed")
    assert board.state().slots[2].state.err_count == 1


def test_strict_and_default_leave_the_same_state_behind_an_undisturbed_update() -> None:
    states = []
    for strict in (False, True):
        board = board_with(strict=strict)
        board.update(NEW, commit_timeout=5)
        board.boot()
        states.append(board.state())
    assert states[0].slots == states[1].slots
    assert states[0].flags == states[1].flags
    assert states[0].revert_slot == states[1].revert_slot


def test_a_board_of_full_size_takes_the_largest_update() -> None:
    board = FakeBoard(full_size=True)
    board.provision(make_image("1.0", 0x1_2345))
    image = make_image("2.0", 0xF_0000)
    board.update(image)
    board.boot()
    assert board.running_image(len(image)) == image


@pytest.mark.parametrize("strict", [False, True])
def test_defaults_keep_a_factory_image_unless_the_original_is_asked_for(strict: bool) -> None:
    board = FakeBoard(settings=LoaderSettings(strict_original=strict))
    board.provision(make_image("1.0"), make_image("0.9"))
    for name in board.layout.journal_areas:
        area = board.layout.partition(name)
        board.nor.cells[area.offset : area.offset + area.size] = b"\xff" * area.size
    board.boot()
    factory = board.state().slots[FACTORY_SLOT].state
    assert (factory.app_len > 0) is not strict
    if not strict:
        board.damage(0, offset=0)
        board.boot()
        assert "fallback-factory" in board.hardware.reasons
        image = make_image("0.9")
        assert board.running_image(len(image)) == image
