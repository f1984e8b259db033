"""The FS methods through a dispatcher, on the modelled NOR flash."""

import base64
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.devices.torn import TornShape
from platforms.machine import ResetAsserted
from rpc_shim.dispatch import Dispatcher
from rpc_shim.filesystem import RootFileSystem
from rpc_shim.frame import JsonValue
from rpc_shim.services.fs import MAX_CHUNK, register_fs_service
from rpc_shim.services.rpc import register_rpc_service
from tests.filesystem.nor_rig import NorRig, contents
from tests.rpc.serving import call_dispatcher

MKFS: Mapping[str, JsonValue] = {"dev_name": "fs0", "fs_type": "LFS"}


class Board:
    """A flash, and the service of one boot."""

    def __init__(self, rig: NorRig | None = None) -> None:
        self.rig = rig or NorRig()
        self.lines: list[str] = []
        self.root = RootFileSystem(self.rig.partition())
        self.dispatcher = Dispatcher("dev", lambda _line: None)
        register_rpc_service(self.dispatcher)
        register_fs_service(self.dispatcher, self.root, self.lines.append)

    def reboot(self) -> "Board":
        return Board(self.rig)

    def call(self, method: str, params: Mapping[str, JsonValue] | None = None) -> JsonValue:
        return call_dispatcher(self.dispatcher, method, params)

    def refuses(self, method: str, params: Mapping[str, JsonValue] | None = None) -> str:
        """Code and message in one."""
        error = self.call(method, params)
        assert isinstance(error, list), error
        return f"{error[0]} {error[1]}"

    def put(self, name: str, content: bytes, chunk_size: int = 512) -> None:
        """As `mos put` does: chunks with their offset, all but the first appended."""
        for offset in range(0, len(content), chunk_size):
            chunk = content[offset : offset + chunk_size]
            assert self.put_chunk(name, offset, chunk, append=offset > 0) is None

    def put_chunk(self, name: str, offset: int, chunk: bytes, *, append: bool) -> JsonValue:
        data = base64.b64encode(chunk).decode()
        return self.call(
            "FS.Put", {"filename": name, "offset": offset, "append": append, "data": data}
        )

    def get(self, name: str, chunk_size: int = 512) -> bytes:
        """As `mos get` does."""
        content = b""
        while True:
            answer = self.call(
                "FS.Get", {"filename": name, "offset": len(content), "len": chunk_size}
            )
            assert isinstance(answer, dict), answer
            content += base64.b64decode(str(answer["data"]))
            if answer["left"] == 0:
                return content


@pytest.fixture
def board() -> Board:
    made = Board()
    made.root.format()
    return made


def test_arguments_are_the_devices(board: Board) -> None:
    def described(method: str) -> str:
        answer = board.call("RPC.Describe", {"name": method})
        assert isinstance(answer, dict)
        return str(answer["args_fmt"])

    assert described("FS.List") == described("FS.ListExt") == "{path: %Q}"
    assert described("FS.Get") == "{filename: %Q, offset: %ld, len: %ld}"
    assert described("FS.Put") == "{filename: %Q, offset: %ld, data: %V, append: %B}"
    assert described("FS.Remove") == "{filename: %Q}"
    assert described("FS.Rename") == "{src: %Q, dst: %Q}"
    assert described("FS.Mkfs") == (
        "{dev_name: %Q, dev_type: %Q, dev_opts: %Q, fs_type: %Q, fs_opts: %Q}"
    )


@given(st.binary(max_size=3000), st.sampled_from([100, 512, 2048]))
def test_what_mos_puts_it_gets_after_a_reboot(content: bytes, chunk_size: int) -> None:
    board = Board()
    board.root.format()
    board.root.require().write("f", b"before")
    board.put("f", content, chunk_size)
    if not content:
        content = b"before"  # mos sends nothing of an empty file
    assert board.reboot().get("f", chunk_size) == content


def test_list(board: Board) -> None:
    assert board.call("FS.List") == []
    board.put("b", b"12")
    board.put("/a", b"1")
    board.root.require().make_directory("d")
    board.put("d/c", b"123")
    assert board.call("FS.List", {"path": "/"}) == ["a", "b", "d"]
    assert board.call("FS.ListExt") == [
        {"name": "a", "size": 1},
        {"name": "b", "size": 2},
        {"name": "d", "size": 0},
    ]
    assert board.call("FS.ListExt", {"path": "/d"}) == [{"name": "c", "size": 3}]
    assert board.refuses("FS.List", {"path": "/none"}) == (
        '400 failed to open directory "/none": there is no such file or directory '
        "(FS.List names what there is)"
    )
    assert board.refuses("FS.ListExt", {"path": "a"}).startswith('400 failed to open directory "a"')


@pytest.mark.parametrize(
    ("params", "data", "left"),
    [
        ({}, b"0123456789", 0),
        ({"offset": 4}, b"456789", 0),
        ({"offset": 4, "len": 3}, b"456", 3),
        ({"len": -1}, b"0123456789", 0),
        ({"offset": 10}, b"", 0),
        ({"offset": 2, "len": 0}, b"", 8),
        ({"len": 2**31 - 1}, b"0123456789", 0),
    ],
)
def test_get(board: Board, params: dict[str, JsonValue], data: bytes, left: int) -> None:
    board.put("f", b"0123456789")
    answer = board.call("FS.Get", {"filename": "f"} | params)
    assert answer == {"data": base64.b64encode(data).decode(), "left": left}


def test_an_answer_of_get_is_bounded(board: Board) -> None:
    board.put("f", bytes(10_000), chunk_size=2000)
    for length in (-1, 10_000, MAX_CHUNK + 1):
        answer = board.call("FS.Get", {"filename": "f", "len": length})
        assert isinstance(answer, dict)
        assert len(base64.b64decode(str(answer["data"]))) == MAX_CHUNK
        assert answer["left"] == 10_000 - MAX_CHUNK
    assert board.get("f", 100_000) == bytes(10_000)


def test_get_refused(board: Board) -> None:
    board.put("f", b"123")
    assert board.refuses("FS.Get") == "400 filename is required"
    assert board.refuses("FS.Get", {"filename": "g"}) == (
        '400 failed to open file "g": there is no such file or directory '
        "(FS.List names what there is)"
    )
    assert board.refuses("FS.Get", {"filename": "f", "offset": -1}).startswith("400 illegal offset")
    assert board.refuses("FS.Get", {"filename": "f", "offset": 4}) == (
        '400 illegal offset "f": offset 4 is beyond the end, it has 3 bytes'
    )
    assert board.refuses("FS.Get", {"filename": "/"}).startswith('400 failed to open file "/"')


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"data": b64(b"ab")}, b"ab"),
        ({"data": b64(b"ab"), "append": False}, b"ab"),
        ({"data": b64(b"ab"), "append": True}, b"0123ab"),
        ({"data": b64(b"ab"), "append": True, "offset": -1}, b"0123ab"),
        ({"data": b64(b"ab"), "append": True, "offset": 0}, b"ab"),
        ({"data": b64(b"ab"), "append": True, "offset": 1}, b"0ab3"),
        ({"data": b64(b"ab"), "append": False, "offset": 1}, b"0ab3"),
        ({"data": b64(b"ab"), "append": True, "offset": 4}, b"0123ab"),
        ({"data": b64(b"ab"), "offset": -1}, b"ab"),
        ({"data": ""}, b""),
        ({}, b""),
    ],
)
def test_put(board: Board, params: dict[str, JsonValue], expected: bytes) -> None:
    board.put("f", b"0123")
    assert board.call("FS.Put", {"filename": "f"} | params) is None
    assert board.get("f") == expected


def test_a_chunk_sent_again_does_no_harm(board: Board) -> None:
    content = bytes(range(256)) * 10
    for offset in range(0, len(content), 512):
        for _ in range(3):
            board.put_chunk("f", offset, content[offset : offset + 512], append=offset > 0)
    assert board.get("f") == content


@pytest.mark.parametrize(
    "data", ["A", "AB=C", "AAA", "AA==A", "A A=", "AB\n==", "=", "\xe9", 5, ["A"]]
)
def test_bad_base64_is_refused(board: Board, data: JsonValue) -> None:
    board.put("f", b"old")
    ways: list[dict[str, JsonValue]] = [{}, {"append": True}, {"offset": 1}]
    for params in ways:
        error = board.refuses("FS.Put", {"filename": "f", "data": data} | params)
        assert error.startswith("400 data must be bytes in base64"), error
    assert board.get("f") == b"old"


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "\x7f", "n" * 256, "d/" + "n" * 256])
@pytest.mark.parametrize("method", ["FS.Get", "FS.Put", "FS.Remove"])
def test_names_that_cannot_be(board: Board, method: str, name: str) -> None:
    assert board.refuses(method, {"filename": name}).startswith("400 ")
    assert board.refuses("FS.Rename", {"src": name, "dst": "b"}).startswith("400 ")
    board.put("f", b"1")
    assert board.refuses("FS.Rename", {"src": "f", "dst": name}).startswith("400 ")
    assert board.call("FS.List") == ["f"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("n" * 243, "a name may have up to 255 bytes in UTF-8, and 13 less where a file is"),
        ("d/" + "\xe9" * 122, "13 less where a file is created"),
        ("f (unfinished)", 'ends in " (unfinished)" is that of an unfinished file'),
        ("d/f (unfinished)", "of an unfinished file"),
    ],
)
def test_no_file_is_created_whose_name_is_in_the_way_of_an_update(
    board: Board, name: str, problem: str
) -> None:
    files = board.root.require()
    files.make_directory("d")
    files.write("f", b"1")
    ways: list[dict[str, JsonValue]] = [{}, {"append": True}, {"offset": 1}]
    for params in ways:
        error = board.refuses("FS.Put", {"filename": name, "data": b64(b"1")} | params)
        assert error.startswith(f'400 illegal name "{name}": '), error
        assert problem in error
    assert problem in board.refuses("FS.Rename", {"src": "f", "dst": name})
    assert contents(files) == {"/d": None, "/f": b"1"}
    # What is there all the same can be dealt with as ever.
    files.write(name, b"1")
    board.put(name, b"23")
    assert board.get(name) == b"23"
    assert board.call("FS.Remove", {"filename": name}) is None


def test_the_longest_name_gets_through(board: Board) -> None:
    board.put("n" * 242, b"1")
    assert board.get("n" * 242) == b"1"


def test_put_refused(board: Board) -> None:
    board.put("f", b"123")
    assert board.refuses("FS.Put", {"data": ""}) == "400 filename is required"
    assert board.refuses("FS.Put", {"filename": "f", "offset": 4, "data": ""}) == (
        '400 illegal offset "f": offset 4 is beyond the end, it has 3 bytes'
    )
    assert board.refuses("FS.Put", {"filename": "g", "offset": 1}).startswith(
        '400 failed to open file "g": there is no such file'
    )
    assert board.refuses("FS.Put", {"filename": "none/g"}).startswith("400 failed to open file")
    assert board.call("FS.List") == ["f"]


def test_a_full_file_system_says_so_and_keeps_the_file(board: Board) -> None:
    board.put("f", b"old")
    board.put("big", bytes(200_000), chunk_size=100_000)
    ways: list[dict[str, JsonValue]] = [{}, {"append": True}, {"offset": 1}]
    for params in ways:
        error = board.refuses("FS.Put", {"filename": "f", "data": b64(bytes(100_000))} | params)
        assert error == (
            '500 failed to write data "f": the file system is full: remove files, then retry'
        )
        assert board.get("f") == b"old"
    assert board.call("FS.Remove", {"filename": "big"}) is None
    board.put("f", bytes(100_000), chunk_size=50_000)


def test_remove_and_rename(board: Board) -> None:
    board.put("a", b"1")
    board.put("b", b"2")
    assert board.call("FS.Rename", {"src": "a", "dst": "b"}) is None
    assert contents(board.root.require()) == {"/b": b"1"}
    assert board.call("FS.Remove", {"filename": "/b"}) is None
    assert board.call("FS.List") == []
    assert board.refuses("FS.Remove", {"filename": "b"}) == (
        '500 remove failed "b": there is no such file or directory (FS.List names what there is)'
    )
    assert board.refuses("FS.Rename", {"src": "b", "dst": "c"}).startswith('500 rename failed "b"')
    assert board.refuses("FS.Rename", {"src": "b"}) == "400 dst is required"
    assert board.refuses("FS.Rename", {"dst": "b"}) == "400 src is required"


def test_mkfs_of_a_board_without_a_file_system() -> None:
    board = Board()
    for method, params in (
        ("FS.List", {}),
        ("FS.ListExt", {}),
        ("FS.Get", {"filename": "f"}),
        ("FS.Put", {"filename": "f"}),
        ("FS.Remove", {"filename": "f"}),
        ("FS.Rename", {"src": "f", "dst": "g"}),
    ):
        assert board.refuses(method, params) == (
            '500 failed to mount "fs0": it holds no file system; make a new one with FS.Mkfs '
            '{"dev_name": "fs0", "fs_type": "LFS"}'
        )
    assert board.call("FS.Mkfs", MKFS) is None
    board.put("f", b"1")
    assert board.reboot().get("f") == b"1"


def test_mkfs_empties(board: Board) -> None:
    board.put("f", b"1")
    assert board.call("FS.Mkfs", MKFS) is None
    assert board.call("FS.List") == []
    assert board.reboot().call("FS.List") == []


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"fs_type": "LFS"},
        {"dev_name": "fs0"},
        {"dev_name": "app0", "fs_type": "LFS"},
        {"dev_name": "fs1", "fs_type": "LFS"},
        {"dev_name": "fs0", "fs_type": "SPIFFS"},
        {"dev_name": "fs0", "fs_type": "LFS", "dev_type": "part"},
        {"dev_name": "fs0", "fs_type": "LFS", "dev_opts": "{}"},
        {"dev_name": "fs0", "fs_type": "LFS", "fs_opts": '{"bs": 512}'},
        {"dev_type": "spi_flash", "fs_type": "LFS"},
    ],
)
def test_mkfs_of_anything_else_is_refused(board: Board, params: dict[str, JsonValue]) -> None:
    board.put("f", b"1")
    error = board.refuses("FS.Mkfs", params)
    assert error == "400 fs_type is required" or (
        error.startswith("400 only the board's own file system") and '"dev_name": "fs0"' in error
    )
    assert board.get("f") == b"1"


def test_a_broken_flash_is_an_answer_and_the_service_goes_on(board: Board) -> None:
    board.put("f", b"old")
    board.rig.protect()
    for method, params in (("FS.Put", {"filename": "f", "data": b64(b"1")}), ("FS.Mkfs", MKFS)):
        assert "write-protected" in board.refuses(method, params)
    assert "make a new one with FS.Mkfs" in board.refuses("FS.List")
    board.rig.unprotect()
    assert board.call("FS.Mkfs", MKFS) is None
    board.put("f", b"new")
    assert board.get("f") == b"new"


def test_a_power_cut_in_a_call_is_no_answer(board: Board) -> None:
    board.put("f", b"old")
    for number in range(2):
        board.rig.cut_at(number, 0.5, TornShape.RANDOM_BITS, number)
        with pytest.raises(ResetAsserted):
            board.put("f", b"new" * 100)
        board.rig.power_on()
        board = board.reboot()
        assert board.get("f") == b"old"


def test_what_was_acknowledged_survives_a_cut_in_the_next_chunk(board: Board) -> None:
    content = bytes(range(256)) * 8
    board.put("f", content[:1024])
    board.rig.cut_at(3, 0.5, TornShape.MIXED_ROWS, 1)
    with pytest.raises(ResetAsserted):
        board.put_chunk("f", 1024, content[1024:1536], append=True)
    board.rig.power_on()
    board = board.reboot()
    assert board.get("f") == content[:1024]
    board.put_chunk("f", 1024, content[1024:], append=True)
    assert board.get("f") == content


def test_the_log_names_files(board: Board) -> None:
    board.put("f", bytes(1024))
    board.get("f")
    board.call("FS.Remove", {"filename": "f"})
    assert board.lines == ["fs: receiving f", "fs: sending f", "fs: removed f"]


JSON_VALUES = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=300)


@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(
                ["FS.List", "FS.ListExt", "FS.Get", "FS.Put", "FS.Remove", "FS.Rename"]
            ),
            st.dictionaries(
                st.sampled_from(
                    ["filename", "path", "offset", "len", "data", "append", "src", "dst"]
                ),
                JSON_VALUES | st.sampled_from(["f", "/f", "g", "/", ".", "..", "d/..", "AAAA"]),
            ),
        ),
        max_size=10,
    )
)
def test_whatever_is_asked_there_is_one_answer(
    calls: list[tuple[str, dict[str, JsonValue]]],
) -> None:
    board = Board()
    board.root.format()
    board.put("f", b"1")
    for method, params in calls:
        answer = board.call(method, params)
        if isinstance(answer, list) and len(answer) == 2 and isinstance(answer[0], int):
            assert answer[0] in {400, 500}
    assert contents(board.reboot().root.require()) == contents(board.root.require())
