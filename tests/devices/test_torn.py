"""Torn operations stay between before and after, and repeat with their seed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.devices.torn import TornOutcome, TornShape, torn, torn_series

WITH_WEAK_BITS = (TornShape.WEAK_BITS, TornShape.GARBLED)

shapes = st.sampled_from(TornShape)
power_cuts = st.sampled_from([shape for shape in TornShape if shape is not TornShape.GARBLED])
seeds = st.integers(0, 2**32)
progresses = st.floats(0, 1)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    length = draw(st.integers(0, 600))
    return draw(st.binary(min_size=length, max_size=length)), draw(
        st.binary(min_size=length, max_size=length)
    )


def tear(pair: tuple[bytes, bytes], shape: TornShape, seed: int, progress: float) -> TornOutcome:
    return torn(*pair, shape, random.Random(seed), progress)  # noqa: S311 - not a secret


@given(pairs(), power_cuts, seeds, progresses)
def test_after_a_power_cut_every_bit_is_the_old_or_the_new_one(
    pair: tuple[bytes, bytes], shape: TornShape, seed: int, progress: float
) -> None:
    before, after = pair
    outcome = tear(pair, shape, seed, progress)
    assert len(outcome.content) == len(before)
    for old, new, result in zip(before, after, outcome.content, strict=True):
        assert (result ^ old) & ~(old ^ new) == 0


@given(pairs(), shapes, seeds, progresses)
def test_the_same_seed_gives_the_same_outcome(
    pair: tuple[bytes, bytes], shape: TornShape, seed: int, progress: float
) -> None:
    assert tear(pair, shape, seed, progress) == tear(pair, shape, seed, progress)


@given(pairs(), shapes, seeds, progresses)
def test_no_shape_sets_a_bit_that_the_operation_was_not_to_set(
    pair: tuple[bytes, bytes], shape: TornShape, seed: int, progress: float
) -> None:
    before, after = pair
    outcome = tear(pair, shape, seed, progress)
    highest = bytearray(outcome.content)  # every marginal bit reading as 1
    for bit in outcome.weak_bits:
        highest[bit // 8] |= 1 << bit % 8
    for old, new, result in zip(before, after, highest, strict=True):
        assert result & ~(old | new) == 0


@given(pairs(), shapes, seeds, progresses)
def test_a_torn_program_never_sets_a_bit(
    pair: tuple[bytes, bytes], shape: TornShape, seed: int, progress: float
) -> None:
    before, data = pair
    programmed = bytes(old & new for old, new in zip(before, data, strict=True))
    outcome = tear((before, programmed), shape, seed, progress).content
    assert all(result & ~old == 0 for old, result in zip(before, outcome, strict=True))


@given(pairs(), power_cuts, seeds, progresses)
def test_a_torn_erase_never_clears_a_bit_but_in_a_brown_out(
    pair: tuple[bytes, bytes], shape: TornShape, seed: int, progress: float
) -> None:
    before, erased = pair[0], b"\xff" * len(pair[0])
    outcome = tear((before, erased), shape, seed, progress).content
    assert all(old & ~result == 0 for old, result in zip(before, outcome, strict=True))


@given(pairs(), seeds, progresses)
def test_weak_bits_are_bits_that_were_to_change(
    pair: tuple[bytes, bytes], seed: int, progress: float
) -> None:
    before, after = pair
    weak = tear(pair, TornShape.WEAK_BITS, seed, progress).weak_bits
    assert bool(weak) == (before != after)
    for bit in weak:
        assert ((before[bit // 8] ^ after[bit // 8]) >> bit % 8) & 1


@pytest.mark.parametrize("shape", TornShape)
def test_which_shapes_leave_weak_bits(shape: TornShape) -> None:
    weak = tear((bytes(64), b"\xff" * 64), shape, 1, 0.5).weak_bits
    assert bool(weak) == (shape in WITH_WEAK_BITS)


@given(pairs(), seeds, progresses)
def test_marginal_bits_of_a_garbled_operation_are_bits_that_it_changed(
    pair: tuple[bytes, bytes], seed: int, progress: float
) -> None:
    outcome = tear(pair, TornShape.GARBLED, seed, progress)
    changed = int.from_bytes(pair[0], "little") ^ int.from_bytes(outcome.content, "little")
    assert bool(outcome.weak_bits) == bool(changed)
    assert all(changed >> bit & 1 for bit in outcome.weak_bits)


BEFORE, AFTER = bytes(100), b"\xff" * 100


def test_nothing_and_complete_are_the_two_ends() -> None:
    assert tear((BEFORE, AFTER), TornShape.NOTHING, 1, 0.9).content == BEFORE
    assert tear((BEFORE, AFTER), TornShape.COMPLETE, 1, 0.1).content == AFTER


def test_prefix_and_suffix_go_as_far_as_the_progress() -> None:
    prefix = tear((BEFORE, AFTER), TornShape.PREFIX, 1, 0.3).content
    assert prefix == b"\xff" * 30 + bytes(70)
    suffix = tear((BEFORE, AFTER), TornShape.SUFFIX, 1, 0.3).content
    assert suffix == bytes(70) + b"\xff" * 30


def test_half_leaves_either_half_depending_on_the_seed() -> None:
    outcomes = {tear((BEFORE, AFTER), TornShape.HALF, seed, 0.5).content for seed in range(20)}
    assert outcomes == {b"\xff" * 50 + bytes(50), bytes(50) + b"\xff" * 50}


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 0.75, 1.0])
def test_the_share_of_random_bits_follows_the_progress(progress: float) -> None:
    size = 8192
    content = tear((bytes(size), b"\xff" * size), TornShape.RANDOM_BITS, 7, progress).content
    flipped = int.from_bytes(content, "little").bit_count()
    assert abs(flipped / (8 * size) - progress) < 0.01


def test_mixed_rows_leaves_rows_done_untouched_and_between() -> None:
    content = tear((bytes(4096), b"\xff" * 4096), TornShape.MIXED_ROWS, 3, 0.5).content
    rows = {content[start : start + 256] for start in range(0, 4096, 256)}
    assert bytes(256) in rows
    assert b"\xff" * 256 in rows
    assert len(rows) > 2


def cleared_share(before: bytes, content: bytes, mask: bytes) -> float:
    """Of the bits set in `mask` and `before`, how many are 0 in `content`."""
    wanted = int.from_bytes(before, "little") & int.from_bytes(mask, "little")
    return (wanted & ~int.from_bytes(content, "little")).bit_count() / wanted.bit_count()


def test_a_garbled_program_clears_some_of_the_bits_that_it_was_to_leave() -> None:
    before, after = b"\xff" * 4096, b"\x0f" * 4096
    content = tear((before, after), TornShape.GARBLED, 5, 1.0).content
    assert cleared_share(before, content, b"\xf0" * 4096) == 1
    assert 0.04 < cleared_share(before, content, b"\x0f" * 4096) < 0.09
    early = tear((before, after), TornShape.GARBLED, 5, 0.0).content
    assert 0.04 < cleared_share(before, early, b"\xf0" * 4096) < 0.09


def test_a_garbled_erase_leaves_a_mix_that_no_power_cut_leaves() -> None:
    before, after = b"\xf0" * 4096, b"\xff" * 4096
    content = tear((before, after), TornShape.GARBLED, 5, 0.5).content
    assert 0.04 < cleared_share(before, content, b"\xf0" * 4096) < 0.09, "programmed first"
    assert 0.45 < cleared_share(after, content, b"\x0f" * 4096) < 0.6, "half of them erased"


def test_a_progress_outside_its_range_is_taken_as_its_end() -> None:
    for shape in (TornShape.PREFIX, TornShape.SUFFIX, TornShape.RANDOM_BITS):
        assert tear((BEFORE, AFTER), shape, 1, -1.0).content == BEFORE
        assert tear((BEFORE, AFTER), shape, 1, 2.0).content == AFTER


@given(pairs(), st.integers(1, 40), shapes, seeds, progresses)
def test_of_a_series_only_the_one_under_way_is_torn(
    pair: tuple[bytes, bytes], size: int, shape: TornShape, seed: int, progress: float
) -> None:
    before, after = pair
    outcome = torn_series(before, after, size, shape, random.Random(seed), progress)  # noqa: S311
    length = len(before)
    torn_at = min(int(progress * length / size), max(0, (length - 1) // size)) * size
    assert outcome.content[:torn_at] == after[:torn_at]
    assert outcome.content[torn_at + size :] == before[torn_at + size :]
    assert all(torn_at <= bit // 8 < torn_at + size for bit in outcome.weak_bits)
    if shape is not TornShape.GARBLED:
        for old, new, result in zip(before, after, outcome.content, strict=True):
            assert (result ^ old) & ~(old ^ new) == 0
