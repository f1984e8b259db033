"""RPC over TCP: frames as on the serial line, without its handshake.

What is no frame is console text on a serial line and nothing here. The facts are those of
`rpc_shim.framing`; `mos --port tcp://HOST:PORT` sends no CRC.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import cast

from rpc_shim.dispatch import Channel
from rpc_shim.framing import (
    FrameReceived,
    FrameRejected,
    LineDemultiplexer,
    ReplyStyle,
    encode_frame,
)
from rpc_shim.links.mailbox import Boot, Entry
from rpc_shim.links.rest import will_be_answered
from rpc_shim.links.sockets import (
    MAX_UNSENT,
    Connections,
    PortLink,
    PortSettings,
    authority,
    peer_name,
    serve_clients,
)

_READ_SIZE = 4096


class TcpSettings(PortSettings):
    """A TCP port to be reached on."""

    def open(self) -> "TcpLink":
        """Take the port; NetworkLinkError when it is not to be had."""
        return TcpLink(self.bind("tcp", socket.SOCK_STREAM))


class TcpLink(PortLink):
    """A TCP port."""

    def urls(self, _device_id: str) -> Mapping[str, str]:
        """What `mos --port` takes."""
        return {"tcp": f"tcp://{authority(self._socket)}"}

    async def serve(self, boot: Boot) -> None:
        """Serve clients until the boot has ended."""
        connections = Connections()
        await serve_clients(
            self._socket, lambda: _TcpConnection(boot, connections), connections, boot
        )


class _TcpConnection(asyncio.BufferedProtocol):
    """One client. At most one request of it waits in the mailbox; until then no more is read."""

    _transport: asyncio.Transport

    def __init__(self, boot: Boot, connections: Connections) -> None:
        self._boot = boot
        self._connections = connections
        self._channel = Channel("TCP")
        self._buffer = bytearray(_READ_SIZE)
        self._demultiplexer = LineDemultiplexer(boot.max_frame_size)
        self._frames: deque[FrameReceived] = deque()
        self._posted: Entry | None = None
        self._owed = 0
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._channel = Channel("TCP", peer_name(transport))
        self._connections.add(self._transport)

    def get_buffer(self, _sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._receive(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool:
        # `echo FRAME | nc` closes its direction and waits for the answer; what it has sent last is
        # a frame even without a delimiter.
        self._ended = True
        self._receive(b"\n")
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._connections.remove(self._transport)
        self._frames.clear()
        if self._posted is not None:
            self._boot.withdraw(self._posted)

    def _receive(self, data: bytes) -> None:
        self._connections.used(self._transport)
        for event in self._demultiplexer.feed(data):
            if isinstance(event, FrameReceived):
                self._frames.append(event)
            elif isinstance(event, FrameRejected):
                self._boot.log(f"tcp: {event.message}")
        self._advance()

    def _advance(self) -> None:
        if self._posted is None and self._frames:
            frame = self._frames.popleft()
            answer = partial(self._answer, frame.style)
            self._posted = self._boot.post(frame.json, self._channel, answer, self._taken)
            self._owe(1 if will_be_answered(frame.json, self._boot.answers_to) else 0)
        if self._posted is not None:
            self._transport.pause_reading()
        elif self._ended and not self._owed:
            self._transport.close()
        else:
            self._transport.resume_reading()

    def _taken(self) -> None:
        self._posted = None
        if not self._transport.is_closing():
            self._advance()

    def _answer(self, style: ReplyStyle, json: bytes) -> None:
        if self._transport.is_closing():
            return
        self._owe(-1)
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            self._boot.log(f"tcp: {self._channel.info} does not read its answers: disconnected")
            self._transport.abort()
            return
        self._transport.write(encode_frame(json, style))
        self._advance()

    def _owe(self, answers: int) -> None:
        self._owed += answers
        self._connections.used(self._transport, owed=answers)
