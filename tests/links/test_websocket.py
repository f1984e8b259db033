import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from rpc_shim.links.http import WEBSOCKET_PROTOCOL, HttpSettings
from rpc_shim.links.sockets import MAX_UNSENT
from tests.links.clients import HANDSHAKE, connect, message, send_forever, talk
from tests.links.fake_board import MAX_FRAME_SIZE, FakeBoard, frame, running, wait_until
from tests.rpc.mos import needs_mos, run_mos

Socket = aiohttp.ClientWebSocketResponse


@pytest.fixture
def board() -> Iterator[FakeBoard]:
    with running(HttpSettings()) as board:
        yield board


@contextlib.asynccontextmanager
async def connected(board: FakeBoard, *protocols: str, **headers: str) -> AsyncIterator[Socket]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            board.url("ws"), protocols=protocols, headers=headers, autoping=False, max_msg_size=0
        ) as websocket,
    ):
        yield websocket


def test_one_text_message_a_frame_both_ways(board: FakeBoard) -> None:
    async def conversation() -> None:
        async with connected(board) as websocket:
            assert websocket.protocol is None
            for number in range(50):
                await websocket.send_str(frame("Echo", number, params={"a": "\u00e4"}).decode())
            await websocket.send_str('{"id":50,"method":"Echo","params":{"a":"\u00e4"}}')
            for number in range(51):
                answer = json.loads(await websocket.receive_str())
                assert (answer["id"], answer["result"]) == (number, {"a": "\u00e4"})

    talk(conversation)


@pytest.mark.parametrize(
    ("offered", "accepted"),
    [
        ((WEBSOCKET_PROTOCOL,), WEBSOCKET_PROTOCOL),
        (("other", WEBSOCKET_PROTOCOL), WEBSOCKET_PROTOCOL),
        (("other",), None),
    ],
)
def test_the_protocol_is_accepted_when_it_is_offered(
    board: FakeBoard,
    offered: tuple[str, ...],
    accepted: str | None,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As without pytest, which gives every logger a handler.
    monkeypatch.setattr(logging.getLogger("aiohttp.websocket"), "propagate", False)

    async def conversation() -> None:
        async with connected(board, *offered) as websocket:
            assert websocket.protocol == accepted
            await websocket.send_str(frame("Echo").decode())
            assert json.loads(await websocket.receive_str())["id"] == 1

    talk(conversation)
    assert capfd.readouterr().err == ""


def test_the_channel(board: FakeBoard) -> None:
    async def conversation() -> None:
        async with connected(board, Authorization="Digest whatever") as websocket:
            await websocket.send_str(frame("RPC.Ping").decode())
            info = json.loads(await websocket.receive_str())["result"]["channel_info"]
            assert info.startswith("127.0.0.1:")

    talk(conversation)
    assert board.device is not None
    (channel,) = board.device.channels
    assert channel.kind == "WS_in"
    assert channel.authorization is None, "nobody is logged in for as long as a socket lives"


@pytest.mark.parametrize("text", ["", "{", "[1]", '"' * 100, "\u00e4", '{"id":1}', "[" * 4000])
def test_what_is_no_request(board: FakeBoard, text: str) -> None:
    async def conversation() -> None:
        async with connected(board) as websocket:
            await websocket.send_str(text)
            await websocket.send_str(frame("Echo", 7).decode())
            while json.loads(await websocket.receive_str())["id"] != 7:
                pass

    talk(conversation)


async def closing_code(websocket: Socket) -> int | None:
    assert (await websocket.receive()).type is aiohttp.WSMsgType.CLOSE
    return websocket.close_code


def test_messages_that_end_the_connection(board: FakeBoard) -> None:
    async def conversation() -> None:
        longest = '{"id":1,"method":"Echo","params":{"x":"%s"}}'
        longest %= "y" * (MAX_FRAME_SIZE - len(longest) + 2)
        assert len(longest) == MAX_FRAME_SIZE
        async with connected(board) as websocket:
            await websocket.send_str(longest)
            assert json.loads(await websocket.receive_str())["id"] == 1
            await websocket.send_str(longest + " ")
            assert await closing_code(websocket) == 1009
        async with connected(board) as websocket:
            await websocket.send_bytes(frame("Echo"))
            assert await closing_code(websocket) == 1003
        async with connected(board) as websocket:
            await websocket.send_frame(b"\xff\xfe", aiohttp.WSMsgType.TEXT)
            assert await closing_code(websocket) == 1007

    talk(conversation)


def test_a_ping_is_answered_in_a_turn(board: FakeBoard) -> None:
    async def conversation() -> None:
        async with connected(board) as websocket:
            board.hang()
            await websocket.ping(b"hello")
            with pytest.raises(TimeoutError):  # an answer would come at once
                await websocket.receive(0.2)
            board.go_on()
            pong = await websocket.receive()
            assert (pong.type, pong.data) == (aiohttp.WSMsgType.PONG, b"hello")

    talk(conversation)


def test_an_answer_for_a_client_that_has_gone(board: FakeBoard) -> None:
    async def conversation() -> None:
        async with connected(board) as websocket:
            await websocket.send_str(frame("Later").decode())
            board.wait_for_call()
        board.answer_all()
        async with connected(board) as websocket:
            await websocket.send_str(frame("Echo").decode())
            assert json.loads(await websocket.receive_str())["id"] == 1

    talk(conversation)


def test_a_client_that_does_not_read_is_disconnected(board: FakeBoard) -> None:
    with connect(board, "http") as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(HANDSHAKE)
        assert client.recv(3) == b"HTT"
        with pytest.raises(ConnectionError):
            send_forever(client, message(frame("Big", params={"size": MAX_UNSENT})))
    wait_until(lambda: board.logged("does not read its answers: disconnected"), "the log line")


def test_a_reset_breaks_connections(board: FakeBoard) -> None:
    async def conversation() -> None:
        async with connected(board) as websocket:
            await websocket.send_str(frame("Later").decode())
            board.wait_for_call()
            board.reset()
            ended = await websocket.receive()
            assert ended.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}

    talk(conversation)


def test_an_answer_given_right_before_a_reset_arrives(board: FakeBoard) -> None:
    async def conversation() -> None:
        async with connected(board) as websocket:
            await websocket.send_str(frame("Later").decode())
            board.wait_for_call()
            board.answer_and_reset()
            assert json.loads(await websocket.receive_str())["result"] == "at last"
        board.start()

    for _ in range(10):
        talk(conversation)


def test_a_hundred_clients_at_once(board: FakeBoard) -> None:
    async def one(number: int) -> None:
        async with connected(board) as websocket:
            for each in range(5):
                await websocket.send_str(frame("Echo", 10 * number + each).decode())
                answer = json.loads(await websocket.receive_str())
                assert answer["id"] == 10 * number + each

    async def conversation() -> None:
        await asyncio.gather(*(one(number) for number in range(100)))

    talk(conversation)


@needs_mos
def test_mos(board: FakeBoard, tmp_path: Path) -> None:
    done = run_mos(tmp_path, board.url("ws"), "call", "Echo", '{"a": 1}')
    assert json.loads(done.stdout) == {"a": 1}, done.stderr
