"""When two flash contents count as the same: what lets a campaign come to its end.

Every boot may append a record with a number of its own, so the bytes of a board that is cut again
and again never repeat. What a boot depends on does. The normal form leaves out:

- sequence numbers: it keeps which record is the newest, and the number modulo the number of slots,
  by which slots are chosen in turn;
- where in its area the newest record stands, as long as `ROOM` more fit behind it (the scenario
  `journal-wrap` comes by the end of both areas);
- all other good records but the newest of each area;
- the bytes of what is no good record, and of a slot that holds no known image;
- by how much the error counts of slots differ: it keeps their order.

A loader may depend on more than that. So nothing is left out for the first cut, and of the states
that count as seen already every Nth is booted nevertheless: it must go as its like did
(`explore`), or the campaign distrusts itself.
"""

from collections.abc import Hashable, Iterable
from functools import lru_cache

from bootloader_model.boot_record import MAX_SLOTS, RECORD_SIZE, check_record, record_sequence
from bootloader_model.journal import MAX_RECORDS, is_newer
from bootloader_model.layout import DEFAULT_LAYOUT, DEFAULT_SLOTS
from campaign.flash import Cells, Contents, Reading
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
    readings = (Reading.STORED, Reading.FLIPPED) if contents.is_weak else (Reading.STORED,)
    known = tuple(images)
    return tuple(_as_read(contents, known, reading) for reading in readings)


def _as_read(contents: Contents, images: tuple[Image, ...], reading: Reading) -> Hashable:
    def read(cells: Cells, offset: int, size: int) -> bytes:
        return cells.read(offset, size, reading.bits(0)) if cells.weak_bits else cells.stored(
            offset, size
        )

    slots = []
    for partition in _APPLICATIONS:
        cells = contents.of(partition.flash)
        slots.append(
            tuple(
                image.name
                for image in images
                if read(cells, partition.offset, len(image.data)) == image.data
            )
        )
    areas = [
        _area(read(contents.of(partition.flash), partition.offset, partition.size))
        for partition in _AREAS
    ]
    (first, first_seq), (second, second_seq) = areas
    is_first_newest = first_seq is not None and (
        second_seq is None or is_newer(first_seq, second_seq)
    )
    return tuple(slots), first, second, is_first_newest


def _area(content: bytes) -> tuple[Hashable, int | None]:
    """An area's normal form, and the sequence number of its newest record."""
    newest: int | None = None
    place, record, is_clean, bad_before = 0, b"", True, False
    records = [content[i : i + RECORD_SIZE] for i in range(0, len(content), RECORD_SIZE)]
    for number, raw in enumerate(records):
        seq = _sequence(raw)
        if seq is not None and (newest is None or is_newer(seq, newest)):
            newest, place, record, is_clean = seq, number, raw, not bad_before
        else:
            bad_before = True
    if newest is None:
        return content.count(0xFF) == len(content), None
    room = MAX_RECORDS - 1 - place
    is_next_erased = room == 0 or records[place + 1] == _ERASED
    return (_without_counts(record), min(room, ROOM), is_clean, is_next_erased), newest


@lru_cache(maxsize=1 << 16)
def _sequence(raw: bytes) -> int | None:
    """The sequence number of a good record, None for anything else."""
    return None if raw == _ERASED or check_record(raw) is not None else record_sequence(raw)


@lru_cache(maxsize=1 << 16)
def _without_counts(raw: bytes) -> Hashable:
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
