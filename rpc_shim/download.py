"""Streams a file from an http(s) URL to a board that must never wait for the network.

A thread of the host reads the connection into a small buffer; the board polls the buffer. A server
that stalls stops the thread, not the board.
"""

import contextlib
import http.client
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
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
_LENGTH_DIGITS = 18
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
        self._connection: socket.socket | None = None
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
        """Stop the thread, wherever it waits for the server: it sees the connection end."""
        with self._state:
            self._closed = True
            self._shut_down()
            self._state.notify_all()

    def _use(self, connection: socket.socket) -> None:
        """Remember the connection that is about to be used, for `close`.

        A descriptor of its own: the HTTP library hands its socket on to others, and forgets it.
        """
        with self._state:
            if self._connection is not None:
                self._connection.close()
            self._connection = connection.dup()
            if self._closed:
                self._shut_down()

    def _shut_down(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):  # the server has ended it already
                self._connection.shutdown(socket.SHUT_RDWR)

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
                self._shut_down()
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                self._state.notify_all()

    def _fail(self, reason: str) -> None:
        with self._state:
            if not self._closed:
                self._error = DownloadError(self._url, reason)

    def _fetch(self) -> None:
        timeout = urllib3.Timeout(connect=self._connect_timeout_s, read=None)
        # Redirects are followed here, to see where they lead.
        retries = urllib3.Retry(0, redirect=False)
        with (
            _pool_manager(self._use, timeout, retries, self._tls) as pool,
            self._request(pool) as response,
        ):
            self._check_answer(response)
            # Not `stream`, which would hold a slow server's bytes back until there are many.
            while chunk := response.read1(READ_SIZE, decode_content=False):
                if not self._deliver(chunk):
                    return

    def _request(self, pool: urllib3.PoolManager) -> BaseHTTPResponse:
        """The answer behind all redirects."""
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            response = pool.request(
                "GET", url, preload_content=False, decode_content=False, redirect=False
            )
            location = response.get_redirect_location()
            if not location:
                return response
            response.close()
            url = self._redirected(url, location)
        raise DownloadError(self._url, f"more than {MAX_REDIRECTS} redirects")

    def _redirected(self, url: str, location: str) -> str:
        """Where a redirect leads, when it may be followed.

        A verified server must not hand the download on to one that nobody verifies.
        """
        try:
            target = urljoin(url, location)
            _check_url(target)
        except (ValueError, DownloadError) as error:
            raise DownloadError(
                self._url,
                f"the server redirects to {location[:80]!a}, which is no http(s) URL",
            ) from error
        if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
            raise DownloadError(
                self._url, "the server redirects from https to http: that is not followed"
            )
        return target

    def _check_answer(self, response: BaseHTTPResponse) -> None:
        if response.status != _HTTP_OK:
            raise DownloadError(
                self._url, f"the server answers with HTTP status {response.status}; check the URL"
            )
        length = response.headers.get("Content-Length", "")
        announced = None
        if length.isascii() and length.isdigit():
            if len(length) > _LENGTH_DIGITS:
                raise DownloadError(
                    self._url,
                    f"a length of {len(length):,} digits is announced, the limit is "
                    f"{self._size_limit:,} bytes",
                )
            announced = int(length)
            if announced > self._size_limit:
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
    # No default context: with nothing to load it would trust what the system trusts.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=ca_certificates.decode("ascii"))
    except (ValueError, ssl.SSLError) as error:
        raise DownloadError(
            url, f"the CA certificates are no PEM certificates ({error})"
        ) from error
    return context


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port  # raises ValueError for a port that is none
    except ValueError as error:
        raise DownloadError(url, f"it is no URL ({error})") from None
    if parts.scheme not in _SCHEMES or not host:
        raise DownloadError(url, "expected a URL like http://host/path or https://host/path")


def _pool_manager(
    use: Callable[[socket.socket], None],
    timeout: urllib3.Timeout,
    retries: urllib3.Retry,
    tls: ssl.SSLContext | None,
) -> urllib3.PoolManager:
    """A pool manager that tells of each connection as soon as it is made."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            use(connection)
            return connection

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            use(connection)
            return connection

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    manager = urllib3.PoolManager(timeout=timeout, retries=retries, ssl_context=tls)
    manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return manager


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
    inner = cause.args[1] if isinstance(cause, ProtocolError) and len(cause.args) > 1 else cause
    if isinstance(inner, http.client.IncompleteRead):  # urllib3's own is a child of it
        missing = f"{inner.expected} bytes are missing" if inner.expected else "inside the file"
        return f"the connection ended early, {missing}"
    if isinstance(cause, ProtocolError):
        return f"the connection broke: {inner}"
    return str(cause)
