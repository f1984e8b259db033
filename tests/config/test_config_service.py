import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rpc_shim.config.configuration import Configuration
from rpc_shim.config.schema import DEBUG_LEVEL, DEVICE_ID, RPC_MAX_FRAME_SIZE, WATCHDOG_TIMEOUT
from rpc_shim.dispatch import Dispatcher
from rpc_shim.frame import JsonValue
from rpc_shim.services.config import register_config_service
from tests.config.files import Files
from tests.rpc.mos import needs_mos, run_mos
from tests.rpc.serving import call_dispatcher, serve


@dataclass
class Device:
    """A dispatcher with the service, the files behind it, and the reboots asked for."""

    files: Files = field(default_factory=Files)
    reboots: list[int] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.configuration = Configuration(self.files, self.log.append)
        self.dispatcher = Dispatcher("dev", self.log.append)
        self.register(self.dispatcher)

    def register(self, dispatcher: Dispatcher) -> None:
        register_config_service(dispatcher, self.configuration, self.reboots.append)

    def call(self, method: str, params: dict[str, JsonValue] | None = None) -> JsonValue:
        return call_dispatcher(self.dispatcher, method, params)


def test_arguments_are_described_as_on_the_device() -> None:
    formats = {method.name: method.arguments.format for method in Device().dispatcher.methods}
    assert formats == {
        "Config.Get": "{key: %Q, level: %d}",
        "Config.GetOne": "{key: %Q, level: %d}",
        "Config.Set": "{key: %Q, config: %T, value: %T, level: %d, save: %B, try_once: %B, "
        "reboot: %B}",
        "Config.Save": "{try_once: %B, reboot: %B}",
    }


def test_get() -> None:
    device = Device()
    device.configuration.change({"debug": {"level": 4}})
    tree = device.call("Config.Get")
    assert isinstance(tree, dict)
    assert tree["debug"] == {"level": 4}
    assert device.call("Config.Get", {"level": -1}) == tree
    assert device.call("Config.Get", {"level": 9}) == tree
    assert device.call("Config.Get", {"key": "debug"}) == {"level": 4}
    assert device.call("Config.Get", {"key": "debug.level"}) == 4
    assert device.call("Config.Get", {"key": "debug.level", "level": 0}) == 2
    assert device.call("Config.Get", {"key": "wifi"}) == [404, "invalid config key: 'wifi'"]


@pytest.mark.parametrize("params", [{"level": 10}, {"level": "9"}, {"key": 5}, {"key": ""}])
def test_get_with_wrong_arguments(params: dict[str, JsonValue]) -> None:
    answer = Device().call("Config.Get", params)
    assert isinstance(answer, list)
    assert answer[0] == 400


@pytest.mark.parametrize(
    "params",
    [
        {"config": {"debug": {"level": 4}}},
        {"value": {"debug": {"level": 4}}},
        {"config": 5, "value": {"debug": {"level": 4}}},
        {"key": "debug", "config": {"level": 4}},
        {"key": "debug.level", "value": 4},
        {"key": "debug.level", "value": 4, "level": 9, "reboot": True},
    ],
)
def test_set_without_saving(params: dict[str, JsonValue]) -> None:
    device = Device()
    assert device.call("Config.Set", params) == {"saved": False}
    assert device.configuration.get(DEBUG_LEVEL) == 4
    assert not device.files.contents
    assert not device.reboots  # it would be lost


def test_get_one_setting_and_no_object() -> None:
    device = Device()
    assert device.call("Config.GetOne", {"key": "device.id"}) == "otasim"
    assert device.call("Config.GetOne", {"key": "debug.level", "level": 0}) == 2
    for key in ("device", "no.such"):
        refused = device.call("Config.GetOne", {"key": key})
        assert isinstance(refused, list)
        assert refused[0] == 404


def test_set_a_value_that_is_false() -> None:
    device = Device()
    assert device.call("Config.Set", {"key": "update.enable_post", "value": False}) == {
        "saved": False
    }
    assert device.configuration.tree("update.enable_post") is False


def test_set_save_and_reboot_as_mos_does() -> None:
    device = Device()
    config: JsonValue = {"device": {"id": "lab-7"}, "sys": {"wdt_timeout": 5}}
    params: dict[str, JsonValue] = {"config": config, "save": True, "reboot": True}
    assert device.call("Config.Set", params) == {"saved": True}
    assert json.loads(device.files.contents["conf9.json"]) == config
    assert device.reboots == [500]
    rebooted = Device(device.files)
    assert rebooted.configuration.get(DEVICE_ID) == "lab-7"
    assert rebooted.configuration.get(WATCHDOG_TIMEOUT) == 5


def test_set_another_level() -> None:
    device = Device()
    params: dict[str, JsonValue] = {"key": "debug.level", "value": 4, "level": 5, "save": True}
    assert device.call("Config.Set", params) == {"saved": True}
    assert device.configuration.get(DEBUG_LEVEL) == 2
    assert device.call("Config.Get", {"key": "debug.level", "level": 5}) == 4
    assert list(device.files.contents) == ["conf5.json"]


@pytest.mark.parametrize(
    ("params", "code", "message"),
    [
        ({}, 400, "value is required"),
        ({"value": None}, 400, "value is required"),
        ({"config": {}, "level": 0}, 400, "not allowed: level 0 is the built-in defaults"),
        ({"config": {}, "level": 10}, 400, "level must be a whole number (-1 to 9), got 10"),
        ({"key": "wifi", "value": 1}, 404, "invalid config key: 'wifi'"),
        ({"config": {"wifi": {"ssid": 1}}}, 404, "invalid config key: 'wifi'"),
        (
            {"config": {"debug": {"level": 1}, "sys": {"wdt_timeout": "x"}}},
            400,
            "invalid config value: sys.wdt_timeout must be a whole number (1 to 32), got 'x'",
        ),
        (
            {"config": [1]},
            400,
            "invalid config value: the configuration must be an object, got a list",
        ),
        ({"key": "conf_acl", "value": "*"}, 403, "conf_acl may not be set: conf_acl is '-c*,*'"),
        ({"config": {}, "save": 1}, 400, "save must be true or false, got 1"),
    ],
)
def test_set_that_is_refused_changes_nothing(
    params: dict[str, JsonValue], code: int, message: str
) -> None:
    device = Device()
    device.configuration.change("-c*,*", "conf_acl")
    before = device.call("Config.Get")
    assert device.call("Config.Set", {"save": True, "reboot": True, **params}) == [code, message]
    assert device.call("Config.Get") == before
    assert not device.files.contents
    assert not device.reboots


def test_save() -> None:
    device = Device()
    device.call("Config.Set", {"key": "debug.level", "value": 4})
    assert device.call("Config.Save") == {"saved": True}
    assert device.reboots == []
    assert Device(device.files).configuration.get(DEBUG_LEVEL) == 4
    device.call("Config.Set", {"key": "debug.level", "value": 1})
    assert device.call("Config.Save", {"try_once": True, "reboot": True}) == {"saved": True}
    assert device.reboots == [500]
    assert Device(device.files).configuration.get(DEBUG_LEVEL) == 1
    assert Device(device.files).configuration.get(DEBUG_LEVEL) == 4


@pytest.mark.parametrize(
    ("method", "params"), [("Config.Save", {}), ("Config.Set", {"config": {}, "save": True})]
)
def test_saving_that_fails(method: str, params: dict[str, JsonValue]) -> None:
    device = Device()
    device.files.broken.add("write")
    answer = device.call(method, params | {"reboot": True})
    assert answer == [-1, "error saving config: write failed"]
    assert not device.reboots


@needs_mos
def test_mos(tmp_path: Path) -> None:
    device = Device()
    with serve(tmp_path / "port", register=device.register) as served:

        def mos(*arguments: str) -> subprocess.CompletedProcess[str]:
            return run_mos(tmp_path, served.port, *arguments)

        assert json.loads(mos("config-get").stdout) == device.configuration.tree()
        assert mos("config-get", "device.id").stdout.strip() == "otasim"
        done = mos("config-set", "device.id=lab-7", "update.enable_post=false")
        assert done.returncode == 0, done.stderr
        assert json.loads(device.files.contents["conf9.json"]) == {
            "device": {"id": "lab-7"},
            "update": {"enable_post": False},
        }
        assert device.reboots == [500]
        assert mos("config-get", "device.id").stdout.strip() == "lab-7"
        assert mos("config-get", "--level", "0", "device.id").stdout.strip() == "otasim"
        refused = mos("config-set", "sys.wdt_timeout=0")
        assert "sys.wdt_timeout must be a whole number (1 to 32), got 0" in refused.stderr
        assert mos("config-set", "--try-once", "debug.level=4").returncode == 0
        assert "conf9.json.try" in device.files.contents
        assert mos("config-set", "--level", "3", "--no-reboot", "debug.level=1").returncode == 0
        assert json.loads(device.files.contents["conf3.json"]) == {"debug": {"level": 1}}
        assert device.reboots == [500, 500]


@needs_mos
def test_mos_can_undo_the_smallest_frame_size(tmp_path: Path) -> None:
    device = Device()
    smallest = next(
        size
        for size in range(RPC_MAX_FRAME_SIZE.default)
        if RPC_MAX_FRAME_SIZE.parse(size) is not None
    )
    device.configuration.change(smallest, "rpc.max_frame_size", save=True)
    with serve(tmp_path / "port", register=device.register, max_frame_size=smallest) as served:
        done = run_mos(tmp_path, served.port, "config-set", "rpc.max_frame_size=4096")
    assert done.returncode == 0, done.stderr
    assert device.configuration.get(RPC_MAX_FRAME_SIZE) == 4096
