"""Clients for every transport of a board, made for load: many at a time in one event loop.

What they send is what the tools on those transports send; `tests/host/tools.py` has the tools
themselves, one call at a time.
"""

import asyncio
import os
import socket
import struct
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
import aiomqtt

from rpc_shim.frame import (
    FrameError,
    JsonValue,
    ReplyAddress,
    Request,
    decode_json,
    encode_request,
)
from rpc_shim.framing import FrameReceived, LineDemultiplexer
from rpc_shim.links.http import WEBSOCKET_PROTOCOL
from rpc_shim.links.rest import result_of

Params = dict[str, JsonValue]

_LARGEST_ANSWER = 1024 * 1024
_READ_SIZE = 65536
_FULL_S = 0.001
_SOURCE = "load"
# Never used twice: a late answer to an earlier call must not pass for the answer to another one.
_IDS = count(1)


class LostError(Exception):
    """No answer will come: the connection has ended, or the time is over."""


class Connection(Protocol):
    """A way to the board on which frames go out and come in.

    Attributes:
        source: what requests must give as their `src`.
    """

    source: str

    async def send(self, data: bytes) -> None:
        """Send `data` as one frame, whatever is in it."""
        ...

    async def receive(self) -> bytes:
        """The JSON of the next answer; waits for it, and raises EOFError at the end."""
        ...


Connect = Callable[[str], AbstractAsyncContextManager[Connection]]


async def call(
    connection: Connection, method: str, params: Params | None = None, *, timeout_s: float
) -> JsonValue:
    """Call a method and return its result.

    Raises:
        RpcError: the board answers with an error.
        LostError: no answer within `timeout_s` real seconds.
    """
    request_id = next(_IDS)
    request = encode_request(Request(method, ReplyAddress(request_id, connection.source), params))
    with _losing(method):
        async with asyncio.timeout(timeout_s):
            await connection.send(request)
            while True:
                answer = await connection.receive()
                if _is_answer_to(request_id, answer):
                    return result_of(answer)


@asynccontextmanager
async def connected(connect: Connect, url: str) -> AsyncIterator[Connection]:
    """A connection for as long as it is needed; LostError when it cannot be made or breaks."""
    with _losing(url):
        async with connect(url) as connection:
            yield connection


@contextmanager
def _losing(what: str) -> Iterator[None]:
    try:
        yield
    except (
        TimeoutError, EOFError, OSError, aiohttp.ClientError, aiomqtt.MqttError,
    ) as error:  # fmt: skip
        raise LostError(f"{what}: {type(error).__name__} {error}".strip()) from error


def _is_answer_to(request_id: int, answer: bytes) -> bool:
    try:
        members = decode_json(answer)
    except FrameError:
        return False  # on the serial line: console text in braces
    return isinstance(members, dict) and members.get("id") == request_id and "method" not in members


# --- streams of bytes ----------------------------------------------------------------------------


class _Stream:
    """Lines of JSON. Each starts with a newline, which ends whatever others have left."""

    source = _SOURCE

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._demultiplexer = LineDemultiplexer(_LARGEST_ANSWER, frames_within_lines=False)
        self._received: list[bytes] = []

    async def send(self, data: bytes) -> None:
        await self._write(b"\n" + data + b"\n")

    async def _write(self, data: bytes) -> None:
        raise NotImplementedError

    async def receive(self) -> bytes:
        while not self._received:
            data = await self._reader.read(_READ_SIZE)
            if not data:
                raise EOFError("the connection has ended")
            self._received += [
                event.json
                for event in self._demultiplexer.feed(data)
                if isinstance(event, FrameReceived)
            ]
        return self._received.pop(0)


class _TcpStream(_Stream):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader)
        self._writer = writer

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


@asynccontextmanager
async def tcp(url: str) -> AsyncIterator[Connection]:
    """A TCP connection."""
    reader, writer = await asyncio.open_connection(*address(url))
    try:
        yield _TcpStream(reader, writer)
    finally:
        writer.close()


class _SerialStream(_Stream):
    """A serial port that is open already.

    Nothing waits while it is set up: a user who is cancelled then would leave a port behind that
    takes what is for others.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(asyncio.StreamReader())
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    async def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                await asyncio.sleep(_FULL_S)

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            self._reader.feed_data(os.read(self._descriptor, _READ_SIZE))


@asynccontextmanager
async def serial_port(path: str) -> AsyncIterator[Connection]:
    """A serial port, which the operating system lets several programs open at a time."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(descriptor, termios.TCSANOW)
    termios.tcflush(descriptor, termios.TCIFLUSH)
    stream = _SerialStream(descriptor)
    try:
        yield stream
    finally:
        stream.close()


# --- messages ------------------------------------------------------------------------------------


class _Datagrams(asyncio.DatagramProtocol):
    """A datagram a frame."""

    source = _SOURCE

    def __init__(self) -> None:
        self.transport: asyncio.DatagramTransport | None = None
        self._received: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, _addr: object) -> None:
        self._received.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        """Nobody listened; the answer will be missed."""

    async def send(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.sendto(data)

    async def receive(self) -> bytes:
        return await self._received.get()


@asynccontextmanager
async def udp(url: str) -> AsyncIterator[Connection]:
    """A UDP socket."""
    loop = asyncio.get_running_loop()
    transport, datagrams = await loop.create_datagram_endpoint(_Datagrams, remote_addr=address(url))
    datagrams.transport = transport
    try:
        yield datagrams
    finally:
        transport.close()


@dataclass
class _Http:
    """A request a frame; the answer comes with it."""

    session: aiohttp.ClientSession
    url: str
    source: str = _SOURCE
    received: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    async def send(self, data: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        async with self.session.post(self.url, data=data, headers=headers) as response:
            self.received.put_nowait(await response.read())

    async def receive(self) -> bytes:
        return await self.received.get()


@asynccontextmanager
async def http(url: str) -> AsyncIterator[Connection]:
    """A kept-alive HTTP connection."""
    async with aiohttp.ClientSession() as session:
        yield _Http(session, url)


@dataclass
class _WebSocket:
    """A text message a frame."""

    socket: aiohttp.ClientWebSocketResponse
    source: str = _SOURCE

    async def send(self, data: bytes) -> None:
        await self.socket.send_str(data.decode("latin-1"))

    async def receive(self) -> bytes:
        message = await self.socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise EOFError(f"the WebSocket has ended: {message.type.name}")
        return str(message.data).encode()


@asynccontextmanager
async def websocket(url: str) -> AsyncIterator[Connection]:
    """A WebSocket."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=[WEBSOCKET_PROTOCOL]) as opened,
    ):
        yield _WebSocket(opened)


@dataclass
class _Mqtt:
    """A message a frame, by way of a broker."""

    client: aiomqtt.Client
    topic: str
    source: str
    messages: AsyncIterator[aiomqtt.Message]

    async def send(self, data: bytes) -> None:
        await self.client.publish(self.topic, data, qos=1)

    async def receive(self) -> bytes:
        message = await anext(self.messages)
        assert isinstance(message.payload, bytes)  # noqa: S101 - what is received always is
        return message.payload


@asynccontextmanager
async def mqtt(url: str) -> AsyncIterator[Connection]:
    """A client of the broker, with an answer topic of its own."""
    host, port = address(url)
    source = f"{_SOURCE}-{next(_IDS)}"
    # Acknowledgements would wait for each other otherwise, 40 ms each time.
    at_once = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    async with aiomqtt.Client(host, port, socket_options=at_once) as client:
        await client.subscribe(f"{source}/rpc", qos=1)
        topic = f"{urlsplit(url).path.strip('/')}/rpc"
        yield _Mqtt(client, topic, source, aiter(client.messages))


TRANSPORTS: dict[str, Connect] = {
    "serial": serial_port,
    "tcp": tcp,
    "ws": websocket,
    "http": http,
    "udp": udp,
    "mqtt": mqtt,
}
"""How to connect, by the names that the ready file uses."""


# --- bytes without any protocol ------------------------------------------------------------------


async def send_and_vanish(url: str, data: bytes) -> None:
    """Connect by TCP, send `data`, and break the connection at once, unread answers and all."""
    with suppress(OSError):
        _, writer = await asyncio.open_connection(*address(url))
        writer.write(data)
        opened: socket.socket = writer.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


def address(url: str) -> tuple[str, int]:
    """Host and port in a URL that names both."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0
