"""The images of a campaign: small, so that they fit into a few pages of flash, all different.

They really run: a few instructions feed the watchdog for ever, which is all that a main loop needs
for the board's RPC service to live in it.
"""

import base64
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from bootloader_model.app_info import APP_INFO
from bootloader_model.layout import APP0_ADDRESS
from rpc_shim.bundle.create import create_bundle
from rpc_shim.bundle.fs_image import make_fs_image
from rpc_shim.bundle.image_file import FirmwareImage
from rpc_shim.frame import JsonValue

_STACK_TOP = 0x2002_0000
_VECTOR_TABLE = struct.Struct("<II")
_PROGRAM_OFFSET = _VECTOR_TABLE.size + APP_INFO.sizeof()
_RESET_VECTOR = APP0_ADDRESS + _PROGRAM_OFFSET | 1  # Thumb


def thumb(*halfwords: int) -> bytes:
    """Instructions, as the ARMv7-M manual prints them."""
    return struct.pack(f"<{len(halfwords)}H", *halfwords)


# Encodings: ARMv7-M ARM chapter A7.7. The first feed comes at once, the others every 2 ms.
FEED_FOR_EVER = thumb(
    *(0xF243, 0x0000),  # movw r0, #0x3000
    *(0xF2C4, 0x0000),  # movt r0, #0x4000: IWDG_KR
    *(0xF64A, 0x21AA),  # movw r1, #0xAAAA: reload the counter
    0x6001,  # feed: str r1, [r0]
    *(0xF643, 0x72FF),  # movw r2, #0x3FFF
    0x3A01,  # delay: subs r2, #1
    0xD1FD,  # bne delay
    0xE7F9,  # b feed
)
"""A program for `make_image`; it may stand anywhere and needs no RAM."""
_CHUNK_SIZE = 2048
_BUILT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Image:
    """An application image, linked for slot 0.

    Attributes:
        name: what reports call it; also its version.
        data: its bytes.
        files: files that an update to it brings along, by name; without any it brings no file
            system.
    """

    name: str
    data: bytes
    files: tuple[tuple[str, bytes], ...] = ()

    def __str__(self) -> str:
        return self.name


def make_image(name: str, size: int, program: bytes = FEED_FOR_EVER) -> Image:
    """An image with a vector table, a descriptor, a program, and content that is all its own.

    Its stack pointer follows from its size: an image that is entered with the vector table of
    another one, of another size, is noticed.

    Args:
        name: 1 to 15 ASCII characters.
        size: in bytes; more than the 84 of vector table and descriptor and the program's.
        program: what it does from its first instruction on.
    """
    descriptor = APP_INFO.build(
        {
            "struct_size": APP_INFO.sizeof(),
            "name": b"campaign".ljust(16, b"\0"),
            "version": name.encode("ascii").ljust(16, b"\0"),
            "build_id": bytes(32),
        }
    )
    stack_pointer = _STACK_TOP - 8 * (size % 64)
    head = _VECTOR_TABLE.pack(stack_pointer, _RESET_VECTOR) + descriptor + program
    content = random.Random(name).randbytes(size - len(head))  # noqa: S311 - not secret
    return Image(name, head + content)


@cache
def bundle_of(image: Image) -> bytes:
    """The image as a host sends it."""
    return create_bundle(
        FirmwareImage(APP0_ADDRESS, image.data),
        name="campaign",
        version=image.name,
        build_id=image.name,
        build_timestamp=_BUILT,
        fs=make_fs_image(dict(image.files)) if image.files else None,
    )


def push_calls(image: Image, commit_timeout_s: int) -> Iterator[tuple[str, dict[str, JsonValue]]]:
    """The calls by which a host pushes the image as an update: methods and their arguments."""
    bundle = bundle_of(image)
    yield "OTA.Begin", {"size": len(bundle), "commit_timeout": commit_timeout_s}
    for offset in range(0, len(bundle), _CHUNK_SIZE):
        chunk = base64.b64encode(bundle[offset : offset + _CHUNK_SIZE]).decode()
        yield "OTA.Write", {"offset": offset, "data": chunk}
    yield "OTA.End", {}


# Two bursts of internal flash, several pages of NOR; no two of the same length.
OLD = make_image("old", 1300)
NEW = make_image("new", 1500)
NEXT = make_image("next", 1100)
PROBE = make_image("probe", 1200)
"""What tests at the end of each story that the board still takes updates."""
