"""Signed bundles as a device takes them: streamed, tampered with, and refused before any write."""

import io
import itertools
import json
import zipfile
from collections.abc import Iterable
from dataclasses import replace

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from platforms.errors import InvalidArgumentError, OtasimError
from rpc_shim.bundle.create import _sign
from rpc_shim.bundle.manifest import BundleError
from rpc_shim.bundle.signature import (
    SignatureError,
    SignaturePolicy,
    build_extra_field,
    parse_signatures,
)
from rpc_shim.bundle.stream import EXTRA_FIELD_LIMIT, BundleReader, ManifestReceived
from rpc_shim.update import FinishedUpdate, Update, UpdateError
from tests.bootloader.fake_board import FakeBoard, make_image
from tests.bundle.signing import (
    KEYS,
    SAMPLE,
    SETTINGS,
    archive,
    needs_deterministic_signatures,
    signed_bundle,
)

SIGNED = signed_bundle(KEYS[0], None, KEYS[2])
UNSIGNED = signed_bundle()
POLICY = SignaturePolicy(SETTINGS[:3], required_mask=0b101)


def manifest_of(chunks: Iterable[bytes]) -> ManifestReceived:
    reader = BundleReader(part_size_limit=lambda _part: 1 << 20)
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    reader.finish()
    assert isinstance(events[0], ManifestReceived)
    return events[0]


def entry(content: bytes, index: int) -> tuple[str, bytes, bytes]:
    """Path, data and extra field of a file in a bundle."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        info = file.infolist()[index]
        return info.filename, file.read(info), info.extra


MANIFEST, APP = entry(SIGNED, 0), entry(SIGNED, 1)

# -- reading --------------------------------------------------------------------------------------


def test_the_local_header_alone_carries_what_a_device_needs() -> None:
    received = manifest_of([archive([MANIFEST, APP])])
    assert received == manifest_of([SIGNED])
    assert received.text == MANIFEST[1]
    assert received.signatures == manifest_of([SIGNED]).signatures == parse_signatures(MANIFEST[2])
    assert set(received.signatures) == {0, 2}
    assert POLICY.check(received.manifest, received.text, received.signatures) == (0, 2)


def test_a_signature_in_the_central_directory_alone_is_none() -> None:
    local = archive([(*MANIFEST[:2], b""), APP])
    directory = SIGNED[SIGNED.index(b"PK\x01\x02") :]
    assert manifest_of([local[:-4] + directory]).signatures == {}


@given(st.lists(st.integers(0, len(SIGNED)), max_size=30))
def test_how_the_bytes_are_split_changes_nothing(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(SIGNED)]
    received = manifest_of(SIGNED[a:b] for a, b in itertools.pairwise(bounds))
    whole = manifest_of([SIGNED])
    assert (received.text, received.signatures) == (whole.text, whole.signatures)


def test_byte_by_byte_changes_nothing() -> None:
    received = manifest_of(SIGNED[n : n + 1] for n in range(len(SIGNED)))
    assert received.signatures == manifest_of([SIGNED]).signatures


def test_an_extra_field_of_the_manifest_has_a_limit_and_others_have_not() -> None:
    filler = b"\x01\x00" + (EXTRA_FIELD_LIMIT - 4).to_bytes(2, "little") + bytes(4092)
    largest = archive([(*MANIFEST[:2], filler), (*APP[:2], bytes(0xFFFF))])
    assert manifest_of([largest]).signatures == {}
    with pytest.raises(BundleError, match="limit is 4,096") as caught:
        manifest_of([archive([(*MANIFEST[:2], filler + b"\x00"), APP])])
    assert caught.value.offset == 0


@pytest.mark.parametrize("extra", [b"\x00", b"\x3a\x29\x02\x00{", b"\x3a\x29\x02\x00[]"])
def test_a_malformed_extra_field_is_refused_at_the_manifest(extra: bytes) -> None:
    reader = BundleReader(part_size_limit=lambda _part: 1 << 20)
    with pytest.raises(BundleError, match="Malformed") as caught:
        next(reader.feed(archive([(*MANIFEST[:2], extra), APP])))
    assert caught.value.offset == 0


# -- making ---------------------------------------------------------------------------------------


@needs_deterministic_signatures
def test_equal_input_gives_equal_bytes() -> None:
    assert signed_bundle(KEYS[0], KEYS[1]) == signed_bundle(KEYS[0], KEYS[1])


def test_signatures_are_the_only_difference() -> None:
    assert manifest_of([SIGNED]).manifest == manifest_of([UNSIGNED]).manifest
    assert manifest_of([SIGNED]).text == manifest_of([UNSIGNED]).text
    assert signed_bundle(None, None) == UNSIGNED
    assert entry(UNSIGNED, 0)[2] == b""


def test_an_old_library_signs_with_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def ecdsa(algorithm: object, *, deterministic_signing: bool = False) -> object:
        if deterministic_signing:
            raise UnsupportedAlgorithm("before OpenSSL 3.2")
        return original(algorithm)  # type: ignore[arg-type]

    original = ec.ECDSA
    monkeypatch.setattr(ec, "ECDSA", ecdsa)
    content = signed_bundle(KEYS[0], None, KEYS[2])
    monkeypatch.undo()
    received = manifest_of([content])
    assert POLICY.check(received.manifest, received.text, received.signatures) == (0, 2)
    assert received.signatures != manifest_of([SIGNED]).signatures


def test_keys_that_no_device_can_have_are_refused() -> None:
    signed_bundle(*KEYS)
    with pytest.raises(InvalidArgumentError, match="9 signing keys: a device has 8"):
        signed_bundle(*KEYS, KEYS[0])
    with pytest.raises(InvalidArgumentError, match="signing key 1 is of secp384r1"):
        signed_bundle(None, ec.generate_private_key(ec.SECP384R1()))


# -- updating -------------------------------------------------------------------------------------


class Device:
    """A board with one application, and what updates of it say."""

    def __init__(self) -> None:
        self.board = FakeBoard(full_size=True)
        self.board.provision(make_image("one"))
        self.log: list[str] = []

    def update(self, content: bytes, *policy: SignaturePolicy) -> FinishedUpdate:
        self.log.clear()
        board = self.board
        update = Update(
            board.state(), board.partitions, self.log.append, lambda _manifest: None, *policy
        )
        for start in range(0, len(content), 4096):
            update.feed(content[start : start + 4096])
        return update.finish()

    def refuses(self, content: bytes, policy: SignaturePolicy = POLICY) -> OtasimError:
        """The error of an update that has neither erased nor programmed anything."""
        operations = self.board.power.operations
        with pytest.raises((SignatureError, BundleError, UpdateError)) as caught:
            self.update(content, policy)
        assert self.board.power.operations == operations
        assert self.log == []
        return caught.value


@pytest.fixture(scope="module")
def device() -> Device:
    return Device()


def test_what_is_signed_as_wanted_is_taken(device: Device) -> None:
    finished = device.update(SIGNED, POLICY)
    assert finished.image.app_len == len(SAMPLE.data)
    assert device.log[:2] == ["ota: receiving app 2.0 (build b2)", "ota: signed by key 0, 2"]


@pytest.mark.parametrize("content", [SIGNED, UNSIGNED, signed_bundle(KEYS[5])])
@pytest.mark.parametrize("policy", [(), (SignaturePolicy(SETTINGS[1:], 0),)])
def test_when_nothing_is_required_everything_is_taken(
    device: Device, content: bytes, policy: tuple[SignaturePolicy, ...]
) -> None:
    device.update(content, *policy)
    assert "ota: receiving app 2.0 (build b2)" in device.log


@pytest.mark.parametrize(
    ("content", "policy", "words"),
    [
        (UNSIGNED, POLICY, "not signed by key 0"),
        (signed_bundle(KEYS[0]), POLICY, "not signed by key 2"),
        (signed_bundle(KEYS[2], None, KEYS[0]), POLICY, "sig0 is wrong"),
        (signed_bundle(KEYS[0], None, KEYS[1]), POLICY, "sig2 is wrong"),
        (SIGNED, replace(POLICY, keys=SETTINGS[:2]), r"update\.key2 is not set"),
        (SIGNED, replace(POLICY, keys=("?", *SETTINGS[1:])), r"update\.key0 is malformed"),
        (SIGNED, replace(POLICY, required_mask=0x200), "keys 0 to 7 only"),
        (SIGNED, replace(POLICY, unknown="nobody knows"), "failed: nobody knows"),
        (SIGNED, SignaturePolicy(unknown="nobody knows"), "failed: nobody knows"),
    ],
)
def test_what_is_not_signed_as_wanted_is_refused_before_any_write(
    device: Device, content: bytes, policy: SignaturePolicy, words: str
) -> None:
    error = device.refuses(content, policy)
    assert isinstance(error, SignatureError)
    with pytest.raises(SignatureError, match=words):
        raise error


@given(st.integers(0, 8 * len(MANIFEST[1]) - 1))
def test_a_manifest_with_any_bit_flipped_is_refused(device: Device, bit: int) -> None:
    path, text, extra = MANIFEST
    changed = (int.from_bytes(text) ^ 1 << bit).to_bytes(len(text))
    device.refuses(archive([(path, changed, extra), APP]))


@given(st.integers(0, 8 * len(MANIFEST[2]) - 1))
def test_an_extra_field_with_any_bit_flipped_is_refused(device: Device, bit: int) -> None:
    path, text, extra = MANIFEST
    changed = (int.from_bytes(extra) ^ 1 << bit).to_bytes(len(extra))
    try:
        same = parse_signatures(changed) == parse_signatures(extra)
    except BundleError:
        same = False
    content = archive([(path, text, changed), APP])
    # The last digit of base64 has bits that mean nothing.
    if same:
        device.update(content, POLICY)
    else:
        device.refuses(content)


@given(st.sampled_from([0, 2]), st.binary(max_size=80))
def test_another_signature_is_refused(device: Device, number: int, signature: bytes) -> None:
    path, text, extra = MANIFEST
    forged = build_extra_field(parse_signatures(extra) | {number: signature})
    error = device.refuses(archive([(path, text, forged), APP]))
    assert isinstance(error, SignatureError)
    assert error.key == number


def test_a_signature_of_another_bundle_is_refused(device: Device) -> None:
    path, text, extra = MANIFEST
    other = json.dumps(json.loads(text) | {"version": "6.6.6"}).encode()
    assert isinstance(device.refuses(archive([(path, other, extra), APP])), SignatureError)


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_file_that_is_not_the_signed_one_never_becomes_an_image(
    device: Device, place: int
) -> None:
    path, data, extra = APP
    changed = bytearray(data)
    changed[place] ^= 1
    before = device.board.state()
    with pytest.raises(OtasimError, match=r"SHA-1|SHA-256|cannot be started"):
        device.update(archive([MANIFEST, (path, bytes(changed), extra)]), POLICY)
    assert device.board.state() == before


def test_without_a_checksum_nothing_is_taken_on_a_signature(device: Device) -> None:
    path, text, _ = MANIFEST
    manifest = json.loads(text)
    for key in ("cs_sha1", "cs_sha256"):
        del manifest["parts"]["app"][key]
    bare = json.dumps(manifest).encode()
    signatures = _sign(bare, [KEYS[0], None, KEYS[2]])
    error = device.refuses(archive([(path, bare, build_extra_field(signatures)), APP]))
    assert "neither cs_sha256 nor cs_sha1" in str(error)


def test_one_checksum_of_either_kind_is_enough(device: Device) -> None:
    path, text, _ = MANIFEST
    for key in ("cs_sha1", "cs_sha256"):
        manifest = json.loads(text)
        del manifest["parts"]["app"][key]
        bare = json.dumps(manifest).encode()
        signatures = _sign(bare, [KEYS[0], None, KEYS[2]])
        device.update(archive([(path, bare, build_extra_field(signatures)), APP]), POLICY)
