"""Signatures of firmware bundles: where they stand, and whether those a device wants are there.

A signature is ECDSA on the curve P-256 over the SHA-256 of the bytes of `manifest.json`. It vouches
for the files of the parts, too, because the manifest names their checksums. Signatures are members
`sig0` to `sig7` (ASN.1 DER in base64) of a JSON object in the extra field 0x293a of the manifest's
zip entry; other members may stand beside them. The host tool writes the field to the local header
and to the central directory. A device reads the archive as a stream, so the local header counts.

`sigN` is checked with the key in the device's setting `update.keyN`. All keys whose bits are set in
`update.sig_req_mask` must have signed, and a negative mask asks for nothing.

Sources of the facts: the public host tool (`common/fwbundle/fw_bundle_zip.go`), the settings in
`mos.yml` and `sig_check_result` in `mgos_ota.h` of the public library `ota-common`, and PKWARE
APPNOTE 6.3.10, section 4.5, for extra fields.
"""

import base64
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from platforms.errors import OtasimError
from rpc_shim.bundle.manifest import BundleError, Manifest, parse_json_object

KEY_COUNT = 8
"""A device has settings for keys 0 to 7."""

NOT_REQUIRED = -1
"""The mask of a device that takes unsigned bundles."""

EXTRA_FIELD_ID = 0x293A

KEY_WANTED = "expected a key for ECDSA on the curve P-256 (prime256v1)"

_RECORD_HEAD = struct.Struct("<HH")


class KeyFormatError(OtasimError):
    """A text is not a key that can verify a bundle."""


class SignatureError(OtasimError):
    """A bundle is not signed as the device wants it.

    Attributes:
        key: number of the key whose signature is missing or wrong, or which itself is missing or
            malformed; None when the signatures are right but do not vouch for all files, or nobody
            knows which are required.
    """

    def __init__(self, problem: str, *, key: int | None) -> None:
        super().__init__(f"Signature check failed: {problem}")
        self.key = key


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """Which signatures a device wants. Unless told otherwise: none.

    Attributes:
        keys: the settings `update.key0`, `update.key1`, ... in this order; empty where there is no
            key. Fewer than eight are as good as empty ones behind them.
        required_mask: the setting `update.sig_req_mask`.
        unknown: why nobody can say which signatures it wants; no bundle is good enough then. Empty
            when that is known.
    """

    keys: tuple[str, ...] = ()
    required_mask: int = NOT_REQUIRED
    unknown: str = ""

    def check(
        self, manifest: Manifest, text: bytes, signatures: Mapping[int, bytes]
    ) -> tuple[int, ...]:
        """The numbers of the keys that have signed `manifest`, by `check_signatures`.

        When signatures are required, every part that has a file must have a checksum, or nothing
        would vouch for the file. `cs_sha1` alone is enough, as it is for a real device: two files
        of one SHA-1 can be made by whoever makes both of them, but nobody can make another file to
        the SHA-1 of a given one. `cs_sha256`, which the tools write beside it, does not have even
        that weakness.

        Args:
            manifest: what `text` says.
            text: the bytes of `manifest.json` as they are in the archive.
            signatures: the bundle's signatures (ASN.1 DER) by the number of their key.

        Raises:
            SignatureError: a signature that is required is missing or wrong, its key is missing or
                malformed, a part's file has no checksum, or nobody knows what is required.
        """
        if self.unknown:
            raise SignatureError(self.unknown, key=None)
        signed_by = check_signatures(signatures, text, self.keys, self.required_mask)
        if self.required_mask > 0:
            for part in manifest.parts.values():
                if part.src and part.cs_sha256 is None and part.cs_sha1 is None:
                    raise SignatureError(
                        f"part {part.name} has neither cs_sha256 nor cs_sha1, so that no signature "
                        f"vouches for its file {part.src}",
                        key=None,
                    )
        return signed_by


NO_SIGNATURES_REQUIRED = SignaturePolicy()


def check_signatures(
    signatures: Mapping[int, bytes], manifest: bytes, keys: Sequence[str], required_mask: int
) -> tuple[int, ...]:
    """The numbers of the keys that have signed the manifest (`sig_check_result` of a device).

    A signature that is not required does no harm, whatever is wrong with it or with its key.

    Args:
        signatures: the bundle's signatures (ASN.1 DER) by the number of their key.
        manifest: the bytes of `manifest.json` as they are in the archive.
        keys: the settings `update.key0`, `update.key1`, ... in this order; empty where there is no
            key.
        required_mask: the setting `update.sig_req_mask`.

    Raises:
        SignatureError: not all of the keys in the mask have signed. It names the first of them.
    """
    required = max(required_mask, 0)
    if required >> KEY_COUNT:
        number = required.bit_length() - 1
        raise SignatureError(
            f"update.sig_req_mask {required_mask} wants a signature by key {number}, and there are "
            f"keys 0 to {KEY_COUNT - 1} only: set a mask from 0 to {(1 << KEY_COUNT) - 1}, or -1",
            key=number,
        )
    signed_by = []
    for number in range(KEY_COUNT):
        setting = keys[number] if number < len(keys) else ""
        problem = _problem(number, setting, signatures.get(number), manifest)
        if problem is None:
            signed_by.append(number)
        elif required >> number & 1:
            raise SignatureError(problem, key=number)
    return tuple(signed_by)


def _problem(number: int, setting: str, signature: bytes | None, manifest: bytes) -> str | None:
    """Why it cannot be said that key `number` has signed the manifest, or None when it has."""
    if not setting.strip():
        return (
            f"a signature by key {number} is required, and update.key{number} is not set: set it "
            "to the public key, or leave it out of update.sig_req_mask"
        )
    try:
        key = parse_public_key(setting)
    except KeyFormatError as error:
        return f"update.key{number} is malformed: {error}"
    if signature is None:
        return f"the bundle is not signed by key {number}: it has no sig{number}"
    if not is_signed_by(key, signature, manifest):
        return (
            f"sig{number} is wrong: another key than update.key{number} has made it, or the "
            "manifest is not the one that was signed"
        )
    return None


def is_signed_by(key: ec.EllipticCurvePublicKey, signature: bytes, manifest: bytes) -> bool:
    """Whether `signature` (ASN.1 DER, or anything else) is one of `manifest` by `key`."""
    try:
        key.verify(signature, manifest, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def parse_public_key(text: str) -> ec.EllipticCurvePublicKey:
    """The key in a setting `update.keyN`: SubjectPublicKeyInfo, DER, in base64.

    White space does not count, since tools fold base64 into lines.

    Raises:
        KeyFormatError: it is no such thing, or no key of the curve P-256.
    """
    try:
        key = load_der_public_key(base64.b64decode("".join(text.split()), validate=True))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFormatError(
            "expected a public key, DER in base64, as `otasim bundle keygen` prints it"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyFormatError(KEY_WANTED)
    return key


def format_public_key(key: PublicKeyTypes) -> str:
    """The key as a setting `update.keyN` holds it; `parse_public_key` reads it."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode("ascii")


def parse_signatures(extra: bytes) -> dict[int, bytes]:
    """The signatures in the extra field of the manifest's zip entry, by the number of their key.

    Empty when there are none. Members of the JSON object that are no signatures are passed over.

    Args:
        extra: the whole field, any number of records one behind the other.

    Raises:
        BundleError: the field is not made of whole records, has two that could hold signatures, or
            one that is not a JSON object, or a signature is not base64.
    """
    found = [data for identifier, data in _records(extra) if identifier == EXTRA_FIELD_ID]
    if not found:
        return {}
    if len(found) > 1:
        raise BundleError(f"Malformed signatures: extra field 0x{EXTRA_FIELD_ID:x} is there twice")
    try:
        attributes = parse_json_object(found[0])
    except ValueError as error:
        raise BundleError(f"Malformed signatures: {error}") from error
    return {
        number: _signature_bytes(name, attributes[name])
        for number in range(KEY_COUNT)
        if (name := f"sig{number}") in attributes
    }


def build_extra_field(signatures: Mapping[int, bytes]) -> bytes:
    """The extra field that holds these signatures; empty when there are none.

    Args:
        signatures: ASN.1 DER by the number of the key.
    """
    if not signatures:
        return b""
    attributes = {
        f"sig{number}": base64.b64encode(signature).decode("ascii")
        for number, signature in sorted(signatures.items())
    }
    data = json.dumps(attributes, separators=(",", ":")).encode("ascii")
    return _RECORD_HEAD.pack(EXTRA_FIELD_ID, len(data)) + data


def _records(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Identifier and data of each record."""
    rest = extra
    while rest:
        if len(rest) < _RECORD_HEAD.size:
            raise BundleError("Malformed archive: an extra field ends inside the head of a record")
        identifier, size = _RECORD_HEAD.unpack_from(rest)
        data = rest[_RECORD_HEAD.size :][:size]
        if len(data) < size:
            raise BundleError(
                f"Malformed archive: record 0x{identifier:04x} of an extra field claims {size:,} "
                f"bytes, and {len(data):,} are there"
            )
        yield identifier, data
        rest = rest[_RECORD_HEAD.size + size :]


def _signature_bytes(name: str, value: object) -> bytes:
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except ValueError:
        pass
    raise BundleError(f"Malformed signatures: {name} must be a string of base64")
