"""How a board in virtual time meets a network in real time.

At full speed a board's hour passes in seconds: left alone, it would give up on a download while the
first bytes are still on their way. So its clock is held for what is on its way, up to
`PATIENCE_S`; after that it goes at real-time pace until data comes again. A healthy server is never
noticed; a stalled one slows the board to real time and never stops it.
"""

from collections.abc import Callable

from platforms.clock import NS_PER_S, Clock
from rpc_shim.download import ByteSource, Download

PATIENCE_S = 1.0


class PacedSource:
    """A byte source whose polls wait as the module says; `paced()` boards are not held at all."""

    def __init__(self, source: ByteSource, clock: Clock, paced: Callable[[], bool]) -> None:
        self._source = source
        self._clock = clock
        self._paced = paced
        self._patience_s = PATIENCE_S
        self._last_poll_ns = clock.now_ns

    @property
    def content_length(self) -> int | None:
        """How many bytes there will be, None while that is not known."""
        return self._source.content_length

    def poll(self, max_bytes: int) -> bytes | None:
        """As `ByteSource.poll`, after the wait that is due."""
        passed_s = (self._clock.now_ns - self._last_poll_ns) / NS_PER_S
        self._last_poll_ns = self._clock.now_ns
        if not self._paced():
            patience_s, self._patience_s = self._patience_s, 0.0
            if self._source.wait_for_data(max(patience_s, passed_s)):
                self._patience_s = PATIENCE_S
        return self._source.poll(max_bytes)

    def wait_for_data(self, timeout_s: float) -> bool:
        """As `ByteSource.wait_for_data`."""
        return self._source.wait_for_data(timeout_s)

    def close(self) -> None:
        """Stop the source."""
        self._source.close()


def open_url(
    url: str, clock: Clock, *, paced: Callable[[], bool], ca_certificates: bytes | None = None
) -> ByteSource:
    """Start a download for a board; DownloadError for a URL that cannot be one."""
    return PacedSource(Download(url, ca_certificates=ca_certificates), clock, paced)
