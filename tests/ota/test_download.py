"""Downloads from a real server on this machine that behaves in every way servers do."""

import socket
import threading
from collections.abc import Iterator

import pytest

from rpc_shim.download import BUFFER_SIZE, READ_SIZE, Download, DownloadError
from tests.ota.talking_server import Talk, TalkingServer, answer, talking_server

PATIENCE_S = 60


@pytest.fixture
def server() -> Iterator[TalkingServer]:
    with talking_server() as made:
        yield made


def received(download: Download) -> bytes:
    """Everything, or the error that ends it."""
    data = bytearray()
    try:
        while True:
            assert download.wait_for_data(PATIENCE_S)
            chunk = download.poll(1000)
            if chunk == b"":
                return bytes(data)
            data += chunk or b""
    finally:
        download.close()


def test_a_file_comes_as_it_is(server: TalkingServer) -> None:
    content = bytes(range(256)) * 500
    server.talk = answer(content, headers=f"Content-Length: {len(content)}\r\n")
    download = Download(server.url)
    assert received(download) == content
    assert download.content_length == len(content)
    assert server.requests[0].startswith(b"GET /fw.zip HTTP/1.1\r\n")


def test_a_file_without_a_length_ends_with_the_connection(server: TalkingServer) -> None:
    server.talk = answer(b"abc")
    download = Download(server.url)
    assert received(download) == b"abc"
    assert download.content_length is None


def test_a_chunked_file_comes_whole(server: TalkingServer) -> None:
    server.talk = answer(
        b"3\r\nabc\r\n", b"4\r\ndefg\r\n0\r\n\r\n", headers="Transfer-Encoding: chunked\r\n"
    )
    assert received(Download(server.url)) == b"abcdefg"


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (answer(status="404 Not Found", headers="Content-Length: 0\r\n"), "404"),
        (answer(status="500 Broken", headers="Content-Length: 0\r\n"), "500"),
        (answer(b"abc", headers="Content-Length: 10\r\n"), "7 bytes are missing"),
        (
            answer(b"5\r\nab", headers="Transfer-Encoding: chunked\r\n"),
            "ended early, inside the file",
        ),
        (
            answer(b"2\r\nab\r\n", headers="Transfer-Encoding: chunked\r\n"),
            "ended early, inside the file",
        ),
        (lambda connection: connection.sendall(b"220 I am an FTP server\r\n"), "broke|invalid"),
        (lambda connection: connection.close(), "broke"),
        (answer(headers="Content-Length: 99999999999\r\n"), "99,999,999,999"),
        (answer(headers=f"Content-Length: {'9' * 5000}\r\n"), "a length of 5,000 digits"),
        (
            answer(status="302 Found", headers="Location: http://[bad/\r\nContent-Length: 0\r\n"),
            "which is no http",
        ),
    ],
    ids=[
        "404",
        "500",
        "cut off",
        "cut off chunk",
        "cut off between chunks",
        "no HTTP",
        "hangs up",
        "too large",
        "digits without end",
        "redirect to nonsense",
    ],
)
def test_a_failure_is_an_error_that_says_why(server: TalkingServer, talk: Talk, words: str) -> None:
    server.talk = talk
    with pytest.raises(DownloadError, match=words) as caught:
        received(Download(server.url))
    assert caught.value.url == server.url


def test_a_file_that_grows_over_the_limit_is_an_error(server: TalkingServer) -> None:
    server.talk = answer(b"x" * 5000)
    with pytest.raises(DownloadError, match="4,000"):
        received(Download(server.url, size_limit=4000))


def test_redirects_are_followed_and_limited(server: TalkingServer) -> None:
    server.talk = answer(
        status="302 Found", headers=f"Location: {server.url}\r\nContent-Length: 0\r\n"
    )
    with pytest.raises(DownloadError, match="more than 5 redirects"):
        received(Download(server.url))
    assert len(server.requests) == 6


def test_a_redirect_to_something_else_than_http_is_refused(server: TalkingServer) -> None:
    server.talk = answer(
        status="302 Found", headers="Location: file:///etc/passwd\r\nContent-Length: 0\r\n"
    )
    with pytest.raises(DownloadError, match=r"redirects to 'file:///etc/passwd'.*no http"):
        received(Download(server.url))


@pytest.mark.parametrize(
    "url", ["", "fw.zip", "ftp://x/fw", "http://", "http://x:99999/", "http://[::1"]
)
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(DownloadError):
        Download(url)


def test_a_refused_connection_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DownloadError, match="refused"):
        received(Download(f"http://127.0.0.1:{port}/fw.zip"))


def test_a_stalled_server_blocks_neither_poll_nor_close(server: TalkingServer) -> None:
    over = threading.Event()

    def stall(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        over.wait(PATIENCE_S)

    server.talk = stall
    download = Download(server.url)
    assert download.wait_for_data(PATIENCE_S)
    assert download.poll(100) == b"abc"
    assert download.poll(100) is None
    assert not download.wait_for_data(0.01)
    download.close()
    download._thread.join(PATIENCE_S)
    assert not download._thread.is_alive()
    over.set()


@pytest.mark.parametrize(
    ("scheme", "sent"),
    [
        ("http", b""),
        ("http", b"HTTP/1.1 200 OK\r\nContent-"),
        ("http", b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nabc"),
        ("http", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"),
        ("http", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"),
        ("https", b""),
    ],
    ids=["silence", "headers", "HTTP/1.0", "to be closed", "HTTP/1.1", "chunked", "TLS handshake"],
)
def test_a_stalled_server_sees_the_connection_end(
    server: TalkingServer, scheme: str, sent: bytes
) -> None:
    stalled, ended = threading.Event(), threading.Event()

    def stall(connection: socket.socket) -> None:
        connection.sendall(sent)
        stalled.set()
        connection.settimeout(PATIENCE_S)
        if connection.recv(4096) == b"":
            ended.set()

    server.talk = stall
    download = Download(server.url.replace("http:", f"{scheme}:"))
    assert stalled.wait(PATIENCE_S)
    if sent.endswith(b"abc"):
        assert download.wait_for_data(PATIENCE_S)
    download.close()
    assert ended.wait(PATIENCE_S)
    download._thread.join(PATIENCE_S)
    assert not download._thread.is_alive()
    # It was stopped, which is no failure of the server's.
    while (data := download.poll(100)) != b"":
        assert data == b"abc"


def test_a_download_leaves_no_open_connection(server: TalkingServer) -> None:
    ended = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
        connection.settimeout(PATIENCE_S)
        if connection.recv(4096) == b"":
            ended.set()

    server.talk = talk
    download = Download(server.url)
    assert download.wait_for_data(PATIENCE_S)
    assert ended.wait(PATIENCE_S), "the connection is open though nobody uses it any more"
    assert received(download) == b"abc"


def test_a_large_file_never_sits_in_memory_whole(server: TalkingServer) -> None:
    sent = 0
    over = threading.Event()

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        connection.settimeout(0.5)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while sent < 1 << 28:
                connection.sendall(bytes(1 << 16))
                sent += 1 << 16
        except TimeoutError:
            pass
        over.set()

    server.talk = flood
    download = Download(server.url)
    assert over.wait(PATIENCE_S)
    # The rest waits in the buffers of the operating system and on the server.
    assert download._buffered <= BUFFER_SIZE + READ_SIZE
    assert sent < 1 << 28
    download.close()
