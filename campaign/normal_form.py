"""When two flash contents count as the same: what lets a campaign come to its end.

Every boot may append a record with a number of its own, so the bytes of a board that is cut again
and again never repeat. What a boot depends on does. The normal form leaves out:

- sequence numbers: it keeps which record is the newest, and the number modulo the number of slots,
  by which slots are chosen in turn;
- where in its area the newest record stands, as long as `ROOM` more fit behind it (the scenario
  `journal-wrap` comes by the end of both areas);
- which of the areas is which;
- of the area with the newest record, all other good records; of the other one, all but its newest
  record, and where that stands;
- the bytes of what is no good record, and of a slot that holds no known image;
- of a file system everything but the names and contents of its files;
- where marginal bits are: it keeps what both extreme readings (`Reading`) make of the contents;
- by how much the error counts of slots differ: it keeps their order.

A loader may depend on more than that. So nothing is left out for the first cut, and of the states
that count as seen already every Nth is booted nevertheless: it must go as its like did
(`explore`), or the campaign distrusts itself.
"""

from collections.abc import Hashable, Iterable
from functools import lru_cache
from typing import NamedTuple

from bootloader_model.boot_record import MAX_SLOTS, RECORD_SIZE, check_record, record_sequence
from bootloader_model.journal import MAX_RECORDS, is_newer
from bootloader_model.layout import DEFAULT_LAYOUT, DEFAULT_SLOTS
from campaign.files import files_in_partitions
from campaign.flash import Contents, Reading
from campaign.images import Image

ROOM = 8
"""Records; more than any boot of the shipped loader appends."""

_SEQ = slice(4, 8)
_CRC = slice(252, 256)
_FIRST_SLOT, _SLOT_SIZE, _ERROR_COUNT = 19, 41, 40
_ERASED = b"\xff" * RECORD_SIZE
_AREAS = tuple(DEFAULT_LAYOUT.partition(name) for name in DEFAULT_LAYOUT.journal_areas)
_APPLICATIONS = tuple(
    DEFAULT_LAYOUT.partition(slot.configuration.app_dev) for slot in DEFAULT_SLOTS
)


def normal_form(contents: Contents, images: Iterable[Image]) -> Hashable:
    """Equal for contents that count as the same.

    Args:
        contents: what the flash holds.
        images: all images that are known.
    """
    # What marginal bits may read as decides what a boot does, not where they are.
    known = tuple(images)
    forms = dict.fromkeys(_as_read(contents, known, each) for each in contents.extreme_readings)
    return tuple(forms)


def _as_read(contents: Contents, images: tuple[Image, ...], reading: Reading) -> Hashable:
    bits = reading.bits(0)
    size = max(len(image.data) for image in images)
    slots = []
    for partition in _APPLICATIONS:
        content = contents.of(partition.flash).read(partition.offset, size, bits)
        slots.append(tuple(image.name for image in images if content.startswith(image.data)))
    first, second = (
        _area(contents.of(partition.flash).read(partition.offset, partition.size, bits))
        for partition in _AREAS
    )
    if second is not None and (first is None or is_newer(second.seq, first.seq)):
        first, second = second, first
    files = files_in_partitions(contents, reading)
    # The older area is erased before it is used again. What counts is what it would fall back to.
    return tuple(slots), files, first and first.form, second and second.record


class _Area(NamedTuple):
    """An area with a good record: its newest, and the form it has if that is the newest of all."""

    seq: int
    record: Hashable
    form: Hashable


@lru_cache(maxsize=1 << 12)
def _area(content: bytes) -> _Area | None:
    """An area's normal form; None when it holds no good record."""
    newest: int | None = None
    place, record, is_clean, is_all_good = 0, b"", True, True
    records = [content[i : i + RECORD_SIZE] for i in range(0, len(content), RECORD_SIZE)]
    for number, raw in enumerate(records):
        seq = _sequence(raw)
        if seq is not None and (newest is None or is_newer(seq, newest)):
            newest, place, record, is_clean = seq, number, raw, is_all_good
        else:
            is_all_good = False
    if newest is None:
        return None
    room = MAX_RECORDS - 1 - place
    is_next_erased = room == 0 or records[place + 1] == _ERASED
    kept, turn = _without_counts(record)
    return _Area(newest, kept, (kept, turn, min(room, ROOM), is_clean, is_next_erased))


@lru_cache(maxsize=1 << 16)
def _sequence(raw: bytes) -> int | None:
    """The sequence number of a good record, None for anything else."""
    return None if raw == _ERASED or check_record(raw) is not None else record_sequence(raw)


@lru_cache(maxsize=1 << 16)
def _without_counts(raw: bytes) -> tuple[bytes, int]:
    record = bytearray(raw)
    slots = raw[12]
    turn = int.from_bytes(raw[_SEQ], "little") % slots
    places = [_FIRST_SLOT + _SLOT_SIZE * n + _ERROR_COUNT for n in range(min(slots, MAX_SLOTS))]
    ranks = sorted({raw[place] for place in places})
    for place in places:
        record[place] = ranks.index(raw[place])
    record[_SEQ] = bytes(4)
    record[_CRC] = bytes(4)
    return bytes(record), turn
