"""A real server on this machine that answers in a test's own words, byte by byte."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socket import socket
from socketserver import BaseRequestHandler, ThreadingTCPServer

Talk = Callable[[socket], None]


class TalkingServer(ThreadingTCPServer):
    """Lets `talk` answer each request, and hangs up."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.talk: Talk = socket.close
        self.requests: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/fw.zip"


class _Handler(BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, TalkingServer)
        self.server.requests.append(self.request.recv(4096))
        with suppress(OSError):  # the client may have left
            self.server.talk(self.request)


@contextmanager
def talking_server() -> Iterator[TalkingServer]:
    with TalkingServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def answer(*parts: bytes, status: str = "200 OK", headers: str = "") -> Talk:
    """Send a whole answer and close the connection."""

    def talk(connection: socket) -> None:
        connection.sendall(f"HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n".encode())
        for part in parts:
            connection.sendall(part)

    return talk
