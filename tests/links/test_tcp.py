import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpc_shim.framing import crc32_hex
from rpc_shim.links.sockets import MAX_UNSENT, Connections
from rpc_shim.links.tcp import TcpSettings
from tests.links.clients import connect, reset_on_close, send_forever
from tests.links.fake_board import MAX_FRAME_SIZE, WAIT_S, FakeBoard, frame, running, wait_until
from tests.rpc.mos import needs_mos, run_mos


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeBoard]:
    with running(TcpSettings()) as board:
        with connect(board) as client:
            client.sendall(frame("Echo") + b"\n")
            read_until(client, b"}\n")
        yield board  # it has all the files open that it needs


@pytest.fixture
def board() -> Iterator[FakeBoard]:
    with running(TcpSettings()) as board:
        yield board


def read_until(client: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        more = client.recv(65536)
        assert more, f"connection closed after {received!r}"
        received += more
    return received


def read_all(client: socket.socket) -> bytes:
    received = b""
    while more := client.recv(65536):
        received += more
    return received


ANSWER = b'{"id":1,"src":"dev","dst":"test","result":null}'


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b'\n"""%s"""\n', b'\n"""%s"""\n' % ANSWER),
        (b"%s\n", b"\n%s\n" % ANSWER),
        (b'login: """\n\n"""%s"""', b'\n"""%s"""\n' % ANSWER),
    ],
)
def test_answers_are_framed_as_their_requests(
    board: FakeBoard, sent: bytes, expected: bytes
) -> None:
    with connect(board) as client:
        client.sendall(sent % frame("Echo"))
        assert read_until(client, expected[-4:]) == expected


def test_a_crc_is_checked_and_given_back(board: FakeBoard) -> None:
    request = frame("Echo")
    with connect(board) as client:
        client.sendall(request + b"00000000\n" + request + crc32_hex(request) + b"\n")
        expected = b"\n" + ANSWER + crc32_hex(ANSWER) + b"\n"
        assert read_until(client, expected[-4:]) == expected
    assert board.logged("its CRC-32 says 0x00000000")


def test_console_text_is_ignored_and_requests_have_their_channel(board: FakeBoard) -> None:
    with connect(board) as client:
        client.sendall(b"reboot\n\x04\n\n" + frame("RPC.Ping") + b"\n")
        answer = json.loads(read_until(client, b"}\n"))
        host, port = client.getsockname()
        assert answer["result"] == {"channel_info": f"{host}:{port}"}


def test_requests_sent_at_once_are_answered_in_order(board: FakeBoard) -> None:
    with connect(board) as client:
        client.sendall(b"".join(frame("Echo", number) + b"\n" for number in range(500)))
        lines = b""
        while lines.count(b"}\n") < 500:
            lines += client.recv(65536)
        ids = [json.loads(line)["id"] for line in lines.split(b"\n") if line]
        assert ids == list(range(500))


def test_at_most_one_request_of_a_connection_waits(board: FakeBoard) -> None:
    board.hang()
    with connect(board) as client:
        client.settimeout(0.5)  # nothing is read any more, however long that is
        with pytest.raises(TimeoutError):
            send_forever(client, (frame("Echo") + b"\n") * 100)
        client.settimeout(WAIT_S)
        assert board.pending == 1


def test_a_client_that_does_not_read_is_disconnected(board: FakeBoard) -> None:
    with connect(board) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(ConnectionError):
            send_forever(client, frame("Big", params={"size": MAX_UNSENT}) + b"\n")
    wait_until(lambda: board.logged("does not read its answers: disconnected"), "the log line")


@pytest.mark.parametrize("delimiter", [b"", b"\n"])
def test_netcat_closes_its_direction_and_gets_its_answer(
    board: FakeBoard, delimiter: bytes
) -> None:
    with connect(board) as client:
        client.sendall(frame("Later") + delimiter)
        client.shutdown(socket.SHUT_WR)
        board.wait_for_call()
        board.answer_all()
        assert json.loads(read_all(client))["result"] == "at last"


def test_a_notification_is_carried_out_though_its_sender_has_left(board: FakeBoard) -> None:
    with connect(board) as client:
        client.sendall(b'{"method":"Echo","params":{"a":1}}\n')
    device = board.device
    assert device is not None
    wait_until(lambda: device.done == [{"a": 1}], "the notification")


@pytest.mark.parametrize(
    "last", [b'{"method":"Echo"}\n', b"{}", b"", b'{"id":1,"method":"M","dst":"other"}\n']
)
def test_whoever_gets_no_answer_is_not_kept(board: FakeBoard, last: bytes) -> None:
    with connect(board) as client:
        client.sendall(last)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""


def test_an_answer_for_a_client_that_has_gone(board: FakeBoard) -> None:
    with connect(board) as client:
        client.sendall(frame("Later") + b"\n")
        board.wait_for_call()
        reset_on_close(client)
    board.answer_all()
    with connect(board) as client:
        client.sendall(frame("Echo") + b"\n")
        assert json.loads(read_until(client, b"}\n"))["id"] == 1


def test_a_request_whose_sender_was_cut_off_before_its_turn(board: FakeBoard) -> None:
    board.hang()
    with connect(board) as client:
        client.sendall(frame("Echo", 1) + b"\n")
        assert select.select([board.network], [], [], WAIT_S)[0]
        reset_on_close(client)
    # The connection is not read while its request waits: writing is what notices the end.
    board.go_on()
    with connect(board) as client:
        client.sendall(frame("Echo", 2) + b"\n")
        assert json.loads(read_until(client, b"}\n"))["id"] == 2


def test_frames_that_are_too_long_or_no_ascii_are_dropped(board: FakeBoard) -> None:
    longest = frame("Echo", params={"x": "y" * (MAX_FRAME_SIZE - 70)})
    longest = longest.replace(b"y", b"y" * (MAX_FRAME_SIZE - len(longest) + 1), 1)
    assert len(longest) == MAX_FRAME_SIZE
    with connect(board) as client:
        client.sendall(longest.replace(b"y", b"yy", 1) + b"\n" + b'{"\xc3\xa4"}\n')
        client.sendall(longest + b"\n")
        assert json.loads(read_until(client, b"}\n"))["result"]["x"].startswith("yyy")
    assert board.logged("it is longer than 4096 bytes")
    assert board.logged("frame dropped at byte 0xc3")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=3000))
def test_whatever_a_client_sends_the_next_one_is_served(shared: FakeBoard, garbage: bytes) -> None:
    with connect(shared) as client:
        client.sendall(garbage)
    with connect(shared) as client:
        client.sendall(frame("Echo") + b"\n")
        assert json.loads(read_until(client, b"}\n"))["id"] == 1


def test_a_frame_in_single_bytes(board: FakeBoard) -> None:
    with connect(board) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in frame("Echo") + b"\n":
            client.sendall(bytes([byte]))
        assert json.loads(read_until(client, b"}\n"))["id"] == 1


@needs_mos
def test_mos(board: FakeBoard, tmp_path: Path) -> None:
    done = run_mos(tmp_path, board.url("tcp"), "call", "Echo", '{"a": 1}')
    assert json.loads(done.stdout) == {"a": 1}, done.stderr


class FakeTransport:
    """As much of a transport as the registry of connections needs."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


@given(st.lists(st.tuples(st.sampled_from("aaarww-"), st.integers(0, 5)), max_size=60))
def test_the_longest_idle_connection_goes(steps: list[tuple[str, int]]) -> None:
    connections = Connections(limit=2)
    model: list[list[object]] = []  # [transport, answers owed], longest idle first
    known = [FakeTransport() for _ in range(6)]
    for step, number in steps:
        transport = known[number]
        entry = next((each for each in model if each[0] is transport), None)
        if step == "a" and entry is None:
            if len(model) == 2:
                victim = next((each for each in model if not each[1]), model[0])
                model.remove(victim)
            model.append([transport, 0])
            transport.aborted = False
            connections.add(transport)  # type: ignore[arg-type]
        elif step == "r":
            model = [each for each in model if each is not entry]
            connections.remove(transport)  # type: ignore[arg-type]
        elif step in "w-":
            if entry is not None:
                model.remove(entry)
                model.append([transport, int(str(entry[1])) + (step == "w")])
            connections.used(transport, owed=int(step == "w"))  # type: ignore[arg-type]
        assert len(connections) == len(model) <= 2
        assert not any(each.aborted for each in known if any(each is m[0] for m in model))
    connections.close()
    assert all(each[0].aborted for each in model)  # type: ignore[attr-defined]
    late = FakeTransport()
    connections.add(late)  # type: ignore[arg-type]
    assert late.aborted
