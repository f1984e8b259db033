"""Bundles made and checked on the host, and the image files they are made from."""

import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from intelhex import IntelHex

import firmware
from platforms.errors import InvalidArgumentError, OtasimError
from rpc_shim.bundle.check import Severity, check_bundle
from rpc_shim.bundle.create import create_bundle
from rpc_shim.bundle.image_file import FirmwareImage, ImageFileError, load_image
from rpc_shim.bundle.manifest import ManifestError
from rpc_shim.bundle.stream import BundleReader, PartData

BUILT = datetime(2026, 1, 31, 12, tzinfo=UTC)
SAMPLE = load_image(firmware.path("sample-1.0"))


def make(image: FirmwareImage = SAMPLE, *, device_layout: bool = False) -> bytes:
    return create_bundle(
        image,
        name="app",
        version="1.0",
        build_id="b1",
        build_timestamp=BUILT,
        device_layout=device_layout,
    )


@given(st.binary(min_size=8, max_size=3000), st.booleans())
def test_what_is_made_is_read_by_zipfile_and_by_the_device(
    data: bytes, device_layout: bool
) -> None:
    content = make(FirmwareImage(SAMPLE.address, data), device_layout=device_layout)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0].endswith("manifest.json")
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    reader = BundleReader(part_size_limit=lambda _part: 1 << 20)
    events = list(reader.feed(content))
    reader.finish()
    received = b"".join(event.data for event in events if isinstance(event, PartData))
    assert received[-len(data) :] == data
    assert len(received) == len(data) + (0x10000 if device_layout else 0)


def test_equal_input_gives_equal_bytes() -> None:
    assert make() == make()


@pytest.mark.parametrize("device_layout", [False, True])
def test_a_sound_bundle_has_no_errors(tmp_path: Path, device_layout: bool) -> None:
    path = tmp_path / "fw.zip"
    path.write_bytes(make(device_layout=device_layout))
    report = check_bundle(path)
    assert report.ok, report.findings
    assert report.application == SAMPLE
    assert report.warnings == ()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (FirmwareImage(SAMPLE.address, bytes(64)), "stack pointer to 0x00000000, outside RAM"),
        (FirmwareImage(SAMPLE.address, SAMPLE.data[:4] + bytes(60)), "reset handler 0x00000000"),
        (FirmwareImage(SAMPLE.address, b"1234567"), "too short for a vector table"),
        (FirmwareImage(SAMPLE.address, SAMPLE.data.ljust(0xF0001, b"\xff")), "a slot 983,040"),
        (FirmwareImage(0x0802_0000, SAMPLE.data), "starts applications at 0x08010000"),
    ],
    ids=["stack", "reset", "short", "large", "elsewhere"],
)
def test_an_application_that_cannot_start_is_an_error(
    tmp_path: Path, image: FirmwareImage, words: str
) -> None:
    path = tmp_path / "fw.zip"
    path.write_bytes(make(image))
    errors = [finding.message for finding in check_bundle(path).errors]
    assert any(words in message for message in errors), errors


@given(st.binary(max_size=500))
def test_a_check_reports_and_never_raises(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("noise") / "fw.zip"
    path.write_bytes(noise)
    assert not check_bundle(path).ok


@given(st.integers(0, len(make()) * 8 - 1))
def test_a_check_of_a_flipped_bit_agrees_with_the_device(
    tmp_path_factory: pytest.TempPathFactory, bit: int
) -> None:
    content = bytearray(make())
    content[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.mktemp("flip") / "fw.zip"
    path.write_bytes(content)
    reader = BundleReader(part_size_limit=lambda _part: 1 << 20)
    try:
        list(reader.feed(bytes(content)))
        reader.finish()
    except OtasimError:
        assert any(found.severity is Severity.ERROR for found in check_bundle(path).findings)


@pytest.mark.parametrize(
    ("built", "name"),
    [(datetime(2026, 1, 1), "app"), (datetime(1970, 1, 1, tzinfo=UTC), "app"), (BUILT, "a/b")],
    ids=["no zone", "before zip", "folder"],
)
def test_what_no_archive_can_carry_is_refused(built: datetime, name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        create_bundle(SAMPLE, name=name, version="1", build_id="", build_timestamp=built)


def test_a_text_that_no_manifest_can_carry_is_refused() -> None:
    with pytest.raises((ManifestError, InvalidArgumentError)):
        create_bundle(SAMPLE, name="a" * 5000, version="1", build_id="", build_timestamp=BUILT)


# -- image files ----------------------------------------------------------------------------------


def test_every_kind_of_image_file_gives_the_same_image(tmp_path: Path) -> None:
    binary, bundle = tmp_path / "fw.bin", tmp_path / "fw.zip"
    binary.write_bytes(SAMPLE.data)
    bundle.write_bytes(make())
    assert load_image(binary) == SAMPLE
    assert load_image(bundle) == SAMPLE


def bad_checksum() -> bytes:
    return firmware.path("sample-1.0").read_bytes().replace(b":00000001FF", b":00000001FE")


def far_apart() -> bytes:
    image = IntelHex()
    image.puts(0x0801_0000, b"1234")
    image.puts(0x0900_0000, b"5678")
    text = io.StringIO()
    image.write_hex_file(text)
    return text.getvalue().encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("fw.hex", b""),
        ("fw.hex", b"no hex"),
        ("fw.hex", bad_checksum()),
        ("fw.hex", far_apart()),
        ("fw.elf", b"\x7fELF" + bytes(10)),
        ("fw.elf", Path("/bin/true").resolve().read_bytes()[:4096]),
        ("fw.bin", b""),
        ("fw.zip", b"PK\x03\x04"),
        ("fw.txt", b"text"),
    ],
)
def test_a_bad_image_file_is_an_error_that_names_it(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(OtasimError, match=name) as caught:
        load_image(path)
    assert isinstance(caught.value, ImageFileError | InvalidArgumentError)


def test_a_directory_or_nothing_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "not-there.hex"):
        with pytest.raises(OtasimError, match=path.name):
            load_image(path)


@given(st.binary(max_size=400), st.sampled_from(["fw.hex", "fw.elf", "fw.zip"]))
def test_noise_is_an_image_file_error(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, name: str
) -> None:
    path = tmp_path_factory.mktemp("noise") / name
    path.write_bytes(noise)
    with pytest.raises(OtasimError):
        load_image(path)
