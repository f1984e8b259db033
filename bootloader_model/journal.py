"""The journal: where boot state records live, and which one counts.

Two flash areas take turns. A record is appended behind the previous one; when an area is full,
writing goes on at offset 0 of the other area, which is erased first. The newest good record is
thus never erased before its successor stands.

The original (mgos_boot_cfg.c) has soft spots here. The journal avoids them by default, and has
them when it is made with `strict_original=True`:

- Reading stops at the first bad record of an area, so that one flipped bit in an early record
  hides all later ones. By default reading goes on over bad records.
- A record is programmed behind the newest one whatever stands there; behind a torn record that
  cannot succeed. By default the place must be erased, and every record before it good: a record is
  only appended where the original, too, would find it. Otherwise the other area is begun.
- A write that does not verify is tried again in "the other area", erased first. When the first try
  had just begun an area, that other one holds the newest good record, and a power cut then loses
  the boot state altogether. By default the second try goes to the area that does not hold the
  newest good record, whichever failed.
- A record whose write was cut short may have marginal cells, and read as bad today and as good
  tomorrow. It has the number that the next record gets. By default it is blotted out (all its bits
  cleared, which needs no erase) before that one is written elsewhere, and the newest record, if
  the power has gone since it was written, is programmed once more, on top of itself, before the
  area of the older ones is erased. The loader copies the newest record after every loss of power,
  so that nothing rests on a marginal one.
- Sequence numbers are compared as plain numbers, so that after 0xFFFFFFFF nothing is ever newer. By
  default they are compared as serial numbers (RFC 1982): newer is what is less than half the range
  ahead. The flash wears out long before that matters; a record made up by hand may start there.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache

from bootloader_model.boot_record import (
    RECORD_SIZE,
    RecordProblem,
    build_record,
    check_record,
    parse_record,
    record_sequence,
)
from bootloader_model.boot_state import BootState
from bootloader_model.partition import OpenPartition
from platforms.errors import OtasimError
from platforms.flash import ERASED_BYTE, FlashError

MAX_RECORDS = 32
"""Records in one area before writing goes on in the other."""

# A journal is gone through at every boot and hardly changes between two.
_CACHED_AREAS = 256
_CACHED_PLACES = 4096
_SEQUENCE_RANGE = 1 << 32
_FIRST_SEQUENCE = 1
_ERASED_RECORD = bytes([ERASED_BYTE]) * RECORD_SIZE
_BLOTTED_RECORD = bytes(RECORD_SIZE)


class RecordStatus(Enum):
    """What was found at one place of an area; the value is the name people read."""

    VALID = "valid"
    """A good record, newer than all that were read before it."""
    STALE = "stale seq"
    """A good record, but not newer than one read before it."""
    ERASED = "erased"
    TRUNCATED = "truncated"
    BAD_MAGIC = "bad magic"
    BAD_CRC = "bad CRC"
    IMPLAUSIBLE = "implausible"
    UNREAD = "not read"
    """Behind the place where the original stops reading."""


_STATUS = {
    RecordProblem.TRUNCATED: RecordStatus.TRUNCATED,
    RecordProblem.ERASED: RecordStatus.ERASED,
    RecordProblem.BAD_MAGIC: RecordStatus.BAD_MAGIC,
    RecordProblem.BAD_CRC: RecordStatus.BAD_CRC,
    RecordProblem.IMPLAUSIBLE: RecordStatus.IMPLAUSIBLE,
}


class JournalWriteError(OtasimError):
    """A boot state record could be written to neither place.

    Attributes:
        attempts: what happened at each place, in order.
    """

    def __init__(self, attempts: Sequence[str]) -> None:
        super().__init__(
            f"the boot state cannot be written: {'; '.join(attempts)}. The newest record from"
            " before still counts; check the flash memory's write protection and wear"
        )
        self.attempts = tuple(attempts)


@dataclass(frozen=True, slots=True)
class ScanEntry:
    """One place of an area.

    Attributes:
        offset: from the start of the area, in bytes; a multiple of 256.
        status: what was found there.
        raw: the bytes found there.
        seq: sequence number of a good record, else None.
        problem: what is wrong, in words; None when the record is good or was not read.
    """

    offset: int
    status: RecordStatus
    raw: bytes
    seq: int | None = None
    problem: str | None = None

    def state(self) -> BootState:
        """The record's boot state; RecordError when it is not a good one."""
        return parse_record(self.raw)


@dataclass(frozen=True, slots=True)
class AreaScan:
    """What was found in one area, place by place."""

    name: str
    entries: tuple[ScanEntry, ...]


@dataclass(frozen=True, slots=True)
class Winner:
    """The record that counts.

    Attributes:
        area: number of the area, 0 or 1.
        area_name: its name.
        offset: from the start of the area, in bytes.
        state: the boot state.
    """

    area: int
    area_name: str
    offset: int
    state: BootState

    @property
    def location(self) -> str:
        """Where the record stands, for people: `bcfg0+0x0300`."""
        return _location(self.area_name, self.offset)


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What was found in all areas, and the record that counts (None when there is no good one)."""

    areas: tuple[AreaScan, ...]
    winner: Winner | None

    def explain(self) -> str:
        """Why this record counts, in one sentence."""
        if self.winner is None:
            return "no area holds a good record: the boot loader writes the default"
        good = [entry.seq for area in self.areas for entry in area.entries if entry.seq is not None]
        if len(good) == 1:
            return (
                f"{self.winner.location} wins: seq {self.winner.state.seq} is the only good record"
            )
        return (
            f"{self.winner.location} wins: seq {self.winner.state.seq} is the newest of"
            f" {len(good)} good records (seq {min(good)} to {max(good)})"
        )


def is_newer(seq: int, than: int, *, strict_original: bool = False) -> bool:
    """Whether a sequence number is newer than another."""
    if strict_original:
        return seq > than
    return 0 < (seq - than) % _SEQUENCE_RANGE < _SEQUENCE_RANGE // 2


def scan_areas(areas: Sequence[tuple[str, bytes]], *, strict_original: bool = False) -> ScanResult:
    """Find the record that counts.

    Args:
        areas: name and content of each area, in the order in which they are read.
        strict_original: stop reading an area where the original stops.
    """
    best: int | None = None
    place: tuple[int, ScanEntry] | None = None
    scans = []
    for number, (name, content) in enumerate(areas):
        entries, newest = _scan_area(content, best, strict_original=strict_original)
        scans.append(AreaScan(name, entries))
        if newest is not None:
            best, place = newest.seq, (number, newest)
    if place is None:
        return ScanResult(tuple(scans), None)
    number, entry = place
    winner = Winner(number, areas[number][0], entry.offset, entry.state())
    return ScanResult(tuple(scans), winner)


@lru_cache(maxsize=_CACHED_AREAS)
def _scan_area(
    content: bytes, best: int | None, *, strict_original: bool
) -> tuple[tuple[ScanEntry, ...], ScanEntry | None]:
    """What is found in an area, and the entry that is newer than `best` and all others."""
    entries: list[ScanEntry] = []
    newest, stopped = None, False
    for offset in range(0, len(content), RECORD_SIZE):
        raw = content[offset : offset + RECORD_SIZE]
        if stopped:
            entries.append(ScanEntry(offset, RecordStatus.UNREAD, raw))
            continue
        entry = _scan_place(offset, raw, best, strict_original=strict_original)
        entries.append(entry)
        if entry.status is RecordStatus.VALID:
            best, newest = entry.seq, entry
        else:
            stopped = strict_original
    return tuple(entries), newest


@lru_cache(maxsize=_CACHED_PLACES)
def _scan_place(offset: int, raw: bytes, best: int | None, *, strict_original: bool) -> ScanEntry:
    error = check_record(raw)
    if error is not None:
        return ScanEntry(offset, _STATUS[error.problem], raw, problem=str(error))
    seq = record_sequence(raw)
    if best is not None and not is_newer(seq, best, strict_original=strict_original):
        return ScanEntry(offset, RecordStatus.STALE, raw, seq, f"seq {seq} is not above {best}")
    return ScanEntry(offset, RecordStatus.VALID, raw, seq)


class Journal:
    """The journal of a board. Whoever changes the boot state, loader or application, has its own.

    It remembers where the newest record stands, as the original does; two that are used in turns
    must each `load` before they `append`.
    """

    def __init__(
        self, areas: tuple[OpenPartition, OpenPartition], *, strict_original: bool = False
    ) -> None:
        self._areas = areas
        self._strict = strict_original
        self._newest: Winner | None = None
        self._is_firm = True
        self._is_clean = True

    @property
    def newest(self) -> Winner | None:
        """The record that counts, as last loaded or written."""
        return self._newest

    def load(self, *, is_firm: bool = False) -> ScanResult:
        """Read both areas; FlashError when the device does not let itself be read.

        Args:
            is_firm: whether the power has been on since the newest record was written, so that
                none of its cells can be marginal.
        """
        result = scan_areas(
            [(area.name, area.read(0, area.size)) for area in self._areas],
            strict_original=self._strict,
        )
        self._newest = result.winner
        self._is_firm = is_firm
        self._is_clean = result.winner is None or all(
            entry.status is RecordStatus.VALID
            for entry in result.areas[result.winner.area].entries
            if entry.offset <= result.winner.offset
        )
        return result

    def append(self, state: BootState) -> BootState:
        """Write a boot state as the newest record, and read it back.

        Returns the state as written: with its sequence number, which is one above the newest.
        Raises JournalWriteError when it could be written to neither of two places.
        """
        seq = _FIRST_SEQUENCE
        if self._newest is not None:
            seq = (self._newest.state.seq + 1) % _SEQUENCE_RANGE
        state = replace(state, seq=seq)
        record = build_record(state)
        attempts: list[str] = []
        area, offset = self._next_place()
        if self._newest is not None and area != self._newest.area and not self._strict:
            self._prepare_to_leave(self._newest)
        for number, start in ((area, offset), (self._second_choice(area), 0)):
            problem = self._write(number, start, record)
            if problem is None:
                self._newest = Winner(number, self._areas[number].name, start, state)
                self._is_firm = True
                self._is_clean = self._is_clean or start == 0
                return state
            attempts.append(f"{_location(self._areas[number].name, start)}: {problem}")
        raise JournalWriteError(attempts)

    def append_first(self, state: BootState) -> BootState:
        """Erase both areas and write a boot state as the only record, seq 1.

        Raises FlashError when an area cannot be erased, JournalWriteError as `append` does.
        """
        for area in self._areas:
            area.erase(0, area.size)
        self._newest = None
        return self.append(state)

    def _next_place(self) -> tuple[int, int]:
        if self._newest is None:
            return 0, 0
        area = self._newest.area
        offset = self._newest.offset + RECORD_SIZE
        partition = self._areas[area]
        if offset + RECORD_SIZE > partition.size or offset >= MAX_RECORDS * RECORD_SIZE:
            return 1 - area, 0
        if self._strict:
            return area, offset
        # A write that was cut short leaves a torn record. Bits can only be cleared, so nothing can
        # be put on top of it. Behind it, or behind a bad record further ahead, a new record would
        # be safe from us but hidden from the original, which stops reading there: the other area,
        # which holds only older records, is the place that every reader finds.
        if self._is_clean and partition.read(offset, RECORD_SIZE) == _ERASED_RECORD:
            return area, offset
        return 1 - area, 0

    def _prepare_to_leave(self, newest: Winner) -> None:
        """Make sure of the newest record before the area with the older ones is erased.

        What does not read as a record behind it never will. And programmed once more, its own
        bits are firm, should they have been marginal. Where they are firm it is left in peace: a
        brown-out could garble it.
        """
        partition = self._areas[newest.area]
        # A device that refuses this refuses the next record, too, which is told then.
        with suppress(FlashError):
            for offset in range(newest.offset + RECORD_SIZE, partition.size, RECORD_SIZE):
                found = partition.read(offset, RECORD_SIZE)
                if found not in (_ERASED_RECORD, _BLOTTED_RECORD):
                    partition.program(offset, _BLOTTED_RECORD)
            if not self._is_firm:
                partition.program(newest.offset, build_record(newest.state))

    def _second_choice(self, failed: int) -> int:
        if self._strict or self._newest is None:
            return 1 - failed
        return 1 - self._newest.area

    def _write(self, area: int, offset: int, record: bytes) -> str | None:
        partition = self._areas[area]
        try:
            if offset == 0:
                partition.erase(0, partition.size)
            partition.program(offset, record)
            written = partition.read(offset, RECORD_SIZE)
        except FlashError as error:
            return str(error)
        return None if written == record else "the record does not read back as written"


def _location(area_name: str, offset: int) -> str:
    return f"{area_name}+0x{offset:04x}"
