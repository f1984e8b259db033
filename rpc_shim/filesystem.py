"""The board's file system: LittleFS on a partition of the SPI NOR flash.

The on-disk format and all decisions about it are littlefs's own (littlefs-python compiles it); here
are its block device on an `OpenPartition`, its settings, and its errors in words. littlefs keeps
nothing back: when a call returns, its data is in the flash.

littlefs's settings are those of a Mongoose OS device (mongoose-os-libs/vfs-fs-lfs: the options of
the root file system in `mos.yml`, the rest in `mgos_vfs_lfs.c`), but for the cache, which is one
page of the flash, so that a page is programmed in one go.
"""

import posixpath
import re
import struct
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum

from littlefs import LFSConfig, LFSFile, LFSFilesystem, LFSStat, LittleFSError, lfs

from bootloader_model.partition import OpenPartition
from platforms.errors import OtasimError
from platforms.flash import ERASED_BYTE

TYPE_NAME = "LFS"
"""What `FS.Mkfs` and a device's configuration call this type of file system."""
BLOCK_SIZE = 4096
TEMPORARY_SUFFIX = " (unfinished)"
"""What the name of a file has behind it while it is being created atomically. A power cut may leave
such a file behind. It sorts right behind the name, see `FileSystem.rename`."""
ROOT = "/"

_IO_SIZE = 128
_CACHE_SIZE = 256
_LOOKAHEAD_SIZE = 64
_BLOCK_CYCLES = 512
_MAX_NAME_BYTES = 255
_MAX_DEPTH = 16
_UNUSABLE_CHARACTER = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

_DONE = int(LittleFSError.Error.LFS_ERR_OK)
_IO_ERROR = int(LittleFSError.Error.LFS_ERR_IO)
_BAD_BLOCK = int(LittleFSError.Error.LFS_ERR_CORRUPT)


class Reason(Enum):
    """Why a file system call was refused."""

    NOT_MOUNTED = "not mounted"
    NOT_FOUND = "not found"
    EXISTS = "exists"
    IS_DIRECTORY = "is a directory"
    NOT_A_DIRECTORY = "not a directory"
    NOT_EMPTY = "not empty"
    INVALID_NAME = "invalid name"
    BEYOND_END = "beyond the end"
    FULL = "full"
    DAMAGED = "damaged"
    FAILED = "failed"


_Error = LittleFSError.Error
_EXPLANATIONS: dict[int, tuple[Reason, str]] = {
    _Error.LFS_ERR_NOENT: (Reason.NOT_FOUND, "there is no such file or directory"),
    _Error.LFS_ERR_EXIST: (Reason.EXISTS, "there is something of that name already"),
    _Error.LFS_ERR_NOTDIR: (Reason.NOT_A_DIRECTORY, "a file is no directory"),
    _Error.LFS_ERR_ISDIR: (Reason.IS_DIRECTORY, "it is a directory, a file was expected"),
    _Error.LFS_ERR_NOTEMPTY: (Reason.NOT_EMPTY, "the directory is not empty"),
    _Error.LFS_ERR_INVAL: (Reason.INVALID_NAME, "this cannot be done with such a name"),
    _Error.LFS_ERR_NOSPC: (Reason.FULL, "the file system is full: remove files, then retry"),
    # Every name is measured before littlefs sees it: what does not fit then is the entry.
    _Error.LFS_ERR_NAMETOOLONG: (Reason.FULL, "the file system is full: remove files, then retry"),
    _Error.LFS_ERR_CORRUPT: (Reason.DAMAGED, "the file system is damaged: FS.Mkfs makes a new one"),
}


_CALLERS_MISTAKES = {
    Reason.NOT_FOUND,
    Reason.EXISTS,
    Reason.IS_DIRECTORY,
    Reason.NOT_A_DIRECTORY,
    Reason.NOT_EMPTY,
    Reason.INVALID_NAME,
    Reason.BEYOND_END,
}
"""What littlefs sees before it changes anything."""


class FileSystemError(OtasimError):
    """A file system call was refused; the file system is as it was.

    Attributes:
        path: the file or directory it was about, or the name of the partition.
        reason: why.
        explanation: the message without the path.
    """

    def __init__(self, path: str, reason: Reason, explanation: str) -> None:
        super().__init__(f'"{path}": {explanation}')
        self.path = path
        self.reason = reason
        self.explanation = explanation


@dataclass(frozen=True, slots=True)
class Entry:
    """What a directory holds.

    Attributes:
        name: within its directory.
        size: bytes in the file, 0 for a directory.
        is_directory: whether it is one.
    """

    name: str
    size: int
    is_directory: bool


@dataclass(frozen=True, slots=True)
class _Superblock:
    block_size: int
    blocks: int


class _BlockDevice:
    """What littlefs reads and writes: its four callbacks, on a partition.

    littlefs-python swallows whatever a callback raises and goes on as if all were well. So the
    first exception is kept in `failure`, for the caller of littlefs to raise, and from then on the
    flash is left alone: a change is answered with an I/O error; a read, for which littlefs-python
    has no error, with erased flash, which holds nothing that littlefs takes for valid.

    Before this mount the power may have gone in the midst of littlefs's last commit, and left cells
    that read differently from time to time: a commit that reads as good now and as bad next time,
    or blank space that is none. littlefs appends commits to a block, and whatever it appended there
    would be lost with that one. So nothing is appended to a block that was not erased since the
    mount: what is there is programmed once more, which makes it firm, and littlefs, which is told
    that the block is bad, writes all of it to the other block of the pair.
    """

    def __init__(self, partition: OpenPartition, feed_watchdog: Callable[[], None]) -> None:
        self._partition = partition
        self._feed_watchdog = feed_watchdog
        self.failure: BaseException | None = None
        self._erased: set[int] = set()
        self.used_blocks: int | None = None
        """As last counted; None since something was written."""

    def read(self, _config: LFSConfig, block: int, offset: int, size: int) -> bytes:
        address = block * BLOCK_SIZE + offset
        if self.failure is None:
            try:
                return self._partition.read(address, size)
            except BaseException as failure:  # noqa: BLE001 - raised again outside of littlefs
                self.failure = failure
        return bytes([ERASED_BYTE]) * size

    def prog(self, _config: LFSConfig, block: int, offset: int, data: bytes) -> int:
        if block not in self._erased:
            failed = self._change(lambda: self._make_firm(block))
            return failed or _BAD_BLOCK
        return self._change(lambda: self._partition.program(block * BLOCK_SIZE + offset, data))

    def erase(self, _config: LFSConfig, block: int) -> int:
        def erase() -> None:
            self._feed_watchdog()
            self._partition.erase(block * BLOCK_SIZE, BLOCK_SIZE)
            self._erased.add(block)

        return self._change(erase)

    def sync(self, _config: LFSConfig) -> int:
        return _DONE if self.failure is None else _IO_ERROR

    def _make_firm(self, block: int) -> None:
        """Drive the bits that read as programmed; the others are, at most, of no valid commit.

        The price: a brown-out that garbles this very operation (`TornShape.GARBLED`) can cost what
        the block holds. A power cut cannot: no bit changes that was firm.
        """
        for start in range(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE, _CACHE_SIZE):
            page = self._partition.read(start, _CACHE_SIZE)
            if page.count(ERASED_BYTE) != len(page):
                self._partition.program(start, page)

    def _change(self, change: Callable[[], None]) -> int:
        self.used_blocks = None
        if self.failure is not None:
            return _IO_ERROR
        try:
            change()
        except BaseException as failure:  # noqa: BLE001 - raised again outside of littlefs
            self.failure = failure
            return _IO_ERROR
        return _DONE


class FileSystem:
    """The mounted file system of a partition. Made by `mount` or `format`.

    Names are paths with `/`; a leading one makes no difference. Each call may raise
    FileSystemError, and, besides, whatever the partition raises: FlashError, and ResetAsserted when
    the board loses its processor on the way. After these, and when littlefs ran out of space or met
    damage, the next call mounts anew: what littlefs has in RAM then no longer goes with the flash
    (after running out of space, its next change may even fail an assertion and end the process).

    A change is whole or has not happened, wherever the power goes, with one exception: a file that
    `write` or `append` creates may be there and be empty.
    """

    def __init__(self, partition: OpenPartition, feed_watchdog: Callable[[], None]) -> None:
        self._partition = partition
        self._device = _BlockDevice(partition, feed_watchdog)
        self._mount()

    @classmethod
    def mount(
        cls, partition: OpenPartition, feed_watchdog: Callable[[], None] = lambda: None
    ) -> "FileSystem":
        """The file system that is in the partition.

        Args:
            partition: where it is, a multiple of 4096 bytes.
            feed_watchdog: called before each erase, so that long work does not starve it.

        Raises:
            FileSystemError: there is none, or it was made for something larger or other.
        """
        return cls(partition, feed_watchdog)

    @classmethod
    def format(
        cls, partition: OpenPartition, feed_watchdog: Callable[[], None] = lambda: None
    ) -> "FileSystem":
        """A new, empty file system in place of whatever is in the partition; see `mount`."""
        device = _BlockDevice(partition, feed_watchdog)
        config = _configuration(device, partition.size // BLOCK_SIZE)
        with _explained(device, partition.name):
            lfs.format(LFSFilesystem(), config)
        return cls(partition, feed_watchdog)

    # -- looking ----------------------------------------------------------------------------------

    @property
    def total_bytes(self) -> int:
        """Bytes in the whole file system, its own bookkeeping included."""
        return self._handle.block_count * BLOCK_SIZE

    @property
    def free_bytes(self) -> int:
        """Bytes in free blocks. Counting reads much of the flash, once after each change."""
        with self._operation(ROOT) as handle:
            if self._device.used_blocks is None:
                self._device.used_blocks = lfs.fs_size(handle)
            used = self._device.used_blocks * BLOCK_SIZE
        # A block that two versions of a file share is counted for each.
        return max(0, self.total_bytes - used)

    def entries(self, path: str = ROOT) -> list[Entry]:
        """What is in a directory, sorted by name."""
        with self._operation(path) as handle:
            directory = lfs.dir_open(handle, self._checked(path))
            try:
                found = []
                while (stat := lfs.dir_read(handle, directory)) is not None:
                    if stat.name not in {".", ".."}:
                        found.append(_entry(stat))
            except UnicodeDecodeError as error:
                raise FileSystemError(
                    path, Reason.DAMAGED, "it holds a name that is no UTF-8"
                ) from error
            finally:
                lfs.dir_close(handle, directory)
        return sorted(found, key=lambda entry: entry.name)

    def names(self, path: str = ROOT) -> list[str]:
        """The names in a directory, sorted."""
        return [entry.name for entry in self.entries(path)]

    def size(self, name: str) -> int:
        """Bytes in a file."""
        with self._open(name, "r") as (handle, file):
            return lfs.file_size(handle, file)

    def check_creatable(self, name: str) -> None:
        """Refuse a name for a new file that would not get through every update.

        Raises:
            FileSystemError: INVALID_NAME, there is no such file, and the name is that of an
                unfinished file or too long for `write_atomically`.
        """
        if self._checked(name).endswith(TEMPORARY_SUFFIX):
            problem = f'a name that ends in "{TEMPORARY_SUFFIX}" is that of an unfinished file'
        elif not self.can_create_atomically(name):
            problem = self._longest_name()
        else:
            return
        if not self.exists(name):
            raise FileSystemError(name, Reason.INVALID_NAME, problem)

    def can_create_atomically(self, name: str) -> bool:
        """Whether the name leaves room for the suffix that the file has for a moment."""
        last = (name + TEMPORARY_SUFFIX).rpartition("/")[-1]
        return len(last.encode()) <= self._max_name_bytes

    def exists(self, name: str) -> bool:
        """Whether there is a file or directory of that name."""
        return self._find(name) is not None

    def is_directory(self, name: str) -> bool:
        """Whether there is a directory of that name."""
        entry = self._find(name)
        return entry is not None and entry.is_directory

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Up to `length` bytes of a file from `offset`, all there are when None.

        Raises FileSystemError (BEYOND_END) when `offset` is larger than the file.
        """
        with self._open(name, "r") as (handle, file):
            left = lfs.file_size(handle, file) - offset
            if left < 0:
                raise _beyond_end(name, offset, left + offset)
            lfs.file_seek(handle, file, offset, 0)
            return lfs.file_read(handle, file, left if length is None else min(length, left))

    # -- changing ---------------------------------------------------------------------------------

    def write(self, name: str, data: bytes) -> None:
        """Make `data` the content of a file; it is created when there is none."""
        with self._open(name, "w") as (handle, file):
            lfs.file_write(handle, file, data)

    def append(self, name: str, data: bytes) -> None:
        """Add `data` at the end of a file; it is created when there is none."""
        with self._open(name, "a" if self.exists(name) else "w") as (handle, file):
            lfs.file_write(handle, file, data)

    def write_at(self, name: str, offset: int, data: bytes) -> None:
        """Overwrite a file from `offset` on, and lengthen it when `data` goes beyond its end.

        Raises FileSystemError: NOT_FOUND, or BEYOND_END when `offset` is larger than the file.
        """
        with self._open(name, "r+") as (handle, file):
            size = lfs.file_size(handle, file)
            if offset > size:
                raise _beyond_end(name, offset, size)
            lfs.file_seek(handle, file, offset, 0)
            lfs.file_write(handle, file, data)

    def write_atomically(self, name: str, data: bytes) -> None:
        """As `write`, but a file that is created by it is whole, too, or not there."""
        if self.exists(name):
            self.write(name, data)
            return
        temporary = name + TEMPORARY_SUFFIX
        try:
            self.write(temporary, data)
            with self._operation(name) as handle:
                lfs.rename(handle, temporary, self._checked(name))
        except FileSystemError as error:
            with suppress(FileSystemError):
                self.remove(temporary)
            raise FileSystemError(name, error.reason, error.explanation) from error

    def remove(self, name: str) -> None:
        """Remove a file or an empty directory."""
        with self._operation(name) as handle:
            lfs.remove(handle, self._checked(name))

    def rename(self, source: str, destination: str) -> None:
        """Give a file another path; a file that is there is replaced.

        It is copied, so there must be room for both, and a power cut may leave both. littlefs has a
        rename of its own, which is two steps where the entries are not in one metadata pair. What
        it does between the two (2.9 to 2.11, since its change "Fix synthetic move underflows in
        lfs_dir_get") overlooks the entry behind the one that moves: a directory that is read then
        has holes, and blocks of a file are taken for free and overwritten. Names that sort next to
        each other are in one pair.
        """
        data = self.read(source)
        if _normalized(source) != _normalized(destination):
            self.write_atomically(destination, data)
            self.remove(source)

    def make_directory(self, name: str) -> None:
        """Create a directory."""
        with self._operation(name) as handle:
            lfs.mkdir(handle, self._checked(name))

    # -- internals --------------------------------------------------------------------------------

    def _mount(self) -> None:
        self._device.failure = None
        blocks = self._partition.size // BLOCK_SIZE
        try:
            self._mount_blocks(blocks)
        except FileSystemError as error:
            there = _superblock(self._partition)
            # Made for fewer blocks is all right.
            if there is not None and there.block_size == BLOCK_SIZE and 0 < there.blocks < blocks:
                with suppress(FileSystemError):
                    self._mount_blocks(there.blocks)
                    return
            explanation = _mount_problem(there, blocks)
            raise FileSystemError(self._partition.name, Reason.NOT_MOUNTED, explanation) from error

    def _mount_blocks(self, count: int) -> None:
        config = _configuration(self._device, count)
        handle = LFSFilesystem()
        with _explained(self._device, self._partition.name):
            lfs.mount(handle, config)
        # littlefs's buffers are no Python objects, and the handle points to the configuration.
        self._release = weakref.finalize(self, _unmount, handle, config)
        self._handle = handle
        with self._mounted_operation(self._partition.name):
            self._max_name_bytes = lfs.fs_stat(handle).name_max
            # A rename that another littlefs was stopped in; see `rename`.
            lfs.fs_mkconsistent(handle)

    @contextmanager
    def _operation(self, path: str) -> Iterator[LFSFilesystem]:
        """Calls of littlefs that belong together; what went wrong in them is raised at the end."""
        if not self._release.alive:
            self._mount()
        with self._mounted_operation(path) as handle:
            yield handle

    @contextmanager
    def _mounted_operation(self, path: str) -> Iterator[LFSFilesystem]:
        try:
            with _explained(self._device, path):
                yield self._handle
        except BaseException as error:
            if not (isinstance(error, FileSystemError) and error.reason in _CALLERS_MISTAKES):
                self._release()
            raise

    @contextmanager
    def _open(self, name: str, mode: str) -> Iterator[tuple[LFSFilesystem, LFSFile]]:
        with self._operation(name) as handle:
            file = lfs.file_open(handle, self._checked(name), mode)
            try:
                yield handle, file
            finally:
                # Always: littlefs has an open file in a list. After an error it writes nothing.
                lfs.file_close(handle, file)

    def _find(self, name: str) -> Entry | None:
        try:
            with self._operation(name) as handle:
                return _entry(lfs.stat(handle, self._checked(name)))
        except FileSystemError as error:
            if error.reason in {Reason.NOT_FOUND, Reason.NOT_A_DIRECTORY}:
                return None
            raise

    def _checked(self, path: str) -> str:
        """The path, if littlefs can be given it."""
        if not path or _UNUSABLE_CHARACTER.search(path):
            raise FileSystemError(
                path.encode("unicode-escape").decode("ascii"),
                Reason.INVALID_NAME,
                "a name has at least one character, and no control characters",
            )
        if max(len(name.encode()) for name in path.split("/")) > self._max_name_bytes:
            raise FileSystemError(path, Reason.INVALID_NAME, self._longest_name())
        return path

    def _longest_name(self) -> str:
        return (
            f"a name may have up to {self._max_name_bytes} bytes in UTF-8, and "
            f"{len(TEMPORARY_SUFFIX)} less where a file is created or renamed"
        )


class RootFileSystem:
    """The file system that a board has in one of its partitions, or should have.

    Args:
        partition: where it is. It is mounted at once if it is there.
        feed_watchdog: as for `FileSystem.mount`.

    Attributes:
        partition: where it is.
        mounted: the file system; None when the partition holds none.
    """

    def __init__(
        self, partition: OpenPartition, feed_watchdog: Callable[[], None] = lambda: None
    ) -> None:
        self.partition = partition
        self.mounted: FileSystem | None = None
        self._feed_watchdog = feed_watchdog
        self._problem = ""
        try:
            self.mounted = FileSystem.mount(partition, feed_watchdog)
        except FileSystemError as error:
            self._problem = error.explanation

    def require(self) -> FileSystem:
        """The file system; FileSystemError (NOT_MOUNTED) that says how to get one."""
        if self.mounted is None:
            raise FileSystemError(
                self.partition.name,
                Reason.NOT_MOUNTED,
                f"{self._problem}; make a new one with FS.Mkfs "
                f'{{"dev_name": "{self.partition.name}", "fs_type": "{TYPE_NAME}"}}',
            )
        return self.mounted

    def format(self) -> None:
        """Make a new, empty file system, whatever is there."""
        self.mounted = None
        self._problem = "the last attempt to make one did not come to its end"
        self.mounted = FileSystem.format(self.partition, self._feed_watchdog)


@dataclass(frozen=True, slots=True)
class Merged:
    """What has come of a merge.

    Attributes:
        copied: the paths of the files copied.
        left_out: what could not be copied, and why.
    """

    copied: list[str] = field(default_factory=list)
    left_out: list[FileSystemError] = field(default_factory=list)


def merge_file_systems(old: FileSystem, new: FileSystem) -> Merged:
    """Copy the files that `new` does not have from `old`, as a device does after an update.

    What `new` has is left alone, also where it has a file and `old` a directory of that name, or
    the other way round. Each file arrives whole or not at all, so that a merge that was cut short
    can simply be made again; only one whose name is too long to be created atomically may be there
    and be empty then.

    What is wrong with `old` is no reason to be without `new`: what cannot be read there, or has a
    name that cannot be in `new`, is left out, as are files that a power cut has left unfinished.

    Raises:
        FileSystemError: at the first file that could not be written, for instance because `new` is
            full; those before it are there.
    """
    merged = Merged()
    _merge_directory(old, new, ROOT, merged)
    return merged


def _merge_directory(old: FileSystem, new: FileSystem, path: str, merged: Merged) -> None:
    try:
        entries = _entries_not_too_deep(old, path)
    except FileSystemError as error:
        merged.left_out.append(error)
        return
    for entry in entries:
        name = path + entry.name
        try:
            exists = new.exists(name)
        except FileSystemError as error:
            if error.reason is not Reason.INVALID_NAME:
                raise
            merged.left_out.append(error)
            continue
        if entry.is_directory:
            if not exists:
                new.make_directory(name)
            if new.is_directory(name):
                _merge_directory(old, new, name + "/", merged)
        elif not exists:
            _merge_file(old, new, name, merged)


def _entries_not_too_deep(files: FileSystem, path: str) -> list[Entry]:
    if path.count("/") > _MAX_DEPTH:
        explanation = f"directories are nested deeper than {_MAX_DEPTH} levels"
        raise FileSystemError(path, Reason.DAMAGED, explanation)
    return files.entries(path)


def _merge_file(old: FileSystem, new: FileSystem, name: str, merged: Merged) -> None:
    if name.endswith(TEMPORARY_SUFFIX):
        problem = "it is an unfinished file"
        merged.left_out.append(FileSystemError(name, Reason.INVALID_NAME, problem))
        return
    try:
        data = old.read(name)
    except FileSystemError as error:
        merged.left_out.append(error)
        return
    write = new.write_atomically if new.can_create_atomically(name) else new.write
    write(name, data)
    merged.copied.append(name)


def _configuration(device: _BlockDevice, block_count: int) -> LFSConfig:
    return LFSConfig(
        device,
        block_size=BLOCK_SIZE,
        block_count=block_count,
        read_size=_IO_SIZE,
        prog_size=_IO_SIZE,
        cache_size=_CACHE_SIZE,
        lookahead_size=_LOOKAHEAD_SIZE,
        block_cycles=_BLOCK_CYCLES,
        name_max=_MAX_NAME_BYTES,
    )


@contextmanager
def _explained(device: _BlockDevice, path: str) -> Iterator[None]:
    """Calls of littlefs: raises what happened in the flash, or else littlefs's error in words."""
    try:
        yield
    except LittleFSError as error:
        reason, message = _EXPLANATIONS.get(error.code, (Reason.FAILED, f"failed with {error}"))
        raise FileSystemError(path, reason, message) from error
    finally:
        # Whatever else has come of it.
        if device.failure is not None:
            raise device.failure


def _superblock(partition: OpenPartition) -> _Superblock | None:
    """What littlefs writes at the start of the first two blocks (SPEC.md there)."""
    for offset in (0, BLOCK_SIZE):
        start = partition.read(offset, 0x20)
        if start[8:16] == b"littlefs":
            return _Superblock(*struct.unpack("<II", start[0x18:0x20]))
    return None


def _mount_problem(there: _Superblock | None, blocks: int) -> str:
    if there is None:
        return "it holds no file system"
    return (
        f"its file system of {there.blocks:,} blocks of {there.block_size:,} bytes is damaged or "
        f"was made in another way: expected littlefs 2.0 or 2.1, up to {blocks} blocks of "
        f"{BLOCK_SIZE:,} bytes, names of up to {_MAX_NAME_BYTES} bytes"
    )


def _unmount(handle: LFSFilesystem, _config: LFSConfig) -> None:
    """Give littlefs's memory back; the flash is not touched."""
    lfs.unmount(handle)


def _normalized(path: str) -> str:
    return posixpath.normpath("/" + path).lstrip("/")


def _entry(stat: LFSStat) -> Entry:
    return Entry(stat.name, stat.size, stat.type == LFSStat.TYPE_DIR)


def _beyond_end(name: str, offset: int, size: int) -> FileSystemError:
    return FileSystemError(
        name, Reason.BEYOND_END, f"offset {offset:,} is beyond the end, it has {size:,} bytes"
    )
