"""File system images for bundles, made on the host from ordinary files."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from littlefs import LittleFS
from littlefs.errors import LittleFSError

from bootloader_model.layout import DEFAULT_LAYOUT
from platforms.errors import OtasimError
from rpc_shim.filesystem import BLOCK_SIZE

SIZE = DEFAULT_LAYOUT.partition("fs0").size
"""Bytes of a file system of this board."""

_ERASED_BLOCK = b"\xff" * BLOCK_SIZE


class FsImageError(OtasimError):
    """A file system image cannot be made.

    Attributes:
        path: the file or directory that is the trouble.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


def make_fs_image(files: Mapping[str, bytes]) -> bytes:
    """A LittleFS image with these files, in paths with `/`. Equal files give equal bytes.

    It covers a whole file system of the board, less the blocks at its end that are not used.

    Raises:
        FsImageError: a name or the files together are too long.
    """
    made = LittleFS(block_size=BLOCK_SIZE, block_count=SIZE // BLOCK_SIZE)
    for path in sorted(files):
        try:
            folder = PurePosixPath(path).parent
            if folder.name:
                made.makedirs(str(folder), exist_ok=True)
            with made.open(path, "wb") as file:
                file.write(files[path])
        except LittleFSError as error:
            raise FsImageError(
                path, f"does not fit into a file system of {SIZE:,} bytes ({error})"
            ) from error
    image = bytes(made.context.buffer)
    while image.endswith(_ERASED_BLOCK):
        image = image.removesuffix(_ERASED_BLOCK)
    return image


def files_below(directory: Path) -> dict[str, bytes]:
    """The files of a directory of the host, by their path in it.

    Raises:
        FsImageError: something in it cannot be read.
    """
    try:
        return dict(_walk(directory))
    except OSError as error:
        raise FsImageError(
            str(error.filename or directory), f"cannot be read: {error.strerror}"
        ) from error


def _walk(directory: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path.relative_to(directory).as_posix(), path.read_bytes()
