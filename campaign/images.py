"""The images of a campaign: small, so that they fit into a few pages of flash, all different."""

import random
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from bootloader_model.app_info import APP_INFO
from bootloader_model.layout import APP0_ADDRESS
from rpc_shim.bundle.create import create_bundle
from rpc_shim.bundle.image_file import FirmwareImage

_STACK_TOP = 0x2002_0000
_RESET_VECTOR = APP0_ADDRESS + 0x41  # Thumb
_BUILT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Image:
    """An application image, linked for slot 0.

    Attributes:
        name: what reports call it; also its version.
        data: its bytes.
    """

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


def make_image(name: str, size: int) -> Image:
    """An image with a vector table, a descriptor, and content that is all its own.

    Its stack pointer follows from its size: an image that is entered with the vector table of
    another one, of another size, is noticed.

    Args:
        name: 1 to 15 ASCII characters.
        size: in bytes; more than the 84 of vector table and descriptor.
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
    head = struct.pack("<II", stack_pointer, _RESET_VECTOR) + descriptor
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
    )


# Two bursts of internal flash, several pages of NOR; no two of the same length.
OLD = make_image("old", 1300)
NEW = make_image("new", 1500)
NEXT = make_image("next", 1100)
PROBE = make_image("probe", 1200)
"""What tests at the end of each story that the board still takes updates."""
