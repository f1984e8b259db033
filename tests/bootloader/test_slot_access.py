import zlib
from dataclasses import replace

import pytest

from bootloader_model.boot_state import Slot, SlotConfiguration
from bootloader_model.layout import DEFAULT_LAYOUT, DEFAULT_SLOTS, FlashName, UnknownPartitionError
from bootloader_model.partition import CHUNK_SIZE, Partitions
from bootloader_model.provisioning import describe_image
from bootloader_model.slot_access import CopyError, SlotAccess
from platforms.flash import FlashError
from tests.bootloader.fake_board import SMALL_APP_SIZE, FakeBoard, make_image

OLD = make_image("1.0", 3 * CHUNK_SIZE + 5)


def board_with(image: bytes = OLD, *, full_size: bool = False) -> FakeBoard:
    board = FakeBoard(full_size=full_size)
    board.provision(image)
    return board


def slots(board: FakeBoard) -> tuple[Slot, ...]:
    return board.state().slots


def elsewhere(name: str) -> Slot:
    return replace(
        DEFAULT_SLOTS[0],
        configuration=SlotConfiguration.of(DEFAULT_SLOTS[0].configuration.flags, name),
        state=describe_image(OLD),
    )


def test_an_image_is_read_as_long_as_it_is() -> None:
    board = board_with()
    access = board.access()
    assert access.read_image(slots(board)[0]) == OLD
    assert access.read_head(slots(board)[0], 100) == OLD[:100]
    assert access.read_head(slots(board)[0], 10**6) == OLD
    assert access.crc32(slots(board)[0]) == zlib.crc32(OLD)
    assert access.crc32(slots(board)[0], 10) == zlib.crc32(OLD[:10])
    assert access.room(slots(board)[0]) == SMALL_APP_SIZE


@pytest.mark.parametrize("size", [101, 256, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1])
@pytest.mark.parametrize("target", [1, 2])
def test_an_image_is_copied_whatever_its_length(size: int, target: int) -> None:
    board = board_with(make_image("1.0", size))
    source, dirty = slots(board)[0], slots(board)[target]
    board.write_image(target, make_image("dirt", 2 * CHUNK_SIZE))
    board.access().copy_image(source, dirty)
    partition = board.partitions.open(dirty.configuration.app_dev)
    assert partition.read(0, size) == make_image("1.0", size)


def test_only_the_sectors_that_the_image_touches_are_erased() -> None:
    board = board_with(make_image("1.0", CHUNK_SIZE + 1))
    before = make_image("dirt", 3 * CHUNK_SIZE)
    board.write_image(1, before)
    board.access().copy_image(slots(board)[0], slots(board)[1])
    partition = board.partitions.open("app1")
    assert partition.read(2 * CHUNK_SIZE, CHUNK_SIZE) == before[2 * CHUNK_SIZE :]


def test_erasing_goes_in_runs_that_suit_the_erase_commands() -> None:
    board = FakeBoard(full_size=True)
    runs = board.partitions.open("app1").erase_runs(0x1_8001, 0x1_0000)
    assert runs == [(0, 0x1_0000), (0x1_0000, 0x9000)]
    internal = board.partitions.open("app0").erase_runs(0x1_8001, 0x1_0000)
    assert internal == [(0, 0x1_0000), (0x1_0000, 0x2_0000)]
    assert board.partitions.open("app0").erase_runs(4812, 0x1_0000) == [(0, 0x1_0000)]
    assert board.partitions.open("app0").erase_runs(0, 0x1_0000) == []


def test_the_largest_image_fits_exactly() -> None:
    image = make_image("1.0", 0xF_0000)
    board = board_with(image, full_size=True)
    board.access().copy_image(slots(board)[0], slots(board)[1])
    assert board.partitions.open("app1").read(0, len(image)) == image


def test_the_watchdog_is_fed_between_pieces_of_work() -> None:
    board = board_with(make_image("1.0", 0x4_0000), full_size=True)
    largest = {"erase": 0, "program": 0}
    since_feed = {"erase": 0, "program": 0}

    def note(kind: str, length: int) -> None:
        since_feed[kind] += length
        largest[kind] = max(largest[kind], since_feed[kind])

    def feed() -> None:
        since_feed.update(erase=0, program=0)

    board.power.on_operation.append(note)
    access = SlotAccess(board.partitions, feed)
    access.copy_image(slots(board)[0], slots(board)[1])
    assert largest == {"erase": 0x1_0000, "program": CHUNK_SIZE}
    copied = replace(slots(board)[1], state=slots(board)[0].state)
    access.copy_image(copied, slots(board)[0])
    # One sector of internal flash is 128 KB, and erased in one go whatever one wishes.
    assert largest == {"erase": 0x2_0000, "program": CHUNK_SIZE}


def test_a_copy_is_verified_against_what_the_source_says() -> None:
    board = board_with()
    board.damage(0)
    with pytest.raises(CopyError, match=r"app0 to app1: CRC32 0x.* instead of 0x"):
        board.access().copy_image(slots(board)[0], slots(board)[1])


def test_a_target_that_does_not_take_every_bit_is_noticed() -> None:
    board = board_with()
    board.nor.broken = {board.layout.partition("app1").offset + 1000: 0xFF}
    with pytest.raises(CopyError, match="CRC32"):
        board.access().copy_image(slots(board)[0], slots(board)[1])


def test_a_target_that_refuses_is_named() -> None:
    board = board_with()
    board.nor.is_protected = True
    with pytest.raises(CopyError, match=r"app0 to app1: .*write protected") as caught:
        board.access().copy_image(slots(board)[0], slots(board)[1])
    assert (caught.value.source, caught.value.target) == ("app0", "app1")


def test_an_image_that_does_not_fit_is_not_begun() -> None:
    board = board_with()
    too_long = replace(
        slots(board)[0],
        state=replace(slots(board)[0].state, app_len=SMALL_APP_SIZE + 1),
    )
    before = board.power.operations
    with pytest.raises(CopyError, match="do not fit"):
        board.access().copy_image(too_long, slots(board)[1])
    assert board.power.operations == before


def test_a_slot_that_is_nowhere_on_this_board_is_no_good_and_says_so() -> None:
    access = board_with().access()
    assert "no partition 'appX'" in str(access.check_image(elsewhere("appX")).problem)
    with pytest.raises(CopyError, match="no partition 'appX'"):
        access.copy_image(elsewhere("appX"), elsewhere("app1"))
    with pytest.raises(UnknownPartitionError):
        access.read_image(elsewhere("appX"))


def test_a_good_image_is_found_good_and_a_damaged_one_is_not() -> None:
    board = board_with()
    assert board.access().check_image(slots(board)[0]).is_good
    board.damage(0)
    assert "CRC32" in str(board.access().check_image(slots(board)[0]).problem)


def test_a_right_crc_does_not_make_a_vector_table() -> None:
    board = board_with(make_image("1.0", stack_pointer=0))
    assert "outside RAM" in str(board.access().check_image(slots(board)[0]).problem)


def test_nothing_outside_a_partition_is_reached() -> None:
    partition = board_with().partitions.open("app1")
    for offset, length in ((-1, 1), (SMALL_APP_SIZE, 1), (0, SMALL_APP_SIZE + 1)):
        with pytest.raises(FlashError, match="outside partition app1"):
            partition.read(offset, length)
    with pytest.raises(FlashError, match="outside partition app1"):
        partition.program(SMALL_APP_SIZE - 1, b"ab")
    with pytest.raises(FlashError, match="outside partition app1"):
        partition.erase(0, SMALL_APP_SIZE + 0x1000)


def test_the_partitions_of_the_board_lie_on_sectors_and_beside_one_another() -> None:
    board = FakeBoard(full_size=True)
    assert isinstance(board.partitions, Partitions)
    for flash, device in ((FlashName.NOR, board.nor), (FlashName.INTERNAL, board.internal)):
        bounds = {sector.address for sector in device.geometry.sectors} | {device.geometry.size}
        end = 0
        found = [p for p in DEFAULT_LAYOUT.partitions.values() if p.flash is flash]
        for partition in sorted(found, key=lambda each: each.offset):
            assert partition.offset >= end
            end = partition.offset + partition.size
            assert {partition.offset, end} <= bounds
        assert end <= device.geometry.size


def test_every_default_slot_is_somewhere() -> None:
    for slot in DEFAULT_SLOTS:
        assert slot.configuration.app_dev in DEFAULT_LAYOUT.partitions
        assert slot.configuration.fs_dev in ("", *DEFAULT_LAYOUT.partitions)
