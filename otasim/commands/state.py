"""`otasim state`: what boot-state records a flash image holds, which one wins, and why."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from bootloader_model.boot_record import RECORD_SIZE
from bootloader_model.boot_state import BootState
from bootloader_model.description import JournalArea, describe_journal
from bootloader_model.journal import MAX_RECORDS, RecordStatus, ScanResult, scan_areas
from bootloader_model.layout import DEFAULT_LAYOUT, FlashName
from otasim.cli import EXIT_FAILED
from platforms.devices import w25q32jv
from platforms.errors import OtasimError
from platforms.storage import NOR_FILE

_MAGIC = b"MOS1"
_SIZE_LIMIT = 64 * 1024 * 1024


class DumpError(OtasimError):
    """A flash image cannot be looked at.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True), metavar="FILE_OR_DIR")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--strict-original",
    is_flag=True,
    help="Read as the original loader does, which stops at the first bad record of an area.",
)
def state(source: Path, as_json: bool, strict_original: bool) -> None:
    """Show the boot state in FILE_OR_DIR.

    A directory is what `otasim run --state` keeps. In a file of 4 MB the boot state is looked for
    where this board has it; where there is none, and in any other file (a dump of a real device),
    records are searched for.
    """
    path = source / NOR_FILE if source.is_dir() else source
    areas = _areas(path, _read(path))
    contents = [(area.name, area.content) for area in areas]
    result = scan_areas(contents, strict_original=strict_original)
    if as_json:
        click.echo(json.dumps(_to_json(areas, result), indent=2))
    else:
        for line in describe_journal(areas, result):
            click.echo(line)
        original = scan_areas(contents, strict_original=True)
        if not strict_original and _place(original) != _place(result):
            click.echo(f"note: for a device with the original loader, {original.explain()}")
    if result.winner is None:
        raise SystemExit(EXIT_FAILED)


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise DumpError(path, "not a regular file: expected a flash image")
        if path.stat().st_size > _SIZE_LIMIT:
            raise DumpError(path, f"larger than {_SIZE_LIMIT >> 20} MB: no flash image")
        content = path.read_bytes()
    except OSError as error:
        raise DumpError(path, f"cannot be read: {error.strerror}") from error
    if len(content) < RECORD_SIZE:
        raise DumpError(
            path, f"has {len(content):,} bytes: too short for a record of {RECORD_SIZE}"
        )
    return content


def _place(result: ScanResult) -> str | None:
    return None if result.winner is None else result.winner.location


def _areas(path: Path, content: bytes) -> list[JournalArea]:
    is_board = len(content) == w25q32jv.SIZE
    own = list(_areas_of_this_board(content)) if is_board else []
    if any(_MAGIC in area.content for area in own):
        return own
    areas = list(_find_areas(content)) or own
    if not areas:
        raise DumpError(
            path,
            f"no boot-state record ({_MAGIC.decode()}) at any multiple of {RECORD_SIZE} bytes: "
            "is it a dump of the flash that holds the boot configuration?",
        )
    return areas


def _areas_of_this_board(content: bytes) -> Iterator[JournalArea]:
    for name in DEFAULT_LAYOUT.journal_areas:
        part = DEFAULT_LAYOUT.partition(name)
        if part.flash is FlashName.NOR:
            yield JournalArea(
                part.name, part.offset, content[part.offset : part.offset + part.size]
            )


def _find_areas(content: bytes) -> Iterator[JournalArea]:
    """Runs of records, each starting where the one before cannot go on."""
    offset = 0
    while offset + RECORD_SIZE <= len(content):
        if content[offset : offset + len(_MAGIC)] != _MAGIC:
            offset += RECORD_SIZE
            continue
        start = offset
        end = start + MAX_RECORDS * RECORD_SIZE
        while offset < min(end, len(content)) and content[offset : offset + 4] == _MAGIC:
            offset += RECORD_SIZE
        yield JournalArea(f"at 0x{start:06x}", start, content[start:offset])


def _to_json(areas: list[JournalArea], result: ScanResult) -> dict[str, object]:
    return {
        "areas": [
            {
                "name": area.name,
                "offset": area.offset,
                "records": [
                    {
                        "offset": entry.offset,
                        "status": entry.status.value,
                        "seq": entry.seq,
                        "problem": entry.problem,
                    }
                    for entry in scan.entries
                    if entry.status is not RecordStatus.ERASED
                ],
            }
            for area, scan in zip(areas, result.areas, strict=True)
        ],
        "winner": None
        if result.winner is None
        else {
            "area": result.winner.area_name,
            "offset": result.winner.offset,
            **_state_to_json(result.winner.state),
        },
        "why": result.explain(),
    }


def _state_to_json(state: BootState) -> dict[str, object]:
    return {
        "seq": state.seq,
        "active_slot": state.active_slot,
        "revert_slot": state.revert_slot,
        "is_committed": state.is_committed,
        "commit_timeout": state.commit_timeout or 0,
        "slots": [
            {
                "app_dev": slot.configuration.app_dev,
                "fs_dev": slot.configuration.fs_dev,
                "app_len": slot.state.app_len,
                "app_org": slot.state.app_org,
                "app_crc32": slot.state.app_crc32,
                "err_count": slot.state.err_count,
            }
            for slot in state.slots
        ],
    }
