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
- the bytes of what is no good record, and of a slot that holds no known image, as far as the
  largest image reaches; what lies behind that, and outside of all partitions, is kept to the byte;
- of a file system everything but the names and contents of its files;
- where marginal bits are: it keeps what both extreme readings (`Reading`) make of the contents.

A loader may depend on more than that. So nothing is left out for the first cut, and of the states
that count as seen already every Nth is booted nevertheless: it must go as its like did
(`explore`), or the campaign distrusts itself.
"""

from collections.abc import Hashable, Iterable
from functools import lru_cache
from typing import NamedTuple, TypeVar

from bootloader_model.boot_record import RECORD_SIZE, check_record, record_sequence
from bootloader_model.journal import MAX_RECORDS, is_newer
from bootloader_model.layout import DEFAULT_LAYOUT, FlashName, Partition
from campaign.cells import (
    APPLICATIONS,
    JOURNAL_AREAS,
    PAGE_SIZE,
    Cells,
    Contents,
    Reading,
    Region,
    hash_of,
)
from campaign.files import files_in_partitions
from campaign.images import Image

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")

ROOM = 8
"""Records; more than any boot of the shipped loader appends."""

_MOST_REMEMBERED = 1 << 18
_SEQ = slice(4, 8)
_CRC = slice(252, 256)
_ERASED = b"\xff" * RECORD_SIZE
_OTHERS = tuple(p for p in DEFAULT_LAYOUT.partitions.values() if p not in APPLICATIONS)


class NormalForms:
    """Finds normal forms; each part of some contents is looked at once.

    Args:
        images: all images that are known.
    """

    def __init__(self, images: Iterable[Image]) -> None:
        self._images = tuple(images)
        self._size = max(len(image.data) for image in self._images)
        self._known: dict[tuple[int, int], bytes] = {}
        self._slots: dict[tuple[Region, str, Reading], Hashable] = {}
        self._journals: dict[tuple[Region, Reading], Hashable] = {}
        self._rests: dict[tuple[Region, FlashName], Hashable] = {}

    def of(self, contents: Contents) -> bytes:
        """A hash that is equal for contents that count as the same."""
        key = contents.key
        known = self._known.get(key)
        if known is None:
            # What marginal bits may read as decides what a boot does, not where they are.
            readings = contents.extreme_readings
            forms = dict.fromkeys(self._as_read(contents, each) for each in readings)
            # What sticks decides what every write comes to.
            stuck = contents.nor.stuck_bits, contents.internal.stuck_bits
            form = tuple(forms), stuck, self._rest(contents)
            known = _remember(self._known, key, hash_of(form))
        return known

    def _as_read(self, contents: Contents, reading: Reading) -> Hashable:
        slots = tuple(self._slot(contents, partition, reading) for partition in APPLICATIONS)
        return slots, files_in_partitions(contents, reading), self._journal(contents.nor, reading)

    def _slot(self, contents: Contents, partition: Partition, reading: Reading) -> Hashable:
        """Which images are in a slot."""
        cells = contents.of(partition.flash)
        key = cells.regions[cells.number_at(partition.offset)], partition.name, reading
        names = self._slots.get(key)
        if names is None:
            content = cells.read(partition.offset, self._size, reading.bits(0))
            found = [image.name for image in self._images if content.startswith(image.data)]
            names = _remember(self._slots, key, tuple(found))
        return names

    def _rest(self, contents: Contents) -> Hashable:
        """What lies where neither records nor images nor files do."""
        return tuple(
            self._rest_of(region, flash)
            for flash in FlashName
            for region in contents.of(flash).regions
        )

    def _rest_of(self, region: Region, flash: FlashName) -> Hashable:
        key = region, flash
        rest = self._rests.get(key)
        if rest is None:
            taken = [
                range(p.offset, p.offset + self._size) for p in APPLICATIONS if p.flash is flash
            ]
            taken += [range(p.offset, p.offset + p.size) for p in _OTHERS if p.flash is flash]
            pages = region.pages.items()
            left = {n: c for n, c in pages if not any(n * PAGE_SIZE in each for each in taken)}
            rest = _remember(self._rests, key, tuple(sorted(left.items())))
        return rest

    def _journal(self, nor: Cells, reading: Reading) -> Hashable:
        """What both areas say; they are in one region."""
        key = nor.regions[nor.number_at(JOURNAL_AREAS[0].offset)], reading
        form = self._journals.get(key)
        if form is None:
            bits = reading.bits(0)
            first, second = (
                _area(nor.read(area.offset, area.size, bits)) for area in JOURNAL_AREAS
            )
            if second is not None and (first is None or is_newer(second.seq, first.seq)):
                first, second = second, first
            # The older area is erased before it is used again. What counts is what it would fall
            # back to.
            form = _remember(self._journals, key, (first and first.form, second and second.record))
        return form


def _remember(cache: dict[KeyT, ValueT], key: KeyT, value: ValueT) -> ValueT:
    """Keep what has been found, and begin anew when that is too much."""
    if len(cache) >= _MOST_REMEMBERED:
        cache.clear()
    cache[key] = value
    return value


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
    kept, turn = _without_number(record)
    return _Area(newest, kept, (kept, turn, min(room, ROOM), is_clean, is_next_erased))


@lru_cache(maxsize=1 << 16)
def _sequence(raw: bytes) -> int | None:
    """The sequence number of a good record, None for anything else."""
    return None if raw == _ERASED or check_record(raw) is not None else record_sequence(raw)


@lru_cache(maxsize=1 << 16)
def _without_number(raw: bytes) -> tuple[bytes, int]:
    record = bytearray(raw)
    turn = int.from_bytes(raw[_SEQ], "little") % raw[12]
    record[_SEQ] = bytes(4)
    record[_CRC] = bytes(4)
    return bytes(record), turn
