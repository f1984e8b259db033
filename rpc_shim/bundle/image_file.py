"""Reads firmware images from what tool chains make: Intel HEX, ELF, raw binary, bundle."""

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path

from platforms.errors import InvalidArgumentError, OtasimError
from rpc_shim.bundle.manifest import APP_PART, FLASH_BASE, BundleError
from rpc_shim.bundle.stream import BundleReader, ManifestReceived, PartBegin, PartData

FLASH_SIZE = 0x10_0000
"""Internal flash of the STM32F405/F407 with 1 MB (DS8626, table 2)."""

FLASH_END = FLASH_BASE + FLASH_SIZE

APPLICATION_BASE = 0x0801_0000
"""Where an application of this board begins, and where a raw binary goes unless told otherwise."""

PLATFORM = "stm32"

_FILL = b"\xff"
_SPAN_LIMIT = 4 << 20
_SEGMENT_LIMIT = 256
_FILE_SIZE_LIMITS = {".hex": 8 << 20, ".elf": 64 << 20, ".bin": FLASH_SIZE, ".zip": 8 << 20}
"""Bytes by suffix: far above what 1 MB of flash takes (ELF: with debug information)."""


class ImageFileError(OtasimError):
    """A file does not hold a firmware image for the internal flash.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


@dataclass(frozen=True, slots=True)
class FirmwareImage:
    """One run of bytes for the internal flash.

    Attributes:
        address: where the first byte goes.
        data: the bytes, never empty; gaps between sections hold 0xFF as erased flash does.
    """

    address: int
    data: bytes

    @property
    def end(self) -> int:
        """The first address behind the image."""
        return self.address + len(self.data)


@dataclass(frozen=True, slots=True)
class _Segment:
    address: int
    data: bytes

    @property
    def end(self) -> int:
        return self.address + len(self.data)

    def __str__(self) -> str:
        return f"0x{self.address:08x}..0x{self.end - 1:08x}"


def load_image(path: Path, *, base: int | None = None) -> FirmwareImage:
    """The firmware image in a file; the file's suffix says which format it has.

    Args:
        path: an Intel HEX file (`.hex`), an ELF file (`.elf`: its loadable segments at their
            physical addresses), a raw binary (`.bin`), or a firmware bundle (`.zip`: the
            application without boot loader, boot configuration and file system before it).
        base: where a raw binary goes, 0x08010000 unless given; the other formats say it themselves.

    Raises:
        ImageFileError: the file cannot be read, is of another format than its suffix says, is
            damaged (a bundle: a device would refuse it), holds nothing to load, or holds something
            for other places than the internal flash.
        InvalidArgumentError: `base` for a format that has addresses of its own.
    """
    suffix = path.suffix.lower()
    if suffix not in _FILE_SIZE_LIMITS:
        known = ", ".join(_FILE_SIZE_LIMITS)
        raise ImageFileError(path, f'the suffix "{path.suffix}" is not one of {known}')
    if base is not None and suffix != ".bin":
        raise InvalidArgumentError(
            f"a base address (0x{base:08x}) is for .bin files only: {path} has its own addresses"
        )
    content = _content(path, _FILE_SIZE_LIMITS[suffix])
    match suffix:
        case ".hex":
            segments = _read_hex(path, content)
        case ".elf":
            segments = _read_elf(path, content)
        case ".zip":
            segments = _read_bundle(path, content)
        case _:
            segments = [_Segment(APPLICATION_BASE if base is None else base, content)]
    return _assemble(path, segments)


def _content(path: Path, limit: int) -> bytes:
    try:
        # Reading a pipe or a device might never end.
        if path.exists() and not path.is_file():
            raise ImageFileError(path, "not a regular file")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ImageFileError(path, f"cannot be read: {error.strerror}") from error
    if not content:
        raise ImageFileError(path, "the file is empty")
    if len(content) > limit:
        raise ImageFileError(
            path,
            f"the file is larger than {limit >> 20} MB: not an image for {FLASH_SIZE >> 20} MB of "
            "internal flash",
        )
    return content


def _assemble(path: Path, segments: Iterable[_Segment]) -> FirmwareImage:
    """One image from all segments, with the gaps filled as erased flash reads."""
    ordered = sorted(segments, key=lambda segment: segment.address)
    if not ordered:
        raise ImageFileError(path, "holds nothing to load into flash")
    first, last = ordered[0], max(ordered, key=lambda segment: segment.end)
    span = last.end - first.address
    if span > _SPAN_LIMIT:
        raise ImageFileError(
            path,
            f"its data is spread over {span:,} bytes (from {first} to {last}): link or extract "
            "what is for the internal flash alone",
        )
    for segment in ordered:
        if segment.address < FLASH_BASE or segment.end > FLASH_END:
            raise ImageFileError(
                path,
                f"{len(segment.data):,} bytes at {segment} lie outside the internal flash "
                f"(0x{FLASH_BASE:08x}..0x{FLASH_END - 1:08x})",
            )
    image = bytearray()
    for segment in ordered:
        gap = segment.address - first.address - len(image)
        if gap < 0:
            raise ImageFileError(
                path, f"two segments overlap: {-gap:,} bytes at {segment} are there twice"
            )
        image += _FILL * gap + segment.data
    return FirmwareImage(first.address, bytes(image))


def _read_hex(path: Path, content: bytes) -> list[_Segment]:
    # Imported here because a board that is already made of bytes need not pay for the parser.
    from intelhex import HexReaderError, IntelHex  # noqa: PLC0415

    # Any byte that cannot stand in a hex file becomes one that the parser refuses by line number.
    text = content.decode("ascii", "replace").replace("\ufffd", "?")
    parsed = IntelHex()
    try:
        parsed.loadhex(StringIO(text))
    except HexReaderError as error:
        raise ImageFileError(path, f"not a good Intel HEX file: {error}") from error
    # The parser is content with a file that just ends, and with it half the firmware is lost.
    if not any(line.strip().upper() == ":00000001FF" for line in text.splitlines()):
        raise ImageFileError(
            path, "the file is cut short: its last line is not the end-of-file record :00000001FF"
        )
    return [
        _Segment(int(start), bytes(parsed.tobinarray(start=start, end=end - 1)))
        for start, end in parsed.segments()
    ]


def _read_elf(path: Path, content: bytes) -> list[_Segment]:
    # Imported here because only ELF files need the library.
    from elftools.common.exceptions import ELFError  # noqa: PLC0415
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    try:
        elf = ELFFile(BytesIO(content))
        machine, byte_order = elf["e_machine"], "little" if elf.little_endian else "big"
        if (machine, byte_order, elf.elfclass) != ("EM_ARM", "little", 32):
            raise ImageFileError(
                path,
                f"made for another processor ({machine}, {elf.elfclass} bits, {byte_order}-endian)"
                "; expected a 32-bit little-endian Arm ELF",
            )
        if elf["e_phnum"] > _SEGMENT_LIMIT:
            raise ImageFileError(path, f"not a good ELF file: {elf['e_phnum']:,} segments")
        headers = [segment.header for segment in elf.iter_segments(type="PT_LOAD")]
    except ELFError as error:
        raise ImageFileError(path, f"not a good ELF file: {error}") from error
    segments = []
    for header in headers:
        address, offset, length = header.p_paddr, header.p_offset, header.p_filesz
        if offset + length > len(content):
            raise ImageFileError(
                path,
                f"the file is cut short: {length:,} bytes for 0x{address:08x} should be at byte "
                f"{offset:,}, and the file has {len(content):,}",
            )
        if length:
            segments.append(_Segment(address, content[offset : offset + length]))
    return segments


def _read_bundle(path: Path, content: bytes) -> list[_Segment]:
    try:
        return [_application(path, content)]
    except BundleError as error:
        raise ImageFileError(path, str(error)) from error


def _application(path: Path, content: bytes) -> _Segment:
    reader = BundleReader(part_size_limit=lambda _part: FLASH_SIZE)
    address = APPLICATION_BASE
    data = bytearray()
    for event in reader.feed(content):
        match event:
            case ManifestReceived(manifest) if not manifest.is_for(PLATFORM):
                raise ImageFileError(
                    path, f'a bundle for platform "{manifest.platform}"; expected "{PLATFORM}"'
                )
            case PartBegin(part) if part.name == APP_PART:
                address = part.app_org
            case PartData(part, offset, chunk) if part.name == APP_PART:
                data += chunk[max(0, part.app_offset - offset) :]
            case _:
                pass
    reader.finish()
    return _Segment(address, bytes(data))
