"""Says all that is wrong with a firmware bundle, before a device says the first of it."""

import hashlib
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from io import BytesIO
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from rpc_shim.bundle.image_file import APPLICATION_BASE, FLASH_SIZE, PLATFORM, FirmwareImage
from rpc_shim.bundle.manifest import (
    APP_PART,
    FS_PART,
    BundleError,
    Manifest,
    Part,
    parse_manifest,
)
from rpc_shim.bundle.signature import is_signed_by
from rpc_shim.bundle.stream import (
    MANIFEST_FILE,
    MANIFEST_SIZE_LIMIT,
    BundleReader,
    ManifestReceived,
    PartData,
    PartEnd,
)

SLOT_SIZE = 0xF_0000
"""Room for an application in every slot of the board, in bytes."""

SLOT_FS_SIZE = 0x4_0000
"""Room for a file system in every slot of the board that has one, in bytes."""

DEVICE_CHUNK_SIZE = 512
"""The original updater wants the sizes before the application in multiples of this."""

_RAM_RANGES = ((0x2000_0000, 0x2002_0000), (0x1000_0000, 0x1001_0000))
_BUNDLE_SIZE_LIMIT = 16 << 20
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

_ZIPFILE_ERRORS = (
    zipfile.BadZipFile,
    RuntimeError,  # encrypted; its child NotImplementedError: a compression it does not know
    EOFError,
    ValueError,
    OSError,
    struct.error,
    zlib.error,
)
"""What the standard library raises for archives that are damaged one way or another."""


class Severity(Enum):
    """How bad a finding is."""

    ERROR = "error"
    """A device or this board refuses the bundle, or does not start its firmware."""

    WARNING = "warning"
    """Some device or host tool has trouble with it."""

    NOTE = "note"
    """Good to know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to say about a bundle."""

    severity: Severity
    message: str


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file in the archive: its path with folders, and its length in bytes when unpacked."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What a bundle holds and what is wrong with it.

    Attributes:
        path: the file that was checked.
        manifest: its manifest, or None when there is none that can be read.
        files: its files as the central directory lists them.
        application: the application alone, at its address; None when it did not come whole.
        manifest_text: the bytes of the manifest as a device gets them; empty when it gets none.
        signatures: the signatures that a device gets (ASN.1 DER) by the number of their key.
        findings: everything there is to say, what a device stumbles over first.
    """

    path: Path
    manifest: Manifest | None
    files: tuple[BundleFile, ...]
    application: FirmwareImage | None
    findings: tuple[Finding, ...]
    manifest_text: bytes = b""
    signatures: Mapping[int, bytes] = field(default_factory=dict, hash=False)

    def signed_with(self, key: ec.EllipticCurvePublicKey) -> tuple[int, ...]:
        """The numbers of the signatures that are good and made with `key`."""
        return tuple(
            number
            for number, signature in self.signatures.items()
            if is_signed_by(key, signature, self.manifest_text)
        )

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make the bundle useless."""
        return tuple(found for found in self.findings if found.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that matter to some devices or tools."""
        return tuple(found for found in self.findings if found.severity is Severity.WARNING)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors


def check_bundle(path: Path) -> BundleReport:
    """Read a bundle as a device does and as host tools do, and report all that is wrong with it.

    Raises:
        BundleError: the file itself cannot be read. A broken bundle is reported, never raised.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_BUNDLE_SIZE_LIMIT + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _BUNDLE_SIZE_LIMIT:
        message = f"larger than {_BUNDLE_SIZE_LIMIT >> 20} MB: no device takes it"
        return BundleReport(path, None, (), None, (Finding(Severity.ERROR, message),))
    device = _read_as_device(content)
    findings = [] if device.refusal is None else [Finding(Severity.ERROR, str(device.refusal))]
    received = device.received
    manifest = None if received is None else received.manifest
    files: list[BundleFile] = []
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            files = [
                BundleFile(entry.filename, entry.file_size)
                for entry in archive.infolist()
                if not entry.is_dir()
            ]
            if manifest is None:
                manifest = _find_manifest(archive)
            findings += _check_rest(archive, manifest, device.stopped_at)
    except _ZIPFILE_ERRORS as error:
        findings.append(Finding(Severity.ERROR, f"host tools cannot open the archive: {error}"))
    if manifest is not None:
        findings += _check_manifest(manifest)
    if device.application is not None:
        findings += _check_application(device.application)
    return BundleReport(
        path,
        manifest,
        tuple(files),
        device.application,
        tuple(findings),
        manifest_text=b"" if received is None else received.text,
        signatures={} if received is None else received.signatures,
    )


@dataclass(frozen=True, slots=True)
class _DeviceView:
    """How far a device gets: `stopped_at` bytes, because of `refusal` unless that is None."""

    received: ManifestReceived | None
    application: FirmwareImage | None
    refusal: BundleError | None
    stopped_at: int


def _read_as_device(content: bytes) -> _DeviceView:
    reader = BundleReader(part_size_limit=lambda _part: FLASH_SIZE)
    received: ManifestReceived | None = None
    application: FirmwareImage | None = None
    refusal: BundleError | None = None
    data = bytearray()
    try:
        for event in reader.feed(content):
            match event:
                case ManifestReceived():
                    received = event
                case PartData(part, offset, chunk) if part.name == APP_PART:
                    data += chunk[max(0, part.app_offset - offset) :]
                case PartEnd(part) if part.name == APP_PART:
                    application = FirmwareImage(part.app_org, bytes(data))
                case _:
                    pass
        reader.finish()
    except BundleError as error:
        refusal = error
    return _DeviceView(received, application, refusal, reader.offset)


def _find_manifest(archive: zipfile.ZipFile) -> Manifest | None:
    """The manifest wherever it is and however packed, so that the rest can be judged by it."""
    for entry in archive.infolist():
        if _file_name(entry) == MANIFEST_FILE and entry.file_size <= MANIFEST_SIZE_LIMIT:
            try:
                return parse_manifest(archive.read(entry))
            except (BundleError, *_ZIPFILE_ERRORS):
                return None
    return None


def _check_rest(
    archive: zipfile.ZipFile, manifest: Manifest | None, stopped_at: int
) -> Iterator[Finding]:
    """What is wrong with the files behind the place where the device has stopped."""
    parts = {} if manifest is None else {part.src: part for part in manifest.parts.values()}
    for entry in archive.infolist():
        if entry.header_offset < stopped_at:
            continue
        name = _file_name(entry)
        if entry.compress_type != zipfile.ZIP_STORED:
            yield Finding(Severity.ERROR, f"{name} is compressed, and no device can unpack it")
        if entry.file_size > FLASH_SIZE:
            yield Finding(
                Severity.ERROR,
                f"{name} is too large: {entry.file_size:,} bytes, the flash has {FLASH_SIZE:,}",
            )
            continue
        try:
            data = archive.read(entry)
        except _ZIPFILE_ERRORS as error:
            yield Finding(Severity.ERROR, f"{name} cannot be read: {error}")
            continue
        if (part := parts.get(name)) is not None:
            yield from _check_part_data(part, data)


def _check_part_data(part: Part, data: bytes) -> Iterator[Finding]:
    if part.size is not None and part.size != len(data):
        yield Finding(
            Severity.ERROR,
            f"{part.src} has {len(data):,} bytes, the manifest says {part.size:,}",
        )
    for label, expected, computed in (
        ("SHA-1", part.cs_sha1, hashlib.sha1(data, usedforsecurity=False)),
        ("SHA-256", part.cs_sha256, hashlib.sha256(data)),
    ):
        if expected is not None and expected.lower() != computed.hexdigest():
            yield Finding(
                Severity.ERROR,
                f"Invalid {label} of {part.src}: expected {expected}, computed "
                f"{computed.hexdigest()}",
            )


def _check_manifest(manifest: Manifest) -> Iterator[Finding]:
    if not manifest.is_for(PLATFORM):
        yield Finding(
            Severity.ERROR, f'Wrong platform: expected "{PLATFORM}", got "{manifest.platform}"'
        )
    stamp = manifest.build_timestamp
    if stamp is not None and not _RFC_3339.fullmatch(stamp):
        yield Finding(
            Severity.WARNING,
            f'build_timestamp "{stamp}" is not of the form 2026-01-31T12:00:00Z, and the host tool '
            "mos does not open such a bundle",
        )
    fs = manifest.fs
    if fs is not None and fs.size is not None and fs.size > SLOT_FS_SIZE:
        yield Finding(
            Severity.ERROR,
            f"part {FS_PART} has {fs.size:,} bytes, the file system of a slot {SLOT_FS_SIZE:,}",
        )
    if manifest.app is not None:
        yield from _check_app_part(manifest.app)


def _check_app_part(app: Part) -> Iterator[Finding]:
    if app.cs_sha1 is None:
        yield Finding(Severity.WARNING, "part app has no cs_sha1, and real devices insist on it")
    for member, size in (
        ("bl_size", app.bl_size),
        ("bl_cfg_size", app.bl_cfg_size),
        ("fs_size", app.fs_size),
    ):
        if size is not None and size % DEVICE_CHUNK_SIZE:
            yield Finding(
                Severity.WARNING,
                f"{member} is {size:,}, and real devices want multiples of {DEVICE_CHUNK_SIZE}",
            )
    if app.update_bl:
        yield Finding(Severity.NOTE, "real devices replace their boot loader (update_bl)")
    if app.app_offset == 0:
        yield Finding(
            Severity.NOTE,
            "a compact bundle, for this board alone: make one for real devices with the device's "
            "layout",
        )


def _check_application(application: FirmwareImage) -> Iterator[Finding]:
    if application.address != APPLICATION_BASE:
        yield Finding(
            Severity.ERROR,
            f"the application is for 0x{application.address:08x}, and the board starts "
            f"applications at 0x{APPLICATION_BASE:08x}",
        )
    if len(application.data) > SLOT_SIZE:
        yield Finding(
            Severity.ERROR,
            f"the application has {len(application.data):,} bytes, a slot {SLOT_SIZE:,}",
        )
    if len(application.data) < 8:
        yield Finding(Severity.ERROR, "the application is too short for a vector table")
        return
    stack_pointer, reset_handler = struct.unpack_from("<II", application.data)
    if stack_pointer % 4 or not any(low < stack_pointer <= high for low, high in _RAM_RANGES):
        yield Finding(
            Severity.ERROR,
            f"the vector table sets the stack pointer to 0x{stack_pointer:08x}, outside RAM",
        )
    if not (reset_handler & 1 and application.address <= reset_handler - 1 < application.end):
        yield Finding(
            Severity.ERROR,
            f"the vector table's reset handler 0x{reset_handler:08x} is not Thumb code inside the "
            f"image (0x{application.address:08x}..0x{application.end - 1:08x})",
        )


def _file_name(entry: zipfile.ZipInfo) -> str:
    return entry.filename.rsplit("/", 1)[-1]
