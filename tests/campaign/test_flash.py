"""What is computed is what the board's models and drivers do, whatever is done to them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootloader_model.layout import FlashName
from campaign.cells import Contents, Reading, Tear
from campaign.faults import power_cut_tears
from campaign.flash import FlashPair
from campaign.real import RealFlash
from campaign.story import Cut
from platforms.devices.torn import TornShape
from platforms.flash import FlashError
from platforms.machine import ResetAsserted

ERASES = {
    FlashName.NOR: [(0x0000, 0x1000), (0x0000, 0x2000), (0x8000, 0x9000)],
    FlashName.INTERNAL: [(0x4000, 0x4000), (0x10000, 0x10000)],
}
Work = list[tuple[FlashName, int, bytes | None]]


def work() -> st.SearchStrategy[Work]:
    """Programs and erases of both memories; None as data = the erase of that number."""
    return st.lists(
        st.tuples(
            st.sampled_from(list(FlashName)),
            st.integers(0, 0x2FF),
            st.none() | st.binary(min_size=1, max_size=700),
        ),
        min_size=1,
        max_size=6,
    )


def do(flash: FlashPair | RealFlash, acts: Work) -> None:
    for name, number, data in acts:
        device = flash.nor if name is FlashName.NOR else flash.internal
        if data is None:
            address, length = ERASES[name][number % len(ERASES[name])]
            device.erase(address, length)
        else:
            device.program((0x0000 if name is FlashName.NOR else 0x10000) + number, data)


@settings(max_examples=40)
@given(
    before=work(),
    acts=work(),
    operation=st.integers(0, 20),
    tear=st.none() | st.sampled_from((*power_cut_tears(3), Tear(TornShape.GARBLED, 0.5, 3))),
    is_after=st.booleans(),
    reading=st.sampled_from(list(Reading)),
)
def test_a_computed_cut_equals_the_real_one(
    before: Work, acts: Work, operation: int, tear: Tear | None, is_after: bool, reading: Reading
) -> None:
    pair = FlashPair(Contents.erased())
    do(pair, before)
    start = pair.contents
    pair.trace.clear()
    do(pair, acts)
    index = operation % len(pair.trace)
    traced = pair.trace[index]
    if tear is not None:
        cut, expected = Cut(index, tear), traced.contents.torn(traced.operation, tear)
    elif is_after:
        cut, expected = Cut(index, is_after=True), traced.contents.completed(traced.operation)
    else:
        cut, expected = Cut(index), traced.contents
    real = RealFlash(start)
    real.cut_at(cut)
    with pytest.raises(ResetAsserted):
        do(real, acts)
    assert real.difference(expected) is None
    # And the life after it: reads, marginal bits included, and more work, not cut.
    again, board = FlashPair(expected, reading, 9), RealFlash(expected, reading, 9)
    assert again.nor.read(0, 0x400) == board.nor.read(0, 0x400)
    assert again.internal.read(0x10000, 0x400) == board.internal.read(0x10000, 0x400)
    do(again, acts)
    do(board, acts)
    assert board.difference(again.contents) is None


def test_contents_are_told_apart_by_what_they_hold_not_by_how_it_came() -> None:
    first, second = FlashPair(Contents.erased()), FlashPair(Contents.erased())
    first.nor.program(0x10, b"ab")
    second.nor.program(0x11, b"b")
    assert first.contents.key != second.contents.key
    second.nor.program(0x10, b"a")
    assert first.contents.key == second.contents.key
    first.nor.erase(0, 0x1000)
    assert first.contents.key == Contents.erased().key


def test_a_difference_is_found_and_told() -> None:
    pair = FlashPair(Contents.erased())
    pair.internal.program(0x10004, b"\x12\x34\x56\x78")
    difference = RealFlash(Contents.erased()).difference(pair.contents)
    assert difference == "internal 0x010004 holds 0xff on the board, computed 0x12"


def test_every_shape_of_a_power_cut_and_both_halves_are_among_the_tears() -> None:
    made = power_cut_tears(0)
    assert {tear.shape for tear in made} == set(TornShape) - {
        TornShape.NOTHING,
        TornShape.COMPLETE,
        TornShape.GARBLED,  # takes a brown-out
    }
    pair = FlashPair(Contents.erased())
    pair.nor.program(0, bytes(256))
    operation = pair.trace[0].operation
    halves = {
        Contents.erased().torn(operation, tear).nor.stored(0, 256)
        for tear in made
        if tear.shape is TornShape.HALF
    }
    assert len(halves) == 2


def test_what_is_no_sector_or_outside_is_refused() -> None:
    pair = FlashPair(Contents.erased())
    for device in (pair.nor, pair.internal):
        with pytest.raises(FlashError):
            device.erase(0x800, 0x1000)
        with pytest.raises(FlashError):
            device.read(device.geometry.size - 1, 2)
