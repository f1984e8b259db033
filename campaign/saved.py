"""Work that is kept while it is done, so that a campaign that was broken off can go on.

One file for each campaign: a line that says which campaign it is, then what came of each task, in
order. A result counts once it is complete: what a killed process left half-written is cut off. The
file holds Python objects, so it is to be trusted like the code itself; it lies in the user's own
cache, and is not for sending round.
"""

import hashlib
import os
import pickle
import struct
from collections.abc import Iterable
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

    Attributes:
        count: how many results it holds.
    """

    def __init__(self, path: Path, *, is_resumed: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("a+b")
        self._places: list[tuple[int, int]] = []
        end = self._find_results() if is_resumed else 0
        self._file.truncate(end)
        self._file.seek(end)

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

    def load(self, number: int) -> object:
        """The result of a task."""
        place, length = self._places[number]
        return pickle.loads(os.pread(self._file.fileno(), length, place))  # noqa: S301 - our own

    def keep(self, number: int, result: object) -> None:
        """Add the result of the next task."""
        assert number == self.count  # noqa: S101 - results come in order
        content = pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(_HEAD.pack(len(content), _hash(content)) + content)
        self._file.flush()
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


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_HASH_SIZE).digest()
