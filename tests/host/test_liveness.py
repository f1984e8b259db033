"""The service lives in the firmware's main loop, whichever way a request comes."""

import json
import os
import select
import socket
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

from rpc_shim.client import Framing, RpcClient
from tests.host.running_board import PATIENCE_S, RunningBoard
from tests.host.tools import Mos, exact_client, websocket_call
from tests.rpc.mos import MOS


def test_hung_firmware_answers_on_no_transport(engine: str, tmp_path: Path) -> None:
    with RunningBoard(engine, tmp_path, "--tcp", "0", "--http", "0", "--udp", "0") as board:
        with board.expecting("hanging"), open(board.link, "wb", buffering=0) as port:  # noqa: PTH123
            port.write(b"hang\n")
        frame = b'{"id":1,"method":"Sys.GetInfo"}'
        requests = {
            "tcp": frame + b"\n",
            "udp": frame,
            "http": b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
            % (len(frame), frame),
        }
        with ExitStack() as cleanup, board.expecting("reset cause watchdog", "ready"):
            asked: dict[str, socket.socket] = {}
            for transport, request in requests.items():
                url = urlsplit(str(board.ready[transport]))
                kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
                asked[transport] = cleanup.enter_context(socket.socket(socket.AF_INET, kind))
                asked[transport].connect((url.hostname, url.port))
                asked[transport].send(request)
            serial = cleanup.enter_context(open(board.link, "r+b", buffering=0))  # noqa: PTH123
            serial.write(frame + b"\n")
            # Only the reset ends the silence: connections break, and datagrams are lost.
            for transport in ("tcp", "http"):
                asked[transport].settimeout(PATIENCE_S)
                with suppress(ConnectionError):
                    assert asked[transport].recv(4096) == b"", transport
            assert select.select([asked["udp"]], [], [], 0)[0] == []
            os.set_blocking(serial.fileno(), False)
            assert b'"fw_version"' not in (serial.read(65536) or b"")
        for transport in ("serial", *requests):
            assert exact_client(transport, str(board.ready[transport])).call("RPC.Ping")
        board.stop()


def test_firmware_with_rpc_of_its_own_is_reached_over_the_network(
    engine: str, tmp_path: Path
) -> None:
    with RunningBoard(
        engine, tmp_path, "--image", "own-rpc-1.0", "--rpc", "passthrough",
        "--tcp", "0", "--http", "0", "--udp", "0",
    ) as board:  # fmt: skip
        for transport in ("tcp", "udp", "http"):
            info = exact_client(transport, str(board.ready[transport])).call("Sys.GetInfo")
            assert isinstance(info, dict)
            assert info["app"] == "own-rpc"
        request = json.dumps({"id": "text", "method": "Echo", "params": {"a": [1, "b"]}})
        assert websocket_call(str(board.ready["ws"]), request.encode()) == {"a": [1, "b"]}
        # The firmware's own name is not the board's; it is for the firmware to say who is meant.
        named = json.dumps({"id": 1, "method": "Echo", "params": {}, "dst": "own-rpc"}).encode()
        with urllib.request.urlopen(str(board.ready["http"]), named, PATIENCE_S) as response:  # noqa: S310
            assert json.loads(response.read())["result"] == {}
        address = urlsplit(str(board.ready["tcp"]))
        with socket.create_connection((str(address.hostname), address.port or 0)) as half_open:
            half_open.settimeout(PATIENCE_S)
            half_open.sendall(named)
            half_open.shutdown(socket.SHUT_WR)
            with half_open.makefile("rb") as answer:
                assert json.loads(answer.read())["result"] == {}
        with RpcClient.open(str(board.link), framing=Framing.QUOTES, first_id=5) as client:
            methods = client.call("RPC.List", timeout_s=PATIENCE_S)
        assert isinstance(methods, list)
        assert "OTA.Update" not in methods
        if MOS is not None:
            assert "Echo" in Mos(str(board.link)).run("call", "RPC.List")
        board.stop()


def test_floods_and_half_open_connections_stop_nothing(tmp_path: Path) -> None:
    with RunningBoard("embedded", tmp_path, "--tcp", "0", "--http", "0", "--udp", "0") as board:
        tcp, http, udp = (urlsplit(str(board.ready[name])) for name in ("tcp", "http", "udp"))
        noise = bytes(range(256)) * 64 + b'{"id":1,"method":"' + b"x" * 9000
        idle = [
            socket.create_connection((address.hostname or "", address.port or 0))
            for address in (tcp, http)
            for _ in range(100)
        ]
        try:
            for connection in idle[::2]:
                connection.sendall(b"POST /rpc HTTP/1.1\r\nHost:")
            for connection in idle[1::20]:
                connection.sendall(noise)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                for size in (0, 1, 100, 9000):
                    datagrams.sendto(noise[:size], (udp.hostname or "", udp.port or 0))
            for name in ("tcp", "http", "udp", "serial"):
                assert exact_client(name, str(board.ready[name])).call("RPC.Ping")
        finally:
            for connection in idle:
                connection.close()
        output = board.stop()
        assert "Traceback" not in output
        assert board.process.returncode == 0
