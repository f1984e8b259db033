"""What the first boot of an update does: files that the new file system lacks are carried over."""

import pytest

from rpc_shim.filesystem import (
    TEMPORARY_SUFFIX,
    FileSystem,
    FileSystemError,
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
    assert merge_file_systems(old, new) == ["/b", "/d/e/f", "/zero"]
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
    assert merge_file_systems(old, new) == []
    assert contents(rig.mount("fs0")) == expected


def test_a_file_and_a_directory_of_one_name_are_left_as_in_the_new_one(
    old: FileSystem, new: FileSystem
) -> None:
    old.make_directory("x")
    old.write("x/inner", b"1")
    old.write("y", b"2")
    new.write("x", b"3")
    new.make_directory("y")
    assert merge_file_systems(old, new) == []
    assert contents(new) == {"/x": b"3", "/y": None}


def test_files_that_a_power_cut_left_unfinished_are_not_copied(
    old: FileSystem, new: FileSystem
) -> None:
    old.write("a" + TEMPORARY_SUFFIX, b"half")
    old.make_directory("d")
    old.write("d/b" + TEMPORARY_SUFFIX, b"half")
    assert merge_file_systems(old, new) == []
    assert contents(new) == {"/d": None}


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
    assert merge_file_systems(old, new) == ["/b", "/c"]


def test_directories_that_never_end_are_an_error(old: FileSystem, new: FileSystem) -> None:
    path = ""
    for _ in range(15):
        path += "/d"
        old.make_directory(path)
    old.write(path + "/f", b"1")
    assert merge_file_systems(old, new) == [path + "/f"]
    old.make_directory(path + "/d")
    with pytest.raises(FileSystemError, match="deeper than 16"):
        merge_file_systems(old, new)


def test_names_at_the_limit_of_an_atomic_write(old: FileSystem, new: FileSystem) -> None:
    old.write("n" * 255, b"1")
    with pytest.raises(FileSystemError, match="less where a file is created atomically"):
        merge_file_systems(old, new)
