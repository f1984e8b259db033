"""An update that a host pushes, chunk by chunk, on the whole board."""

import base64
from dataclasses import replace

import pytest

from otasim import Board
from otasim.bundle_server import bundle_of
from rpc_shim.client import RpcClientError
from rpc_shim.frame import JsonValue

BUNDLE = bundle_of("sample-2.0", padded_to=16 * 1024)
CHUNK_SIZE = 512


def write(board: Board, offset: int | None, data: bytes) -> JsonValue:
    params: dict[str, JsonValue] = {"data": base64.b64encode(data).decode()}
    return board.call("OTA.Write", params if offset is None else {**params, "offset": offset})


def push(board: Board, bundle: bytes, chunk_size: int = CHUNK_SIZE, start: int = 0) -> None:
    for offset in range(start, len(bundle), chunk_size):
        write(board, offset, bundle[offset : offset + chunk_size])


def status(board: Board, key: str) -> JsonValue:
    answer = board.call("OTA.Status")
    assert isinstance(answer, dict)
    value: JsonValue = answer[key]
    return value


@pytest.mark.parametrize("chunk_size", [512, 2048])
def test_a_pushed_update_boots_and_waits_for_its_commit(board: Board, chunk_size: int) -> None:
    assert board.call("OTA.Status") == {
        "state": 0,
        "message": "idle",
        "is_committed": True,
        "commit_timeout": 0,
        "partition": 0,
        "progress_percent": 0,
    }
    board.call("OTA.Begin", {"timeout": 600, "commit_timeout": 300, "size": len(BUNDLE)})
    half = len(BUNDLE) // 2 // chunk_size * chunk_size
    push(board, BUNDLE[:half], chunk_size)
    assert status(board, "state") == 1
    assert status(board, "progress_percent") == 100 * half // len(BUNDLE)
    push(board, BUNDLE, chunk_size, start=half)
    assert board.call("OTA.End") is None
    assert status(board, "state") == 3
    board.run_until(lambda: board.version == "2.0")
    board.run(0.5)
    assert (status(board, "is_committed"), status(board, "commit_timeout")) == (False, 300)
    assert len(board.trace.of_kind("update-progress")) > 7
    assert "ota: 100 %" in board.console


def test_chunks_that_come_again_are_harmless(board: Board) -> None:
    board.call("OTA.Begin", {"commit_timeout": 300})
    for offset in range(0, len(BUNDLE), CHUNK_SIZE):
        for _ in range(2):
            write(board, offset, BUNDLE[offset : offset + CHUNK_SIZE])
    board.call("OTA.End")
    board.run_until(lambda: board.version == "2.0")


def test_a_chunk_in_the_wrong_place_fails_alone(board: Board) -> None:
    board.call("OTA.Begin", {"size": len(BUNDLE)})
    write(board, 0, BUNDLE[:512])
    for offset, data in ((1024, BUNDLE[1024:1536]), (100, BUNDLE[:512]), (0, b"\0" * 512)):
        with pytest.raises(RpcClientError, match="next chunk is to start at offset 512"):
            write(board, offset, data)
    with pytest.raises(RpcClientError, match="data must be bytes in base64") as caught:
        board.call("OTA.Write", {"offset": 512, "data": "no base64!"})
    assert caught.value.code == 400
    push(board, BUNDLE, start=512)
    with pytest.raises(RpcClientError, match="goes beyond the announced"):
        write(board, None, b"more")
    board.call("OTA.End")
    board.run_until(lambda: board.version == "2.0")


@pytest.mark.parametrize(
    ("bundle", "size", "words"),
    [
        (BUNDLE[:3000], None, "incomplete"),
        (BUNDLE[:3000], len(BUNDLE), "too early"),
        (b"", None, "incomplete"),
    ],
)
def test_an_end_that_comes_too_early_is_an_error(
    board: Board, bundle: bytes, size: int | None, words: str
) -> None:
    before = board.boot_state
    board.call("OTA.Begin", {} if size is None else {"size": size})
    push(board, bundle)
    with pytest.raises(RpcClientError, match=words):
        board.call("OTA.End")
    assert status(board, "state") == 2
    assert board.boot_state == before
    with pytest.raises(RpcClientError, match="No update in progress"):
        board.call("OTA.End")
    board.run(1)
    assert board.version == "1.0"


def test_data_behind_the_end_is_an_error(board: Board) -> None:
    before = board.boot_state
    board.call("OTA.Begin", {})  # as mos does when it is given arguments of its own: no size
    push(board, BUNDLE)
    with pytest.raises(RpcClientError, match="something behind the end of the archive"):
        write(board, None, b"more")
    assert (status(board, "state"), board.boot_state) == (2, before)


def test_a_bad_bundle_fails_at_the_chunk_that_shows_it(board: Board) -> None:
    before = board.boot_state
    board.call("OTA.Begin")
    with pytest.raises(RpcClientError, match="is this a firmware bundle"):
        write(board, 0, b"not a zip archive at all")
    assert (status(board, "state"), board.boot_state) == (2, before)
    with pytest.raises(RpcClientError, match=r"the last one failed.*OTA\.Begin"):
        write(board, 24, b"more")


def test_an_update_that_stalls_is_dropped(board: Board) -> None:
    before = board.boot_state
    board.call("OTA.Begin", {"timeout": 5})
    write(board, 0, BUNDLE[:512])
    board.run(3)
    with pytest.raises(RpcClientError, match="already in progress"):
        board.call("OTA.Begin")
    with pytest.raises(RpcClientError, match="already in progress"):
        board.call("OTA.SetBootState", {"commit_timeout": 1})
    board.run(3)
    assert "Update timed out: not finished within 5 s" in str(status(board, "message"))
    assert board.boot_state == before
    board.call("OTA.Begin")
    assert board.call("OTA.Abort") is None
    with pytest.raises(RpcClientError, match="no update to abort"):
        board.call("OTA.Abort")
    assert status(board, "state") == 2


def test_a_power_cut_in_the_middle_of_a_push_loses_nothing(board: Board) -> None:
    before = board.boot_state
    board.call("OTA.Begin")
    push(board, BUNDLE[:4096])
    board.power_cycle()
    board.run(1)
    assert before is not None
    # After a loss of power the loader copies the newest record.
    assert (board.version, board.boot_state) == ("1.0", replace(before, seq=before.seq + 1))
    assert status(board, "state") == 0


def test_a_call_that_names_another_update_is_refused_and_harms_nothing(board: Board) -> None:
    board.call("OTA.Begin", {"session": "a"})
    board.call("OTA.Abort", {"session": "a"})
    board.call("OTA.Begin", {"session": "b"})
    chunk = base64.b64encode(BUNDLE[:512]).decode()
    calls: list[tuple[str, dict[str, JsonValue]]] = [
        ("OTA.Write", {"offset": 0, "data": chunk}),
        ("OTA.End", {}),
        ("OTA.Abort", {}),
    ]
    for method, params in calls:
        with pytest.raises(RpcClientError, match="not in progress any more"):
            board.call(method, {**params, "session": "a"})
    assert status(board, "state") == 1
    for offset in range(0, len(BUNDLE), 2048):
        chunk = base64.b64encode(BUNDLE[offset : offset + 2048]).decode()
        board.call("OTA.Write", {"offset": offset, "data": chunk, "session": "b"})
    board.call("OTA.End")  # a host that names none means whichever there is
    board.run_until(lambda: board.version == "2.0")


def test_an_update_without_a_session_is_not_the_one_that_a_session_means(board: Board) -> None:
    board.call("OTA.Begin")
    with pytest.raises(RpcClientError, match="not in progress any more"):
        board.call("OTA.Abort", {"session": "a"})
    board.call("OTA.Abort")
