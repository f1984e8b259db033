"""Updates from servers that this test speaks for, byte by byte."""

import re
import threading
from collections.abc import Callable, Iterator
from socket import socket

import pytest

from otasim import Board
from otasim.bundle_server import bundle_of
from rpc_shim.client import RpcClientError, RpcTimeoutError
from tests.ota.talking_server import Talk, TalkingServer, answer, talking_server

PATIENCE_S = 60
BUNDLE = bundle_of("sample-2.0", padded_to=0x8000)


@pytest.fixture
def server() -> Iterator[TalkingServer]:
    with talking_server() as made:
        yield made


def bundle_announced_as(size: int, content: bytes = BUNDLE) -> Talk:
    return answer(content, headers=f"Content-Length: {size}\r\n")


def test_progress_is_shown_on_the_console(board: Board, server: TalkingServer) -> None:
    server.talk = bundle_announced_as(len(BUNDLE))
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
    stop: Callable[[Board], None], board: Board, server: TalkingServer
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
    board: Board, server: TalkingServer
) -> None:
    before = board.boot_state
    server.talk = bundle_announced_as(len(BUNDLE), BUNDLE[:-4000])
    with pytest.raises(RpcClientError, match=r"4000 bytes are missing"):
        board.call("OTA.Update", {"url": server.url})
    assert board.boot_state == before


def test_a_wrong_length_behind_whole_files_is_nothing_a_device_learns_of(
    board: Board, server: TalkingServer
) -> None:
    server.talk = bundle_announced_as(len(BUNDLE) + 1000)
    board.call("OTA.Update", {"url": server.url})
    board.run_until(lambda: board.version == "2.0")


def test_a_reboot_that_is_asked_for_later_does_not_put_off_the_updates(
    board: Board, server: TalkingServer
) -> None:
    server.talk = bundle_announced_as(len(BUNDLE))
    board.call("OTA.Update", {"url": server.url})
    board.call("Sys.Reboot", {"delay_ms": 1_000_000})
    board.run(5)
    assert board.version == "2.0"


def test_a_reboot_that_is_asked_for_earlier_counts(board: Board) -> None:
    board.call("Sys.Reboot", {"delay_ms": 1_000_000})
    board.call("Sys.Reboot", {"delay_ms": 50})
    board.run(1)
    assert len(board.trace.of_kind("reset")) == 2
