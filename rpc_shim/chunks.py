"""The order of the chunks in which a host sends a file.

A host that got no answer sends its chunk again: the one that came last is taken twice without harm.
"""

from platforms.errors import OtasimError


class ChunkError(OtasimError):
    """A chunk does not fit to those before it.

    Attributes:
        offset: where the chunk was to go, in bytes from the start of the file.
        length: its length in bytes.
        expected: the offset at which the next chunk is to start.
    """

    def __init__(self, problem: str, *, offset: int, length: int, expected: int) -> None:
        super().__init__(
            f"chunk of {length:,} bytes at offset {offset:,}: {problem}; "
            f"the next chunk is to start at offset {expected:,}"
        )
        self.offset = offset
        self.length = length
        self.expected = expected


class ChunkSequence:
    """Checks that chunks follow each other without gap or overlap.

    Args:
        size: announced length of the file in bytes, None when it is not known.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._received = 0
        self._last = b""

    @property
    def size(self) -> int | None:
        """The announced length of the file."""
        return self._size

    @property
    def received(self) -> int:
        """Bytes that have come so far."""
        return self._received

    def take(self, offset: int | None, data: bytes) -> bytes:
        """What is new in a chunk: all of it, or nothing when it is the last one once more.

        Args:
            offset: where it goes, in bytes from the start of the file; None: behind the last one.
            data: the bytes.

        Raises:
            ChunkError: there is a gap before it, it overlaps with what came before, or it goes
                beyond the announced length. It counts as not sent then.
        """
        if offset is None:
            offset = self._received
        elif offset == self._received - len(self._last) and data == self._last:
            return b""
        problem = self._problem(offset, len(data))
        if problem is not None:
            raise ChunkError(problem, offset=offset, length=len(data), expected=self._received)
        self._received += len(data)
        self._last = data
        return data

    def check_complete(self) -> None:
        """ChunkError when bytes of the announced length have not come."""
        if self._size is not None and self._received < self._size:
            raise ChunkError(
                f"the end has come too early, {self._size - self._received:,} of the announced "
                f"{self._size:,} bytes are missing",
                offset=self._received,
                length=0,
                expected=self._received,
            )

    def _problem(self, offset: int, length: int) -> str | None:
        if offset > self._received:
            return f"{offset - self._received:,} bytes before it are missing"
        if offset < self._received:
            return "it overlaps with bytes that have come already"
        if self._size is not None and offset + length > self._size:
            return f"it goes beyond the announced {self._size:,} bytes"
        return None
