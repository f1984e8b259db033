"""Signatures on their own: the extra field that carries them, keys, and what a device decides."""

import base64
import json
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from hypothesis import given
from hypothesis import strategies as st

from rpc_shim.bundle.manifest import BundleError, parse_manifest
from rpc_shim.bundle.signature import (
    KeyFormatError,
    SignatureError,
    SignaturePolicy,
    build_extra_field,
    check_signatures,
    format_public_key,
    is_signed_by,
    parse_public_key,
    parse_signatures,
)
from tests.bundle.signing import KEYS, SETTINGS

MANIFEST = b'{"name": "what is signed"}'
SIGNATURES = {n: key.sign(MANIFEST, ec.ECDSA(SHA256())) for n, key in enumerate(KEYS)}


def record(data: bytes, identifier: int = 0x293A) -> bytes:
    return struct.pack("<HH", identifier, len(data)) + data


# -- the extra field ------------------------------------------------------------------------------

other_records = st.builds(
    record, st.binary(max_size=40), st.integers(0, 0xFFFF).filter(lambda number: number != 0x293A)
)


@given(
    st.dictionaries(st.integers(0, 7), st.binary(max_size=80)),
    st.lists(other_records, max_size=3),
    st.lists(other_records, max_size=3),
)
def test_what_is_built_is_read_among_other_records(
    signatures: dict[int, bytes], before: list[bytes], behind: list[bytes]
) -> None:
    field = build_extra_field(signatures)
    assert parse_signatures(b"".join([*before, field, *behind])) == signatures


def test_the_field_is_laid_out_as_the_host_tool_does() -> None:
    assert build_extra_field({1: b"\x01\x02", 0: b"\x00"}) == (
        b'\x3a\x29\x1d\x00{"sig0":"AA==","sig1":"AQI="}'
    )
    assert build_extra_field({}) == b""


def test_members_that_are_no_signatures_may_stand_beside_them() -> None:
    attributes = {"note": [1, {"a": None}], "sig": 1, "sig8": 2, "sig00": 3, "SIG0": 4, "sig3": ""}
    assert parse_signatures(record(json.dumps(attributes).encode())) == {3: b""}


@given(st.binary(max_size=200))
def test_noise_is_a_bundle_error_or_nothing(noise: bytes) -> None:
    for extra in (noise, record(noise)):
        try:
            assert parse_signatures(extra) == {}
        except BundleError:
            continue


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_a_signature_of_any_other_kind_is_a_bundle_error(value: object) -> None:
    extra = record(json.dumps({"sig0": value}).encode())
    try:
        read = parse_signatures(extra)
    except BundleError:
        return
    assert isinstance(value, str)
    assert read == {0: base64.b64decode(value)}


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (b"\x3a", "inside the head"),
        (record(b"{}")[:-1], "claims 2 bytes, and 1 are there"),
        (record(b"{}") + b"\x00\x00\x00", "inside the head"),
        (record(b"{}") * 2, "twice"),
        (record(b""), "not valid JSON"),
        (record(b"[]"), "must be a JSON object"),
        (record(b"\xff"), "not valid JSON"),
        (record(b"[" * 4000), "not valid JSON"),
        (record(b'{"sig0": "AA==", "sig0": "AQ=="}'), "more than once"),
        (record(b'{"sig7": "AA"}'), "sig7 must be a string of base64"),
        (record(b'{"sig0": "A A=="}'), "sig0 must be a string of base64"),
        (record('{"sig0": "ÄÖ=="}'.encode()), "sig0 must be a string of base64"),
        (record(b'{"sig0": null}'), "sig0 must be a string of base64"),
    ],
)
def test_a_malformed_field_is_a_bundle_error(extra: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        parse_signatures(extra)


# -- keys -----------------------------------------------------------------------------------------


def test_a_known_answer_is_good() -> None:
    """RFC 6979, A.2.5: P-256 and SHA-256."""
    secret = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    key = ec.derive_private_key(secret, ec.SECP256R1()).public_key()
    signature = encode_dss_signature(
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    )
    assert is_signed_by(key, signature, b"sample")
    assert not is_signed_by(key, signature, b"test")


@pytest.mark.parametrize("fold", ["{}", "  {}\n", "{}\r\n"])
def test_a_setting_is_a_key_whatever_its_white_space(fold: str) -> None:
    text = fold.format(SETTINGS[0][:76] + "\n" + SETTINGS[0][76:])
    assert parse_public_key(text) == KEYS[0].public_key()
    assert format_public_key(parse_public_key(text)) == SETTINGS[0]


def der(text: str) -> bytes:
    return base64.b64decode(text)


@pytest.mark.parametrize(
    "setting",
    [
        "x",
        "AAAA",
        SETTINGS[0][:-4],
        SETTINGS[0] + "AAAA",
        "-----BEGIN PUBLIC KEY-----",
        base64.b64encode(der(SETTINGS[0])[:-1] + bytes([der(SETTINGS[0])[-1] ^ 1])).decode(),
        base64.b64encode(der(SETTINGS[0])[26:]).decode(),
        format_public_key(ec.derive_private_key(5, ec.SECP384R1()).public_key()),
        format_public_key(ec.derive_private_key(5, ec.SECP256K1()).public_key()),
        format_public_key(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()),
        "ключ",
    ],
    ids=[
        "not base64", "not DER", "cut short", "too long", "PEM", "not on the curve", "point alone",
        "P-384", "secp256k1", "Ed25519", "not ASCII",
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused(setting: str) -> None:
    with pytest.raises(KeyFormatError, match="expected a"):
        parse_public_key(setting)
    with pytest.raises(SignatureError, match=r"update\.key2 is malformed") as caught:
        check_signatures(SIGNATURES, MANIFEST, ["", "", setting], 4)
    assert caught.value.key == 2


@given(st.text(max_size=200))
def test_any_text_is_a_key_or_a_format_error(text: str) -> None:
    with pytest.raises(KeyFormatError):
        parse_public_key(text)


# -- the decision ---------------------------------------------------------------------------------


@given(
    st.integers(-(2**31), 0xFF),
    st.sets(st.integers(0, 7)),
    st.sets(st.integers(0, 7)),
    st.sets(st.integers(0, 7)),
)
def test_all_masked_keys_must_be_there_and_have_signed(
    mask: int, set_keys: set[int], signed: set[int], wrong: set[int]
) -> None:
    keys = [SETTINGS[n] if n in set_keys else "" for n in range(8)]
    signatures = {n: SIGNATURES[7 - n if n in wrong else n] for n in signed}
    good = tuple(sorted(set_keys & signed - wrong))
    missing = [n for n in range(8) if mask >= 0 and mask >> n & 1 and n not in good]
    if not missing:
        assert check_signatures(signatures, MANIFEST, keys, mask) == good
        return
    with pytest.raises(SignatureError) as caught:
        check_signatures(signatures, MANIFEST, keys, mask)
    first = missing[0]
    assert caught.value.key == first
    reason = (
        f"update.key{first} is not set" if first not in set_keys
        else f"has no sig{first}" if first not in signed
        else f"sig{first} is wrong"
    )  # fmt: skip
    assert reason in str(caught.value)


def test_no_keys_at_all_are_as_good_as_empty_ones() -> None:
    assert check_signatures(SIGNATURES, MANIFEST, [], 0) == ()
    with pytest.raises(SignatureError, match=r"update\.key3 is not set"):
        check_signatures(SIGNATURES, MANIFEST, SETTINGS[:3], 8)
    with pytest.raises(SignatureError, match=r"update\.key0 is not set"):
        check_signatures(SIGNATURES, MANIFEST, [" \n"], 1)


@pytest.mark.parametrize(("mask", "key"), [(0x100, 8), (0x1FF, 8), (0x7FFF_FFFF, 30)])
def test_a_mask_that_wants_more_keys_than_there_are_is_never_satisfied(mask: int, key: int) -> None:
    with pytest.raises(SignatureError, match="keys 0 to 7 only") as caught:
        check_signatures(SIGNATURES, MANIFEST, SETTINGS, mask)
    assert caught.value.key == key


def test_a_key_or_signature_that_is_not_required_does_no_harm() -> None:
    keys = [SETTINGS[0], "no key", SETTINGS[2], ""]
    signatures = SIGNATURES | {2: b"no signature"}
    assert check_signatures(signatures, MANIFEST, keys, 1) == (0,)


def test_every_flipped_bit_of_manifest_or_signature_is_found() -> None:
    def check(signature: bytes, manifest: bytes) -> None:
        check_signatures({0: signature}, manifest, SETTINGS[:1], 1)

    def flips(data: bytes) -> list[bytes]:
        number = int.from_bytes(data)
        return [(number ^ 1 << bit).to_bytes(len(data)) for bit in range(8 * len(data))]

    check(SIGNATURES[0], MANIFEST)
    for signature in flips(SIGNATURES[0]):
        with pytest.raises(SignatureError, match="sig0 is wrong"):
            check(signature, MANIFEST)
    for manifest in flips(MANIFEST):
        with pytest.raises(SignatureError, match="sig0 is wrong"):
            check(SIGNATURES[0], manifest)


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        SIGNATURES[0][:-1],
        SIGNATURES[0] + b"\x00",
        SIGNATURES[1],
        encode_dss_signature(0, 0),
        encode_dss_signature(1, 1),
        KEYS[0].sign(MANIFEST, ec.ECDSA(SHA384())),
        KEYS[0].sign(MANIFEST + b" ", ec.ECDSA(SHA256())),
    ],
    ids=["empty", "short", "long", "other key", "zeros", "ones", "SHA-384", "other manifest"],
)
def test_a_wrong_signature_is_wrong(signature: bytes) -> None:
    with pytest.raises(SignatureError, match="sig0 is wrong"):
        check_signatures({0: signature}, MANIFEST, SETTINGS, 1)


# -- what signatures vouch for --------------------------------------------------------------------

SHA1, SHA256_SUM = {"cs_sha1": "0" * 40}, {"cs_sha256": "0" * 64}


@pytest.mark.parametrize(
    ("checksums", "is_covered"),
    [({}, False), (SHA1, True), (SHA256_SUM, True), (SHA1 | SHA256_SUM, True)],
)
@pytest.mark.parametrize("required_mask", [-1, 0, 1])
def test_every_file_must_have_a_checksum_when_signatures_are_required(
    checksums: dict[str, str], is_covered: bool, required_mask: int
) -> None:
    parts = {"app": {"src": "a"} | SHA1, "gap": {"fill": 0}, "fs": {"src": "f"} | checksums}
    text = json.dumps({"platform": "p", "version": "1", "build_id": "1", "parts": parts}).encode()
    signatures = {0: KEYS[0].sign(text, ec.ECDSA(SHA256()))}
    policy = SignaturePolicy(SETTINGS[:1], required_mask)
    if is_covered or required_mask != 1:
        assert policy.check(parse_manifest(text), text, signatures) == (0,)
        return
    with pytest.raises(SignatureError, match="part fs has neither cs_sha256 nor cs_sha1") as caught:
        policy.check(parse_manifest(text), text, signatures)
    assert caught.value.key is None
