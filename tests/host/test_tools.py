"""Every host tool, over every transport, on one board kept by `otasim run`.

Each cell of the README's table is one operation of one tool here. The real tool drives it where it
is installed; a client that sends exactly the same does so everywhere.
"""

import json
import os
import pty
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from otasim.bundle_server import BundleServer, bundle_of
from rpc_shim.client import Framing, RpcClient, SerialPort
from rpc_shim.frame import JsonValue
from tests.conftest import CELL_PROPERTY
from tests.host.running_board import PATIENCE_S, RunningBoard, on_all_transports
from tests.host.tools import (
    CURL,
    MOSQUITTO_RR,
    Frames,
    Mos,
    Params,
    Tool,
    ToolError,
    curl,
    exact_client,
    websocket_call,
)
from tests.rpc.mos import MOS, needs_mos

TRANSPORTS = ("serial", "tcp", "ws", "http", "udp", "mqtt")
Record = Callable[[str, object], None]

WHOLE_ROW = ("call", "update", "push", "files", "config")
CELLS = {
    "mos serial": (*WHOLE_ROW, "console"),
    **{f"mos {transport}": WHOLE_ROW for transport in TRANSPORTS[1:]},
    "curl": WHOLE_ROW,
    "MQTT client": WHOLE_ROW,
    "pyserial script": WHOLE_ROW,
    "WebSocket client": ("call",),
}
"""The README's table: what each tool is shown to do here."""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBoard]:
    with on_all_transports(tmp_path_factory.mktemp("board"), "--speed", "20") as running:
        yield running


def url_of(board: RunningBoard, transport: str) -> str:
    if transport not in board.ready:
        pytest.skip("mosquitto is not installed: no MQTT broker here")
    return str(board.ready[transport])


def member(value: JsonValue, key: str) -> JsonValue:
    assert isinstance(value, dict)
    found: JsonValue = value[key]
    return found


def record_row(record_property: Record, tool: str, who: str) -> None:
    for operation in WHOLE_ROW:
        record_property(CELL_PROPERTY, (tool, operation, who))


@contextmanager
def restarting(board: RunningBoard, *texts: str) -> Iterator[None]:
    """What is done inside makes the board say this and start again, until every link serves."""
    links = ("mqtt: connected",) if "mqtt" in board.ready else ()
    with board.expecting(*texts, "ready"), board.expecting(*texts, *links):
        yield


def update_commit_and_roll_back(board: RunningBoard, tool: Tool, server: BundleServer) -> None:
    url = server.publish_sample("sample-2.0")
    with restarting(board, "starting slot 0: sample 2.0"):
        tool.call("OTA.Update", {"url": url, "commit_timeout": 3000})
    tool.call("OTA.Commit")
    assert member(tool.call("OTA.GetBootState"), "is_committed") is True
    with restarting(board, "hanging", "reset cause watchdog", "rolling back to slot"):
        tool.call("OTA.Update", {"url": server.publish_sample("hang-2.1"), "commit_timeout": 3000})
    assert member(tool.call("Sys.GetInfo"), "fw_version") == "2.0"


def push(board: RunningBoard, tool: Tool, folder: Path) -> None:
    bundle = folder / "fw.zip"
    bundle.write_bytes(bundle_of("sample-3.0"))
    with restarting(board, "starting slot 0: sample 3.0"):
        tool.push(bundle, 3000)
    assert member(tool.call("OTA.GetBootState"), "commit_timeout") == 3000
    with restarting(board, "reset cause software"):
        tool.call("OTA.Revert")


def files(tool: Tool, folder: Path) -> None:
    file = folder / "note.txt"
    file.write_bytes(b"kept in flash\n")
    tool.put(file)
    assert file.name in tool.names()
    assert tool.get(file.name) == file.read_bytes()
    tool.remove(file.name)
    assert file.name not in tool.names()


def configuration(tool: Tool) -> None:
    for value in ("700", "600"):
        tool.configure("update.timeout", value)
        assert tool.configured("update.timeout") == int(value)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("is_real", [True, False], ids=["mos", "as mos does"])
def test_mos(
    transport: str,
    is_real: bool,
    board: RunningBoard,
    server: BundleServer,
    tmp_path: Path,
    record_property: Record,
) -> None:
    if is_real and MOS is None:
        pytest.skip("the host tool mos is not on PATH")
    url = url_of(board, transport)
    tool: Tool = Mos(url) if is_real else exact_client(transport, url)
    methods = tool.call("RPC.List")
    assert isinstance(methods, list)
    assert "OTA.Update" in methods
    with pytest.raises(Exception, match=r"No handler for No\.Such"):
        tool.call("No.Such")
    files(tool, tmp_path)
    configuration(tool)
    update_commit_and_roll_back(board, tool, server)
    push(board, tool, tmp_path)
    who = "mos" if is_real else "protocol-exact client"
    record_row(record_property, f"mos {transport}", who)


@needs_mos
def test_the_console_of_mos(board: RunningBoard, record_property: Record) -> None:
    mine, its = pty.openpty()
    command = [MOS or "mos", "--port", url_of(board, "serial"), "console"]
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its) as console:
        os.close(its)
        os.set_blocking(mine, False)
        seen = b""
        deadline = time.monotonic() + PATIENCE_S
        while b"commands: help" not in seen:
            assert time.monotonic() < deadline, seen
            os.write(mine, b"help\n")
            time.sleep(0.2)
            try:
                seen += os.read(mine, 65536)
            except BlockingIOError:
                continue
        console.kill()
    os.close(mine)
    record_property(CELL_PROPERTY, ("mos serial", "console", "mos"))


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
def test_curl(
    board: RunningBoard, server: BundleServer, tmp_path: Path, record_property: Record
) -> None:
    base = url_of(board, "http")

    def call(method: str, params: Params | None = None) -> JsonValue:
        body = [] if params is None else ["--data", json.dumps(params)]
        return curl(f"{base}/{method}", *body)

    tool = Frames(call)
    assert curl(f"{base}/RPC.Describe?name=%22OTA.Commit%22") == {
        "name": "OTA.Commit",
        "args_fmt": "",
    }
    with pytest.raises(ToolError, match="404"):
        tool.call("No.Such")
    files(tool, tmp_path)
    configuration(tool)
    update_commit_and_roll_back(board, tool, server)
    bundle = tmp_path / "fw.zip"
    bundle.write_bytes(bundle_of("sample-3.0"))
    root = base.removesuffix("/rpc")
    with restarting(board, "starting slot 0: sample 3.0"):
        told = curl(f"{root}/update", "--form", "commit_timeout=3000", "--form", f"file=@{bundle}")
    assert told == "Update applied, finalizing\n"
    with restarting(board, "reset cause software"):
        curl(f"{root}/update/revert", "--request", "POST")
    record_row(record_property, "curl", "curl")


@pytest.mark.skipif(
    MOSQUITTO_RR is None, reason="mosquitto_rr (mosquitto-clients) is not installed"
)
def test_an_mqtt_client(
    board: RunningBoard, server: BundleServer, tmp_path: Path, record_property: Record
) -> None:
    match = re.fullmatch(r"mqtt://127\.0\.0\.1:(\d+)/(\w+)", url_of(board, "mqtt"))
    assert match is not None
    port, device = match.groups()

    def call(method: str, params: Params | None = None) -> JsonValue:
        frame: Params = {"id": 1, "src": "me", "method": method}
        if params is not None:
            frame["params"] = params
        done = subprocess.run(
            [
                MOSQUITTO_RR or "mosquitto_rr", "-p", port, "-q", "1", "-t", f"{device}/rpc",
                "-e", "me/rpc", "-m", json.dumps(frame),
            ],
            capture_output=True,
            check=True,
            timeout=PATIENCE_S,
        )  # fmt: skip
        return member(json.loads(done.stdout), "result")

    tool = Frames(call)
    assert member(tool.call("Sys.GetInfo"), "id") == device
    files(tool, tmp_path)
    configuration(tool)
    update_commit_and_roll_back(board, tool, server)
    push(board, tool, tmp_path)
    record_row(record_property, "MQTT client", "mosquitto_rr")


def test_a_script_with_pyserial(
    board: RunningBoard, server: BundleServer, tmp_path: Path, record_property: Record
) -> None:
    ids = iter(range(10_000_000, 20_000_000))

    def call(method: str, params: Params | None = None) -> JsonValue:
        port = SerialPort(url_of(board, "serial"))
        with RpcClient(port, framing=Framing.LINES, first_id=next(ids)) as client:
            return client.call(method, params, timeout_s=PATIENCE_S)

    tool = Frames(call)
    files(tool, tmp_path)
    configuration(tool)
    update_commit_and_roll_back(board, tool, server)
    push(board, tool, tmp_path)
    record_row(record_property, "pyserial script", "pyserial")


def test_a_websocket_as_a_page_opens_it(board: RunningBoard, record_property: Record) -> None:
    url = url_of(board, "ws")
    answer = websocket_call(url, b'{"id":1,"method":"RPC.Ping"}')
    assert re.fullmatch(r"127\.0\.0\.1:\d+", str(member(answer, "channel_info")))
    record_property(CELL_PROPERTY, ("WebSocket client", "call", "aiohttp"))
