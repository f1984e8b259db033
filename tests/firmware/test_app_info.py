from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootloader_model.app_info import APP_INFO, MAGIC, SEARCH_LENGTH, AppInfo, read_app_info

PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
INFOS = st.builds(
    AppInfo,
    name=st.text(PRINTABLE, min_size=1, max_size=15),
    version=st.text(PRINTABLE, min_size=1, max_size=15),
    build_id=st.text(PRINTABLE, max_size=31),
)
WORD = 4


def build(info: AppInfo, struct_size: int = 76) -> bytes:
    built: bytes = APP_INFO.build(
        {
            "struct_size": struct_size,
            "name": info.name.encode().ljust(16, b"\0"),
            "version": info.version.encode().ljust(16, b"\0"),
            "build_id": info.build_id.encode().ljust(32, b"\0"),
        }
    )
    return built


GOOD = AppInfo("sample", "1.0", "20260101-000000/v1.0")


@given(INFOS, st.integers(0, SEARCH_LENGTH // WORD - 1), st.binary(max_size=64))
def test_what_was_built_is_found_at_every_place_searched(
    info: AppInfo, word: int, behind: bytes
) -> None:
    image = bytes(word * WORD) + build(info) + behind

    assert read_app_info(image) == info


@given(st.binary(max_size=300))
def test_random_bytes_hold_none(image: bytes) -> None:
    assert read_app_info(image) is None


@given(st.binary(max_size=300), st.integers(0, 10))
def test_random_bytes_behind_the_magic_never_raise(rest: bytes, words: int) -> None:
    info = read_app_info(bytes(words * WORD) + MAGIC + b"\x4c\0\0\0" + rest)

    assert info is None or info.name.isprintable()


@given(INFOS, st.integers(0, 75))
def test_a_descriptor_cut_off_is_none(info: AppInfo, kept: int) -> None:
    assert read_app_info(build(info)[:kept]) is None


@given(INFOS, st.integers(0, 76 * 8 - 1))
def test_any_flipped_bit_gives_another_descriptor_or_none(info: AppInfo, bit: int) -> None:
    image = bytearray(build(info))
    image[bit // 8] ^= 1 << bit % 8

    assert read_app_info(bytes(image)) != info


def test_the_second_is_found_when_the_first_is_malformed() -> None:
    assert read_app_info(MAGIC + bytes(100) + build(GOOD)) == GOOD


@pytest.mark.parametrize("offset", [1, 2, 3, SEARCH_LENGTH, SEARCH_LENGTH + WORD])
def test_other_places_are_not_searched(offset: int) -> None:
    assert read_app_info(bytes(offset) + build(GOOD)) is None


def test_a_larger_structure_of_a_later_firmware_is_read() -> None:
    assert read_app_info(build(GOOD, struct_size=80) + bytes(4)) == GOOD


@pytest.mark.parametrize("struct_size", [0, 75, 80, 0xFFFFFFFF])
def test_a_structure_size_that_cannot_be_is_refused(struct_size: int) -> None:
    assert read_app_info(build(GOOD, struct_size)) is None


@pytest.mark.parametrize(
    ("field_offset", "content"),
    [
        pytest.param(12, bytes(16), id="empty name"),
        pytest.param(12, b"n" * 16, id="name without NUL"),
        pytest.param(12, b"na\0me".ljust(16, b"\0"), id="text behind the NUL"),
        pytest.param(12, b"na\nme".ljust(16, b"\0"), id="control character"),
        pytest.param(12, "näme".encode("latin-1").ljust(16, b"\0"), id="not ASCII"),
        pytest.param(12, b"name".ljust(16, b"\xff"), id="padded with 0xFF"),
        pytest.param(28, bytes(16), id="empty version"),
        pytest.param(28, b"1" * 16, id="version without NUL"),
        pytest.param(44, b"b" * 32, id="build identifier without NUL"),
    ],
)
def test_malformed_texts_are_refused(field_offset: int, content: bytes) -> None:
    image = bytearray(build(GOOD))
    image[field_offset : field_offset + len(content)] = content

    assert read_app_info(bytes(image)) is None


def test_an_empty_build_identifier_is_allowed() -> None:
    info = AppInfo("sample", "1.0", "")

    assert read_app_info(build(info)) == info


def test_the_header_says_the_same() -> None:
    header = Path(__file__).parents[2] / "firmware" / "include" / "app_info.h"
    offsets = {"magic": 0, "struct_size": 8, "name": 12, "version": 28, "build_id": 44}

    text = header.read_text()

    assert APP_INFO.sizeof() == 76
    for field in APP_INFO.subcons:
        assert f"{offsets[field.name]:4}  {field.sizeof():4}  {field.name} " in text
