"""The boot state in flash, told to people line by line: every record, which one wins, the slots."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bootloader_model.boot_state import BootFlag, BootState
from bootloader_model.journal import RecordStatus, ScanResult


@dataclass(frozen=True, slots=True)
class JournalArea:
    """An area of the journal as it was read.

    Attributes:
        name: what it is called.
        offset: where it begins in the flash memory, in bytes.
        content: its bytes.
    """

    name: str
    offset: int
    content: bytes


def describe_journal(areas: Iterable[JournalArea], result: ScanResult) -> Iterator[str]:
    """Every record of the journal, which one wins and why, and the slots that it speaks of.

    Args:
        areas: the areas, as they were read.
        result: what was found in them.
    """
    for area, scan in zip(areas, result.areas, strict=True):
        used = [entry for entry in scan.entries if entry.status is not RecordStatus.ERASED]
        yield (
            f"area {area.name} (0x{area.offset:06x}, {len(area.content):,} bytes): "
            f"{len(used)} records, {len(scan.entries) - len(used)} erased places"
        )
        for entry in used:
            wins = result.winner is not None and (
                (result.winner.area_name, result.winner.offset) == (area.name, entry.offset)
            )
            text = f"  +0x{entry.offset:04x}  {entry.status.value}"
            if entry.seq is not None:
                text += f", seq {entry.seq}: {_summary(entry.state())}"
            if entry.problem is not None:
                text += f": {entry.problem}"
            yield text + ("   <- wins" if wins else "")
    yield result.explain()
    if result.winner is not None:
        yield from _describe_slots(result.winner.state)


def _describe_slots(state: BootState) -> Iterator[str]:
    for number, slot in enumerate(state.slots):
        where = slot.configuration
        marks = [
            mark
            for mark, applies in (
                ("active", number == state.active_slot),
                ("revert", number == state.revert_slot),
            )
            if applies
        ]
        image = slot.state
        holds = (
            f"{image.app_len:,} bytes for 0x{image.app_org:08x}, CRC32 0x{image.app_crc32:08x}"
            if image.app_len
            else "empty"
        )
        yield (
            f"slot {number} {where.app_dev}, fs {where.fs_dev or '-'}: {holds}, "
            f"errors {image.err_count}" + (f"   <- {', '.join(marks)}" if marks else "")
        )


def _summary(state: BootState) -> str:
    revert = "none" if state.revert_slot < 0 else state.revert_slot
    flags = [flag.name.lower() for flag in BootFlag if flag in state.flags and flag.name]
    timeout = f", commit timeout {state.commit_timeout} s" if state.commit_timeout else ""
    return (
        f"active {state.active_slot}, revert {revert}, "
        f"{' '.join(flags) if flags else 'not committed'}{timeout}"
    )
