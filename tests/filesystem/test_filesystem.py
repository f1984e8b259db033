"""Files on the modelled NOR flash, by its driver: content, errors, other images, failing flash."""

import gc
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import littlefs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootloader_model.layout import DEFAULT_LAYOUT
from bootloader_model.partition import OpenPartition
from platforms.devices.flash_memory import OperationKind
from platforms.flash import FlashContents, FlashError
from platforms.machine import ResetAsserted
from rpc_shim.filesystem import (
    BLOCK_SIZE,
    TEMPORARY_SUFFIX,
    Entry,
    FileSystem,
    FileSystemError,
    Reason,
    RootFileSystem,
)
from tests.filesystem.nor_rig import FailingFlash, NorRig, contents, without_unfinished

FS0 = DEFAULT_LAYOUT.partition("fs0")


@pytest.fixture
def rig() -> NorRig:
    return NorRig()


@pytest.fixture
def files(rig: NorRig) -> FileSystem:
    return rig.format()


@contextmanager
def refused(reason: Reason) -> Iterator[None]:
    with pytest.raises(FileSystemError) as caught:
        yield
    assert caught.value.reason is reason
    assert all(character.isprintable() for character in str(caught.value))


# -- mount and format -----------------------------------------------------------------------------


def test_an_erased_partition_holds_none(rig: NorRig) -> None:
    with pytest.raises(FileSystemError, match=r'"fs0": it holds no file system') as caught:
        rig.mount()
    assert caught.value.reason is Reason.NOT_MOUNTED
    assert not rig.operations


def test_a_new_one_is_empty_and_uses_its_own_partition_only(rig: NorRig) -> None:
    files = rig.format()
    assert files.names() == []
    assert files.total_bytes == FS0.size
    assert files.free_bytes == FS0.size - 2 * BLOCK_SIZE
    for operation in rig.operations:
        assert FS0.offset <= operation.address < FS0.offset + FS0.size
        assert operation.address // 256 == (operation.address + operation.length - 1) // 256 or (
            operation.kind is OperationKind.ERASE
        )


def test_a_page_is_programmed_in_one_go(rig: NorRig, files: FileSystem) -> None:
    files.write("a", b"the first change after a mount writes more")
    rig.operations.clear()
    files.write("a", bytes(range(256)) * 16)
    pages = [operation.length for operation in rig.operations if operation.length == 256]
    assert len(pages) == 16


def test_format_wipes_whatever_is_there(rig: NorRig, files: FileSystem) -> None:
    files.write("a", b"1")
    assert rig.format().names() == []
    assert rig.mount().names() == []


def test_every_call_leaves_everything_in_the_flash(rig: NorRig, files: FileSystem) -> None:
    files.write("a", b"one")
    assert rig.mount().read("a") == b"one"
    files.append("a", b" two")
    assert rig.mount().read("a") == b"one two"
    files.write_at("a", 4, b"2" * 1000)
    assert rig.mount().read("a") == b"one " + b"2" * 1000
    files.rename("a", "b")
    assert rig.mount().names() == ["b"]
    files.make_directory("d")
    assert rig.mount().names() == ["b", "d"]
    files.write_atomically("d/c", b"3")
    assert rig.mount().read("d/c") == b"3"
    files.remove("b")
    assert rig.mount().names() == ["d"]


def test_the_watchdog_is_fed_during_long_work(rig: NorRig) -> None:
    fed_at: list[int] = []
    files = FileSystem.format(rig.partition(), lambda: fed_at.append(rig.clock.now_ns))
    files.write("a", bytes(200_000))
    gaps = [later - earlier for earlier, later in pairwise(fed_at)]
    assert len(fed_at) >= 50
    assert max(gaps) < 200_000_000


def test_looking_from_outside_needs_no_driver(rig: NorRig, files: FileSystem) -> None:
    files.write("a", b"1")
    flash = FlashContents("nor", rig.memory.geometry, rig.memory.storage)
    seen = FileSystem.mount(OpenPartition(FS0, flash))
    assert seen.read("a") == b"1"
    with pytest.raises(FlashError, match="look at"):
        seen.write("a", b"2")
    assert seen.read("a") == b"1"


# -- files ----------------------------------------------------------------------------------------


def test_write_replaces(files: FileSystem) -> None:
    files.write("a", b"long content")
    files.write("/a", b"x")
    assert files.read("a") == files.read("/a") == b"x"
    assert files.size("a") == 1
    assert files.entries() == [Entry("a", 1, is_directory=False)]


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (3, 4, b"3456"),
        (8, 4, b"89"),
        (10, None, b""),
        (10, 5, b""),
        (0, 0, b""),
        (5, 1, b"5"),
    ],
)
def test_read(files: FileSystem, offset: int, length: int | None, expected: bytes) -> None:
    files.write("a", b"0123456789")
    assert files.read("a", offset, length) == expected


def test_write_at_keeps_what_is_behind(files: FileSystem) -> None:
    files.write("a", b"0123456789")
    files.write_at("a", 2, b"ab")
    assert files.read("a") == b"01ab456789"
    files.write_at("a", 8, b"cdef")
    assert files.read("a") == b"01ab4567cdef"
    files.write_at("a", 12, b"g")
    assert files.read("a") == b"01ab4567cdefg"


def test_append_creates(files: FileSystem) -> None:
    files.append("a", b"1")
    files.append("a", b"2")
    assert files.read("a") == b"12"


def test_an_offset_beyond_the_end_is_refused(files: FileSystem) -> None:
    files.write("a", b"123")
    with pytest.raises(FileSystemError, match="offset 5 is beyond the end, it has 3 bytes"):
        files.read("a", 5)
    with refused(Reason.BEYOND_END):
        files.write_at("a", 4, b"x")
    assert files.read("a") == b"123"


def test_rename_replaces(files: FileSystem) -> None:
    files.write("a", b"new")
    files.write("b", b"old")
    files.rename("a", "b")
    assert contents(files) == {"/b": b"new"}


@pytest.mark.parametrize("same", ["a", "/a", "./a", "//a", "d/../a"])
def test_rename_to_itself_changes_nothing(files: FileSystem, same: str) -> None:
    files.make_directory("d")
    files.write("a", b"1")
    files.rename("a", same)
    assert files.read("a") == b"1"


def test_directories_are_not_renamed(files: FileSystem) -> None:
    files.make_directory("d")
    files.write("a", b"1")
    for source, destination in (("d", "e"), ("a", "d")):
        with refused(Reason.IS_DIRECTORY):
            files.rename(source, destination)
    assert contents(files) == {"/d": None, "/a": b"1"}


def test_a_rename_stopped_in_another_littlefs_is_finished(rig: NorRig, files: FileSystem) -> None:
    """Until then littlefs overlooks entries of the directory; see `FileSystem.rename`."""
    files.make_directory("d")
    files.write("a", b"1" * 1000)
    made = bytearray(rig.cells())
    other = littlefs.LittleFS(
        littlefs.UserContext(buffer=made), False, block_size=BLOCK_SIZE, block_count=64
    )
    other.mount()
    erased_before = bytes(made)
    other.rename("a", "d/b")
    # Without the second step, which deletes "a" in the root's pair.
    for start in (0, BLOCK_SIZE):
        made[start : start + BLOCK_SIZE] = erased_before[start : start + BLOCK_SIZE]
    rig.set_cells(0, bytes(made))
    assert contents(rig.mount()) == {"/d": None, "/d/b": b"1" * 1000}


def test_what_is_missing_or_of_the_other_kind_is_refused(files: FileSystem) -> None:
    files.write("file", b"1")
    files.make_directory("directory")
    files.write("directory/inner", b"2")
    for call in (
        lambda: files.read("none"),
        lambda: files.size("none"),
        lambda: files.write_at("none", 0, b"x"),
        lambda: files.remove("none"),
        lambda: files.rename("none", "other"),
        lambda: files.names("none"),
        lambda: files.write("none/a", b"x"),
    ):
        with refused(Reason.NOT_FOUND):
            call()
    for call in (
        lambda: files.read("directory"),
        lambda: files.write("directory", b"x"),
        lambda: files.append("directory", b"x"),
        lambda: files.write_atomically("directory", b"x"),
        lambda: files.write("/", b"x"),
        lambda: files.rename("/", "x"),
    ):
        with refused(Reason.IS_DIRECTORY):
            call()
    for call in (
        lambda: files.names("file"),
        lambda: files.write("file/a", b"x"),
        lambda: files.read("file/a"),
    ):
        with refused(Reason.NOT_A_DIRECTORY):
            call()
    with refused(Reason.NOT_EMPTY):
        files.remove("directory")
    with refused(Reason.EXISTS):
        files.make_directory("file")
    with refused(Reason.INVALID_NAME):
        files.remove("/")
    assert contents(files) == {"/file": b"1", "/directory": None, "/directory/inner": b"2"}


def test_exists(files: FileSystem) -> None:
    files.write("file", b"")
    files.make_directory("directory")
    assert files.exists("file")
    assert files.exists("directory")
    assert files.exists("/")
    assert not files.exists("none")
    assert not files.exists("file/none")
    assert files.is_directory("directory")
    assert not files.is_directory("file")
    assert not files.is_directory("none")


@pytest.mark.parametrize("name", ["", "a\x00b", "a\nb", "\x7f", "a\ud800", "n" * 256, "\xe9" * 128])
def test_names_that_cannot_be(files: FileSystem, name: str) -> None:
    files.write("a", b"1")
    for call in (
        lambda: files.write(name, b"x"),
        lambda: files.read(name),
        lambda: files.exists(name),
        lambda: files.remove(name),
        lambda: files.rename("a", name),
        lambda: files.names(name),
        lambda: files.write_atomically(name, b"x"),
    ):
        with refused(Reason.INVALID_NAME):
            call()
    assert files.names() == ["a"]


def test_a_name_that_leaves_no_room_for_its_suffix_cannot_be_created_atomically(
    files: FileSystem,
) -> None:
    limit = 255 - len(TEMPORARY_SUFFIX)
    files.write_atomically("n" * limit, b"1")
    with pytest.raises(FileSystemError, match=f"{len(TEMPORARY_SUFFIX)} less where") as caught:
        files.write_atomically("m" * (limit + 1), b"1")
    assert caught.value.path == "m" * (limit + 1)
    assert files.names() == ["n" * limit]


@pytest.mark.parametrize("name", ["n" * 255, "\xe9" * 127, "\U0001f600", " ", "a b", "-"])
def test_names_that_can_be(rig: NorRig, files: FileSystem, name: str) -> None:
    files.write(name, b"1")
    files.write_atomically(name, b"2")
    assert rig.mount().names() == [name]
    assert rig.mount().read(name) == b"2"


def test_a_full_file_system_keeps_what_it_has(rig: NorRig, files: FileSystem) -> None:
    files.write("a", b"old")
    files.write("big", bytes(200_000))
    calls: list[Callable[[], object]] = [
        lambda: files.write("a", bytes(100_000)),
        lambda: files.append("a", bytes(100_000)),
        lambda: files.write_at("a", 1, bytes(100_000)),
        lambda: files.write_atomically("a", bytes(100_000)),
        lambda: files.write_atomically("b", bytes(100_000)),
        lambda: files.rename("big", "b"),
    ]
    for call in calls:
        with pytest.raises(FileSystemError, match="is full: remove files") as caught:
            call()
        assert caught.value.reason is Reason.FULL
        assert caught.value.path in {"a", "b"}
        assert contents(files) == contents(rig.mount()) == {"/a": b"old", "/big": bytes(200_000)}
    files.remove("big")
    files.write("a", bytes(100_000))
    assert contents(rig.mount()) == {"/a": bytes(100_000)}


def test_even_the_last_directory_entry_says_full_and_files_can_be_removed(
    files: FileSystem,
) -> None:
    names = [f"{number:04}" + "n" * 240 for number in range(4096)]
    created: list[str] = []
    with refused(Reason.FULL):
        for name in names:
            files.write(name, b"content")
            created.append(name)
    assert len(created) > 100
    assert set(created) <= set(files.names())
    for name in files.names():
        files.remove(name)
    files.write("a", bytes(100_000))


def test_free_bytes_follow(files: FileSystem) -> None:
    free = files.free_bytes
    files.write("a", bytes(4 * BLOCK_SIZE))
    assert files.free_bytes <= free - 4 * BLOCK_SIZE
    files.remove("a")
    assert files.free_bytes == free


def test_counting_free_bytes_again_reads_nothing(rig: NorRig, files: FileSystem) -> None:
    assert files.free_bytes > 0
    before_ns = rig.clock.now_ns
    assert files.free_bytes > 0
    assert rig.clock.now_ns == before_ns


# -- images made elsewhere ------------------------------------------------------------------------


def image(**settings: int) -> bytes:
    """What littlefs-python makes with the given settings, with some content."""
    settings = {"block_size": BLOCK_SIZE, "block_count": 64} | settings
    made = littlefs.LittleFS(None, True, None, **settings)
    made.mkdir("/d")
    for name, content in (("/d/index.html", b"<p>" * 2000), ("/small", b"s" * 400)):
        with made.open(name, "wb") as file:
            file.write(content)
    return bytes(made.context.buffer)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"disk_version": 0x00020000},
        {"prog_size": 16, "read_size": 16, "cache_size": 64},
        {"name_max": 32},
        {"inline_max": 64},
    ],
)
def test_an_image_made_in_another_way_is_read_and_written(
    rig: NorRig, settings: dict[str, int]
) -> None:
    rig.set_cells(0, image(**settings))
    files = rig.mount()
    assert files.total_bytes == FS0.size
    assert contents(files) == {"/d": None, "/d/index.html": b"<p>" * 2000, "/small": b"s" * 400}
    files.append("small", b"t" * 400)
    files.write_at("small", 10, b"u")
    files.write("d/index.html", b"new")
    expected = b"s" * 10 + b"u" + b"s" * 389 + b"t" * 400
    assert contents(rig.mount()) == {"/d": None, "/d/index.html": b"new", "/small": expected}


def test_a_smaller_image_stays_smaller(rig: NorRig) -> None:
    rig.set_cells(0, image(block_count=16))
    files = rig.mount()
    assert files.total_bytes == 16 * BLOCK_SIZE
    files.write("a", bytes(20_000))
    with refused(Reason.FULL):
        files.write("b", bytes(60_000))
    assert rig.mount().read("a") == bytes(20_000)
    assert rig.cells()[16 * BLOCK_SIZE :] == b"\xff" * (FS0.size - 16 * BLOCK_SIZE)


def test_a_smaller_image_with_a_damaged_first_superblock(rig: NorRig) -> None:
    made = bytearray(image(block_count=16))
    made[:BLOCK_SIZE] = b"\xff" * BLOCK_SIZE
    rig.set_cells(0, bytes(made))
    assert rig.mount().total_bytes == 16 * BLOCK_SIZE


def test_an_image_for_a_larger_partition_is_refused(rig: NorRig) -> None:
    rig.set_cells(0, image(block_count=128)[: FS0.size])
    with pytest.raises(FileSystemError, match=r"128 blocks of 4,096 bytes.*up to 64 blocks") as no:
        rig.mount()
    assert no.value.reason is Reason.NOT_MOUNTED


@pytest.mark.parametrize("settings", [{"block_size": 8192, "block_count": 32}, {"name_max": 300}])
def test_an_image_littlefs_cannot_take_here_is_refused(
    rig: NorRig, settings: dict[str, int]
) -> None:
    rig.set_cells(0, image(**settings))
    with pytest.raises(FileSystemError, match=r"made in another way: expected littlefs 2\.0") as no:
        rig.mount()
    assert no.value.reason is Reason.NOT_MOUNTED


def test_a_block_count_of_nothing_is_refused(rig: NorRig) -> None:
    """A block count that littlefs divides by, before it looks."""
    rig.set_cells(0, with_block_count(image(), 0))
    with pytest.raises(FileSystemError, match="0 blocks of 4,096 bytes is damaged"):
        rig.mount()


def with_block_count(made: bytes, count: int) -> bytes:
    """The image with another block count in its superblocks, and their checksums right."""
    changed = bytearray(made)
    for start in (0, BLOCK_SIZE):
        position = start + 4
        tag = 0xFFFF_FFFF
        checksum = crc32(changed[start:position])
        changed[start + 0x1C : start + 0x20] = count.to_bytes(4, "little")
        while position < start + BLOCK_SIZE:
            raw = bytes(changed[position : position + 4])
            tag ^= int.from_bytes(raw, "big")
            if tag >> 31:
                break
            size = tag & 0x3FF
            if tag >> 20 & 0x780 == 0x500:
                value = crc32(raw, checksum).to_bytes(4, "little")
                changed[position + 4 : position + 8] = value
                checksum = 0xFFFF_FFFF
                tag ^= (tag >> 20 & 1) << 31
            else:
                size = 0 if size == 0x3FF else size
                checksum = crc32(changed[position : position + 4 + size], checksum)
            position += 4 + size
    return bytes(changed)


def crc32(data: bytes | bytearray, start: int = 0xFFFF_FFFF) -> int:
    """littlefs's: without the final inversion."""
    return zlib.crc32(data, start ^ 0xFFFF_FFFF) ^ 0xFFFF_FFFF


def test_the_block_count_is_changed_as_meant(rig: NorRig) -> None:
    made = with_block_count(image(), 63)
    assert made != image()
    rig.set_cells(0, made)
    assert rig.mount().total_bytes == 63 * BLOCK_SIZE


def test_shorter_names_of_an_image_are_its_limit(rig: NorRig) -> None:
    rig.set_cells(0, image(name_max=32))
    files = rig.mount()
    files.write("n" * 32, b"1")
    with pytest.raises(FileSystemError, match="up to 32 bytes"):
        files.write("n" * 33, b"1")


def test_names_in_another_encoding_are_an_error_in_words(rig: NorRig) -> None:
    made = littlefs.LittleFS(block_size=4096, block_count=64, filename_encoding="latin-1")
    with made.open("caf\xe9", "wb") as file:
        file.write(b"1")
    rig.set_cells(0, bytes(made.context.buffer))
    with pytest.raises(FileSystemError, match="no UTF-8"):
        rig.mount().names()


@given(st.data())
def test_damage_ends_in_content_or_an_error_in_words(data: st.DataObject) -> None:
    cells = bytearray(image())
    for _ in range(data.draw(st.integers(1, 20))):
        block = data.draw(st.sampled_from([0, 1, 2, 3, 61, 62, 63]))
        offset = block * BLOCK_SIZE + data.draw(st.integers(0, 600))
        cells[offset] ^= data.draw(st.integers(1, 255))
    rig = NorRig()
    rig.set_cells(0, bytes(cells))
    try:
        files = rig.mount()
        contents(files)
        files.write("new", b"x" * 5000)
        files.append("small", b"x" * 500)
        assert files.read("new") == b"x" * 5000
    except FileSystemError as error:
        assert str(error)  # noqa: PT017 - nothing else is raised


# -- a flash that fails ---------------------------------------------------------------------------


class AnythingError(Exception):
    pass


def test_littlefs_python_swallows_what_callbacks_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for the block device to keep it. When this fails, that can go."""

    class Failing(littlefs.UserContext):
        def prog(self, *_: object) -> int:
            raise AnythingError

    swallowed: list[type[BaseException] | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: swallowed.append(what.exc_type))
    with pytest.raises(littlefs.LittleFSError):
        littlefs.LittleFS(Failing(64 * BLOCK_SIZE), block_size=BLOCK_SIZE, block_count=64)
    assert AnythingError in swallowed


CALLS: dict[str, Callable[[FileSystem], object]] = {
    "write": lambda files: files.write("a", b"new" * 400),
    "write a new file": lambda files: files.write("c", b"new" * 400),
    "write a small one": lambda files: files.write("a", b"new"),
    "append": lambda files: files.append("a", b"more" * 200),
    "write at": lambda files: files.write_at("a", 100, b"else" * 500),
    "write atomically": lambda files: files.write_atomically("a", b"new" * 400),
    "read": lambda files: files.read("a"),
    "names": lambda files: files.names(),
    "exists": lambda files: files.exists("d/b"),
    "remove": lambda files: files.remove("a"),
    "write a new file atomically": lambda files: files.write_atomically("c", b"new" * 400),
    "rename": lambda files: files.rename("a", "d/b"),
    "make directory": lambda files: files.make_directory("e"),
    "free": lambda files: files.free_bytes,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "failure",
    [
        ResetAsserted(),
        FlashError("broken", device="nor", address=0, length=1),
        KeyboardInterrupt(),
        AnythingError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_the_flash_raises_comes_out_and_the_flash_is_left_alone(
    rig: NorRig, files: FileSystem, call: str, failure: BaseException
) -> None:
    carry_out = CALLS[call]
    files.make_directory("d")
    files.write("a", b"old" * 400)
    files.write("d/b", b"other" * 400)
    before, cells = contents(files), rig.cells()
    flash = FailingFlash(rig.driver())
    files = FileSystem.mount(OpenPartition(FS0, flash))
    flash.fail(10_000, failure)
    carry_out(files)
    calls = flash.calls
    after = contents(files)
    assert calls > 0
    for number in range(calls):
        rig.set_cells(0, cells)
        flash = FailingFlash(rig.driver())
        files = FileSystem.mount(OpenPartition(FS0, flash))
        flash.fail(number, failure)
        with pytest.raises(type(failure)) as caught:
            carry_out(files)
        assert caught.value is failure
        assert flash.calls_after_failure == 0
        # The flash still does not work, and then it does.
        with pytest.raises(type(failure)):
            files.names()
        flash.repair()
        found = without_unfinished(contents(files))
        if call == "write a new file" and found.get("/c") == b"":
            del found["/c"]
        # A rename may leave both files.
        assert found in (before, after, before | after if call == "rename" else after)
        if found != after:
            carry_out(files)
            assert contents(files) == after


@pytest.mark.parametrize("failure", [ResetAsserted(), AnythingError()])
def test_what_the_flash_raises_comes_out_of_mount_and_format(failure: BaseException) -> None:
    rig = NorRig()
    rig.format()
    for make in (FileSystem.mount, FileSystem.format):
        flash = FailingFlash(rig.driver())
        make(OpenPartition(FS0, flash))
        calls = flash.calls
        assert calls > 3
        for number in range(calls):
            flash.fail(number, failure)
            with pytest.raises(type(failure)) as caught:
                make(OpenPartition(FS0, flash))
            assert caught.value is failure
            assert flash.calls_after_failure == 0


def test_a_flash_that_fails_in_the_mount_after_a_failure(rig: NorRig, files: FileSystem) -> None:
    files.write("a", b"1" * 1000)
    flash = FailingFlash(rig.driver())
    files = FileSystem.mount(OpenPartition(FS0, flash))
    flash.fail(0, AnythingError())
    with pytest.raises(AnythingError):
        files.read("a")
    flash.fail(10_000, AnythingError())
    assert files.read("a") == b"1" * 1000
    calls = flash.calls
    for number in range(calls):
        for at in (0, number):
            flash.fail(at, AnythingError(at))
            with pytest.raises(AnythingError, match=str(at)):
                files.read("a")
            assert flash.calls_after_failure == 0
    flash.repair()
    assert files.read("a") == b"1" * 1000


def test_a_write_protected_chip_is_an_error_and_then_usable_again(
    rig: NorRig, files: FileSystem
) -> None:
    files.write("a", b"old")
    rig.protect()
    for _ in range(2):
        with pytest.raises(FlashError, match="write-protected"):
            files.write("a", b"new" * 1000)
        assert files.read("a") == b"old"
    rig.unprotect()
    files.write("a", b"new" * 1000)
    assert rig.mount().read("a") == b"new" * 1000


def test_a_file_system_that_vanishes_while_the_flash_fails_is_an_error_each_time(
    rig: NorRig, files: FileSystem
) -> None:
    rig.protect()
    with pytest.raises(FlashError):
        files.write("a", b"1")
    rig.unprotect()
    good = rig.cells()
    rig.set_cells(0, b"\xff" * FS0.size)
    for _ in range(3):
        with refused(Reason.NOT_MOUNTED):
            files.names()
    rig.set_cells(0, good)
    assert files.names() == []


def test_littlefs_gives_its_memory_back_once_for_each_mount(
    monkeypatch: pytest.MonkeyPatch, rig: NorRig
) -> None:
    calls: list[str] = []
    gc.collect()  # those of other tests

    def counted(name: str) -> Callable[..., int]:
        call: Callable[..., int] = getattr(littlefs.lfs, name)

        def counting(*arguments: object) -> int:
            result = call(*arguments)
            calls.append(name)
            return result

        return counting

    for name in ("mount", "unmount"):
        monkeypatch.setattr(littlefs.lfs, name, counted(name))
    with refused(Reason.NOT_MOUNTED):
        rig.mount()
    assert calls == []
    files = rig.format()
    with refused(Reason.FULL):
        files.write("a", bytes(300_000))
    assert calls == ["mount", "unmount"]
    rig.protect()
    with pytest.raises(FlashError):
        files.write("a", b"1" * 1000)
    assert calls == ["mount", "unmount"] * 2
    rig.unprotect()
    assert files.names() == ["a"]
    del files
    gc.collect()
    assert calls == ["mount", "unmount"] * 3


# -- the root file system -------------------------------------------------------------------------


def test_a_board_without_one_says_how_to_get_one(rig: NorRig) -> None:
    root = RootFileSystem(rig.partition())
    assert root.mounted is None
    with pytest.raises(FileSystemError, match=r'no file system; .* FS.Mkfs \{"dev_name": "fs0", '):
        root.require()
    root.format()
    root.require().write("a", b"1")
    assert RootFileSystem(rig.partition()).require().read("a") == b"1"


def test_a_format_that_fails_leaves_none(rig: NorRig) -> None:
    rig.format().write("a", b"1")
    root = RootFileSystem(rig.partition())
    rig.protect()
    with pytest.raises(FlashError):
        root.format()
    with pytest.raises(FileSystemError, match="did not come to its end; make a new one"):
        root.require()
    rig.unprotect()
    root.format()
    assert root.require().names() == []
