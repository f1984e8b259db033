"""Clients of a fake board, and what they say."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable

from tests.links.fake_board import WAIT_S, FakeBoard, frame

HANDSHAKE = (
    b"GET /rpc HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
"""What makes a WebSocket of a connection."""


def connect(board: FakeBoard, transport: str = "tcp") -> socket.socket:
    return socket.create_connection(board.address(transport), WAIT_S)


def reset_on_close(client: socket.socket) -> None:
    """Let the closing of `client` break its connection instead of ending it."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def send_forever(client: socket.socket, data: bytes) -> None:
    """Send until it fails; 64 MB are more than all buffers on the way can hold."""
    for _ in range(64 * 1024 * 1024 // len(data)):
        client.sendall(data)


def call(client: socket.socket, method: str = "Echo", request_id: int = 1) -> dict[str, object]:
    """A call over TCP."""
    client.sendall(b'"""' + frame(method, request_id) + b'"""')
    return answer(client)


def answer(client: socket.socket) -> dict[str, object]:
    """The answer to a call over TCP."""
    line = b""
    while line.count(b'"""') < 2:
        received = client.recv(65536)
        assert received, f"connection closed after {line!r}"
        line += received
    decoded: dict[str, object] = json.loads(line.split(b'"""')[1])
    return decoded


def message(text: bytes) -> bytes:
    """A frame as a WebSocket message of a client, with a mask that changes nothing."""
    return b"\x81" + bytes([0x80 | len(text)]) + b"\0\0\0\0" + text


def talk(conversation: Callable[[], Awaitable[None]]) -> None:
    """Hold a conversation to its end, which is sure to come."""

    async def with_deadline() -> None:
        async with asyncio.timeout(WAIT_S):
            await conversation()

    asyncio.run(with_deadline())
