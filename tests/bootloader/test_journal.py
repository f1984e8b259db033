from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootloader_model.boot_record import RecordError, build_record
from bootloader_model.boot_state import BootState
from bootloader_model.journal import (
    MAX_RECORDS,
    Journal,
    JournalWriteError,
    RecordStatus,
    ScanResult,
    is_newer,
    scan_areas,
)
from bootloader_model.provisioning import initial_state
from tests.bootloader.fake_board import FakeBoard, make_image
from tests.bootloader.fake_flash import Moment, PowerCutError

AREA_SIZE = 0x2000
ERASED = b"\xff" * 256
OTHER_AREA = AREA_SIZE


def record(seq: int, active_slot: int = 0) -> bytes:
    return build_record(replace(initial_state(b"image"), seq=seq, active_slot=active_slot))


def area(*places: bytes) -> bytes:
    return b"".join(places).ljust(AREA_SIZE, b"\xff")


def scan(first: bytes, second: bytes = b"", *, strict_original: bool = False) -> ScanResult:
    areas = [
        ("bcfg0", first.ljust(AREA_SIZE, b"\xff")),
        ("bcfg1", second.ljust(AREA_SIZE, b"\xff")),
    ]
    return scan_areas(areas, strict_original=strict_original)


def winning_seq(result: ScanResult) -> int | None:
    return None if result.winner is None else result.winner.state.seq


def statuses(result: ScanResult, number: int = 0) -> list[RecordStatus]:
    entries = result.areas[number].entries
    return [entry.status for entry in entries if entry.status is not RecordStatus.ERASED]


def board_with_records(count: int, *, strict: bool = False) -> tuple[FakeBoard, Journal]:
    board = FakeBoard()
    board.nor.allow_overwrite = strict
    journal = Journal(board.partitions.journal_areas, strict_original=strict)
    journal.append_first(initial_state(b"image"))
    for _ in range(count - 1):
        append(journal)
    return board, journal


def newest(journal: Journal) -> BootState:
    assert journal.newest is not None
    return journal.newest.state


def append(journal: Journal) -> BootState:
    return journal.append(newest(journal))


def reload(board: FakeBoard, *, strict: bool = False) -> Journal:
    journal = Journal(board.partitions.journal_areas, strict_original=strict)
    journal.load()
    return journal


def place(journal: Journal) -> tuple[int, int]:
    assert journal.newest is not None
    return journal.newest.area, journal.newest.offset


# Reading


def test_the_newest_record_wins() -> None:
    result = scan(area(record(5), record(6), record(7)))
    assert result.winner is not None
    assert result.winner.state.seq == 7
    assert result.winner.location == "bcfg0+0x0200"
    assert (
        result.explain() == "bcfg0+0x0200 wins: seq 7 is the newest of 3 good records (seq 5 to 7)"
    )


def test_the_winner_may_be_in_either_area() -> None:
    assert winning_seq(scan(area(record(5)), area(record(6), record(7)))) == 7
    result = scan(area(record(8)), area(record(6), record(7)))
    assert winning_seq(result) == 8
    assert statuses(result, 1) == [RecordStatus.STALE, RecordStatus.STALE]


def test_no_good_record_is_no_winner() -> None:
    result = scan(b"", b"\0" * AREA_SIZE)
    assert result.winner is None
    assert "writes the default" in result.explain()
    assert set(statuses(result, 1)) == {RecordStatus.BAD_MAGIC}


def test_a_single_record_is_called_the_only_one() -> None:
    assert "the only good record" in scan(record(3)).explain()


def test_a_bad_record_hides_no_later_one() -> None:
    bad = bytearray(record(2))
    bad[100] ^= 1
    places = area(record(1), bytes(bad), record(3), b"\0" * 256, record(4))
    assert winning_seq(scan(places)) == 4
    assert statuses(scan(places)) == [
        RecordStatus.VALID,
        RecordStatus.BAD_CRC,
        RecordStatus.VALID,
        RecordStatus.BAD_MAGIC,
        RecordStatus.VALID,
    ]


def test_the_original_stops_reading_at_the_first_bad_record() -> None:
    result = scan(area(record(1), b"\0" * 256, record(3)), area(record(2)), strict_original=True)
    assert winning_seq(result) == 2
    assert statuses(result)[:3] == [
        RecordStatus.VALID,
        RecordStatus.BAD_MAGIC,
        RecordStatus.UNREAD,
    ]


def test_an_entry_gives_its_state_or_says_what_is_wrong() -> None:
    good, erased = scan(record(9)).areas[0].entries[:2]
    assert good.state().seq == good.seq == 9
    assert good.problem is None
    assert erased.problem is not None
    with pytest.raises(RecordError, match="erased"):
        erased.state()


def test_a_dump_that_was_cut_off_is_read_as_far_as_it_goes() -> None:
    result = scan_areas([("bcfg0", record(1) + record(2)[:100])])
    assert winning_seq(result) == 1
    assert [entry.status for entry in result.areas[0].entries] == [
        RecordStatus.VALID,
        RecordStatus.TRUNCATED,
    ]


def test_of_two_records_with_one_seq_the_first_counts() -> None:
    result = scan(area(record(4, active_slot=0), record(4, active_slot=1)))
    assert result.winner is not None
    assert result.winner.state.active_slot == 0


@pytest.mark.parametrize(
    ("seq", "than", "expected"),
    [(2, 1, True), (1, 2, False), (1, 1, False), (0, 0xFFFFFFFF, True), (0xFFFFFFFF, 0, False)],
)
def test_sequence_numbers_are_compared_around_the_end_of_their_range(
    seq: int, than: int, expected: bool
) -> None:
    assert is_newer(seq, than) is expected


def test_the_original_takes_0_for_older_than_the_end_of_the_range() -> None:
    assert not is_newer(0, 0xFFFFFFFF, strict_original=True)


@given(st.binary(max_size=1000), st.binary(max_size=1000), st.booleans())
def test_random_areas_raise_nothing(first: bytes, second: bytes, strict: bool) -> None:
    assert scan_areas([("a", first), ("b", second)], strict_original=strict).winner is None


@given(st.data())
def test_flipped_bits_never_make_a_wrong_state_win(data: st.DataObject) -> None:
    content = bytearray(record(1) + record(2) + record(3))
    for bit in data.draw(st.lists(st.integers(0, 8 * len(content) - 1), max_size=5)):
        content[bit // 8] ^= 1 << bit % 8
    winner = scan_areas([("a", bytes(content))]).winner
    if winner is not None:
        seq = winner.state.seq
        assert build_record(winner.state) == record(seq)
        assert seq in (1, 2, 3)


# Writing


def test_the_first_record_has_seq_1_at_the_start_of_the_first_area() -> None:
    board, _ = board_with_records(1)
    journal = reload(board)
    assert newest(journal).seq == 1
    assert place(journal) == (0, 0)


def test_records_follow_one_another_and_change_areas_when_one_is_full() -> None:
    board, journal = board_with_records(1)
    places = [place(journal)]
    for _ in range(2 * MAX_RECORDS):
        append(journal)
        assert reload(board).newest == journal.newest
        places.append(place(journal))
    assert places[:33] == [(0, 256 * number) for number in range(32)] + [(1, 0)]
    assert places[64] == (0, 0)
    assert newest(journal).seq == 65


def test_a_torn_record_is_never_written_over() -> None:
    for seed in range(20):
        board, journal = board_with_records(3)
        board.power.cut(0, Moment.TORN, seed)
        with pytest.raises(PowerCutError):
            append(journal)
        journal = reload(board)
        # The fake flash would not have it: it asserts that what is programmed has been erased.
        written = append(journal)
        assert reload(board).newest == journal.newest
        assert written.seq in (4, 5)


def test_every_record_is_written_where_the_original_finds_it() -> None:
    board, journal = board_with_records(5)
    board.nor.cells[256 + 50] ^= 1
    journal = reload(board)
    assert newest(journal).seq == 5
    append(journal)
    assert place(journal) == (1, 0)
    append(journal)
    assert place(journal) == (1, 256)
    assert reload(board, strict=True).newest == journal.newest


def test_a_record_that_does_not_verify_is_written_to_the_other_area() -> None:
    board, journal = board_with_records(3)
    board.nor.broken = {3 * 256 + 20: 0xFF}
    append(journal)
    assert place(journal) == (1, 0)
    assert newest(reload(board)).seq == 4


def test_the_area_of_the_newest_record_is_never_erased_before_its_successor_stands() -> None:
    board, journal = board_with_records(MAX_RECORDS)
    board.nor.broken = {OTHER_AREA + 4: 0xFF}
    with pytest.raises(JournalWriteError, match="cannot be written") as caught:
        append(journal)
    assert len(caught.value.attempts) == 2
    assert newest(reload(board)).seq == MAX_RECORDS


def test_the_original_erases_the_area_of_the_newest_record_when_the_other_is_bad() -> None:
    board, journal = board_with_records(MAX_RECORDS, strict=True)
    board.nor.broken = {OTHER_AREA + 4: 0xFF}
    append(journal)
    assert place(journal) == (0, 0)
    assert newest(reload(board)).seq == MAX_RECORDS + 1


def test_a_protected_flash_is_named_in_the_error() -> None:
    board, journal = board_with_records(1)
    board.nor.is_protected = True
    with pytest.raises(JournalWriteError, match=r"bcfg0\+0x0100: .*write protected"):
        append(journal)


def test_the_sequence_number_goes_on_over_the_end_of_its_range() -> None:
    board, _ = board_with_records(1)
    board.nor.cells[:256] = record(0xFFFFFFFF)
    journal = reload(board)
    assert append(journal).seq == 0
    assert append(reload(board)).seq == 1


def test_the_sequence_number_is_the_journals_and_not_the_states() -> None:
    _, journal = board_with_records(2)
    assert journal.append(replace(newest(journal), seq=1000)).seq == 3


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 80), st.sampled_from(list(Moment)), st.integers(0, 2**32)),
        max_size=5,
    )
)
def test_a_cut_at_any_write_leaves_the_newest_or_the_one_before(
    cuts: list[tuple[int, Moment, int]],
) -> None:
    board, journal = board_with_records(28)
    for operation, moment, seed in cuts:
        board.power.cut(operation, moment, seed)
        last = newest(journal)
        try:
            while True:
                last = append(journal)
        except PowerCutError:
            board.power.restore()
        board.nor.weak.clear()
        journal = reload(board)
        assert newest(journal).seq in (last.seq, last.seq + 1)
    assert append(journal).seq == newest(reload(board)).seq


def test_the_images_of_the_board_are_none_of_the_journals_business() -> None:
    board = FakeBoard()
    board.provision(make_image("1.0"))
    before = bytes(board.nor.cells[2 * AREA_SIZE :])
    for _ in range(70):
        board.change(lambda state: state)
    assert board.nor.cells[2 * AREA_SIZE :] == before
