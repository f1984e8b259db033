"""Reads a firmware bundle while it arrives, in little memory, as a device does.

A bundle is a zip archive whose entries are stored without compression, `manifest.json` first. The
reader never looks at the central directory at the end: it goes by the local headers on the way
(PKWARE APPNOTE 6.3.10, sections 4.3.7 and 4.3.9) and is done when the central directory begins.
The rules are those of the public device-side updater (`mgos_updater_common.c`), and its limit on
file names (49 characters); beyond it this reader checks the parts' SHA-1 and SHA-256, data
descriptors, files named twice, and files that never came.
"""

import hashlib
import struct
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from construct import Int16ul, Int32ul, Struct

from rpc_shim.bundle.manifest import (
    APP_PART,
    FS_PART,
    BundleError,
    Manifest,
    ManifestError,
    Part,
    parse_manifest,
)
from rpc_shim.bundle.signature import parse_signatures

MANIFEST_FILE = "manifest.json"
MANIFEST_SIZE_LIMIT = 8192
EXTRA_FIELD_LIMIT = 4096
"""Room for the manifest's signatures and what host tools put beside them, in bytes."""

FILE_NAME_LIMIT = 49
PATH_LIMIT = 255
ENTRY_LIMIT = 64
SKIPPED_SIZE_LIMIT = 4 << 20
CHUNK_SIZE = 4096
"""PartData events carry this many bytes; only the last one of a part carries fewer."""

DEVICE_PARTS = (APP_PART, FS_PART)
"""The parts that an STM32 device takes; the files of other parts are passed over."""

LOCAL_HEADER_SIGNATURE = b"PK\x03\x04"
CENTRAL_DIRECTORY_SIGNATURE = b"PK\x01\x02"
END_OF_DIRECTORY_SIGNATURE = b"PK\x05\x06"
DATA_DESCRIPTOR_SIGNATURE = b"PK\x07\x08"

LOCAL_HEADER = Struct(
    "version_needed" / Int16ul,
    "flags" / Int16ul,
    "compression_method" / Int16ul,
    "modified_time" / Int16ul,
    "modified_date" / Int16ul,
    "crc32" / Int32ul,
    "compressed_size" / Int32ul,
    "uncompressed_size" / Int32ul,
    "name_length" / Int16ul,
    "extra_length" / Int16ul,
)
"""The fixed fields of a local file header behind its signature (APPNOTE 4.3.7)."""

DATA_DESCRIPTOR = Struct(
    "crc32" / Int32ul,
    "compressed_size" / Int32ul,
    "uncompressed_size" / Int32ul,
)
"""What may follow a file's data, behind an optional signature (APPNOTE 4.3.9)."""

_SIGNATURE_SIZE = 4
_DIRECTORY_ENTRY_SIZE = 46
_DIRECTORY_LENGTHS = 28  # lengths of name, extra field and comment, 2 bytes each
_DIRECTORY_END_SIZE = 22
_FLAG_ENCRYPTED = 1 << 0
_FLAG_DATA_DESCRIPTOR = 1 << 3
_METHOD_STORED = 0
_ZIP64_SIZE = 0xFFFF_FFFF

_STORE_HINT = "pack it with zip -0 or make it with `otasim bundle`"


@dataclass(frozen=True, slots=True)
class ManifestReceived:
    """The manifest has come whole and is well-formed. Whether it suits the board is for you to say.

    It comes before the checks of its parts, so that a bundle for another platform can be refused as
    such.

    Attributes:
        manifest: what it says.
        text: the bytes of `manifest.json`, which are what has been signed.
        signatures: the signatures beside it (ASN.1 DER) by the number of their key; not verified.
    """

    manifest: Manifest
    text: bytes
    signatures: Mapping[int, bytes] = field(hash=False)


@dataclass(frozen=True, slots=True)
class PartBegin:
    """The file of a part begins: `size` bytes, to follow as PartData."""

    part: Part
    file_name: str
    size: int


@dataclass(frozen=True, slots=True)
class PartData:
    """The next bytes of the part, `offset` bytes from the start of its file. Not yet verified."""

    part: Part
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is complete, and its CRC-32 and every checksum in the manifest are right."""

    part: Part


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file of `size` bytes that no part of the device needs has been passed over."""

    file_name: str
    size: int


@dataclass(frozen=True, slots=True)
class EndOfArchive:
    """All files have come and are right. `size` counts the bytes up to the central directory."""

    size: int


BundleEvent: TypeAlias = (
    ManifestReceived | PartBegin | PartData | PartEnd | SkippedFile | EndOfArchive
)

_Parsing: TypeAlias = Generator[BundleEvent | None, None, None]
"""Yields what has come, and None when more bytes are needed to go on."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A local file header. `offset` is that of its signature in the archive.

    `extra` is the extra field of a manifest, and is empty for other files.
    """

    offset: int
    path: str
    size: int
    crc32: int
    has_descriptor: bool
    extra: bytes

    @property
    def file_name(self) -> str:
        return _file_name(self.path)


class BundleReader:
    """A parser that is fed with the bytes of a bundle as they arrive, split in any way.

    It keeps at most what it was fed last, one chunk and the manifest. How the bytes were split
    changes neither the events nor their order, nor the error and its place.

    Args:
        part_size_limit: the largest file in bytes that may be announced for a part.
        to_the_end: also read the central directory, and refuse what stands behind it. A device that
            fetches a bundle hangs up before that; one that is sent a bundle gets all of it.
    """

    def __init__(self, *, part_size_limit: Callable[[Part], int], to_the_end: bool = False) -> None:
        self._part_size_limit = part_size_limit
        self._to_the_end = to_the_end
        self._last_signature = b""
        self._buffer = bytearray()
        self._offset = 0
        self._doing = f"before the header of {MANIFEST_FILE}"
        self._parser = self._parse()
        self._error: BundleError | None = None
        self._complete = False

    @property
    def complete(self) -> bool:
        """Whether EndOfArchive has been reached."""
        return self._complete

    @property
    def offset(self) -> int:
        """How many bytes of the archive have been dealt with."""
        return self._offset

    def feed(self, data: bytes) -> Iterator[BundleEvent]:
        """Take the next bytes; gives the events that are complete by now, each as it is asked for.

        Events that are not asked for are not lost: the iterator of the next call begins with them.
        Bytes behind the files are ignored, unless the reader reads to the end.

        Raises:
            BundleError: from the iterator, behind the last good event. The reader is of no use
                after it, and raises the same again.
        """
        self._buffer += data
        return iter(self._next_event, None)

    def finish(self) -> None:
        """Say that no more bytes will come, once all events have been taken.

        Raises:
            BundleError: the archive is not complete.
        """
        if self._error is not None:
            raise self._error
        if not self._complete:
            end = self._offset + len(self._buffer)
            raise BundleError(
                f"The archive ends {self._doing}: it is incomplete; get or build the bundle again",
                offset=end,
            )

    def _next_event(self) -> BundleEvent | None:
        if self._error is not None:
            raise self._error
        if self._complete and not self._to_the_end:
            self._buffer.clear()
            return None
        try:
            return next(self._parser)
        except BundleError as error:
            self._error = error
            self._buffer.clear()
            raise

    def _parse(self) -> _Parsing:
        first = yield from self._next_entry()
        received = yield from self._manifest(first)
        yield received
        missing = _parts_by_file(received.manifest)
        taken = {MANIFEST_FILE}
        entries = 1
        while (entry := (yield from self._next_entry())) is not None:
            if entries == ENTRY_LIMIT:
                raise BundleError(
                    f"The archive has more than {ENTRY_LIMIT} entries", offset=entry.offset
                )
            entries += 1
            if entry.file_name in taken:
                raise BundleError(
                    f"{entry.file_name} is in the archive twice (folders do not count)",
                    offset=entry.offset,
                )
            part = missing.pop(entry.file_name, None)
            if part is not None:
                taken.add(entry.file_name)
            if part is not None and part.name in DEVICE_PARTS:
                yield from self._part(entry, part)
            else:
                yield from self._skipped_file(entry)
        if missing:
            names = ", ".join(f"{file} (part {part.name})" for file, part in missing.items())
            raise BundleError(
                f"The archive lacks {names}, which its manifest names; build the bundle again",
                offset=self._offset,
            )
        self._complete = True
        yield EndOfArchive(self._offset - _SIGNATURE_SIZE)
        yield from self._directory()
        while not self._buffer:
            yield None
        raise BundleError(
            "There is something behind the end of the archive; send the bundle alone",
            offset=self._offset,
        )

    def _directory(self) -> Generator[None, None, None]:
        """The central directory and its end (APPNOTE 4.3.12, 4.3.16), of which nothing counts."""
        while self._last_signature == CENTRAL_DIRECTORY_SIGNATURE:
            fields = yield from self._take(_DIRECTORY_ENTRY_SIZE - _SIGNATURE_SIZE)
            left = sum(struct.unpack_from("<HHH", fields, _DIRECTORY_LENGTHS - _SIGNATURE_SIZE))
            yield from self._skip(left)
            self._last_signature = yield from self._take(_SIGNATURE_SIZE)
        if self._last_signature != END_OF_DIRECTORY_SIGNATURE:
            raise BundleError("Malformed archive: its directory has no end", offset=self._offset)
        fields = yield from self._take(_DIRECTORY_END_SIZE - _SIGNATURE_SIZE)
        yield from self._skip(int.from_bytes(fields[-2:], "little"))

    def _skip(self, length: int) -> Generator[None, None, None]:
        while length:
            length -= len((yield from self._take(min(CHUNK_SIZE, length))))

    def _manifest(self, entry: _Entry | None) -> Generator[None, None, ManifestReceived]:
        if entry is None or entry.file_name != MANIFEST_FILE:
            got = "an empty archive" if entry is None else entry.path
            raise BundleError(
                f"Got {got} where {MANIFEST_FILE} must be the first file (a folder is not to have "
                "an entry of its own); make the bundle with `otasim bundle`",
                offset=None if entry is None else entry.offset,
            )
        if entry.size > MANIFEST_SIZE_LIMIT:
            raise BundleError(
                f"{MANIFEST_FILE} has {entry.size:,} bytes, the limit is {MANIFEST_SIZE_LIMIT:,}",
                offset=entry.offset,
            )
        self._doing = f"inside {MANIFEST_FILE}"
        start = self._offset
        text = yield from self._take(entry.size)
        yield from self._check_crc(entry, start, zlib.crc32(text))
        try:
            manifest = parse_manifest(text)
        except ManifestError as error:
            error.offset = start
            raise
        try:
            signatures = parse_signatures(entry.extra)
        except BundleError as error:
            error.offset = entry.offset
            raise
        return ManifestReceived(manifest, text, signatures)

    def _part(self, entry: _Entry, part: Part) -> _Parsing:
        _check_announced(entry, part, self._part_size_limit(part))
        yield PartBegin(part, entry.file_name, entry.size)
        digests = [
            (label, expected.lower(), algorithm(usedforsecurity=False))
            for label, expected, algorithm in (
                ("SHA-1", part.cs_sha1, hashlib.sha1),
                ("SHA-256", part.cs_sha256, hashlib.sha256),
            )
            if expected is not None
        ]
        start = self._offset
        crc32 = 0
        while (position := self._offset - start) < entry.size:
            self._doing = f"inside {entry.file_name}, after {position:,} of {entry.size:,} bytes"
            data = yield from self._take(min(CHUNK_SIZE, entry.size - position))
            crc32 = zlib.crc32(data, crc32)
            for _, _, digest in digests:
                digest.update(data)
            yield PartData(part, position, data)
        yield from self._check_crc(entry, start, crc32)
        for label, expected, digest in digests:
            if digest.hexdigest() != expected:
                raise BundleError(
                    f"Invalid {label} of {entry.file_name}: expected {expected}, computed "
                    f"{digest.hexdigest()}; build the bundle again",
                    offset=start,
                )
        yield PartEnd(part)

    def _skipped_file(self, entry: _Entry) -> _Parsing:
        if entry.size > SKIPPED_SIZE_LIMIT:
            raise BundleError(
                f"{entry.path} has {entry.size:,} bytes and belongs to no part of the device; the "
                f"limit for such a file is {SKIPPED_SIZE_LIMIT:,}",
                offset=entry.offset,
            )
        start = self._offset
        crc32 = 0
        while (left := entry.size - (self._offset - start)) > 0:
            self._doing = f"inside {entry.path}, with {left:,} bytes to come"
            data = yield from self._take(min(CHUNK_SIZE, left))
            crc32 = zlib.crc32(data, crc32)
        yield from self._check_crc(entry, start, crc32)
        yield SkippedFile(entry.path, entry.size)

    def _check_crc(self, entry: _Entry, start: int, computed: int) -> Generator[None, None, None]:
        """Compare with the local header, and with the data descriptor if one follows the data."""
        self._doing = f"behind the data of {entry.path}"
        # Who writes a descriptor leaves the CRC in the local header zero (APPNOTE 4.4.4).
        if not (entry.has_descriptor and entry.crc32 == 0):
            _compare_crc(entry, start, entry.crc32, computed)
        if not entry.has_descriptor:
            return
        place = self._offset
        # The signature is optional, so that a descriptor takes 12 or 16 bytes.
        head = yield from self._take(_SIGNATURE_SIZE)
        if head == DATA_DESCRIPTOR_SIGNATURE:
            head = yield from self._take(_SIGNATURE_SIZE)
        tail = yield from self._take(DATA_DESCRIPTOR.sizeof() - _SIGNATURE_SIZE)
        descriptor = DATA_DESCRIPTOR.parse(head + tail)
        sizes = (int(descriptor.compressed_size), int(descriptor.uncompressed_size))
        if sizes != (entry.size, entry.size):
            raise BundleError(
                f"Malformed archive: the data descriptor of {entry.path} says {sizes[0]:,} and "
                f"{sizes[1]:,} bytes, its local header {entry.size:,}",
                offset=place,
            )
        _compare_crc(entry, start, int(descriptor.crc32), computed)

    def _next_entry(self) -> Generator[None, None, _Entry | None]:
        """The next local file header, or None where the central directory begins."""
        place = self._offset
        self._doing = "where a file header or the central directory must be"
        signature = yield from self._take(_SIGNATURE_SIZE)
        if signature in (CENTRAL_DIRECTORY_SIGNATURE, END_OF_DIRECTORY_SIGNATURE):
            self._last_signature = signature
            return None
        if signature != LOCAL_HEADER_SIGNATURE:
            hint = "is this a firmware bundle?" if place == 0 else "build the bundle again"
            raise BundleError(
                f"Malformed archive (invalid file header): expected the signature of a zip entry, "
                f"got {signature.hex(' ')} ({ascii(signature)[1:]}); {hint}",
                offset=place,
            )
        self._doing = "inside a file header"
        fields = LOCAL_HEADER.parse((yield from self._take(LOCAL_HEADER.sizeof())))
        path = yield from self._path(int(fields.name_length), place)
        extra = yield from self._extra(int(fields.extra_length), path, place)
        flags = int(fields.flags)
        sizes = (int(fields.compressed_size), int(fields.uncompressed_size))
        has_descriptor = bool(flags & _FLAG_DATA_DESCRIPTOR)
        problem = _entry_problem(flags, int(fields.compression_method), sizes)
        if problem is not None:
            raise BundleError(f"{path}: {problem}", offset=place)
        return _Entry(place, path, sizes[0], int(fields.crc32), has_descriptor, extra)

    def _extra(self, length: int, path: str, place: int) -> Generator[None, None, bytes]:
        """The extra field of a manifest; that of another file is passed over."""
        if _file_name(path) != MANIFEST_FILE:
            yield from self._skip(length)
            return b""
        if length > EXTRA_FIELD_LIMIT:
            raise BundleError(
                f"{path} has an extra field (signatures) of {length:,} bytes, the limit is "
                f"{EXTRA_FIELD_LIMIT:,}",
                offset=place,
            )
        return (yield from self._take(length))

    def _path(self, length: int, place: int) -> Generator[None, None, str]:
        if length > PATH_LIMIT:
            raise BundleError(
                f"Too long file name: {length:,} characters with its folders, the limit is "
                f"{PATH_LIMIT}",
                offset=place,
            )
        path = (yield from self._take(length)).decode("ascii", "backslashreplace")
        if not path.isprintable() or not path:
            raise BundleError(
                f"A file name must be printable and not empty, got {path!r}", offset=place
            )
        name = _file_name(path)
        if len(name) > FILE_NAME_LIMIT:
            raise BundleError(
                f"Too long file name: {name} has {len(name)} characters, the limit is "
                f"{FILE_NAME_LIMIT}",
                offset=place,
            )
        return path

    def _take(self, length: int) -> Generator[None, None, bytes]:
        while len(self._buffer) < length:
            yield None
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._offset += length
        return data


def _file_name(path: str) -> str:
    """The last piece of a path: folders do not count."""
    return path.rsplit("/", 1)[-1]


def _entry_problem(flags: int, method: int, sizes: tuple[int, int]) -> str | None:
    """Why a device cannot take an entry with these fields of the local header, or None."""
    compressed, uncompressed = sizes
    if flags & _FLAG_ENCRYPTED:
        return f"Cannot handle encrypted .zip; {_STORE_HINT}"
    if method != _METHOD_STORED:
        return f"Cannot handle compressed .zip (method {method}); {_STORE_HINT}"
    if _ZIP64_SIZE in sizes:
        return f"Cannot handle zip64 (no device takes 4 GB); {_STORE_HINT}"
    if compressed != uncompressed:
        return (
            f"Malformed archive: stored, but its sizes differ ({compressed:,} and "
            f"{uncompressed:,} bytes)"
        )
    if flags & _FLAG_DATA_DESCRIPTOR and compressed == 0:
        return (
            "its size stands behind the data only (a zip that was written as a stream), and a "
            f"device needs it before; {_STORE_HINT}"
        )
    return None


def _compare_crc(entry: _Entry, start: int, expected: int, computed: int) -> None:
    if expected != computed:
        raise BundleError(
            f"Invalid CRC in {entry.path}: expected 0x{expected:08x}, computed 0x{computed:08x}; "
            "get or build the bundle again",
            offset=start,
        )


def _parts_by_file(manifest: Manifest) -> dict[str, Part]:
    """The parts that have a file, by its name; BundleError when a device could not take them."""
    app = manifest.app
    if app is None or not app.src:
        raise BundleError('Incomplete update package: no part "app" with a file ("src")')
    if app.cs_sha1 is None and app.cs_sha256 is None:
        raise BundleError('Incomplete update package: part "app" has no cs_sha1 and no cs_sha256')
    if app.update_bl and not app.bl_size:
        raise BundleError(
            "Incomplete update package: update_bl is set, but there is no boot loader in part "
            '"app" (bl_size is 0)'
        )
    files: dict[str, Part] = {}
    for part in manifest.parts.values():
        if not part.src:
            continue
        if part.src in files:
            raise BundleError(f'Parts {files[part.src].name} and {part.name} share "{part.src}"')
        files[part.src] = part
    return files


def _check_announced(entry: _Entry, part: Part, limit: int) -> None:
    """Refuse a file whose length cannot be right, before any of it is taken."""
    if entry.size > limit:
        raise BundleError(
            f"{entry.path} is too large: {entry.size:,} bytes, the limit for part {part.name} is "
            f"{limit:,}",
            offset=entry.offset,
        )
    if part.size is not None and part.size != entry.size:
        raise BundleError(
            f"{entry.path} has {entry.size:,} bytes, the manifest says {part.size:,}; build the "
            "bundle again",
            offset=entry.offset,
        )
    if part.name == APP_PART and entry.size <= part.app_offset:
        raise BundleError(
            f"App file too short: {entry.path} has {entry.size:,} bytes, and boot loader, boot "
            f"configuration and file system before the application take {part.app_offset:,}",
            offset=entry.offset,
        )
