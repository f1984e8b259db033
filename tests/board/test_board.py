"""The whole board through its Python interface: real firmware, real downloads, virtual time."""

import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread

import pytest

from otasim import Board, OtasimError, TornShape
from otasim.bundle_server import BundleServer, bundle_of
from otasim.settings import DeviceSettings
from otasim.stories import STORIES, Story, play
from platforms.storage import StateDirectoryError
from rpc_shim.client import RpcClientError, RpcTimeoutError

NewBoard = Callable[..., Board]


@pytest.fixture
def new_board(engine: str) -> NewBoard:
    """Makes boards on each engine in turn."""
    return partial(Board, engine=engine)


def boot_state(board: Board) -> tuple[object, object, object]:
    state = board.call("OTA.GetBootState")
    assert isinstance(state, dict)
    return state["active_slot"], state["is_committed"], state["revert_slot"]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_each_story_ends_as_told(new_board: NewBoard, story: Story, server: BundleServer) -> None:
    with new_board() as board:
        outcome = play(story, board, server.publish_sample)
        assert outcome.ok, f"{outcome.problem}\n{board.console}"


def test_a_run_is_repeatable_to_the_byte(new_board: NewBoard, server: BundleServer) -> None:
    url = server.publish_sample("hang-2.1")

    def history() -> tuple[str, bytes, list[object]]:
        with new_board() as board:
            board.run(0.5)
            board.call("OTA.Update", {"url": url, "commit_timeout": 60})
            board.run(20)
            return (
                board.console,
                bytes(board.machine.models.nor.memory.storage),
                list(board.trace.events),
            )

    assert history() == history()


@pytest.mark.parametrize(
    ("image", "last_words"),
    [
        ("hang-2.1", "hanging"),
        ("hardfault-2.2", "hard fault at PC"),
        ("no-main-loop-2.3", "initialising"),
        ("no-feed-2.4", "not feeding the watchdog"),
    ],
)
def test_every_bad_update_is_rolled_back(
    image: str, last_words: str, server: BundleServer, board: Board
) -> None:
    board.call("OTA.Update", {"url": server.publish_sample(image), "commit_timeout": 600})
    board.run(30)
    assert last_words in board.console
    assert board.version == "1.0"
    assert "reset cause watchdog" in board.console
    assert "no commit before this reset: rolling back to slot" in board.console
    assert boot_state(board)[:2] == (0, True)


def test_firmware_that_hangs_answers_no_call(new_board: NewBoard) -> None:
    with new_board("hang-2.1") as board:
        board.run(4)
        with pytest.raises(RpcTimeoutError):
            board.call("RPC.Ping", timeout_s=3)
        # After the watchdog's bite it is back.
        board.run(8)
        assert board.call("RPC.Ping") == {"channel_info": "UART2"}


def test_the_commit_timeout_may_be_a_number_or_a_string(server: BundleServer, board: Board) -> None:
    url = server.publish_sample("sample-2.0")
    board.call("OTA.Update", {"url": url, "commit_timeout": "5"})
    board.run(3)
    assert (board.version, boot_state(board)[1]) == ("2.0", False)
    board.run(6)
    assert (board.version, boot_state(board)[1]) == ("1.0", True)


def test_an_update_without_timeout_commits_itself(server: BundleServer, board: Board) -> None:
    board.call("OTA.Update", {"url": server.publish_sample("sample-3.0")})
    board.run(3)
    assert (board.version, boot_state(board)) == ("3.0", (0, True, -1))


def test_a_power_cut_at_any_moment_of_an_update_bricks_nothing(
    new_board: NewBoard, server: BundleServer
) -> None:
    url = server.publish_sample("sample-2.0")
    for tenths in range(12):
        with new_board() as board:
            board.run(0.5)
            cut_ns = board.machine.clock.now_ns + 20_000_000 + tenths * 83_333_333
            board.machine.clock.call_at(
                cut_ns,
                lambda board=board, tenths=tenths: board.cut_power(  # type: ignore[misc]
                    list(TornShape)[tenths % len(TornShape)], seed=tenths
                ),
            )
            with suppress(RpcTimeoutError):
                board.call("OTA.Update", {"url": url, "commit_timeout": 60}, timeout_s=1)
            board.run(2)
            board.power_on()
            board.run(5)
            assert board.version in ("1.0", "2.0"), board.console
            assert board.call("RPC.Ping")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "incomplete"),
        (b"no zip at all, but long enough for a header", "archive"),
        (bundle_of("sample-2.0")[:1000], "incomplete"),
        (bundle_of("sample-2.0").replace(b"sample 2.0", b"sample 2.0"[::-1]), ""),
    ],
    ids=["empty", "text", "cut off", "sound"],
)
def test_a_bad_bundle_leaves_the_boot_state_alone(
    content: bytes, words: str, server: BundleServer, board: Board
) -> None:
    before = board.boot_state
    url = server.publish("bad.zip", content)
    if not words:
        board.call("OTA.Update", {"url": url})
        return
    with pytest.raises(RpcClientError, match=words):
        board.call("OTA.Update", {"url": url})
    board.run(1)
    assert board.boot_state == before
    assert "update failed" in board.console
    # And a good one is taken afterwards.
    board.call("OTA.Update", {"url": server.publish_sample("sample-2.0")})


def test_a_flipped_bit_in_the_image_is_refused(server: BundleServer, board: Board) -> None:
    before = board.boot_state
    content = bytearray(bundle_of("sample-2.0"))
    content[1500] ^= 0x10
    with pytest.raises(RpcClientError, match="CRC"):
        board.call("OTA.Update", {"url": server.publish("flipped.zip", bytes(content))})
    assert board.boot_state == before


def test_a_compressed_bundle_is_refused(server: BundleServer, board: Board) -> None:
    packed = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(bundle_of("sample-2.0"))) as stored,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))
    with pytest.raises(RpcClientError, match="compressed"):
        board.call("OTA.Update", {"url": server.publish("packed.zip", packed.getvalue())})


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://127.0.0.1/fw.zip", "expected a URL"),
        ("nonsense", "expected a URL"),
        ("http://127.0.0.1:1/fw.zip", "refused"),
    ],
)
def test_a_bad_url_is_an_error_that_says_why(url: str, words: str, board: Board) -> None:
    with pytest.raises(RpcClientError, match=words) as caught:
        board.call("OTA.Update", {"url": url})
    assert caught.value.code == -1


def test_a_missing_file_names_the_status(server: BundleServer, board: Board) -> None:
    url = server.publish("there.zip", b"") + ".not"
    with pytest.raises(RpcClientError, match="404"):
        board.call("OTA.Update", {"url": url})


def test_a_second_update_is_refused_and_an_uncommitted_one_too(
    server: BundleServer, board: Board
) -> None:
    url = server.publish_sample("sample-2.0")
    board.call("OTA.Update", {"url": url, "commit_timeout": 60})
    board.run(3)
    with pytest.raises(RpcClientError, match=r"not been committed yet.*OTA\.Commit"):
        board.call("OTA.Update", {"url": url})
    board.call("OTA.Revert")
    board.run(3)
    assert (board.version, boot_state(board)[1]) == ("1.0", True)
    with pytest.raises(RpcClientError, match="nothing to revert"):
        board.call("OTA.Revert")
    with pytest.raises(RpcClientError, match="committed already"):
        board.call("OTA.Commit")


class _Stalling(BaseRequestHandler):
    """Announces a file, sends the first bytes, and then says nothing."""

    over = Event()

    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nPK\x03\x04")
        self.over.wait(30)


def test_a_server_that_stalls_stops_nothing_and_times_out(new_board: NewBoard) -> None:
    class Server(ThreadingTCPServer):
        daemon_threads = True

    _Stalling.over.clear()
    with Server(("127.0.0.1", 0), _Stalling) as stalling:
        Thread(target=stalling.serve_forever, daemon=True).start()
        with new_board(settings=DeviceSettings(update_timeout_s=2)) as board:
            board.run(0.5)
            url = f"http://127.0.0.1:{stalling.server_address[1]}/fw.zip"
            with pytest.raises(RpcTimeoutError):
                board.call("OTA.Update", {"url": url}, timeout_s=0.5)
            board.type("uptime\n")
            assert boot_state(board)[1] is True
            with pytest.raises(RpcClientError, match="already in progress"):
                board.call("OTA.Update", {"url": url})
            board.run(2)
            assert "up " in board.console
            assert "timed out" in board.console
            assert board.version == "1.0"
        _Stalling.over.set()
        stalling.shutdown()


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"active_slot": 9}, "does not exist"),
        ({"active_slot": 1}, "cannot be booted"),
        ({"revert_slot": 2}, "cannot be booted"),
        ({"is_committed": False}, "way back"),
        ({"active_slot": "one"}, "active_slot must be"),
        ({}, "nothing to set"),
    ],
)
def test_a_boot_state_that_would_not_boot_is_refused(
    params: dict[str, int | str | bool], words: str, board: Board
) -> None:
    before = board.boot_state
    with pytest.raises(RpcClientError, match=words):
        board.call("OTA.SetBootState", params)
    assert board.boot_state == before


def test_a_boot_state_that_boots_is_set(board: Board) -> None:
    snapshot = board.call("OTA.CreateSnapshot")
    assert snapshot == {"slot": 1}
    board.call("OTA.SetBootState", {"revert_slot": 1, "is_committed": False})
    assert boot_state(board) == (0, False, 1)


def test_the_console_echoes_and_answers(board: Board) -> None:
    board.type("version\n")
    board.run(0.2)
    assert "version\nsample 1.0 (build" in board.console


def test_ram_does_not_survive_a_power_cut_and_survives_a_reset(board: Board) -> None:
    address, mark = 0x2001_0000, b"remember me"
    board.machine.engine.write_memory(address, mark)
    board.reset()
    board.run(0.5)
    assert board.machine.engine.read_memory(address, len(mark)) == mark
    board.power_cycle()
    board.run(0.5)
    assert board.machine.engine.read_memory(address, len(mark)) != mark
    assert "ready" in board.console


@pytest.mark.parametrize("strict", [False, True], ids=["better", "as the original"])
def test_a_bad_image_is_an_endless_loop_only_when_asked_for(
    new_board: NewBoard, strict: bool
) -> None:
    with new_board(
        factory_image="sample-1.0", settings=DeviceSettings(strict_original=strict)
    ) as board:
        board.run(0.5)
        board.cut_power()
        board.machine.models.internal_flash.memory.storage[0x10400] ^= 1
        board.power_on()
        board.run(25)
        assert board.running is not strict
        causes = [event.details["cause"] for event in board.trace.of_kind("reset")]
        assert ("watchdog" in causes) is strict
        if not strict:
            assert "falling back to the factory image in slot 3" in board.console


def test_the_service_can_be_polled_for_firmware_that_feeds_no_watchdog(new_board: NewBoard) -> None:
    with new_board("no-main-loop-2.3", settings=DeviceSettings(service_poll_ms=20)) as board:
        board.run(1)
        assert board.call("RPC.Ping") == {"channel_info": "UART2"}


def test_state_survives_in_its_directory(
    new_board: NewBoard, tmp_path: Path, server: BundleServer
) -> None:
    with new_board(state_directory=tmp_path / "board") as board:
        board.run(0.5)
        board.call("OTA.Update", {"url": server.publish_sample("sample-2.0")})
        board.run(2)
        with pytest.raises(StateDirectoryError, match="another otasim"):
            new_board(state_directory=tmp_path / "board")
    with new_board(state_directory=tmp_path / "board") as board:
        board.run(1)
        assert board.version == "2.0"


def test_a_state_directory_of_something_else_is_refused(
    new_board: NewBoard, tmp_path: Path
) -> None:
    (tmp_path / "nor.bin").write_bytes(b"short")
    with pytest.raises(StateDirectoryError, match="other files of a board"):
        new_board(state_directory=tmp_path)


@pytest.mark.parametrize("image", ["/nowhere/fw.hex", "no-such-sample"])
def test_an_image_that_is_not_there_is_an_error(new_board: NewBoard, image: str) -> None:
    with pytest.raises(OtasimError, match=r"nowhere|no-such-sample"):
        new_board(image)


def test_the_readmes_own_loader_example_works(new_board: NewBoard) -> None:
    with new_board(loader="tests.board.own_loader:FirstSlotLoader") as board:
        board.run(1)
        assert "ready" in board.console


def test_three_hundred_idle_seconds_are_quick() -> None:
    # No limit in seconds: it must be far quicker than real time, whatever the machine.
    with Board() as board:
        started = time.perf_counter()
        board.run(300)
        assert time.perf_counter() - started < 100
