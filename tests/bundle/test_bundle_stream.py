"""The streaming reader of bundles: every archive a device may meet, whole or broken."""

import io
import itertools
import json
import struct
import zipfile
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otasim.bundle_server import bundle_of
from rpc_shim.bundle.manifest import BundleError
from rpc_shim.bundle.stream import (
    BundleEvent,
    BundleReader,
    ManifestReceived,
    PartBegin,
    PartData,
    PartEnd,
)

BUNDLE = bundle_of("sample-2.0")
LIMIT = 1 << 20


def read(chunks: Iterable[bytes], limit: int = LIMIT) -> list[BundleEvent]:
    reader = BundleReader(part_size_limit=lambda _part: limit)
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    reader.finish()
    return events


def app_bytes(events: list[BundleEvent]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, PartData))


def repacked(
    change: dict[str, bytes] | None = None,
    *,
    only: str | None = None,
    reverse: bool = False,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """The sample bundle packed again, with some files replaced, by their names without folders."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(BUNDLE)) as source,
        zipfile.ZipFile(packed, "w", compression) as target,
    ):
        content = {name.rsplit("/", 1)[-1]: source.read(name) for name in source.namelist()}
        content |= change or {}
        names = [only] if only else sorted(content, key=list(content).index, reverse=reverse)
        for name in names:
            target.writestr(f"sample/{name}", content[name])
    return packed.getvalue()


def manifest() -> dict[str, object]:
    with zipfile.ZipFile(io.BytesIO(BUNDLE)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("manifest.json"))
        loaded: dict[str, object] = json.loads(archive.read(name))
        return loaded


def with_manifest(value: object) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return repacked({"manifest.json": text})


def app_part(**members: object) -> dict[str, object]:
    """The manifest with members of its part `app` replaced; None takes one out."""
    changed = manifest()
    parts = changed["parts"]
    assert isinstance(parts, dict)
    app = {**parts["app"], **members}
    parts["app"] = {key: value for key, value in app.items() if value is not None}
    return changed


def test_a_whole_bundle_gives_manifest_and_part_in_order() -> None:
    kinds = [type(event) for event in read([BUNDLE])]
    assert kinds[:2] == [ManifestReceived, PartBegin]
    assert PartEnd in kinds
    with zipfile.ZipFile(io.BytesIO(BUNDLE)) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".bin"))
        assert app_bytes(read([BUNDLE])) == archive.read(name)


@given(st.lists(st.integers(0, len(BUNDLE)), max_size=30))
def test_how_the_bytes_are_split_changes_nothing(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(BUNDLE)]
    pieces = [BUNDLE[a:b] for a, b in itertools.pairwise(bounds)]
    assert read(pieces) == read([BUNDLE])


@given(st.integers(0, len(BUNDLE) * 8 - 1))
def test_a_flipped_bit_is_refused_or_does_not_matter(bit: int) -> None:
    content = bytearray(BUNDLE)
    content[bit // 8] ^= 1 << bit % 8
    try:
        events = read([bytes(content)])
    except BundleError:
        return
    # Times, versions and attributes in the headers are nobody's business.
    assert app_bytes(events) == app_bytes(read([BUNDLE]))


@given(st.integers(0, len(BUNDLE) - 1))
def test_a_truncated_bundle_is_incomplete_unless_only_the_directory_is_missing(length: int) -> None:
    directory = BUNDLE.index(b"PK\x01\x02")
    if length >= directory + 4:
        assert app_bytes(read([BUNDLE[:length]])) == app_bytes(read([BUNDLE]))
    else:
        with pytest.raises(BundleError, match="incomplete"):
            read([BUNDLE[:length]])


@given(st.binary(max_size=2000))
def test_noise_is_a_bundle_error_and_nothing_else(noise: bytes) -> None:
    with pytest.raises(BundleError):
        read([noise])


@given(st.binary(max_size=300), st.integers(0, len(BUNDLE) - 1))
def test_noise_in_the_middle_never_breaks_the_reader(noise: bytes, place: int) -> None:
    content = BUNDLE[:place] + noise + BUNDLE[place + len(noise) :]
    try:
        events = read([content])
    except BundleError:
        return
    assert app_bytes(events) == app_bytes(read([BUNDLE]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (repacked(compression=zipfile.ZIP_DEFLATED), "compressed"),
        (repacked(only="manifest.json"), "lacks app.bin"),
        (repacked(reverse=True), "manifest"),
        (with_manifest(b"{"), "manifest"),
        (with_manifest(b""), "manifest"),
        (with_manifest(b"[]"), "manifest"),
        (with_manifest(b'{"parts": {}}'), "parts|platform"),
        (with_manifest(b"\xff\xfe"), "manifest"),
        (with_manifest(b'{"a": NaN}'), "manifest"),
        (with_manifest(b"[" * 5000), "manifest"),
        (with_manifest(b" " * 9000), "8,192|large"),
        (with_manifest(app_part(cs_sha1="0" * 40, cs_sha256=None)), "SHA-1"),
        (with_manifest(app_part(cs_sha256="0" * 64)), "SHA-256"),
        (with_manifest(app_part(cs_sha1=None, cs_sha256=None)), "no cs_sha1"),
        (with_manifest(app_part(size=7)), "size|bytes"),
        (with_manifest(app_part(src=None)), "src"),
        (with_manifest(app_part(size=-1)), "size"),
        (with_manifest(app_part(size="many")), "size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_bundle_is_said(content: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        read([content])


def test_a_part_larger_than_its_slot_is_refused_before_its_first_byte() -> None:
    reader = BundleReader(part_size_limit=lambda _part: 1000)
    seen: list[BundleEvent] = []
    with pytest.raises(BundleError, match="1,000"):
        seen.extend(reader.feed(BUNDLE))
    assert not any(isinstance(event, PartData) for event in seen)


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (6, 0x0001, "encrypted"),  # general purpose flags
        (8, 12, "compressed"),  # compression method: BZIP2
        (18, 0xFFFF, "ZIP64|zip64|size|incomplete|differ"),  # low half of the compressed size
    ],
)
def test_an_entry_that_no_device_can_read_is_refused(offset: int, value: int, words: str) -> None:
    content = bytearray(BUNDLE)
    struct.pack_into("<H", content, offset, value)
    with pytest.raises(BundleError, match=words):
        read([bytes(content)])


def test_a_file_that_claims_gigabytes_is_refused_at_once() -> None:
    content = bytearray(BUNDLE)
    second = BUNDLE.index(b"PK\x03\x04", 4)
    struct.pack_into("<II", content, second + 18, 0x7FFF_FFFF, 0x7FFF_FFFF)
    with pytest.raises(BundleError, match="2,147,483,647"):
        read([bytes(content)])


def test_what_comes_behind_the_directory_is_not_looked_at() -> None:
    assert app_bytes(read([BUNDLE, b"junk" * 1000])) == app_bytes(read([BUNDLE]))
