from dataclasses import dataclass, field

import pytest

from rpc_shim.arguments import Arguments, flag, text
from rpc_shim.dispatch import Dispatcher
from rpc_shim.frame import JsonValue
from rpc_shim.services.rpc import register_rpc_service
from rpc_shim.services.sys import DeviceInfo, register_sys_service
from tests.rpc.serving import call_dispatcher

INFO = DeviceInfo(
    id="dev",
    app="sample",
    fw_version="1.0",
    fw_id="20260101-000000/abcdef",
    mac="0200c0ffee00",
    arch="stm32",
    uptime=12,
    ram_size=131072,
    ram_free=100000,
    ram_min_free=90000,
)


@dataclass
class Board:
    """A dispatcher with both services, and the reboots asked for."""

    reboots: list[int] = field(default_factory=list)
    log_levels: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher("dev", lambda _line: None)
        register_rpc_service(self.dispatcher)
        register_sys_service(self.dispatcher, self)

    def device_info(self) -> DeviceInfo:
        return INFO

    def reboot_after(self, delay_ms: int) -> None:
        self.reboots.append(delay_ms)

    def set_log_level(self, level: int) -> None:
        self.log_levels.append(level)

    def call(self, method: str, params: dict[str, JsonValue] | None = None) -> JsonValue:
        return call_dispatcher(self.dispatcher, method, params)


@pytest.fixture
def board() -> Board:
    return Board()


def test_list(board: Board) -> None:
    board.dispatcher.register("A.Last", lambda _call: None)
    assert board.call("RPC.List") == [
        "A.Last",
        "RPC.Describe",
        "RPC.List",
        "RPC.Ping",
        "Sys.GetInfo",
        "Sys.Reboot",
        "Sys.SetDebug",
    ]


def test_describe(board: Board) -> None:
    arguments = Arguments(text("url", required=True), flag("force"))
    board.dispatcher.register("X.Do", lambda _call: None, arguments)
    assert board.call("RPC.Describe", {"name": "X.Do"}) == {
        "name": "X.Do",
        "args_fmt": "{url: %T, force: %B}",
    }
    assert board.call("RPC.Describe", {"name": "RPC.List"}) == {"name": "RPC.List", "args_fmt": ""}


def test_describe_errors(board: Board) -> None:
    assert board.call("RPC.Describe") == [400, "name is required"]
    assert board.call("RPC.Describe", {"name": "X"}) == [
        404,
        "name not found: RPC.List names all methods",
    ]


def test_ping(board: Board) -> None:
    assert board.call("RPC.Ping") == {"channel_info": "UART2"}


def test_info(board: Board) -> None:
    info = board.call("Sys.GetInfo")
    assert isinstance(info, dict)
    assert list(info) == [
        *("id", "app", "fw_version", "fw_id", "mac", "arch", "uptime"),
        *("ram_size", "ram_free", "ram_min_free", "fs_size", "fs_free"),
    ]
    assert info["uptime"] == 12


@pytest.mark.parametrize(("params", "delay_ms"), [(None, 100), ({"delay_ms": 0}, 0)])
def test_reboot(board: Board, params: dict[str, JsonValue] | None, delay_ms: int) -> None:
    assert board.call("Sys.Reboot", params) is None
    assert board.reboots == [delay_ms]


@pytest.mark.parametrize("delay_ms", [-1, "soon", 2**31, True])
def test_reboot_with_a_wrong_delay(board: Board, delay_ms: JsonValue) -> None:
    error = board.call("Sys.Reboot", {"delay_ms": delay_ms})
    assert isinstance(error, list)
    assert error[0] == 400
    assert "delay_ms" in str(error[1])
    assert board.reboots == []
    if delay_ms == -1:
        assert str(error[1]).startswith("invalid delay value")


def test_debug_level(board: Board) -> None:
    for level in (-1, 4):
        assert board.call("Sys.SetDebug", {"level": level}) is None
    assert board.log_levels == [-1, 4]
    for level in (-2, 5):
        code, message = _error(board.call("Sys.SetDebug", {"level": level}))
        assert (code, "expected -1 to 4" in message) == (400, True)
    for name in ("udp_log_addr", "file_level"):
        assert _error(board.call("Sys.SetDebug", {name: "x"}))[0] == 501
    assert board.log_levels == [-1, 4]


def _error(answer: JsonValue) -> tuple[int, str]:
    assert isinstance(answer, list)
    code, message = answer
    assert isinstance(code, int)
    assert isinstance(message, str)
    return code, message
