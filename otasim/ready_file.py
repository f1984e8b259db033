"""The file that tells other programs that a board can be talked to, and where.

A JSON object with `pid`, `engine`, `serial`, and a URL for each network transport. It is there only
as long as it is true: one that an earlier run has left goes before the board is made, and ours goes
with the board.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from platforms.atomic_file import write_atomically
from platforms.errors import OtasimError


class ReadyFileError(OtasimError):
    """A ready file cannot be written.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"the ready file {path} cannot be written: {problem}")
        self.path = path


class ReadyFile:
    """The ready file of this process; making it removes one that is there.

    Raises ReadyFileError, as `write` does, when the path cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists() and not path.is_file():
            raise ReadyFileError(path, "what is there is no regular file; choose another path")
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ReadyFileError(path, error.strerror or str(error)) from error

    def write(self, engine: str, serial: str, urls: Mapping[str, str]) -> None:
        """Write it so that whoever waits for it never sees half of it."""
        content = {"pid": os.getpid(), "engine": engine, "serial": serial, **urls}
        try:
            write_atomically(self._path, f"{json.dumps(content)}\n".encode())
        except OSError as error:
            raise ReadyFileError(self._path, error.strerror or str(error)) from error

    def remove(self) -> None:
        """Remove it, unless another process has written its own there by now."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if isinstance(content, dict) and content.get("pid") == os.getpid():
            self._path.unlink(missing_ok=True)
