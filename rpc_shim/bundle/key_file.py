"""Keys in files: those that sign bundles, and those that verify them.

The host tool signs with keys in PEM of the kind "EC PRIVATE KEY", as `openssl ecparam -genkey`
writes them; `create_key_file` makes the same. What a device has is the public key alone, as text in
its settings (`signature.parse_public_key`).
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from platforms.errors import OtasimError
from rpc_shim.bundle.signature import (
    KEY_WANTED,
    KeyFormatError,
    format_public_key,
    parse_public_key,
)

_SIZE_LIMIT = 64 * 1024
_PEM_BEGIN = b"-----BEGIN "
_PRIVATE_KEY = b"PRIVATE KEY-----"


class KeyFileError(OtasimError):
    """A file is not the key it should be, or cannot be read or written.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


def load_signing_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a PEM file.

    Raises:
        KeyFileError: the file cannot be read, or holds no key that can sign a bundle.
    """
    return _private_key(path, _read(path))


def load_verification_key(path: Path) -> ec.EllipticCurvePublicKey:
    """The public key in a file: PEM, public or private, or the text of a setting `update.keyN`.

    Raises:
        KeyFileError: the file cannot be read, or holds no key that can verify a bundle.
    """
    content = _read(path)
    try:
        if _PEM_BEGIN not in content:
            return parse_public_key(content.decode("ascii", "replace"))
        if _PRIVATE_KEY in content:
            return _private_key(path, content).public_key()
        return parse_public_key(format_public_key(load_pem_public_key(content)))
    except (KeyFormatError, ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(path, str(error)) from error


def create_key_file(path: Path) -> ec.EllipticCurvePrivateKey:
    """Make a key and write it to a new PEM file that only its owner can read.

    Raises:
        KeyFileError: the file is there already, which is never overwritten, or cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    try:
        # Exclusive, so that neither a file nor what a link points to is overwritten.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
    except FileExistsError as error:
        raise KeyFileError(
            path, "is there already, and an overwritten key is lost: take another name"
        ) from error
    except OSError as error:
        raise KeyFileError(path, f"cannot be written: {error.strerror}") from error
    return key


def _private_key(path: Path, content: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:  # the library's word for an encrypted key
        raise KeyFileError(
            path, f"is encrypted: decrypt it with `openssl ec -in {path} -out ANOTHER`"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(path, f"expected a private key in PEM: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyFileError(path, KEY_WANTED)
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_SIZE_LIMIT)
    except OSError as error:
        raise KeyFileError(path, f"cannot be read: {error.strerror}") from error
