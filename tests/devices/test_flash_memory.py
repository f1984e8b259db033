"""The cells: physics, times, listeners, and every way to interrupt an operation."""

import mmap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platforms.clock import NEVER_NS, Clock
from platforms.devices.damage import WORN_BITS, worn_bits
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


def test_a_bit_stuck_at_0_is_not_erased_and_one_stuck_at_1_is_not_programmed() -> None:
    rig = Rig()
    changes: list[tuple[int, int]] = []
    rig.memory.on_change.append(lambda address, length: changes.append((address, length)))
    rig.memory.stick({8 * 3 + 0: 0, 8 * 3 + 7: 1, 8 * 70: 0})
    assert changes == [(3, 1), (70, 1)]
    assert rig.memory.read(3, 1) == b"\xfe", "it has its level at once"
    rig.program(2, bytes(3))
    assert rig.memory.read(2, 3) == b"\x00\x80\x00"
    rig.memory.begin_erase(0, 64, 100)
    assert rig.memory.read(2, 3) == b"\xff\xfe\xff"


@pytest.mark.parametrize("bit", [-1, 8 * SIZE])
def test_bits_outside_the_device_neither_flip_nor_stick(bit: int) -> None:
    rig = Rig()
    with pytest.raises(FlashError, match="outside the device"):
        rig.memory.flip(bit)
    with pytest.raises(FlashError, match="outside the device"):
        rig.memory.stick({0: 0, bit: 0})
    assert rig.memory.read(0, SIZE) == b"\xff" * SIZE
    assert not rig.memory.stuck_bits


def test_a_bit_has_two_levels_to_stick_at() -> None:
    with pytest.raises(InvalidArgumentError, match="0 or 1, not at 2"):
        Rig().memory.stick({0: 2})


def test_a_bit_flips_either_way_and_listeners_hear_of_it() -> None:
    rig = Rig()
    changes: list[tuple[int, int]] = []
    rig.memory.on_change.append(lambda address, length: changes.append((address, length)))
    rig.memory.flip(8 * 9 + 3)
    assert rig.memory.read(8, 3) == b"\xff\xf7\xff"
    rig.memory.flip(8 * 9 + 3)
    assert rig.memory.read(8, 3) == b"\xff\xff\xff"
    assert changes == [(9, 1), (9, 1)]


def test_a_stuck_bit_is_no_longer_weak() -> None:
    rig = Rig()
    rig.memory.weak_bits = {40, 41}
    rig.memory.stick({41: 0})
    assert rig.memory.weak_bits == {40}


def test_a_weak_bit_that_sticks_while_it_is_driven_does_not_get_weak_again() -> None:
    rig = Rig()
    rig.memory.weak_bits = {40, 41}
    rig.memory.begin_program(5, b"\xfc", 100)
    rig.memory.stick({40: 1})
    rig.memory.power_lost(TornShape.NOTHING, 1)
    assert rig.memory.weak_bits == {41}, "this one was weak before, and was not driven to the end"
    assert all(rig.memory.read(5, 1)[0] & 1 for _ in range(20))


def test_a_sector_that_wears_out_in_an_erase_keeps_zeros_and_was_whole_until_then() -> None:
    rig = Rig()
    bits = worn_bits(64, 64, seed=4)
    rig.program(64, bytes(range(64)))

    def wear_out(operation: FlashOperation, moment: Moment) -> None:
        if moment is Moment.BEFORE and operation.kind is OperationKind.ERASE:
            assert rig.memory.read(64, 64) == bytes(range(64))
            rig.memory.stick(dict.fromkeys(bits, 0))

    rig.memory.interceptor = wear_out
    rig.memory.begin_erase(64, 64, 100)
    rig.pass_time(100)
    content = int.from_bytes(rig.memory.read(64, 64), "little")
    assert {8 * 64 + bit for bit in range(512) if not content >> bit & 1} == bits
    assert len(bits) == WORN_BITS


Act = Callable[[Rig], None]


def programs() -> st.SearchStrategy[Act]:
    return st.builds(
        lambda address, data, size: (
            lambda rig: rig.memory.begin_program(
                address, data[: SIZE - address], 100, access_size=size
            )
        ),
        st.integers(0, SIZE - 1),
        st.binary(min_size=1, max_size=80),
        st.none() | st.integers(1, 8),
    )


def erases() -> st.SearchStrategy[Act]:
    def erase(rig: Rig, number: int) -> None:
        sector = GEOMETRY.sectors[number]
        rig.memory.begin_erase(sector.address, sector.size, 100)

    return st.integers(0, 2).map(lambda number: lambda rig: erase(rig, number))


def changes() -> st.SearchStrategy[Act]:
    """Operations that come to their end, are torn, or hang and are torn later."""

    def change(rig: Rig, begin: Act, end: TornShape | None, seed: int, waits: int) -> None:
        begin(rig)
        if end is None:
            rig.pass_time(100)
            return
        if waits > 100:
            rig.memory.hang()
        rig.pass_time(waits)
        rig.memory.power_lost(end, seed)

    return st.builds(
        lambda begin, end, seed, waits: lambda rig: change(rig, begin, end, seed, waits),
        programs() | erases(),
        st.none() | st.sampled_from(TornShape),
        st.integers(0, 99),
        st.integers(0, 150),
    )


bit_addresses = st.integers(0, 8 * SIZE - 1)


@settings(deadline=None)
@given(
    st.lists(
        changes()
        | bit_addresses.map(lambda bit: lambda rig: rig.memory.flip(bit))
        | st.dictionaries(bit_addresses, st.integers(0, 1), max_size=20).map(
            lambda bits: lambda rig: rig.memory.stick(bits)
        ),
        max_size=12,
    )
)
def test_a_stuck_bit_never_reads_as_the_other_level(acts: list[Act]) -> None:
    rig = Rig()
    # Some from the start, so that few sequences have none.
    rig.memory.stick({bit: bit // 37 % 2 for bit in range(0, 8 * SIZE, 37)})
    for act in acts:
        act(rig)
        content = rig.memory.read(0, SIZE)
        assert all(
            content[bit // 8] >> bit % 8 & 1 == level
            for bit, level in rig.memory.stuck_bits.items()
        )


@settings(deadline=None)
@given(st.lists(programs(), max_size=4), programs(), st.integers(0, 99), st.integers(0, 100))
def test_a_garbled_program_sets_no_bit(
    before: list[Act], program: Act, seed: int, passed_ns: int
) -> None:
    rig = Rig()
    for act in before:
        act(rig)
        rig.pass_time(100)
    old = int.from_bytes(rig.memory.read(0, SIZE), "little")
    program(rig)
    rig.pass_time(passed_ns)
    rig.memory.power_lost(TornShape.GARBLED, seed)
    for _ in range(3):
        assert int.from_bytes(rig.memory.read(0, SIZE), "little") & ~old == 0


@settings(deadline=None)
@given(st.booleans(), st.integers(0, 200), st.sampled_from(TornShape))
def test_a_memory_that_hangs_is_busy_until_the_power_goes(
    has_begun: bool, passed_ns: int, shape: TornShape
) -> None:
    rig = Rig()
    moments: list[Moment] = []
    rig.memory.interceptor = lambda _operation, moment: moments.append(moment)
    if has_begun:
        rig.memory.begin_program(0, b"\x12", 100)
        rig.pass_time(50)
    rig.memory.hang()
    assert rig.memory.hangs
    assert rig.memory.busy_until_ns == NEVER_NS
    rig.pass_time(passed_ns)
    rig.pass_time(10**15)
    assert rig.memory.busy
    with pytest.raises(FlashError, match="never ends; cycle the supply"):
        rig.memory.begin_erase(64, 64, 100)
    assert Moment.AFTER not in moments
    rig.memory.power_lost(shape, 1)
    assert not rig.memory.busy
    assert not rig.memory.hangs
    rig.memory.begin_erase(64, 64, 100)
    rig.pass_time(100)
    assert not rig.memory.busy


def test_a_memory_that_begins_to_hang_when_idle_keeps_its_content() -> None:
    rig = Rig()
    rig.program(0, b"\x12\x34")
    rig.memory.hang()
    rig.memory.power_lost(TornShape.NOTHING, 1)
    assert rig.memory.read(0, 2) == b"\x12\x34"


def test_damage_is_in_a_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    path.write_bytes(b"\xff" * SIZE)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as storage:
        rig = Rig(storage)
        rig.memory.flip(8 * 5)
        rig.memory.stick({8 * 6 + 1: 0})
        rig.memory.begin_program(7, b"\x00", 100)
        rig.memory.hang()
    assert path.read_bytes()[4:9] == b"\xff\xfe\xfd\x00\xff"
