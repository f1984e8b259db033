"""The cells: physics, times, listeners, and every way to interrupt an operation."""

import mmap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platforms.clock import Clock
from platforms.devices.flash_memory import (
    FlashMemory,
    FlashOperation,
    Moment,
    OperationKind,
)
from platforms.devices.torn import TornShape
from platforms.errors import InvalidArgumentError
from platforms.flash import FlashError, FlashGeometry

GEOMETRY = FlashGeometry.of(64, 64, 128, page_size=16)
SIZE = GEOMETRY.size


class Rig:
    """A small flash memory and its clock."""

    def __init__(self, storage: bytearray | mmap.mmap | None = None) -> None:
        self.clock = Clock()
        self.storage = bytearray(b"\xff" * SIZE) if storage is None else storage
        self.memory = FlashMemory(
            "cells", GEOMETRY, self.clock, self.storage, status_cells=bytearray(b"\x00\x02\x60")
        )

    def pass_time(self, duration_ns: int) -> None:
        self.clock.advance_to(self.clock.now_ns + duration_ns)

    def program(self, address: int, data: bytes) -> None:
        self.memory.begin_program(address, data, 100)
        self.pass_time(100)


class PowerCutError(Exception):
    pass


def test_programming_clears_bits_and_never_sets_one() -> None:
    rig = Rig()
    rig.program(10, b"\xf0\x0f")
    rig.program(10, b"\x3c\xff")
    assert rig.memory.read(9, 4) == b"\xff\x30\x0f\xff"


def test_erasing_sets_whole_sectors_and_counts_their_wear() -> None:
    rig = Rig()
    rig.program(0, bytes(SIZE))
    rig.memory.begin_erase(64, 192, 1000)
    assert rig.memory.read(0, SIZE) == bytes(64) + b"\xff" * 192
    assert list(rig.memory.wear) == [0, 1, 1]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=40)),
            st.integers(0, 2),
        )
    )
)
def test_any_sequence_of_operations_matches_the_plain_model(
    operations: list[tuple[int, bytes] | int],
) -> None:
    rig = Rig()
    expected = [0xFF] * SIZE
    for operation in operations:
        if isinstance(operation, int):
            sector = GEOMETRY.sectors[operation]
            rig.memory.begin_erase(sector.address, sector.size, 7)
            expected[sector.address : sector.end] = [0xFF] * sector.size
        else:
            address, data = operation
            data = data[: SIZE - address]
            rig.memory.begin_program(address, data, 7)
            for index, byte in enumerate(data, start=address):
                expected[index] &= byte
        rig.pass_time(7)
    assert list(rig.memory.read(0, SIZE)) == expected


def test_busy_ends_to_the_nanosecond() -> None:
    rig = Rig()
    rig.pass_time(5)
    operation = rig.memory.begin_program(0, b"\x00", 100)
    assert (operation.start_ns, operation.end_ns) == (5, 105)
    rig.pass_time(99)
    assert rig.memory.busy
    assert rig.memory.remaining_ns == 1
    rig.pass_time(1)
    assert not rig.memory.busy
    assert (rig.memory.busy_until_ns, rig.memory.remaining_ns) == (105, 0)


def test_an_operation_during_another_is_an_error_and_changes_nothing() -> None:
    rig = Rig()
    rig.memory.begin_program(0, b"\x00", 100)
    with pytest.raises(FlashError, match="under way until 100 ns"):
        rig.memory.begin_erase(0, 64, 100)
    assert rig.memory.read(0, 1) == b"\x00"
    assert list(rig.memory.wear) == [0, 0, 0]


@pytest.mark.parametrize(
    ("address", "length"), [(-1, 1), (SIZE, 1), (0, SIZE + 1), (250, 10), (0, -1)]
)
def test_reading_outside_the_device_is_an_error(address: int, length: int) -> None:
    with pytest.raises(FlashError) as error:
        Rig().memory.read(address, length)
    assert (error.value.address, error.value.length) == (address, length)


def test_programming_outside_the_device_is_an_error() -> None:
    with pytest.raises(FlashError, match="0x100 bytes"):
        Rig().memory.begin_program(SIZE - 1, b"\x00\x00", 1)


@pytest.mark.parametrize(
    ("address", "length"), [(0, 63), (1, 63), (32, 64), (0, 0), (64, 128), (128, 64), (192, 128)]
)
def test_an_erase_that_is_not_made_of_sectors_is_an_error(address: int, length: int) -> None:
    rig = Rig()
    with pytest.raises(FlashError):
        rig.memory.begin_erase(address, length, 1)
    assert list(rig.memory.wear) == [0, 0, 0]


def test_storage_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="holds 3 bytes, but the device has 256"):
        FlashMemory("cells", GEOMETRY, Clock(), bytearray(3))


def test_status_cells_take_bits_both_ways_and_have_bounds() -> None:
    rig = Rig()
    rig.memory.begin_write_status(1, b"\x81", 10)
    assert bytes(rig.memory.status_cells[0:3]) == b"\x00\x81\x60"
    rig.pass_time(10)
    with pytest.raises(FlashError, match="3 non-volatile register bytes"):
        rig.memory.begin_write_status(2, b"\x00\x00", 10)


def test_a_mapped_file_keeps_what_was_programmed(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    path.write_bytes(b"\xff" * SIZE)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as storage:
        rig = Rig(storage)
        rig.program(3, b"\x12\x34")
        assert rig.memory.read(2, 4) == b"\xff\x12\x34\xff"
    assert path.read_bytes()[2:6] == b"\xff\x12\x34\xff"


def test_a_shared_view_of_the_cells_sees_every_change() -> None:
    rig = Rig()
    view = memoryview(rig.storage)
    rig.program(3, b"\x12")
    assert view[3] == 0x12


def test_listeners_hear_of_operations_and_of_changed_bytes() -> None:
    rig = Rig()
    operations: list[FlashOperation] = []
    changes: list[tuple[int, int]] = []
    rig.memory.on_operation.append(operations.append)
    rig.memory.on_change.append(lambda address, length: changes.append((address, length)))
    rig.program(4, b"\x01\x02")
    rig.memory.begin_erase(64, 64, 50)
    rig.memory.power_lost(TornShape.NOTHING, 1)
    rig.memory.begin_write_status(0, b"\x04", 9)
    assert operations == [
        FlashOperation(0, "cells", OperationKind.PROGRAM, 4, 2, b"\x01\x02", 0, 100, 2),
        FlashOperation(1, "cells", OperationKind.ERASE, 64, 64, b"", 100, 50, 64),
        FlashOperation(2, "cells", OperationKind.WRITE_STATUS, 0, 1, b"\x04", 100, 9, 1),
    ]
    # The erase is heard of twice: when it began and when the power cut took it back.
    assert changes == [(4, 2), (64, 64), (64, 64)]


def test_power_loss_when_idle_changes_nothing() -> None:
    rig = Rig()
    rig.memory.power_lost(TornShape.NOTHING, 1)
    rig.program(0, b"\x12")
    rig.memory.power_lost(TornShape.NOTHING, 1)
    assert rig.memory.read(0, 1) == b"\x12"


@pytest.mark.parametrize(
    ("shape", "content"),
    [
        (TornShape.NOTHING, b"\xff" * 8),
        (TornShape.COMPLETE, bytes(8)),
        (TornShape.PREFIX, bytes(2) + b"\xff" * 6),
        (TornShape.SUFFIX, b"\xff" * 6 + bytes(2)),
    ],
)
def test_power_loss_tears_the_operation_as_far_as_its_time_has_passed(
    shape: TornShape, content: bytes
) -> None:
    rig = Rig()
    rig.memory.begin_program(0, bytes(8), 100)
    rig.pass_time(25)
    rig.memory.power_lost(shape, 1)
    assert rig.memory.read(0, 8) == content
    assert not rig.memory.busy


def test_the_progress_can_be_given() -> None:
    rig = Rig()
    rig.memory.begin_program(0, bytes(8), 100)
    rig.memory.power_lost(TornShape.PREFIX, 1, progress=0.5)
    assert rig.memory.read(0, 8) == bytes(4) + b"\xff" * 4


def test_a_torn_status_write_mixes_old_and_new_bits() -> None:
    rig = Rig()
    rig.memory.begin_write_status(0, b"\xfc\x43", 100)
    rig.memory.power_lost(TornShape.PREFIX, 1, progress=0.5)
    assert bytes(rig.memory.status_cells[0:3]) == b"\xfc\x02\x60"


def test_weak_bits_read_differently_until_they_are_driven_again() -> None:
    rig = Rig()
    rig.program(0, bytes(64))
    rig.memory.begin_erase(0, 64, 100)
    rig.pass_time(50)
    rig.memory.power_lost(TornShape.WEAK_BITS, 5)
    assert rig.memory.weak_bits
    assert len({rig.memory.read(0, 64) for _ in range(20)}) > 1
    assert len({rig.memory.read(64, 64) for _ in range(20)}) == 1
    rig.memory.begin_erase(0, 64, 100)
    assert not rig.memory.weak_bits
    assert {rig.memory.read(0, 64) for _ in range(20)} == {b"\xff" * 64}


def test_programming_a_weak_bit_firms_it_up_and_leaving_it_alone_does_not() -> None:
    rig = Rig()
    rig.memory.weak_bits = {8 * 5 + 3, 8 * 6 + 3}
    rig.program(5, b"\xf7\xff")
    assert rig.memory.weak_bits == {8 * 6 + 3}
    assert {rig.memory.read(5, 1) for _ in range(20)} == {b"\xf7"}
    assert {rig.memory.read(6, 1) for _ in range(20)} == {b"\xf7", b"\xff"}


def test_a_weak_bit_stays_weak_when_the_operation_that_drives_it_is_torn() -> None:
    rig = Rig()
    rig.memory.weak_bits = {40}
    rig.memory.begin_program(5, b"\x00", 100)
    rig.memory.power_lost(TornShape.NOTHING, 1)
    assert rig.memory.weak_bits == {40}
    rig.memory.begin_program(5, b"\x00", 100)
    rig.memory.power_lost(TornShape.COMPLETE, 1)
    assert not rig.memory.weak_bits


def test_the_same_seed_repeats_a_torn_operation_and_its_weak_reads() -> None:
    def run(seed: int) -> list[bytes]:
        rig = Rig()
        rig.program(0, bytes(64))
        rig.memory.begin_erase(0, 64, 100)
        rig.pass_time(40)
        rig.memory.power_lost(TornShape.WEAK_BITS, seed)
        return [rig.memory.read(0, 64) for _ in range(5)]

    assert run(11) == run(11)
    assert run(11) != run(12)


def test_the_interceptor_sees_each_moment_at_its_time() -> None:
    rig = Rig()
    seen: list[tuple[int, Moment, int, bytes]] = []
    rig.memory.interceptor = lambda operation, moment: seen.append(
        (operation.number, moment, rig.clock.now_ns, bytes(rig.storage[0:1]))
    )
    rig.program(0, b"\x00")
    assert seen == [
        (0, Moment.BEFORE, 0, b"\xff"),
        (0, Moment.DURING, 0, b"\x00"),
        (0, Moment.AFTER, 100, b"\x00"),
    ]


@pytest.mark.parametrize(
    ("cut_at", "content", "operations"),
    [(Moment.BEFORE, b"\xff\xff", 0), (Moment.DURING, b"\x00\xff", 1), (Moment.AFTER, b"\0\0", 1)],
)
def test_an_interceptor_can_cut_power_at_any_moment(
    cut_at: Moment, content: bytes, operations: int
) -> None:
    rig = Rig()
    begun: list[FlashOperation] = []
    rig.memory.on_operation.append(begun.append)

    def cut(_operation: FlashOperation, moment: Moment) -> None:
        if moment is cut_at:
            rig.memory.power_lost(TornShape.PREFIX, 1, progress=0.5)
            raise PowerCutError

    rig.memory.interceptor = cut
    with pytest.raises(PowerCutError):
        rig.program(0, b"\x00\x00")
    assert rig.memory.read(0, 2) == content
    assert len(begun) == operations
    assert not rig.memory.busy
    # Whatever was scheduled for the operation's end is gone with it.
    assert rig.clock.next_event_ns is None


def test_an_interceptor_can_cut_power_later_in_the_operation() -> None:
    rig = Rig()

    def cut() -> None:
        rig.memory.power_lost(TornShape.PREFIX, 1)
        raise PowerCutError

    def schedule(operation: FlashOperation, moment: Moment) -> None:
        if moment is Moment.DURING:
            rig.clock.call_after(operation.duration_ns * 3 // 4, cut)

    rig.memory.interceptor = schedule
    with pytest.raises(PowerCutError):
        rig.program(0, bytes(4))
    assert rig.memory.read(0, 4) == bytes(3) + b"\xff"
    assert rig.clock.now_ns == 75
