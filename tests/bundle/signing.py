"""Keys and signed bundles for tests, and archives put together to the letter."""

import zlib

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

import firmware
from rpc_shim.bundle.create import create_bundle
from rpc_shim.bundle.image_file import load_image
from rpc_shim.bundle.signature import format_public_key
from rpc_shim.bundle.stream import LOCAL_HEADER, LOCAL_HEADER_SIGNATURE
from tests.bundle.test_bundle_files import BUILT

KEYS = tuple(ec.derive_private_key(1_000_003 + n, ec.SECP256R1()) for n in range(8))
SETTINGS = tuple(format_public_key(key.public_key()) for key in KEYS)
"""The same keys as the settings `update.key0` to `update.key7` of a device."""


def _signs_deterministically() -> bool:
    try:
        ec.ECDSA(SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:
        return False
    return True


needs_deterministic_signatures = pytest.mark.skipif(
    not _signs_deterministically(), reason="the cryptography library has an OpenSSL before 3.2"
)

SAMPLE = load_image(firmware.path("sample-2.0"))


def signed_bundle(*keys: ec.EllipticCurvePrivateKey | None) -> bytes:
    return create_bundle(
        SAMPLE,
        name="app",
        version="2.0",
        build_id="b2",
        build_timestamp=BUILT,
        signing_keys=keys,
    )


def archive(entries: list[tuple[str, bytes, bytes]]) -> bytes:
    """The local headers and files of a zip archive: (path, content, extra field) of each entry.

    All its CRCs are right. Of the central directory there is just what ends a device's reading.
    """
    content = b""
    for path, data, extra in entries:
        header = {
            "version_needed": 20,
            "flags": 0,
            "compression_method": 0,
            "modified_time": 0,
            "modified_date": 0,
            "crc32": zlib.crc32(data),
            "compressed_size": len(data),
            "uncompressed_size": len(data),
            "name_length": len(path),
            "extra_length": len(extra),
        }
        content += LOCAL_HEADER_SIGNATURE + LOCAL_HEADER.build(header)
        content += path.encode() + extra + data
    return content + b"PK\x01\x02"
