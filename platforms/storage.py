"""Where the cells of the flash memories live: in this process, or in files of a state directory.

In a state directory each memory is one file, mapped and shared, so that every flash operation is
in the file (in the kernel's hands) the moment it happens: a process that is killed loses nothing.
What a kill in the middle of an operation leaves is what a power cut leaves, and the loader copes.
"""

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platforms.devices import stm32f405_flash, w25q32jv
from platforms.devices.flash_memory import WEAR_COUNT_SIZE
from platforms.errors import OtasimError
from platforms.flash import ERASED_BYTE

NOR_FILE = "nor.bin"
NOR_STATUS_FILE = "nor-status.bin"
INTERNAL_FILE = "internal.bin"
INTERNAL_OPTIONS_FILE = "internal-options.bin"
NOR_WEAR_FILE = "nor-wear.bin"
INTERNAL_WEAR_FILE = "internal-wear.bin"
LOCK_FILE = "lock"

Cells = bytearray | mmap.mmap

_SIZES = {
    NOR_FILE: w25q32jv.SIZE,
    NOR_STATUS_FILE: len(w25q32jv.FACTORY_STATUS),
    INTERNAL_FILE: stm32f405_flash.SIZE,
    INTERNAL_OPTIONS_FILE: len(stm32f405_flash.FACTORY_OPTIONS),
    NOR_WEAR_FILE: WEAR_COUNT_SIZE * len(w25q32jv.GEOMETRY.sectors),
    INTERNAL_WEAR_FILE: WEAR_COUNT_SIZE * len(stm32f405_flash.GEOMETRY.sectors),
}


class StateDirectoryError(OtasimError):
    """A state directory cannot be used.

    Attributes:
        path: the directory, or the file in it that is the trouble.
    """

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


@dataclass(frozen=True, slots=True)
class FlashStorage:
    """The non-volatile cells of a board.

    Attributes:
        nor: array of the SPI NOR flash.
        nor_status: its non-volatile status registers.
        internal: array of the internal flash.
        internal_options: its option bytes.
        nor_wear: erase counts of the NOR flash's sectors, 4 bytes each.
        internal_wear: the same for the internal flash.
    """

    nor: Cells
    nor_status: Cells
    internal: Cells
    internal_options: Cells
    nor_wear: Cells
    internal_wear: Cells


def in_memory() -> FlashStorage:
    """Factory-new cells that die with the process."""
    return FlashStorage(
        nor=bytearray([ERASED_BYTE]) * w25q32jv.SIZE,
        nor_status=bytearray(w25q32jv.FACTORY_STATUS),
        internal=bytearray([ERASED_BYTE]) * stm32f405_flash.SIZE,
        internal_options=bytearray(stm32f405_flash.FACTORY_OPTIONS),
        nor_wear=bytearray(_SIZES[NOR_WEAR_FILE]),
        internal_wear=bytearray(_SIZES[INTERNAL_WEAR_FILE]),
    )


@contextmanager
def in_directory(path: Path, manufacture: Callable[[], FlashStorage]) -> Iterator[FlashStorage]:
    """The cells kept in `path`; where there are none yet, `manufacture` makes the first.

    Raises StateDirectoryError when it cannot be used: no directory, not writable, files missing or
    of a wrong size, or another process is using it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StateDirectoryError(f"cannot be used: {error.strerror}", path) from error
    maps: list[mmap.mmap] = []
    try:
        _lock(lock, path)
        _complete_files(path, manufacture)
        cells = {}
        for name, size in _SIZES.items():
            cells[name] = _map_file(path / name, size)
            maps.append(cells[name])
        yield _storage(cells)
    finally:
        for area in maps:
            area.flush()
        os.close(lock)


def _storage(cells: Mapping[str, Cells]) -> FlashStorage:
    return FlashStorage(
        cells[NOR_FILE],
        cells[NOR_STATUS_FILE],
        cells[INTERNAL_FILE],
        cells[INTERNAL_OPTIONS_FILE],
        cells[NOR_WEAR_FILE],
        cells[INTERNAL_WEAR_FILE],
    )


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateDirectoryError(
            "another otasim is using this state directory: stop it or choose another", path
        ) from None


def _complete_files(path: Path, manufacture: Callable[[], FlashStorage]) -> None:
    """Make the files of a new board, or go on where a killed process has stopped making them.

    All files are written under other names before the first gets its own. So what is still under
    another name, when some have their own, is whole; and what has neither was taken away.
    """
    missing = [name for name in _SIZES if not (path / name).exists()]
    if len(missing) == len(_SIZES):
        _write_files(path, manufacture())
    lost = [name for name in missing if not _fresh(path, name).exists()]
    if lost:
        raise StateDirectoryError(
            f"{', '.join(lost)} missing, but other files of a board are there: put the missing "
            "back, or choose another state directory (an empty one gets a new board)",
            path,
        )
    for name in missing:
        try:
            _fresh(path, name).replace(path / name)
        except OSError as error:
            raise StateDirectoryError(f"cannot be used: {error.strerror}", path / name) from error


def _fresh(path: Path, name: str) -> Path:
    return path / f"{name}.new"


def _write_files(path: Path, storage: FlashStorage) -> None:
    contents = {
        NOR_FILE: storage.nor,
        NOR_STATUS_FILE: storage.nor_status,
        INTERNAL_FILE: storage.internal,
        NOR_WEAR_FILE: storage.nor_wear,
        INTERNAL_WEAR_FILE: storage.internal_wear,
        INTERNAL_OPTIONS_FILE: storage.internal_options,
    }
    for name, cells in contents.items():
        try:
            _fresh(path, name).write_bytes(cells)
        except OSError as error:
            raise StateDirectoryError(
                f"cannot be written: {error.strerror}", path / name
            ) from error


def _map_file(path: Path, expected_size: int) -> mmap.mmap:
    try:
        with path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size != expected_size:
                raise StateDirectoryError(
                    f"has {size:,} bytes, expected {expected_size:,}: it is no flash image of this "
                    "board; move it away or choose another state directory",
                    path,
                )
            return mmap.mmap(file.fileno(), 0)
    except OSError as error:
        raise StateDirectoryError(f"cannot be used: {error.strerror}", path) from error
