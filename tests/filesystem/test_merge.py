"""What the first boot of an update does: files that the new file system lacks are carried over."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from littlefs import LittleFS

from rpc_shim.filesystem import (
    BLOCK_SIZE,
    TEMPORARY_SUFFIX,
    FileSystem,
    FileSystemError,
    Merged,
    Reason,
    merge_file_systems,
)
from tests.filesystem.nor_rig import NorRig, contents


@pytest.fixture
def rig() -> NorRig:
    return NorRig()


@pytest.fixture
def old(rig: NorRig) -> FileSystem:
    return rig.format("fs1")


@pytest.fixture
def new(rig: NorRig) -> FileSystem:
    return rig.format("fs0")


def test_what_is_missing_is_copied_and_what_is_there_stays(
    rig: NorRig, old: FileSystem, new: FileSystem
) -> None:
    for directory in ("d", "d/e", "empty"):
        old.make_directory(directory)
    old.write("a", b"old a")
    old.write("b", b"old b" * 2000)
    old.write("d/c", b"old c")
    old.write("d/e/f", b"old f")
    old.write("zero", b"")
    before = rig.cells("fs1")
    new.write("a", b"new a")
    new.make_directory("d")
    new.write("d/c", b"")
    assert merge_file_systems(old, new) == Merged(["/b", "/d/e/f", "/zero"], [])
    expected = {
        "/a": b"new a",
        "/b": b"old b" * 2000,
        "/d": None,
        "/d/c": b"",
        "/d/e": None,
        "/d/e/f": b"old f",
        "/empty": None,
        "/zero": b"",
    }
    assert contents(rig.mount("fs0")) == expected
    assert rig.cells("fs1") == before
    assert merge_file_systems(old, new).copied == []
    assert contents(rig.mount("fs0")) == expected


def test_a_file_and_a_directory_of_one_name_are_left_as_in_the_new_one(
    old: FileSystem, new: FileSystem
) -> None:
    old.make_directory("x")
    old.write("x/inner", b"1")
    old.write("y", b"2")
    new.write("x", b"3")
    new.make_directory("y")
    assert merge_file_systems(old, new).copied == []
    assert contents(new) == {"/x": b"3", "/y": None}


def left_out(merged: Merged) -> list[str]:
    return [str(error) for error in merged.left_out]


def test_files_that_a_power_cut_left_unfinished_are_not_copied(
    old: FileSystem, new: FileSystem
) -> None:
    old.write("a" + TEMPORARY_SUFFIX, b"half")
    old.make_directory("d" + TEMPORARY_SUFFIX)
    old.write(f"d{TEMPORARY_SUFFIX}/b", b"whole")
    merged = merge_file_systems(old, new)
    assert left_out(merged) == ['"/a (unfinished)": it is an unfinished file']
    assert contents(new) == {"/d (unfinished)": None, "/d (unfinished)/b": b"whole"}


def test_a_merge_ends_where_the_new_one_is_full(
    rig: NorRig, old: FileSystem, new: FileSystem
) -> None:
    old.write("a", b"small")
    old.write("b", bytes(100_000))
    old.write("c", b"after")
    new.write("mine", b"x" * 180_000)
    with pytest.raises(FileSystemError, match="is full") as caught:
        merge_file_systems(old, new)
    assert (caught.value.path, caught.value.reason) == ("/b", Reason.FULL)
    assert contents(rig.mount("fs0")) == {"/a": b"small", "/mine": b"x" * 180_000}
    new.remove("mine")
    assert merge_file_systems(old, new).copied == ["/b", "/c"]


def test_directories_that_never_end_are_left_out_from_some_level_on(
    old: FileSystem, new: FileSystem
) -> None:
    path = ""
    for _ in range(15):
        path += "/d"
        old.make_directory(path)
    old.write(path + "/f", b"1")
    assert merge_file_systems(old, new) == Merged([path + "/f"], [])
    old.make_directory(path + "/d")
    old.write(path + "/d/f", b"1")
    (error,) = left_out(merge_file_systems(old, new))
    assert error == f'"{path}/d/": directories are nested deeper than 16 levels'


@pytest.mark.parametrize("length", [242, 243, 255])
def test_a_name_of_any_length_is_carried_over(
    rig: NorRig, old: FileSystem, new: FileSystem, length: int
) -> None:
    old.write("n" * length, b"1")
    assert merge_file_systems(old, new) == Merged(["/" + "n" * length], [])
    assert contents(rig.mount("fs0")) == {"/" + "n" * length: b"1"}


def image(*names: str, name_max: int = 255) -> bytes:
    """A file system made elsewhere, with short files of these names."""
    made = LittleFS(block_size=BLOCK_SIZE, block_count=64, name_max=name_max)
    for name in names:
        with made.open(name, "wb") as file:
            file.write(b"1")
    return bytes(made.context.buffer)


def test_a_name_that_cannot_be_in_the_new_one_is_left_out(rig: NorRig, old: FileSystem) -> None:
    rig.set_cells(0, image(name_max=32))
    for name in ("m" * 33, "n" * 32, "z"):
        old.write(name, b"1")
    old.make_directory("d" * 33)
    merged = merge_file_systems(old, rig.mount("fs0"))
    assert merged.copied == ["/" + "n" * 32, "/z"]
    assert [error.path for error in merged.left_out] == ["/" + "d" * 33, "/" + "m" * 33]


def test_a_name_that_this_board_would_not_have_is_left_out(rig: NorRig, new: FileSystem) -> None:
    rig.set_cells(0, image("a\nb", "c"), "fs1")
    merged = merge_file_systems(rig.mount("fs1"), new)
    assert merged.copied == ["/c"]
    assert left_out(merged) == [
        r'"/a\nb": a name has at least one character, and no control characters'
    ]


@given(damage=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 600), st.integers(1, 255))))
@example(damage=[(2, 4, 255)])  # the blocks of the directory
@example(damage=[(2, 4, 255), (3, 4, 255)])
def test_damage_in_the_old_one_costs_no_more_than_its_files(
    damage: list[tuple[int, int, int]],
) -> None:
    rig = NorRig()
    new = rig.format("fs0")
    new.write("mine", b"2")
    old = rig.format("fs1")
    old.make_directory("d")
    old.write("d/a", b"1" * 10_000)
    old.write("b", b"1")
    cells = bytearray(rig.cells("fs1"))
    for block, offset, change in damage:
        cells[block * BLOCK_SIZE + offset] ^= change
    rig.set_cells(0, bytes(cells), "fs1")
    try:
        old = rig.mount("fs1")
    except FileSystemError:
        return
    merged = merge_file_systems(old, new)
    assert damage or merged.copied == ["/b", "/d/a"]
    assert new.read("mine") == b"2"
    for path in merged.copied:
        assert new.exists(path)
