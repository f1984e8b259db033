"""Makes firmware bundles on the host."""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from platforms.errors import InvalidArgumentError
from rpc_shim.bundle.image_file import APPLICATION_BASE, PLATFORM, FirmwareImage
from rpc_shim.bundle.manifest import APP_PART, FLASH_BASE, FS_PART, Manifest, Part, parse_manifest
from rpc_shim.bundle.signature import KEY_COUNT, KEY_WANTED, build_extra_field
from rpc_shim.bundle.stream import MANIFEST_FILE, MANIFEST_SIZE_LIMIT, PATH_LIMIT

BOOT_LOADER_SIZE = 0x4000
BOOT_CONFIGURATION_SIZE = 0x4000
FILE_SYSTEM_SIZE = 0x8000
"""What a device's own layout has before the application; together they reach to 0x08010000."""

_ERASED = b"\xff"
_FIRST_ZIP_YEAR = 1980
_UNIX = 3
_READABLE_FILE = 0o100644 << 16


def create_bundle(  # noqa: PLR0913 - the members of a manifest, by keyword only
    application: FirmwareImage,
    *,
    name: str,
    version: str,
    build_id: str,
    build_timestamp: datetime,
    description: str = "",
    platform: str = PLATFORM,
    device_layout: bool = False,
    fs: bytes | None = None,
    signing_keys: Sequence[ec.EllipticCurvePrivateKey | None] = (),
) -> bytes:
    """A firmware bundle (zip) for an STM32 device. Equal arguments give equal bytes.

    That is so for signed bundles, too, where the cryptography library has OpenSSL 3.2 or newer.

    Args:
        application: the image, at the address it is linked for.
        name: name of the firmware.
        version: its version.
        build_id: what tells two builds of a version apart.
        build_timestamp: when it was built, with a time zone; the archive's entries carry it too.
        description: one line for people; left out when empty.
        platform: the chip family.
        device_layout: put room for boot loader, boot configuration and file system (16 + 16 +
            32 KB of 0xFF) before the application, as devices have it. Otherwise the bundle is
            compact: the application alone, with its address as the part's `addr`, which this board
            understands and a real device does not.
        fs: a file system image for a part of its own.
        signing_keys: the keys that sign it, in the order of the device's keys (`update.key0`, ...);
            None where there is to be no signature.

    Raises:
        InvalidArgumentError: a timestamp without time zone or before 1980, a name or version that
            cannot name a folder, an application that is not at 0x08010000 with `device_layout`, or
            a signing key that is not of the curve P-256 or more of them than a device has.
        ManifestError: a text that a manifest cannot carry.
    """
    folder = f"{name}-{version}"
    if "/" in folder or "\\" in folder or not folder.isascii():
        raise InvalidArgumentError(
            f"name {name!r} and version {version!r} name the bundle's folder: they must be ASCII "
            "without / and \\"
        )
    if build_timestamp.tzinfo is None:
        raise InvalidArgumentError(f"the build timestamp {build_timestamp} lacks a time zone")
    built = build_timestamp.astimezone(UTC).replace(microsecond=0)
    if built.year < _FIRST_ZIP_YEAR:
        raise InvalidArgumentError(f"the build timestamp {built} is before {_FIRST_ZIP_YEAR}")
    app_part, app_file = _app_part(application, device_layout=device_layout)
    files = {app_part: app_file}
    if fs is not None:
        files[_with_checksums(Part(FS_PART, type="fs", src="fs.bin", fs_size=len(fs)), fs)] = fs
    manifest = Manifest(
        name=name,
        platform=platform,
        description=description or None,
        version=version,
        build_id=build_id,
        build_timestamp=built.isoformat().replace("+00:00", "Z"),
        parts={part.name: part for part in files},
    ).to_bytes()
    # What cannot be read back must not leave this function.
    parse_manifest(manifest)
    signatures = build_extra_field(_sign(manifest, signing_keys))
    entries = [(f"{folder}/{MANIFEST_FILE}", manifest, signatures)]
    entries += [(f"{folder}/{part.src}", data, b"") for part, data in files.items()]
    if len(manifest) > MANIFEST_SIZE_LIMIT or max(len(path) for path, *_ in entries) > PATH_LIMIT:
        raise InvalidArgumentError(
            f"name, version and description are too long: a manifest may have "
            f"{MANIFEST_SIZE_LIMIT:,} bytes (it has {len(manifest):,}), a path {PATH_LIMIT}"
        )
    return _stored_zip(entries, built)


def _sign(manifest: bytes, keys: Sequence[ec.EllipticCurvePrivateKey | None]) -> dict[int, bytes]:
    """Signatures of the manifest by the number of their key."""
    if len(keys) > KEY_COUNT:
        raise InvalidArgumentError(f"{len(keys)} signing keys: a device has {KEY_COUNT}")
    try:
        algorithm = ec.ECDSA(SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:  # before OpenSSL 3.2; the signatures are as good, but differ
        algorithm = ec.ECDSA(SHA256())
    signatures = {}
    for number, key in enumerate(keys):
        if key is None:
            continue
        if not isinstance(key.curve, ec.SECP256R1):
            raise InvalidArgumentError(f"signing key {number} is of {key.curve.name}: {KEY_WANTED}")
        signatures[number] = key.sign(manifest, algorithm)
    return signatures


def _app_part(application: FirmwareImage, *, device_layout: bool) -> tuple[Part, bytes]:
    """The part `app` and its file."""
    if not device_layout:
        part = Part(
            APP_PART,
            type="app0",
            src="app.bin",
            addr=application.address,
            bl_size=0,
            bl_cfg_size=0,
            fs_size=0,
        )
        return _with_checksums(part, application.data), application.data
    part = Part(
        APP_PART,
        type="app0",
        src="app.bin",
        addr=FLASH_BASE,
        bl_size=BOOT_LOADER_SIZE,
        bl_cfg_size=BOOT_CONFIGURATION_SIZE,
        fs_size=FILE_SYSTEM_SIZE,
    )
    if application.address != part.app_org:
        raise InvalidArgumentError(
            f"in the layout of a device the application is at 0x{APPLICATION_BASE:08x}, and this "
            f"one is at 0x{application.address:08x}: link it for that address"
        )
    blob = _ERASED * part.app_offset + application.data
    return _with_checksums(part, blob), blob


def _with_checksums(part: Part, data: bytes) -> Part:
    return replace(
        part,
        size=len(data),
        cs_sha1=hashlib.sha1(data, usedforsecurity=False).hexdigest(),
        cs_sha256=hashlib.sha256(data).hexdigest(),
    )


def _stored_zip(entries: list[tuple[str, bytes, bytes]], modified: datetime) -> bytes:
    """A zip archive without compression and with sizes in its local headers, as devices need it.

    An entry is a path, the file's content, and the extra field of local header and directory.
    """
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path, data, extra in entries:
            entry = zipfile.ZipInfo(path, modified.timetuple()[:6])
            # The library would put the machine that packs here, and equal calls differ.
            entry.create_system = _UNIX
            entry.external_attr = _READABLE_FILE
            entry.extra = extra
            file.writestr(entry, data)
    return archive.getvalue()
