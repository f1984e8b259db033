"""Ports to listen on, and the connections that clients have made to them."""

import asyncio
import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from platforms.errors import OtasimError
from rpc_shim.links.mailbox import Boot

DEFAULT_HOST = "127.0.0.1"
"""Nobody but programs on this machine can reach a board unless told otherwise."""

MAX_CONNECTIONS = 128
"""Clients connected to one port at a time."""

MAX_UNSENT = 256 * 1024
"""Bytes of answers that wait for a client to read them; one that lets more gather is dropped."""

LARGEST_PORT = 65535

_PAUSE_S = 0.5

_ADVICE = {
    errno.EADDRINUSE: "end the program that has it, or choose another port (0 takes a free one)",
    errno.EACCES: "ports below 1024 are not for everybody: choose a higher one",
    errno.EADDRNOTAVAIL: f"choose an address of this machine, such as {DEFAULT_HOST}",
}


class NetworkLinkError(OtasimError):
    """A network link cannot be set up.

    Attributes:
        transport: which one: `tcp`, `http`, `udp` or `mqtt`.
        host: as it was given.
        port: as it was given.
    """

    def __init__(self, message: str, transport: str, host: str, port: int) -> None:
        super().__init__(message)
        self.transport = transport
        self.host = host
        self.port = port


@dataclass(frozen=True, slots=True)
class PortSettings:
    """A port to be reached on.

    Attributes:
        port: its number; 0 takes a free one.
        host: name or address of the interface to listen on.
    """

    port: int = 0
    host: str = DEFAULT_HOST

    def bind(self, transport: str, kind: socket.SocketKind) -> socket.socket:
        """A socket that has the port and never blocks; a stream socket listens already.

        Args:
            transport: what for, as errors name it.
            kind: stream or datagram.

        Raises:
            NetworkLinkError: saying why not, and what to do.
        """
        if not 0 <= self.port <= LARGEST_PORT:
            raise self._error(transport, f"a port is 0 to {LARGEST_PORT}", "0 takes a free one")
        try:
            found = socket.getaddrinfo(self.host, self.port, type=kind, flags=socket.AI_PASSIVE)
        except (socket.gaierror, UnicodeError) as error:
            reason = error.strerror if isinstance(error, socket.gaierror) else str(error)
            advice = f"choose an address of this machine, such as {DEFAULT_HOST}"
            raise self._error(transport, str(reason), advice) from error
        family, _, _, _, address = found[0]
        bound = socket.socket(family, kind)
        try:
            if kind is socket.SOCK_STREAM:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            if kind is socket.SOCK_STREAM:
                bound.listen(MAX_CONNECTIONS)
            bound.setblocking(False)
        except OSError as error:
            bound.close()
            code = error.errno or 0
            advice = _ADVICE.get(code, "choose another")
            raise self._error(transport, os.strerror(code), advice) from error
        return bound

    def _error(self, transport: str, reason: str, advice: str) -> NetworkLinkError:
        return NetworkLinkError(
            f"{transport}: cannot listen on {self.host} port {self.port}: {reason}; {advice}",
            transport,
            self.host,
            self.port,
        )


class PortLink:
    """A port of this machine; a link is one that also serves it.

    Args:
        bound: the socket that has the port.
    """

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


def authority(bound: socket.socket) -> str:
    """Host and port of a socket as URLs of clients on this machine have them."""
    host, port = bound.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        address = ipaddress.ip_address("::1" if address.version == 6 else DEFAULT_HOST)
    return name_of(str(address), port)


def peer_name(transport: asyncio.BaseTransport) -> str:
    """Who is at the other end, as `RPC.Ping` tells it."""
    peer = transport.get_extra_info("peername")
    return name_of(peer[0], peer[1]) if isinstance(peer, tuple) else ""


def name_of(host: str, port: int) -> str:
    """Address and port in one word, as URLs have them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Connections:
    """The clients connected to a port. There is always room for a new one.

    When there are too many the one that has been idle longest goes, first among those that wait for
    no answer: so clients that connect and then say nothing cannot lock others out.
    """

    def __init__(self, limit: int = MAX_CONNECTIONS) -> None:
        self._limit = limit
        self._answers_owed: dict[asyncio.Transport, int] = {}  # longest idle first
        self._closed = False

    def __len__(self) -> int:
        return len(self._answers_owed)

    def add(self, transport: asyncio.Transport) -> None:
        """A client has connected."""
        if self._closed:
            transport.abort()
            return
        if len(self._answers_owed) >= self._limit:
            idle = (each for each, owed in self._answers_owed.items() if not owed)
            victim = next(idle, next(iter(self._answers_owed)))
            self.remove(victim)
            victim.abort()
        self._answers_owed[transport] = 0

    def used(self, transport: asyncio.Transport, *, owed: int = 0) -> None:
        """Something has happened on a connection.

        Args:
            transport: which one.
            owed: +1 when an answer is due from now on, -1 when it has been given.
        """
        if transport in self._answers_owed:
            self._answers_owed[transport] = self._answers_owed.pop(transport) + owed

    @contextmanager
    def owing(self, transport: asyncio.Transport) -> Iterator[None]:
        """An answer is due as long as this lasts."""
        self.used(transport, owed=1)
        try:
            yield
        finally:
            self.used(transport, owed=-1)

    def remove(self, transport: asyncio.Transport) -> None:
        """A connection has ended."""
        self._answers_owed.pop(transport, None)

    def close(self) -> None:
        """Break all connections, and those that are still being made."""
        self._closed = True
        for transport in list(self._answers_owed):
            transport.abort()


async def serve_clients(
    bound: socket.socket,
    make_protocol: Callable[[], asyncio.BaseProtocol],
    connections: Connections,
    boot: Boot,
) -> None:
    """Let clients connect until the boot has ended, then break their connections.

    `asyncio.Server` is not for that: a client that connects while it closes is left hanging.

    Args:
        bound: the socket that listens.
        make_protocol: serves one client, which it adds to `connections`.
        connections: all clients.
        boot: whom they want to reach.
    """
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[None]] = set()

    def accept() -> None:
        if boot.is_over:
            loop.remove_reader(listening)  # whoever comes now waits for the next boot
            return
        try:
            client, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            # Most likely there are no file descriptors left; the client can wait.
            boot.log(f"network: a client cannot connect yet: {error.strerror}")
            loop.remove_reader(listening)
            loop.call_later(_PAUSE_S, listen)
            return
        client.setblocking(False)
        task = loop.create_task(_connect(make_protocol, client))
        connecting.add(task)
        task.add_done_callback(connecting.discard)

    def listen() -> None:
        if not boot.ended.is_set():
            loop.add_reader(listening, accept)

    with bound.dup() as listening:
        listen()
        try:
            await boot.until_ended()
        finally:
            loop.remove_reader(listening)
            connections.close()
            await asyncio.gather(*connecting)


async def _connect(
    make_protocol: Callable[[], asyncio.BaseProtocol], client: socket.socket
) -> None:
    await asyncio.get_running_loop().connect_accepted_socket(make_protocol, client)
