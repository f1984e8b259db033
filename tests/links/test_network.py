import contextlib
import errno
import gc
import json
import os
import resource
import select
import socket
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from rpc_shim.links.http import HttpSettings
from rpc_shim.links.mqtt import MqttSettings
from rpc_shim.links.network import LinkSettings, Network
from rpc_shim.links.sockets import NetworkLinkError
from rpc_shim.links.tcp import TcpSettings
from rpc_shim.links.udp import UdpSettings
from tests.links.clients import HANDSHAKE, answer, call, connect, message
from tests.links.fake_board import WAIT_S, FakeBoard, frame, running, wait_until


@pytest.fixture
def board() -> Iterator[FakeBoard]:
    with running(TcpSettings(), HttpSettings(), UdpSettings()) as board:
        yield board


def is_broken(client: socket.socket) -> bool:
    try:
        return client.recv(65536) == b""
    except ConnectionError:
        return True


def test_urls_are_what_mos_takes(board: FakeBoard) -> None:
    ports = {name: board.port(name) for name in ("tcp", "http", "udp")}
    assert board.do(lambda: dict(board.network.urls)) == {
        "tcp": f"tcp://127.0.0.1:{ports['tcp']}",
        "ws": f"ws://127.0.0.1:{ports['http']}/rpc",
        "http": f"http://127.0.0.1:{ports['http']}/rpc",
        "udp": f"udp://127.0.0.1:{ports['udp']}",
    }


@pytest.mark.parametrize(
    ("host", "place"),
    [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")],  # noqa: S104
)
def test_urls_name_an_address_that_clients_can_connect_to(host: str, place: str) -> None:
    with running(TcpSettings(0, host), HttpSettings(0, host)) as board:
        assert board.url("tcp").startswith(f"tcp://{place}:")
        with socket.create_connection((place.strip("[]"), board.port("tcp")), WAIT_S) as client:
            assert call(client)["result"] is None
        with urllib.request.urlopen(board.url("http") + "/RPC.Ping") as response:  # noqa: S310
            assert json.loads(response.read())["channel_info"].startswith(place)


def test_the_mqtt_url_is_there_once_an_application_has_named_the_device() -> None:
    silent = FakeBoard(MqttSettings("mqtt://me:secret@127.0.0.1:1"))
    try:
        assert silent.do(lambda: dict(silent.network.urls)) == {}
        silent.start()
        silent.reset()
        assert silent.url("mqtt") == "mqtt://127.0.0.1:1/dev"
    finally:
        silent.close()


# --- the application comes and goes ---------------------------------------------------------


def test_a_request_waits_until_an_application_runs() -> None:
    board = FakeBoard(TcpSettings(), HttpSettings())
    try:
        with connect(board) as early, connect(board, "http") as web:
            early.sendall(b'"""' + frame("Echo") + b'"""')
            web.sendall(b"GET /rpc/RPC.Ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not select.select([early, web], [], [], 0)[0]
            board.start()
            assert answer(early)["id"] == 1
            assert web.recv(1000).startswith(b"HTTP/1.1 200")
    finally:
        board.close()


def test_datagrams_are_lost_while_no_application_runs() -> None:
    board = FakeBoard(UdpSettings(), TcpSettings())
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(WAIT_S)
            client.connect(board.address("udp"))
            for number in range(5):
                client.send(frame("Echo", number))
            device = board.start()
            with connect(board) as other:
                call(other)  # all links serve by now
            client.send(frame("Echo", 99))
            assert json.loads(client.recv(65536))["id"] == 99
            assert [channel.kind for channel in device.channels] == ["TCP", "UDP"]
    finally:
        board.close()


def test_a_reset_breaks_every_connection_and_forgets_every_request(board: FakeBoard) -> None:
    with connect(board) as idle, connect(board) as waiting, connect(board, "http") as web:
        call(idle)
        waiting.sendall(b'"""' + frame("Later") + b'"""')
        board.wait_for_call()
        first = board.device
        board.hang()
        idle.sendall(b'"""' + frame("Echo", 2) + b'"""')
        web.sendall(b"GET /rpc/Echo HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: bool(select.select([board.network], [], [], 0)[0]), "the requests")
        board.reset()
        assert all(is_broken(client) for client in (idle, waiting, web))
        second = board.start()
        board.go_on()
        with connect(board) as client:
            assert call(client, request_id=3)["id"] == 3
        assert len(second.channels) == 1
        assert first is not None
        late = first.waiting[0]
        board.do(lambda: late.result("nobody is there"))
        with connect(board) as client:
            assert call(client, request_id=4)["id"] == 4


def test_a_reset_forgets_what_came_without_a_connection(board: FakeBoard) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, connect(board) as other:
        call(other)
        board.hang()
        client.sendto(frame("Echo"), board.address("udp"))
        wait_until(lambda: board.pending == 1, "the datagram")
    board.reset()
    device = board.start()
    board.go_on()
    with connect(board) as other:
        call(other)
    assert [channel.kind for channel in device.channels] == ["TCP"]


def test_an_answer_given_right_before_a_reset_arrives(board: FakeBoard) -> None:
    for transport in ("tcp", "http") * 20:
        with connect(board, transport) as client:
            if transport == "tcp":
                client.sendall(b'"""' + frame("Later") + b'"""')
            else:
                client.sendall(b"GET /rpc/Later HTTP/1.1\r\nHost: x\r\n\r\n")
            board.wait_for_call()
            board.answer_and_reset()
            received = b""
            with contextlib.suppress(ConnectionError):
                while more := client.recv(65536):
                    received += more
            assert b"at last" in received
        board.start()


@pytest.mark.parametrize("transport", ["tcp", "http"])
def test_a_client_that_comes_after_a_reset_is_served(board: FakeBoard, transport: str) -> None:
    for number in range(200):
        board.reset()
        if number % 2:
            board.start()
        with connect(board, transport) as client:
            if not number % 2:
                board.start()
            if transport == "tcp":
                assert call(client)["id"] == 1
            else:
                client.sendall(b"GET /rpc/Echo HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_starting_again_without_an_end_is_a_reset(board: FakeBoard) -> None:
    with connect(board) as client:
        call(client)
        board.start()
        assert is_broken(client)


def test_firmware_that_hangs_answers_nobody(board: FakeBoard) -> None:
    board.hang()
    requests = {
        "rpc": b"GET /rpc/Echo HTTP/1.1\r\nHost: x\r\n\r\n",
        "hint": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "missing": b"GET /missing HTTP/1.1\r\nHost: x\r\n\r\n",
        "options": b"OPTIONS /rpc/Echo HTTP/1.1\r\nHost: x\r\n\r\n",
        "too large": b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n" + b"x" * 9999,
        "continue": b"POST /rpc HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Content-Length: 2\r\n\r\n",
        "websocket": HANDSHAKE,
    }
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(connect(board, "http")) for name in requests}
        for name, client in clients.items():
            client.sendall(requests[name])
        tcp = stack.enter_context(connect(board))
        tcp.sendall(b'"""' + frame("Echo") + b'"""')
        wait_until(lambda: board.pending == len(requests) + 1, "all requests to wait")
        assert not select.select([tcp, *clients.values()], [], [], 0)[0]
        board.go_on()
        statuses = {name: client.recv(65536)[9:12] for name, client in clients.items()}
        assert statuses == {
            "rpc": b"200",
            "hint": b"200",
            "missing": b"404",
            "options": b"200",
            "too large": b"413",
            "continue": b"100",
            "websocket": b"101",
        }
        assert answer(tcp)["id"] == 1


def test_a_loop_that_watches_while_the_application_hangs_does_not_spin(board: FakeBoard) -> None:
    board.hang()
    with connect(board) as first, connect(board) as second:
        first.sendall(b'"""' + frame("Echo", 1) + b'"""')
        wait_until(lambda: board.pending == 1, "the request")
        assert select.select([board.network], [], [], 0)[0]
        board.do(board.network.acknowledge)
        assert not select.select([board.network], [], [], 0)[0]
        second.sendall(b'"""' + frame("Echo", 2) + b'"""')
        assert select.select([board.network], [], [], WAIT_S)[0]
        board.go_on()
        assert answer(first)["id"] == 1
        assert answer(second)["id"] == 2


def test_a_turn_takes_a_bounded_number_of_requests(board: FakeBoard) -> None:
    board.hang()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(board)) for _ in range(100)]
        for client in clients:
            client.sendall(b'"""' + frame("Echo") + b'"""')
        wait_until(lambda: board.pending == 100, "all requests to wait")
        taken = board.do(board.network.take)
        assert len(taken) == 64
        assert select.select([board.network], [], [], 0)[0]
        board.go_on()
        wait_until(lambda: board.pending == 0, "the rest to be taken")


# --- many clients ---------------------------------------------------------------------------


def test_a_hundred_clients_at_once(board: FakeBoard) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(board)) for _ in range(100)]
        webs = [stack.enter_context(connect(board, "http")) for _ in range(100)]
        for _round in range(3):
            for number, (client, web) in enumerate(zip(clients, webs, strict=True)):
                client.sendall(b'"""' + frame("Echo", number) + b'"""')
                web.sendall(b"GET /rpc/Echo?n=%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            for number, (client, web) in enumerate(zip(clients, webs, strict=True)):
                assert answer(client)["id"] == number
                assert b'{"n":%d}' % number in web.recv(65536)


LATER = {
    "tcp": [b'"""' + frame("Later") + b'"""'],
    "http": [b"GET /rpc/Later HTTP/1.1\r\nHost: x\r\n\r\n"],
    "ws": [HANDSHAKE, message(frame("Later"))],
}
SILENCE = {
    "tcp": [b'"""{"id":'],
    "http": [b"GET /rpc HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /rpc HTTP/1.1\r\n"],
    "ws": [HANDSHAKE, message(frame("Echo"))],
}


@pytest.mark.parametrize("transport", ["tcp", "http", "ws"])
def test_clients_that_say_nothing_lock_nobody_out(board: FakeBoard, transport: str) -> None:
    def begin(*said: bytes) -> socket.socket:
        client = stack.enter_context(connect(board, transport))
        for number, each in enumerate(said):
            if number:
                assert client.recv(65536)
            client.sendall(each)
        return client

    with contextlib.ExitStack() as stack:
        busy = begin(*LATER[transport])
        board.wait_for_call()
        silent = [begin(*SILENCE[transport]) for _ in range(300)]
        first = begin(*LATER[transport])
        board.wait_for_call(2)
        with contextlib.suppress(ConnectionError):
            while told := silent[0].recv(65536):
                assert b"at last" not in told
        board.answer_all()
        assert b"at last" in busy.recv(65536)
        assert b"at last" in first.recv(65536)


def test_a_client_that_comes_while_there_are_no_file_descriptors_waits(board: FakeBoard) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client, contextlib.ExitStack() as taken:
        client.settimeout(WAIT_S)
        address = board.address("tcp")
        # A file that some earlier test has left to the garbage collector must not be closed now.
        gc.collect()
        gc.disable()
        taken.callback(gc.enable)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.callback(os.close, os.dup(0))
        client.connect(address)
        wait_until(lambda: board.logged("a client cannot connect yet: Too many"), "the log line")
        taken.close()
        assert call(client)["id"] == 1


# --- the end --------------------------------------------------------------------------------


def test_closing_twice_and_with_clients_connected() -> None:
    board = FakeBoard(TcpSettings(), HttpSettings(), UdpSettings())
    board.start()
    with connect(board) as client, connect(board, "http") as web:
        call(client)
        web.sendall(b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        board.close()
        board.network.close()
        assert is_broken(client)
        assert is_broken(web)


def test_closing_before_any_application() -> None:
    FakeBoard(TcpSettings(), HttpSettings(), UdpSettings()).close()


def test_an_answer_after_the_end_goes_nowhere() -> None:
    board = FakeBoard(TcpSettings())
    device = board.start()
    with connect(board) as client:
        client.sendall(b'"""' + frame("Later") + b'"""')
        board.wait_for_call()
        board.close()
        device.waiting[0].result("nobody is there")


# --- the beginning --------------------------------------------------------------------------

Settings = Callable[[int, str], LinkSettings]


@pytest.mark.parametrize("settings", [TcpSettings, HttpSettings, UdpSettings])
def test_a_port_that_is_taken(settings: Settings) -> None:
    kind = socket.SOCK_DGRAM if settings is UdpSettings else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            NetworkLinkError, match=r"in use; end the program .*0 takes a free"
        ) as e:
            Network([TcpSettings(), settings(port, "127.0.0.1")])
        assert (e.value.host, e.value.port) == ("127.0.0.1", port)
        assert e.value.transport == settings.__name__.removesuffix("Settings").lower()


@pytest.mark.parametrize(
    ("host", "port", "part"),
    [
        ("no.such.host.invalid", 0, "choose an address of this machine"),
        ("a" * 300, 0, "choose an address of this machine"),
        ("203.0.113.1", 0, "Cannot assign requested address; choose an address of this machine"),
        ("127.0.0.1", 65536, "a port is 0 to 65535"),
        ("127.0.0.1", -1, "a port is 0 to 65535"),
    ],
)
def test_a_place_that_cannot_be(host: str, port: int, part: str) -> None:
    with pytest.raises(NetworkLinkError, match=part):
        Network([TcpSettings(port, host)])


def test_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: socket.socket, _address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    class Refusing(socket.socket):
        bind = refuse

    monkeypatch.setattr("rpc_shim.links.sockets.socket.socket", Refusing)
    with pytest.raises(NetworkLinkError, match="Permission denied; ports below 1024"):
        Network([TcpSettings(80)])


def test_asyncio_has_nothing_to_complain_about(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    with (
        running(TcpSettings(), HttpSettings(), UdpSettings()) as board,
        connect(board) as client,
        connect(board, "http") as web,
    ):
        call(client)
        web.sendall(b"GET /rpc/Echo HTTP/1.1\r\nHost: x\r\n\r\n")
        web.recv(1000)
        board.reset()
        board.start()
    told = [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"]
    assert [text for text in told if not text.startswith("Executing")] == []  # a slow machine
