"""Updates from servers that this test speaks for, byte by byte."""

import re
import threading
from collections.abc import Callable, Iterator
from socket import socket
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest

from otasim import Board
from otasim.bundle_server import bundle_of
from rpc_shim.client import RpcClientError, RpcTimeoutError

PATIENCE_S = 60
BUNDLE = bundle_of("sample-2.0", padded_to=0x8000)


class Server(ThreadingTCPServer):
    """Lets `talk` answer each request."""

    daemon_threads = True
    talk: Callable[[socket], None] = socket.close

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/fw.zip"


class Handler(BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Server)
        self.request.recv(4096)
        self.server.talk(self.request)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def board(engine: str) -> Iterator[Board]:
    with Board(engine=engine) as made:
        made.run(0.5)
        yield made


def answer(content: bytes, announced: int) -> Callable[[socket], None]:
    def talk(connection: socket) -> None:
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {announced}\r\n\r\n"
        connection.sendall(head.encode() + content)

    return talk


def test_progress_is_shown_on_the_console(board: Board, server: Server) -> None:
    server.talk = answer(BUNDLE, len(BUNDLE))
    board.call("OTA.Update", {"url": server.url})
    lines = re.findall(
        r"^ota: (\d+) % \(([\d,]+) of ([\d,]+) bytes\)$", board.console, re.MULTILINE
    )
    percents = [int(percent) for percent, _, _ in lines]
    assert len(percents) >= 5
    assert percents == sorted(set(percents))
    assert {total for _, _, total in lines} == {f"{len(BUNDLE):,}"}


@pytest.mark.parametrize(
    "stop",
    [Board.reset, Board.cut_power, Board.close, lambda board: board.call("OTA.Abort")],
    ids=["reset", "power cut", "close", "abort"],
)
def test_what_ends_the_application_ends_its_download(
    stop: Callable[[Board], None], board: Board, server: Server
) -> None:
    ended = threading.Event()

    def stall(connection: socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5000\r\n\r\n" + BUNDLE[:1000])
        connection.settimeout(PATIENCE_S)
        if connection.recv(1) == b"":
            ended.set()

    server.talk = stall
    with pytest.raises(RpcTimeoutError):
        board.call("OTA.Update", {"url": server.url}, timeout_s=0.5)
    assert not ended.is_set()
    stop(board)
    if stop is Board.reset:
        board.run(0.1)
    assert ended.wait(PATIENCE_S)


def test_a_download_that_is_shorter_than_announced_is_an_error(
    board: Board, server: Server
) -> None:
    before = board.boot_state
    server.talk = answer(BUNDLE[:-4000], len(BUNDLE))
    with pytest.raises(RpcClientError, match=r"4000 bytes are missing"):
        board.call("OTA.Update", {"url": server.url})
    assert board.boot_state == before


def test_a_wrong_length_behind_whole_files_is_nothing_a_device_learns_of(
    board: Board, server: Server
) -> None:
    server.talk = answer(BUNDLE, len(BUNDLE) + 1000)
    board.call("OTA.Update", {"url": server.url})
    board.run_until(lambda: board.version == "2.0")


def test_a_reboot_that_is_asked_for_later_does_not_put_off_the_updates(
    board: Board, server: Server
) -> None:
    server.talk = answer(BUNDLE, len(BUNDLE))
    board.call("OTA.Update", {"url": server.url})
    board.call("Sys.Reboot", {"delay_ms": 1_000_000})
    board.run(5)
    assert board.version == "2.0"


def test_a_reboot_that_is_asked_for_earlier_counts(board: Board) -> None:
    board.call("Sys.Reboot", {"delay_ms": 1_000_000})
    board.call("Sys.Reboot", {"delay_ms": 50})
    board.run(1)
    assert len(board.trace.of_kind("reset")) == 2
