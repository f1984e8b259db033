import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpc_shim.links.udp import UdpSettings
from tests.links.fake_board import MAX_FRAME_SIZE, FakeBoard, frame, running, wait_until
from tests.rpc.mos import needs_mos, run_mos


@pytest.fixture(scope="module")
def board() -> Iterator[FakeBoard]:
    with running(UdpSettings()) as board:
        call(board, frame("Echo"))  # from now on it is sure to serve
        yield board


def call(board: FakeBoard, datagram: bytes) -> dict[str, object]:
    """One datagram there and back; on the loopback none is lost while few are under way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        client.connect(board.address("udp"))
        for _ in range(120):
            client.send(datagram)
            try:
                answer: dict[str, object] = json.loads(client.recv(70000))
            except TimeoutError:
                continue
            return answer
    pytest.fail("no answer")


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_one_json_a_datagram_each_way(board: FakeBoard, end: bytes) -> None:
    answer = call(board, frame("Echo", params={"a": "\u00e4"}) + end)
    assert answer == {"id": 1, "src": "dev", "dst": "test", "result": {"a": "\u00e4"}}


def test_the_sender_is_the_channel(board: FakeBoard) -> None:
    result = call(board, frame("RPC.Ping"))["result"]
    assert isinstance(result, dict)
    assert result["channel_info"].startswith("127.0.0.1:")


def test_utf_8_is_understood(board: FakeBoard) -> None:
    text = '{"id":1,"method":"Echo","params":{"a":"\u00e4\U0001f600"}}'
    assert call(board, text.encode())["result"] == {"a": "\u00e4\U0001f600"}


def test_what_is_too_long_is_dropped_and_logged(board: FakeBoard) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(board.address("udp"))
        client.send(frame("Echo", params={"a": "x" * MAX_FRAME_SIZE}))
        client.send(frame("Big", params={"size": 66000}))
    wait_until(lambda: board.logged("dropped: a frame has up to 4096"), "the first log line")
    wait_until(lambda: board.logged("dropped: a datagram has up to 65507"), "the second one")
    assert call(board, frame("Big", params={"size": 60000}))["id"] == 1


def test_two_devices_that_hear_each_other_fall_silent(board: FakeBoard) -> None:
    # An answer from another device, as a forged sender's address makes it send one.
    device = board.device
    assert device is not None
    before = len(device.channels)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.connect(board.address("udp"))
        other.send(b'{"id":1,"src":"x","dst":"dev","result":1}')
        other.send(b'{"id":1,"src":"x","dst":"dev","error":{"code":1}}')
        wait_until(lambda: len(device.channels) == before + 2, "both to be taken")
        call(board, frame("Echo"))
        other.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.recv(1000)


def test_a_flood_is_bounded() -> None:
    with running(UdpSettings()) as board:
        call(board, frame("Echo"))
        board.hang()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(board.address("udp"))

            def flood() -> bool:
                for _ in range(20):
                    client.send(frame("Echo"))
                return board.logged("64 are waiting")

            wait_until(flood, "the flood to be noticed")
        assert board.pending == 64
        board.go_on()
        assert call(board, frame("Echo", 5))["id"] == 5


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=3000))
def test_whatever_a_client_sends_the_next_one_is_served(board: FakeBoard, garbage: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(garbage, board.address("udp"))
    assert call(board, frame("Echo"))["id"] == 1


@needs_mos
def test_mos(board: FakeBoard, tmp_path: Path) -> None:
    done = run_mos(tmp_path, board.url("udp"), "call", "Echo", '{"a": 1}')
    assert json.loads(done.stdout) == {"a": 1}, done.stderr
