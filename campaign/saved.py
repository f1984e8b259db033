"""Work that is kept while it is done, so that a campaign that was broken off can go on.

One file for each campaign, named after it: which task it was and what came of it, task by task in
order. A result counts once it is complete: what a killed process left half-written is cut off. The
file is locked while it is in use, so that the same campaign, made twice at a time, is kept once. It
holds Python objects, so it is to be trusted like the code itself; it lies in the user's own cache,
and is not for sending round.
"""

import errno
import fcntl
import hashlib
import os
import pickle
import struct
from collections.abc import Callable, Iterable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

_HEAD = struct.Struct("<I16s")  # length of what follows, and its hash
_HASH_SIZE = 16


def cache_directory() -> Path:
    """Where programs keep what can be made again (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "otasim" / "campaigns"


def fingerprint(told: Iterable[object], sources: Iterable[Path]) -> str:
    """What tells one campaign from another: what was asked for, and all code that takes part."""
    digest = hashlib.blake2b(digest_size=_HASH_SIZE)
    for each in told:
        digest.update(repr(each).encode() + b"\0")
    for source in sources:
        digest.update(source.read_bytes() + b"\0")
    return digest.hexdigest()


class SavedWork:
    """The work done so far on a campaign.

    Args:
        path: the file; the directory is made.
        is_resumed: take up what is in it; else it begins anew.
        on_problem: told once when no more can be kept, and why: the campaign goes on without.

    Attributes:
        count: how many results it holds.
        is_keeping: whether results are still kept.

    Raises OSError when the file cannot be written, BlockingIOError when another process does.
    """

    def __init__(
        self,
        path: Path,
        *,
        is_resumed: bool,
        on_problem: Callable[[OSError], None] = lambda _error: None,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._on_problem = on_problem
        self.is_keeping = True
        self._places: list[tuple[int, int]] = []
        self._file = _open_alone(path)
        try:
            self._file.truncate(self._find_results() if is_resumed else 0)
        except OSError:
            self._file.close()
            raise

    @property
    def count(self) -> int:
        """How many results there are."""
        return len(self._places)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def is_of(self, number: int, task: str) -> bool:
        """Whether a result is that of this task."""
        place, _ = self._places[number]
        return os.pread(self._file.fileno(), _HASH_SIZE, place) == _hash(task.encode())

    def load(self, number: int) -> object:
        """The result of a task."""
        place, length = self._places[number]
        content = os.pread(self._file.fileno(), length, place)
        return pickle.loads(content[_HASH_SIZE:])  # noqa: S301 - our own

    def cut_off(self, number: int) -> None:
        """Forget this result, and all behind it."""
        self._file.truncate(self._places[number][0] - _HEAD.size)
        del self._places[number:]

    def keep(self, number: int, task: str, result: object) -> None:
        """Add the result of the next task."""
        if not self.is_keeping:
            return
        assert number == self.count  # noqa: S101 - results come in order
        content = _hash(task.encode()) + pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
        place = self._file.seek(0, os.SEEK_END)
        record = _HEAD.pack(len(content), _hash(content)) + content
        try:
            if self._file.write(record) != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.is_keeping = False  # what was half-written is cut off when it is read
            self._on_problem(error)
        else:
            self._places.append((place + _HEAD.size, len(content)))

    def remove(self) -> None:
        """The campaign is done: nothing is left to go on with."""
        self._path.unlink(missing_ok=True)

    def _find_results(self) -> int:
        """Note where the results are; returns where the last complete one ends."""
        end = 0
        self._file.seek(0)
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            length, digest = _HEAD.unpack(head)
            content = self._file.read(length)
            if len(content) != length or _hash(content) != digest:
                break
            self._places.append((end + _HEAD.size, length))
            end += _HEAD.size + length
        return end


def _open_alone(path: Path) -> FileIO:
    """The file, locked until it is closed. It has no buffer: what is written is in the file."""
    while True:
        file = FileIO(path, "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # removed by the one who had it until now


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_HASH_SIZE).digest()
