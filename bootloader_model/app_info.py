"""The application descriptor: what an image says about itself.

An application built like the sample firmware carries a small structure behind its vector table with
its name, version and build identifier (`firmware/include/app_info.h`). The boot log and the
commands show them. An image without one is as good; it just has no name.
"""

from dataclasses import dataclass
from functools import lru_cache

from construct import Bytes, Const, Int32ul, Struct

MAGIC = b"OTASIMAI"
SEARCH_LENGTH = 4096
"""The descriptor starts within this many bytes from the start of the image, at a multiple of 4."""

_CACHED = 64  # images; every boot looks at one that has been seen before

APP_INFO = Struct(
    "magic" / Const(MAGIC),
    "struct_size" / Int32ul,
    "name" / Bytes(16),
    "version" / Bytes(16),
    "build_id" / Bytes(32),
)
"""The structure as it lies in the image: little-endian, no padding, 76 bytes.

`struct_size` is the size in bytes of the whole structure, more than 76 if a later firmware has
appended fields to it. The three texts are padded with NULs, of which each has at least one.
"""


@dataclass(frozen=True, slots=True)
class AppInfo:
    """Who an application is.

    Attributes:
        name: what it is called, 1 to 15 printable ASCII characters.
        version: which version it is, 1 to 15 printable ASCII characters.
        build_id: which build it is, 0 to 31 printable ASCII characters.
    """

    name: str
    version: str
    build_id: str


@lru_cache(maxsize=_CACHED)
def read_app_info(image: bytes) -> AppInfo | None:
    """Find an application's descriptor.

    Args:
        image: the application's bytes from its vector table on; anything at all is accepted.

    Returns:
        The first well-formed descriptor, or None when there is none: no magic, cut off, a wrong
        size, or a text that is not NUL-terminated printable ASCII.
    """
    for offset in range(0, min(SEARCH_LENGTH, len(image)), 4):
        if image.startswith(MAGIC, offset):
            info = _parse(image, offset)
            # The magic alone may be part of the program, of a loader that looks for it for example.
            if info is not None:
                return info
    return None


def _parse(image: bytes, offset: int) -> AppInfo | None:
    smallest = APP_INFO.sizeof()
    if offset + smallest > len(image):
        return None
    fields = APP_INFO.parse(image[offset : offset + smallest])
    if not smallest <= fields.struct_size <= len(image) - offset:
        return None
    name = _text(fields.name)
    version = _text(fields.version)
    build_id = _text(fields.build_id)
    if not name or not version or build_id is None:
        return None
    return AppInfo(name, version, build_id)


def _text(field: bytes) -> str | None:
    text = field.rstrip(b"\0")
    if len(text) == len(field) or not all(0x20 <= byte <= 0x7E for byte in text):
        return None
    return text.decode("ascii")
