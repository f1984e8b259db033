"""RPC over UDP: one bare JSON a datagram each way, as `mos --port udp://HOST:PORT` has it."""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import cast

from rpc_shim.dispatch import Channel
from rpc_shim.frame import ascii_json
from rpc_shim.links.mailbox import Boot
from rpc_shim.links.sockets import PortLink, PortSettings, authority, name_of

_LARGEST_DATAGRAM = 65507
_LARGEST_BUFFERED = 4096  # datagrams that a socket could hold, and more
_MAX_WAITING = 64

Address = tuple[str, int] | tuple[str, int, int, int]


class UdpSettings(PortSettings):
    """A UDP port to be reached on."""

    def open(self) -> "UdpLink":
        """Take the port; NetworkLinkError when it is not to be had."""
        return UdpLink(self.bind("udp", socket.SOCK_DGRAM))


class UdpLink(PortLink):
    """A UDP port."""

    def urls(self, _device_id: str) -> Mapping[str, str]:
        """What `mos --port` takes."""
        return {"udp": f"udp://{authority(self._socket)}"}

    async def serve(self, boot: Boot) -> None:
        """Serve datagrams until the boot has ended."""
        self._lose_what_came_before()
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _UdpEndpoint(boot), sock=self._socket.dup()
        )
        try:
            await boot.until_ended()
        finally:
            transport.abort()

    def _lose_what_came_before(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(_LARGEST_BUFFERED):
                self._socket.recv(1)


class _UdpEndpoint(asyncio.DatagramProtocol):
    """The port during one boot."""

    _transport: asyncio.DatagramTransport

    def __init__(self, boot: Boot) -> None:
        self._boot = boot
        self._waiting = 0
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        sender = name_of(addr[0], addr[1])
        if len(data) > self._boot.max_frame_size:
            self._boot.log(
                f"udp: {len(data)} bytes from {sender} dropped: a frame has up to "
                f"{self._boot.max_frame_size}"
            )
        elif self._waiting >= _MAX_WAITING:
            self._boot.log(f"udp: datagram from {sender} dropped: {_MAX_WAITING} are waiting")
        else:
            self._waiting += 1
            self._boot.post(
                ascii_json(data), Channel("UDP", sender), partial(self._answer, addr), self._taken
            )

    def error_received(self, exc: Exception) -> None:
        """An earlier datagram did not arrive; that may happen to any."""

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False

    def _taken(self) -> None:
        self._waiting -= 1

    def _answer(self, addr: Address, json: bytes) -> None:
        if len(json) > _LARGEST_DATAGRAM:
            self._boot.log(
                f"udp: answer of {len(json)} bytes dropped: a datagram has up to "
                f"{_LARGEST_DATAGRAM}; use another transport"
            )
        elif self._is_full:
            self._boot.log("udp: answer dropped: the network does not take the earlier ones")
        else:
            self._transport.sendto(json, addr)
