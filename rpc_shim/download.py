"""Streams a file from an http(s) URL to a board that must never wait for the network.

A thread of the host reads the connection into a small buffer; the board polls the buffer. A server
that stalls stops the thread, not the board.
"""

import socket
import ssl
import threading
from collections import deque
from typing import Protocol
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    SSLError,
)
from urllib3.response import BaseHTTPResponse

from platforms.errors import OtasimError

BUFFER_SIZE = 64 * 1024
"""Bytes read ahead of the board; more stay with the server."""
READ_SIZE = 4096
CONNECT_TIMEOUT_S = 30.0
MAX_REDIRECTS = 5
DEFAULT_SIZE_LIMIT = 16 * 1024 * 1024

_SCHEMES = ("http", "https")
_HTTP_OK = 200


class DownloadError(OtasimError):
    """A download failed.

    Attributes:
        url: what was to be fetched.
        reason: why it was not.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"download of {url} failed: {reason}")
        self.url = url
        self.reason = reason


class ByteSource(Protocol):
    """Bytes that arrive in their own time."""

    @property
    def content_length(self) -> int | None:
        """How many bytes there will be, None while that is not known."""
        ...

    def poll(self, max_bytes: int) -> bytes | None:
        """What has arrived, up to `max_bytes`; None when nothing has yet, `b""` at the end.

        Never blocks. Raises an OtasimError when the source has failed.
        """
        ...

    def wait_for_data(self, timeout_s: float) -> bool:
        """Wait so many real seconds at most for `poll` to have something to say; whether it has."""
        ...

    def close(self) -> None:
        """Stop, whatever the other side does; harmless when it has stopped already."""
        ...


class Download:
    """One download over HTTP or HTTPS; certificates are verified, redirects limited.

    It starts at once. Raises DownloadError for a URL that cannot be one.
    """

    def __init__(
        self,
        url: str,
        *,
        size_limit: int = DEFAULT_SIZE_LIMIT,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        ca_certificates: bytes | None = None,
    ) -> None:
        _check_url(url)
        self._tls = _tls_context(url, ca_certificates)
        self._url = url
        self._size_limit = size_limit
        self._connect_timeout_s = connect_timeout_s
        self._state = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._content_length: int | None = None
        self._ended = False
        self._error: DownloadError | None = None
        self._closed = False
        self._response: BaseHTTPResponse | None = None
        self._thread = threading.Thread(target=self._run, name=f"download {url}", daemon=True)
        self._thread.start()

    @property
    def content_length(self) -> int | None:
        """The length that the server announced, None before it did or when it does not."""
        with self._state:
            return self._content_length

    def poll(self, max_bytes: int) -> bytes | None:
        """What has arrived, up to `max_bytes`; None when nothing has yet, `b""` at the end."""
        with self._state:
            if not self._chunks:
                if self._error is not None:
                    raise self._error
                return b"" if self._ended else None
            chunk = self._chunks.popleft()
            if len(chunk) > max_bytes:
                self._chunks.appendleft(chunk[max_bytes:])
                chunk = chunk[:max_bytes]
            self._buffered -= len(chunk)
            self._state.notify_all()
            return chunk

    def wait_for_data(self, timeout_s: float) -> bool:
        """Wait so many real seconds at most for `poll` to have something to say."""
        with self._state:
            return self._state.wait_for(
                lambda: bool(self._chunks) or self._ended or self._error is not None, timeout_s
            )

    def close(self) -> None:
        """Stop the thread, even in the middle of a read from a server that says nothing."""
        with self._state:
            self._closed = True
            response = self._response
            self._state.notify_all()
        if response is not None:
            _shut_down(response)

    def _run(self) -> None:
        try:
            self._fetch()
        except (HTTPError, OSError) as error:
            self._fail(_explain(error))
        except DownloadError as error:
            self._fail(error.reason)
        finally:
            with self._state:
                self._ended = True
                self._state.notify_all()

    def _fail(self, reason: str) -> None:
        with self._state:
            if not self._closed:
                self._error = DownloadError(self._url, reason)

    def _fetch(self) -> None:
        timeout = urllib3.Timeout(connect=self._connect_timeout_s, read=None)
        retries = urllib3.Retry(
            total=None, connect=0, read=0, status=0, other=0, redirect=MAX_REDIRECTS
        )
        with (
            urllib3.PoolManager(timeout=timeout, retries=retries, ssl_context=self._tls) as pool,
            pool.request("GET", self._url, preload_content=False, decode_content=False) as response,
        ):
            with self._state:
                self._response = response
                if self._closed:
                    return
            self._check_answer(response)
            # Not `stream`, which would hold a slow server's bytes back until there are many.
            while chunk := response.read1(READ_SIZE, decode_content=False):
                if not self._deliver(chunk):
                    return

    def _check_answer(self, response: BaseHTTPResponse) -> None:
        if response.status != _HTTP_OK:
            raise DownloadError(
                self._url, f"the server answers with HTTP status {response.status}; check the URL"
            )
        length = response.headers.get("Content-Length", "")
        announced = int(length) if length.isascii() and length.isdigit() else None
        if announced is not None and announced > self._size_limit:
            raise DownloadError(
                self._url,
                f"{announced:,} bytes are announced, the limit is {self._size_limit:,}",
            )
        with self._state:
            self._content_length = announced
            self._received = 0

    def _deliver(self, chunk: bytes) -> bool:
        """Put a chunk into the buffer when there is room; False when nobody wants it any more."""
        self._received += len(chunk)
        if self._received > self._size_limit:
            raise DownloadError(
                self._url, f"it is longer than the limit of {self._size_limit:,} bytes"
            )
        with self._state:
            self._state.wait_for(lambda: self._closed or self._buffered < BUFFER_SIZE)
            if self._closed:
                return False
            self._chunks.append(chunk)
            self._buffered += len(chunk)
            self._state.notify_all()
        return True


def _tls_context(url: str, ca_certificates: bytes | None) -> ssl.SSLContext | None:
    """How to verify the server; None: as the system does."""
    if ca_certificates is None:
        return None
    try:
        return ssl.create_default_context(cadata=ca_certificates.decode("ascii"))
    except (UnicodeDecodeError, ssl.SSLError) as error:
        raise DownloadError(
            url, f"the CA certificates are no PEM certificates ({error})"
        ) from error


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port  # raises ValueError for a port that is none
    except ValueError as error:
        raise DownloadError(url, f"it is no URL ({error})") from None
    if parts.scheme not in _SCHEMES or not host:
        raise DownloadError(url, "expected a URL like http://host/path or https://host/path")


def _shut_down(response: BaseHTTPResponse) -> None:
    connection = getattr(response, "connection", None)
    sock = getattr(connection, "sock", None)
    if isinstance(sock, socket.socket):
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # closed already: nothing is waiting in it


def _explain(error: Exception) -> str:
    """What an exception of the HTTP library means, in words that help."""
    cause: object = error.reason if isinstance(error, MaxRetryError) else error
    if isinstance(cause, NameResolutionError):
        return "the host's name cannot be resolved"
    if isinstance(cause, NewConnectionError):  # before its base, ConnectTimeoutError
        return "the connection is refused; is the server running?"
    if isinstance(cause, ConnectTimeoutError):
        return "the server does not answer"
    if isinstance(cause, SSLError):
        return f"TLS failed: {cause}"
    if isinstance(cause, IncompleteRead):
        return f"the connection ended early, {cause.expected} bytes are missing"
    if isinstance(cause, ProtocolError):
        inner = cause.args[1] if len(cause.args) > 1 else cause
        if isinstance(inner, IncompleteRead):
            return f"the connection ended early, {inner.expected} bytes are missing"
        return f"the connection broke: {inner}"
    if "too many redirects" in str(error):
        return f"more than {MAX_REDIRECTS} redirects"
    return str(cause)
