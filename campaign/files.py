"""The files of a board as the oracle looks at them: those that the application finds at its start.

It mounts what the newest record gives the application, and first does what each start does:
at the first one of an update a new file system is made and filled from the one before. All of this
is made on a copy of the contents, by the real code of the board: only littlefs knows its format.
Then a file is written there, which has to stay, and with it all that was found: in whichever way
marginal bits read at the next boot.

Marginal bits read as in the boot that is judged.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache

from bootloader_model.boot_state import BootState
from bootloader_model.layout import DEFAULT_LAYOUT, DEFAULT_SLOTS
from bootloader_model.partition import Partitions
from campaign.cells import EXTREMES, Cells, Contents, Reading, Region
from campaign.flash import FlashPair
from platforms.errors import OtasimError
from rpc_shim.boot_configuration import BootConfiguration
from rpc_shim.boot_files import BootFiles
from rpc_shim.filesystem import ROOT, TEMPORARY_SUFFIX, FileSystem

FileSet = frozenset[tuple[str, bytes]]
"""Names, without a leading `/`, and contents. Directories count by what is in them, files that a
power cut has left unfinished not at all."""

_DEVICES = tuple(slot.configuration.fs_dev for slot in DEFAULT_SLOTS if slot.configuration.fs_dev)
_OFFSETS = tuple(DEFAULT_LAYOUT.partition(name).offset for name in _DEVICES)

_PROBE = ("probe", b"written after the boot")


@dataclass(frozen=True, slots=True)
class Found:
    """What an application has found of its files.

    Attributes:
        files: the files; None when it cannot use its file system.
        problem: what is wrong with the file system; empty when nothing is.
    """

    files: FileSet | None
    problem: str = ""


def files_found(contents: Contents, vector_table: int, reading: Reading) -> Found:
    """The files of the application that starts.

    Args:
        contents: what the flash holds when the loader is done.
        vector_table: where the application is started.
        reading: how marginal bits read in this boot.
    """
    flash = FlashPair(contents, reading)
    boot = BootConfiguration.of_image_at(_partitions_of(flash), vector_table)
    state = boot.state_or_none
    regions = _regions(contents)
    started = _Started(state and replace(state, seq=0), regions, reading, boot, flash)
    is_drawn = reading is Reading.RANDOM and any(region.weak_bits for region in regions)
    # What is drawn depends on what was read before.
    return _files_of.__wrapped__(started) if is_drawn else _files_of(started)


@dataclass(frozen=True, slots=True)
class _Started:
    """A board whose application starts; equal when it finds the same files.

    Attributes:
        state: the boot state, without its sequence number.
        regions: what the partitions of the file systems hold.
        reading: how marginal bits read.
        boot: the boot state as the application has it.
        flash: what it may change; without anything else that is compared.
    """

    state: BootState | None
    regions: tuple[Region, ...]
    reading: Reading
    boot: BootConfiguration = field(compare=False)
    flash: FlashPair = field(compare=False)


@lru_cache(maxsize=1 << 10)
def _files_of(started: _Started) -> Found:
    flash = started.flash
    try:
        files = BootFiles(started.boot, _partitions_of(flash), _do_nothing, _ignore)
        files.prepare()
        if files.root is None:
            return Found(None, "its slot has none")
        mounted = files.root.require()
        found = frozenset(_walk(mounted, ROOT))
        mounted.write(*_PROBE)
    except OtasimError as error:
        return Found(None, str(error))
    for reading in EXTREMES:
        later = _files_in_partition(FlashPair(flash.contents, reading), files.root.partition.name)
        if later != found | {_PROBE}:
            change = (
                "all is gone" if later is None else describe_difference(later, found | {_PROBE})
            )
            return Found(found, f"it does not keep what is written: {change}")
    return Found(found)


def files_in_partitions(contents: Contents, reading: Reading) -> tuple[FileSet | None, ...]:
    """What is in each file system, None where there is none: all that a boot can depend on.

    Args:
        contents: what the flash holds.
        reading: how marginal bits read; one that draws nothing.
    """
    regions = _regions(contents)
    if not any(region.pages for region in regions):
        return ()
    return _files_in(_Mounted(regions, reading, contents))


@dataclass(frozen=True, slots=True)
class _Mounted:
    """File systems to be mounted; equal when they hold the same, and read alike.

    Attributes:
        regions: what they hold.
        reading: how marginal bits read; one that draws nothing.
        contents: where they are found.
    """

    regions: tuple[Region, ...]
    reading: Reading
    contents: Contents = field(compare=False)


@lru_cache(maxsize=1 << 10)
def _files_in(mounted: _Mounted) -> tuple[FileSet | None, ...]:
    flash = FlashPair(mounted.contents, mounted.reading)
    return tuple(_files_in_partition(flash, name) for name in _DEVICES)


def _files_in_partition(flash: FlashPair, name: str) -> FileSet | None:
    try:
        return frozenset(_walk(FileSystem.mount(_partitions_of(flash).open(name)), ROOT))
    except OtasimError:
        return None


def _partitions_of(flash: FlashPair) -> Partitions:
    return Partitions(DEFAULT_LAYOUT, nor=flash.nor, internal_flash=flash.internal)


def _walk(files: FileSystem, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in files.entries(path):
        name = path + entry.name
        if entry.is_directory:
            yield from _walk(files, name + "/")
        elif not name.endswith(TEMPORARY_SUFFIX):
            yield name.removeprefix(ROOT), files.read(name)


def _regions(contents: Contents) -> tuple[Region, ...]:
    """What the partitions of the file systems hold: each has a region of its own."""
    nor = contents.nor
    return tuple(nor.regions[nor.number_at(offset)] for offset in _OFFSETS)


def _do_nothing() -> None:
    """There is no watchdog to be fed."""


def _ignore(_line: str) -> None:
    """The console says nothing that the files do not."""


def describe_difference(found: FileSet, wanted: FileSet) -> str:
    """How the files that were found differ from what they should be, for people."""
    there, expected = dict(found), dict(wanted)
    told = []
    for name in sorted({name for name, _ in found ^ wanted}):
        if name not in there:
            told.append(f"{name} is missing")
        elif name not in expected:
            told.append(f"{name} should not be there")
        else:
            told.append(
                f"{name} has {len(there[name]):,} bytes that are not the {len(expected[name]):,}"
                " that were acknowledged"
            )
    return ", ".join(told)


@cache
def _empty_file_systems() -> Cells:
    """A NOR flash with a new file system in each partition for one, and nothing else."""
    flash = FlashPair(Contents.erased())
    partitions = Partitions(DEFAULT_LAYOUT, nor=flash.nor, internal_flash=flash.internal)
    for name in _DEVICES:
        FileSystem.format(partitions.open(name))
    return flash.contents.nor


def with_file_systems(contents: Contents) -> Contents:
    """The same with an empty file system in each partition for one that is erased."""
    cells, empty = contents.nor, _empty_file_systems()
    for name in _DEVICES:
        number = cells.number_at(DEFAULT_LAYOUT.partition(name).offset)
        region = cells.regions[number]
        if not region.pages and not region.weak_bits:
            cells = cells.with_region(number, empty.regions[number])
    return Contents(cells, contents.internal)
