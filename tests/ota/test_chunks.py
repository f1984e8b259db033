"""The order of pushed chunks: whatever a host sends, the bytes come out once and in order."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc_shim.chunks import ChunkError, ChunkSequence


@given(
    st.binary(max_size=200),
    st.lists(st.tuples(st.integers(0, 210), st.integers(0, 40)), max_size=60),
    st.booleans(),
)
def test_accepted_chunks_are_the_file_from_its_start(
    file: bytes, sent: list[tuple[int, int]], announced: bool
) -> None:
    chunks = ChunkSequence(len(file) if announced else None)
    taken = b""
    for offset, length in sent:
        data = file[offset : offset + length]
        with suppress(ChunkError):
            taken += chunks.take(offset, data)
        assert taken == file[: len(taken)]
        assert chunks.received == len(taken)


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1), st.data())
def test_each_chunk_may_come_again_before_the_next(
    chunks: list[bytes], data: st.DataObject
) -> None:
    sequence = ChunkSequence()
    taken, offset = b"", 0
    for chunk in chunks:
        for _ in range(data.draw(st.integers(1, 3))):
            taken += sequence.take(offset, chunk)
        offset += len(chunk)
    assert taken == b"".join(chunks)


@pytest.mark.parametrize(
    ("offset", "data", "words"),
    [
        (11, b"x", "1 bytes before it are missing"),
        (4, b"other", "overlaps"),
        (5, b"four!!", "overlaps"),
        (0, b"0123456789", "overlaps"),
        (10, b"too long", "beyond the announced 12 bytes"),
    ],
)
def test_what_does_not_follow_is_refused_and_changes_nothing(
    offset: int, data: bytes, words: str
) -> None:
    chunks = ChunkSequence(12)
    chunks.take(0, b"01234")
    chunks.take(5, b"56789")
    with pytest.raises(ChunkError, match=rf"{words}.*start at offset 10"):
        chunks.take(offset, data)
    with pytest.raises(ChunkError, match="2 of the announced 12 bytes are missing"):
        chunks.check_complete()
    assert chunks.take(None, b"ab") == b"ab"
    chunks.check_complete()
