"""What a flash operation leaves in the cells when power goes away before it has finished.

Silicon gives no promise about an interrupted operation, and what it really leaves depends on the
chip, the address, the supply's slope and the moment. Each shape below is one outcome that has been
seen on real parts or follows from how they work; a campaign that survives all of them does not
depend on luck. Everything is drawn from a seeded generator, so that a finding can be repeated.

A power cut invents no bit: each bit of the result has its old value or the value that the completed
operation would have given it, so that a torn program operation never sets a bit and a torn erase
never clears one. A brown-out can do worse (GARBLED): it clears bits that nobody wanted cleared. No
shape ever sets a bit that the operation was not to set.
"""

import enum
import random
import re
from dataclasses import dataclass

# Cells of one word line are programmed and erased together, so that is the grain of a mix. 256
# bytes is the page of the NOR flash; smaller operations use a sixteenth of their length instead.
_LARGEST_ROW = 256
_ROWS_IN_SMALL_OPERATION = 16

# How finely the share of changed bits follows the progress of the operation: steps of 1/256.
_SHARE_BITS = 8

# A handful of marginal cells is what makes firmware read one value and then another. Thousands
# would only make every checksum fail at once, which the other shapes do already.
_MOST_WEAK_BITS = 32

_NOT_ZERO = re.compile(rb"[^\0]", re.DOTALL)

# How much of a garbled range is cleared beside what was asked for: two bits of a word, and few
# enough of a record that most of its fields stay plausible.
_GARBLED_SHARE = 1 / 16


class TornShape(enum.Enum):
    """How an operation ends that power was taken from. The value is the name used in reports."""

    NOTHING = "nothing"
    """The charge pump had not reached its voltage yet: the cells are as before."""

    COMPLETE = "complete"
    """The cells had changed already and only the busy flag was still up: all is done, but the
    firmware never learned of it."""

    PREFIX = "prefix"
    """A part that programs byte after byte got as far as the time allowed."""

    SUFFIX = "suffix"
    """The same from the far end: shows code that takes the first bytes (a magic, a length) for
    proof that the rest is there, or the other way round."""

    HALF = "half"
    """A sector is two physical halves with decoders of their own, and one of them was done first:
    half erased, half not. Which one is drawn."""

    RANDOM_BITS = "random-bits"
    """Every cell has its own threshold, so a random subset of the bits has flipped; the longer the
    operation ran, the more of them."""

    WEAK_BITS = "weak-bits"
    """As random bits, and some cells stand so close to the threshold that they read differently
    each time until they are programmed or erased again: a check that passed once may fail next
    time."""

    MIXED_ROWS = "mixed-rows"
    """An erase works in pulses on rows of cells: some rows are done, some untouched, some between.
    The sector looks partly blank, which misleads code that samples a few bytes for 0xFF."""

    GARBLED = "garbled"
    """A brown-out: the supply is too low for the operation, but high enough to go on with it. Data
    latches and decoders lose their levels before the pulses end, so that further bits of the range
    are programmed; an erase programs all its cells first, and some stay so. As random bits, with
    such zeros beside, and a few cells at the threshold. Infineon (KBA218817) allows any stable or
    unstable state of the locations of an interrupted operation; Microchip's manuals ("Preventing
    Flash/EEPROM Corruption") name writing below the minimum voltage as a cause. Not an outcome of
    a supply that just goes away, so campaigns of power cuts leave it out."""


@dataclass(frozen=True, slots=True)
class TornOutcome:
    """What is left in the cells.

    Attributes:
        content: the bytes, as many as the operation covered.
        weak_bits: bits that read differently each time, counted from the first bit of `content`
            (byte index * 8 + bit number).
    """

    content: bytes
    weak_bits: frozenset[int] = frozenset()


def torn(
    before: bytes, after: bytes, shape: TornShape, rng: random.Random, progress: float
) -> TornOutcome:
    """The outcome of an operation that was to turn `before` into `after`.

    Args:
        before: the cells when the operation began.
        after: the cells as the completed operation leaves them; as long as `before`.
        shape: how the operation was torn.
        rng: where all chance comes from.
        progress: how much of the operation's time had passed, from 0.0 to 1.0. It sets how far
            PREFIX and SUFFIX got and how many bits RANDOM_BITS, WEAK_BITS and GARBLED flipped;
            the other shapes do not depend on it.
    """
    length = len(before)
    done = min(length, max(0, round(length * progress)))
    match shape:
        case TornShape.NOTHING:
            return TornOutcome(bytes(before))
        case TornShape.COMPLETE:
            return TornOutcome(bytes(after))
        case TornShape.PREFIX:
            return TornOutcome(after[:done] + before[done:])
        case TornShape.SUFFIX:
            return TornOutcome(before[: length - done] + after[length - done :])
        case TornShape.HALF:
            middle = length // 2
            if rng.getrandbits(1):
                return TornOutcome(before[:middle] + after[middle:])
            return TornOutcome(after[:middle] + before[middle:])
        case TornShape.RANDOM_BITS:
            return TornOutcome(_flip_some_bits(before, after, rng, progress))
        case TornShape.WEAK_BITS:
            content = _flip_some_bits(before, after, rng, progress)
            return TornOutcome(content, _choose_weak_bits(before, after, rng))
        case TornShape.MIXED_ROWS:
            return TornOutcome(_mix_rows(before, after, rng))
        case TornShape.GARBLED:
            flipped = _flip_some_bits(before, after, rng, progress)
            content = _flip_some_bits(flipped, bytes(length), rng, _GARBLED_SHARE)
            return TornOutcome(content, _choose_weak_bits(before, content, rng))


def torn_series(
    before: bytes,
    after: bytes,
    access_size: int,
    shape: TornShape,
    rng: random.Random,
    progress: float,
) -> TornOutcome:
    """The outcome of a series of equal operations, one behind the other, when one is torn.

    Args:
        before: the cells when the series began.
        after: the cells as the whole series leaves them.
        access_size: bytes that each operation of the series is to change.
        shape: how the operation under way was torn. Those before it are done, those behind it have
            not begun.
        rng: where all chance comes from.
        progress: how much of the whole time had passed, from 0.0 to 1.0.
    """
    length = len(before)
    if access_size >= length:
        return torn(before, after, shape, rng, progress)
    passed = progress * length / access_size
    number = min(int(passed), (length - 1) // access_size)
    start, end = number * access_size, min(length, (number + 1) * access_size)
    outcome = torn(before[start:end], after[start:end], shape, rng, passed - number)
    return TornOutcome(
        after[:start] + outcome.content + before[end:],
        frozenset(8 * start + bit for bit in outcome.weak_bits),
    )


def _flip_some_bits(before: bytes, after: bytes, rng: random.Random, share: float) -> bytes:
    """`before` with about `share` of the differing bits taken from `after`, each on its own."""
    old = int.from_bytes(before, "little")
    change = old ^ int.from_bytes(after, "little")
    flipped = old ^ (change & _random_mask(8 * len(before), rng, share))
    return flipped.to_bytes(len(before), "little")


def _random_mask(bits: int, rng: random.Random, share: float) -> int:
    """An integer of `bits` bits, each set with the probability `share` rounded to 1/256.

    Reading the share's binary digits from the lowest, OR-ing a fair random mask moves the
    probability half-way to 1 and AND-ing one moves it half-way to 0; so millions of bits take
    eight big-integer operations instead of a loop.
    """
    steps = 1 << _SHARE_BITS
    scaled = min(steps, max(0, round(share * steps)))
    if scaled == steps:
        return (1 << bits) - 1
    mask = 0
    for digit in range(_SHARE_BITS):
        fair = rng.getrandbits(bits) if bits else 0
        mask = mask | fair if (scaled >> digit) & 1 else mask & fair
    return mask


def _choose_weak_bits(before: bytes, after: bytes, rng: random.Random) -> frozenset[int]:
    """A few of the bits in which the two differ, at most one in each byte."""
    change = int.from_bytes(before, "little") ^ int.from_bytes(after, "little")
    differing = [m.start() for m in _NOT_ZERO.finditer(change.to_bytes(len(before), "little"))]
    chosen = rng.sample(differing, min(_MOST_WEAK_BITS, len(differing)))
    weak = set()
    for index in chosen:
        byte = before[index] ^ after[index]
        bit = rng.choice([number for number in range(8) if (byte >> number) & 1])
        weak.add(8 * index + bit)
    return frozenset(weak)


def _mix_rows(before: bytes, after: bytes, rng: random.Random) -> bytes:
    """Each row of cells untouched, half-way or done, whichever is drawn."""
    length = len(before)
    row = max(1, min(_LARGEST_ROW, length // _ROWS_IN_SMALL_OPERATION))
    result = bytearray()
    for start in range(0, length, row):
        old, new = before[start : start + row], after[start : start + row]
        state = rng.randrange(3)
        if state == 0:
            result += old
        elif state == 1:
            result += _flip_some_bits(old, new, rng, 0.5)
        else:
            result += new
    return bytes(result)
