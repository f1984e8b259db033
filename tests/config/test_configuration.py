import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.devices.watchdog import registers_for
from platforms.errors import InvalidArgumentError
from rpc_shim.config import schema
from rpc_shim.config.configuration import Configuration, NotAllowedError
from rpc_shim.config.schema import (
    CONF_ACL,
    DEBUG_LEVEL,
    DEVICE_ID,
    PROTECTIONS,
    RPC_ACL,
    RPC_AUTH_ALGO,
    RPC_AUTH_DOMAIN,
    SCHEMA,
    SETTINGS,
    UPDATE_ENABLE_POST,
    UPDATE_INTERVAL,
    UPDATE_KEYS,
    UPDATE_URL,
    WATCHDOG_TIMEOUT,
    ConfigError,
    Setting,
    SettingValue,
    UnknownKeyError,
)
from rpc_shim.config.tree import flatten, subtree
from rpc_shim.frame import JsonValue
from tests.config.files import BrokenFilesError, Files

DEFAULTS = {setting.key: setting.default for setting in SCHEMA}


@dataclass
class Device:
    """The files of a device, and what its boots say."""

    files: Files = field(default_factory=Files)
    log: list[str] = field(default_factory=list)

    def boot(self, defaults: dict[str, SettingValue] | None = None) -> Configuration:
        self.log.clear()
        return Configuration(self.files, self.log.append, defaults)

    def put(self, name: str, tree: JsonValue) -> None:
        self.files.contents[name] = json.dumps(tree).encode()

    def file(self, name: str) -> JsonValue:
        tree: JsonValue = json.loads(self.files.contents[name])
        return tree


# -- the schema -----------------------------------------------------------------------------------


def test_every_setting_takes_its_own_default_and_is_named_once() -> None:
    assert len(SETTINGS) == len(SCHEMA)
    for setting in SCHEMA:
        assert setting.value(setting.default) == setting.default
        assert setting.title


def test_every_setting_of_the_module_is_in_the_schema() -> None:
    constants = {value.key for value in vars(schema).values() if isinstance(value, Setting)}
    assert constants | {setting.key for setting in UPDATE_KEYS} == set(SETTINGS)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (DEVICE_ID, "a" * 63),
        (DEVICE_ID, "A-b_c.9"),
        (DEBUG_LEVEL, -1),
        (WATCHDOG_TIMEOUT, 1),
        (WATCHDOG_TIMEOUT, 32),
        (UPDATE_ENABLE_POST, False),
        (UPDATE_URL, "http://127.0.0.1:8000/fw.zip"),
        (UPDATE_KEYS[7], "MFkwEw+/=="),
        (RPC_ACL, '[{"method": "*", "acl": "+alice"}]'),
        (RPC_ACL, "@acl.json"),
        (RPC_AUTH_DOMAIN, ""),
    ],
)
def test_good_values(setting: Setting[SettingValue], value: SettingValue) -> None:
    assert setting.value(value) == value


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        (DEVICE_ID, "", "device.id must be 1 to 63 letters, digits.*, got ''"),
        (DEVICE_ID, "a" * 64, "device.id must be"),
        (DEVICE_ID, "a b", "device.id must be"),
        (DEVICE_ID, "a\n", "device.id must be"),
        (DEVICE_ID, 5, "got 5"),
        (DEBUG_LEVEL, 5, r"debug.level must be a whole number \(-1 to 4\), got 5"),
        (DEBUG_LEVEL, True, "got true"),
        (DEBUG_LEVEL, 1.5, "got 1.5"),
        (DEBUG_LEVEL, "2", "got '2'"),
        (UPDATE_INTERVAL, 2**31, "update.interval must be"),
        (WATCHDOG_TIMEOUT, 0, "must be a whole number"),
        (WATCHDOG_TIMEOUT, 33, "must be a whole number"),
        (UPDATE_ENABLE_POST, 1, "must be true or false, got 1"),
        (UPDATE_URL, "http://\n", "must be a string of up to 1,024 printable"),
        (UPDATE_KEYS[0], "not base64", "update.key0 must be a public key"),
        (RPC_ACL, "[{}]", "rpc.acl must be JSON such as"),
        (RPC_ACL, [], "rpc.acl must be JSON such as"),
        (RPC_AUTH_DOMAIN, 'R"PC', "rpc.auth_domain must be"),
    ],
)
def test_bad_values(setting: Setting[SettingValue], value: JsonValue, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        setting.value(value)
    assert caught.value.key == setting.key


def test_the_watchdog_can_be_set_to_what_the_schema_allows() -> None:
    registers_for(1)
    registers_for(32)
    with pytest.raises(InvalidArgumentError):
        registers_for(33)


def test_a_whole_number_may_be_written_as_a_float() -> None:
    value = WATCHDOG_TIMEOUT.value(5.0)
    assert (value, type(value)) == (5, int)


# -- trees ----------------------------------------------------------------------------------------

VALID_VALUES: dict[str, st.SearchStrategy[SettingValue]] = {
    DEVICE_ID.key: st.from_regex(r"[A-Za-z0-9_.-]{1,63}", fullmatch=True),
    DEBUG_LEVEL.key: st.integers(-1, 4),
    WATCHDOG_TIMEOUT.key: st.integers(1, 32),
    UPDATE_ENABLE_POST.key: st.booleans(),
    UPDATE_URL.key: st.from_regex(r"[ -~]{0,100}", fullmatch=True),
    RPC_AUTH_ALGO.key: st.integers(0, 1),
}
VALID_CHANGES = st.fixed_dictionaries({}, optional=VALID_VALUES)
JSON_VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["", "device", "update", "rpc", "id", "timeout", "acl", "url", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(VALID_CHANGES)
def test_a_tree_holds_what_it_is_made_from(values: dict[str, SettingValue]) -> None:
    assert sorted(map(str, flatten(subtree(values)))) == sorted(map(str, values.items()))


@given(JSON_VALUES, st.none() | st.sampled_from(["", "x", "update", "update.", *SETTINGS]))
def test_whatever_a_tree_is_only_good_settings_come_out(tree: JsonValue, key: str | None) -> None:
    for found in flatten(tree, key):
        if not isinstance(found, ConfigError):
            assert SETTINGS[found[0]].value(found[1]) == found[1]


def test_parts_of_the_tree() -> None:
    assert subtree(DEFAULTS, "debug") == {"level": 2}
    assert subtree(DEFAULTS, "debug.level") == 2
    assert list(subtree(DEFAULTS)) == ["device", "debug", "sys", "update", "rpc", "conf_acl"]  # type: ignore[arg-type]
    for key in ("", "x", "debug.", ".debug", "debug.level.x", "debug.lev", "deb"):
        with pytest.raises(UnknownKeyError, match=f"invalid config key: '{key}'"):
            subtree(DEFAULTS, key)


# -- levels ---------------------------------------------------------------------------------------


def test_without_files_the_defaults_hold() -> None:
    device = Device()
    configuration = device.boot()
    assert configuration.tree() == subtree(DEFAULTS)
    assert configuration.get(DEVICE_ID) == "otasim"
    assert not device.log
    assert not device.files.contents


def test_a_board_has_its_own_defaults() -> None:
    device = Device()
    configuration = device.boot({"device.id": "lab-7"})
    assert configuration.get(DEVICE_ID) == "lab-7"
    assert configuration.tree("device.id", 0) == "lab-7"
    configuration.save()
    assert device.file("conf9.json") == {}
    with pytest.raises(ConfigError, match=r"device\.id must be"):
        device.boot({"device.id": ""})
    with pytest.raises(UnknownKeyError):
        device.boot({"device.name": "x"})


def test_levels_overlay_each_other_in_order() -> None:
    device = Device()
    device.put("conf9.json", {"debug": {"level": 0}})
    device.put("conf1.json", {"debug": {"level": 3}, "sys": {"wdt_timeout": 10}})
    device.put("conf5.json", {"debug": {"level": 4}, "update": {"url": "http://h/"}})
    configuration = device.boot()
    assert configuration.get(DEBUG_LEVEL) == 0
    assert configuration.get(WATCHDOG_TIMEOUT) == 10
    assert configuration.get(UPDATE_URL) == "http://h/"
    assert [configuration.tree("debug.level", level) for level in range(10)] == [
        2, 3, 3, 3, 3, 4, 4, 4, 4, 0,
    ]  # fmt: skip
    assert configuration.tree("update.url", 4) == ""


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{"wifi": {}}', "config: conf9.json: ignored: invalid config key: 'wifi'"),
        (b'{"": 5}', "config: conf9.json: ignored: invalid config key: ''"),
        (b'{"debug": 5}', "config: conf9.json: ignored: debug must be an object, got 5"),
        (b'{"device": {"id": {}}}', "conf9.json: ignored: device.id must be 1 to 63 letters"),
        (b'{"rpc": {"max_frame_size": 511}}', "ignored: rpc.max_frame_size must be a whole"),
    ],
)
def test_a_bad_setting_is_told_and_left_out(data: bytes, problem: str) -> None:
    device = Device()
    device.files.contents["conf9.json"] = data
    configuration = device.boot()
    assert configuration.tree() == subtree(DEFAULTS)
    assert configuration.damage == ""
    assert len(device.log) == 1
    assert problem in device.log[0]


@pytest.mark.parametrize("name", ["conf1.json", "conf9.json", "conf9.json.try"])
@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff" * 4096, "byte 0xff at 0 is not ASCII"),
        (b'{"wifi": "\xe9"}', "byte 0xe9 at 10 is not ASCII"),
        (b"[1]", "the configuration must be an object, got a list"),
        (b"[" * 1000, "nested deeper"),
        (b'{"rpc": 5}', "rpc must be an object, got 5"),
        (b'{"update": []}', "update must be an object, got a list"),
        (b'{"rpc": {"acl": 5}}', "rpc.acl must be JSON such"),
        (b'{"rpc": {"acl": "[{\\"method\\":\\"*\\",\\"acl\\":\\"-*\\"}"}}', "rpc.acl must be"),
        (b'{"rpc": {"acl": [{"method": "*", "acl": "-*"}]}}', "got a list"),
        (b'{"rpc": {"acl_file": null}}', "rpc.acl_file must be a string"),
        (b'{"rpc": {"auth_file": 5}}', "rpc.auth_file must be a string"),
        (b'{"rpc": {"auth_domain": "a:b"}}', "rpc.auth_domain must be"),
        (b'{"rpc": {"auth_algo": 2}}', "rpc.auth_algo must be a whole number"),
        (b'{"update": {"sig_req_mask": "1"}}', "update.sig_req_mask must be a whole number"),
        (b'{"update": {"key7": "?"}}', "update.key7 must be a public key"),
        (b'{"update": {"ssl_ca_file": 5}}', "update.ssl_ca_file must be a string"),
        (b'{"update": {"enable_post": 0}}', "update.enable_post must be true or false"),
        (b'{"conf_acl": ["-*"]}', "conf_acl must be a string"),
    ],
)
def test_a_file_that_may_have_protected_the_device_is_damage(
    name: str, data: bytes, problem: str
) -> None:
    device = Device()
    device.files.contents[name] = data
    configuration = device.boot()
    assert configuration.tree() == subtree(DEFAULTS)
    assert configuration.damage.startswith(f"{name}: ")
    assert problem in configuration.damage
    assert device.log[-1].startswith(f"config: DAMAGED: {configuration.damage}; until it is")
    assert "FS.Remove" in device.log[-1]


def test_damage_of_one_level_is_not_made_good_by_another() -> None:
    device = Device()
    device.put("conf1.json", {"rpc": {"acl": 5}})
    device.put("conf9.json", {"rpc": {"acl": ""}, "debug": {"level": 4}})
    configuration = device.boot()
    assert configuration.damage.startswith("conf1.json: rpc.acl must be")
    assert configuration.get(DEBUG_LEVEL) == 4


def test_damage_ends_with_the_file() -> None:
    device = Device()
    device.files.contents["conf9.json.try"] = b"{"
    assert device.boot().damage
    assert device.boot().damage == "", "a trial is for one boot"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_is_utf_8_with_or_without_a_byte_order_mark(mark: bytes) -> None:
    device = Device()
    text = (
        '{"wifi": {"ssid": "caf\N{LATIN SMALL LETTER E WITH ACUTE}"}, "update": {"key0": "AA=="}}'
    )
    device.files.contents["conf9.json"] = mark + text.encode()
    configuration = device.boot()
    assert configuration.get(UPDATE_KEYS[0]) == "AA=="
    assert configuration.damage == ""
    assert device.log == ["config: conf9.json: ignored: invalid config key: 'wifi'"]


def test_only_the_bad_settings_of_a_file_are_left_out() -> None:
    device = Device()
    device.put("conf3.json", {"debug": {"level": "high", "x": 1}, "sys": {"wdt_timeout": 5}})
    configuration = device.boot()
    assert configuration.get(WATCHDOG_TIMEOUT) == 5
    assert configuration.get(DEBUG_LEVEL) == 2
    assert ["debug.level" in device.log[0], "'debug.x'" in device.log[1]] == [True, True]
    assert all("conf3.json" in line for line in device.log)


def test_a_file_full_of_nonsense_does_not_drown_the_log() -> None:
    device = Device()
    device.put("conf9.json", {f"x{number}": 1 for number in range(1000)})
    device.boot()
    assert len(device.log) == 9
    assert device.log[-1] == "config: conf9.json: 992 more settings are ignored"


@given(
    st.dictionaries(
        st.sampled_from(["conf1.json", "conf8.json", "conf9.json", "conf9.json.try"]),
        st.binary(max_size=40) | JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    )
)
def test_no_file_keeps_the_device_from_starting(contents: dict[str, bytes]) -> None:
    configuration = Device(Files(contents)).boot()
    for setting in SCHEMA:
        assert setting.parse(configuration.get(setting)) is not None


@given(
    st.sampled_from(["conf1.json", "conf9.json", "conf9.json.try"]),
    st.sampled_from(PROTECTIONS),
    JSON_VALUES,
)
def test_a_protection_holds_or_is_damaged(
    name: str, setting: Setting[SettingValue], value: JsonValue
) -> None:
    device = Device()
    group, _, key = setting.key.partition(".")
    device.put(name, {group: {key: value}} if key else {group: value})
    configuration = device.boot()
    assert configuration.damage or configuration.get(setting) == value


@pytest.mark.parametrize("operation", ["read", "remove"])
def test_a_file_system_that_does_not_work_is_damage(operation: str) -> None:
    device = Device()
    device.put("conf9.json.try", {"debug": {"level": 0}})
    device.files.broken.add(operation)
    configuration = device.boot()
    assert configuration.tree() == subtree(DEFAULTS)
    assert f"cannot be read: {operation} failed" in configuration.damage
    assert configuration.damage in device.log[-1]


def test_a_level_may_only_set_what_the_levels_below_allow() -> None:
    device = Device()
    device.put("conf2.json", {"conf_acl": "-device.*,*", "device": {"id": "mine"}})
    device.put("conf9.json", {"conf_acl": "*", "device": {"id": "yours"}, "debug": {"level": 1}})
    configuration = device.boot()
    assert configuration.get(DEVICE_ID) == "mine"
    assert configuration.get(DEBUG_LEVEL) == 1
    assert device.log == [
        "config: conf9.json: ignored: device.id may not be set: conf_acl is '-device.*,*'"
    ]


# -- changes --------------------------------------------------------------------------------------


def test_a_change_is_in_force_at_once_and_gone_after_a_reset_unless_saved() -> None:
    device = Device()
    configuration = device.boot()
    configuration.change({"debug": {"level": 4}})
    configuration.change("lab-1", "device.id")
    configuration.change({"timeout": 60}, "update")
    assert configuration.get(DEBUG_LEVEL) == 4
    assert configuration.tree("update.timeout") == 60
    assert device.boot().tree() == subtree(DEFAULTS)
    configuration.save()
    assert device.file("conf9.json") == {
        "device": {"id": "lab-1"},
        "debug": {"level": 4},
        "update": {"timeout": 60},
    }
    assert device.boot().tree() == configuration.tree()


@given(st.lists(VALID_CHANGES, max_size=4), VALID_CHANGES)
def test_what_is_saved_is_loaded_and_no_more_is_written_than_differs(
    changes: list[dict[str, SettingValue]], vendor: dict[str, SettingValue]
) -> None:
    device = Device()
    device.put("conf1.json", subtree(vendor))
    configuration = device.boot()
    for change in changes:
        configuration.change(subtree(change), save=True)
    expected = {**DEFAULTS, **vendor}
    for change in changes:
        expected |= change
    assert configuration.tree() == device.boot().tree() == subtree(expected)
    if changes:
        below = {**DEFAULTS, **vendor}
        different = {key: value for key, value in expected.items() if value != below[key]}
        assert device.file("conf9.json") == subtree(different)


@pytest.mark.parametrize(
    ("tree", "key", "error", "problem"),
    [
        ({"debug": {"level": 4}, "sys": {"wdt_timeout": 0}}, None, ConfigError, "sys.wdt_timeout"),
        ({"debug": {"level": 4}, "x": 0}, None, UnknownKeyError, "invalid config key: 'x'"),
        ({"debug": {"level": 4}, "rpc": 0}, None, ConfigError, "rpc must be an object"),
        (
            {"debug": {"level": 4}, "conf_acl": "*"},
            None,
            NotAllowedError,
            "conf_acl may not be set",
        ),
        ({"level": 4, "": 0}, "debug", UnknownKeyError, "invalid config key: 'debug.'"),
        (5, None, ConfigError, "the configuration must be an object, got 5"),
        (5, "debug", ConfigError, "debug must be an object, got 5"),
        ({}, "debug.level", ConfigError, "debug.level must be a whole number"),
        (5, "", UnknownKeyError, "invalid config key: ''"),
    ],
)
def test_a_change_is_made_whole_or_not_at_all(
    tree: JsonValue, key: str | None, error: type[ConfigError], problem: str
) -> None:
    device = Device()
    device.put("conf1.json", {"conf_acl": "-conf_acl,*"})
    configuration = device.boot()
    before = configuration.tree()
    with pytest.raises(error, match=problem):
        configuration.change(tree, key, save=True)
    assert configuration.tree() == before
    assert list(device.files.contents) == ["conf1.json"]


def test_a_change_that_cannot_be_saved_is_not_made() -> None:
    device = Device()
    configuration = device.boot()
    device.files.broken.add("write")
    with pytest.raises(BrokenFilesError):
        configuration.change({"debug": {"level": 4}}, save=True)
    assert configuration.get(DEBUG_LEVEL) == 2
    with pytest.raises(BrokenFilesError):
        configuration.save()


def test_a_vendor_level_counts_from_the_next_boot() -> None:
    device = Device()
    configuration = device.boot()
    configuration.change({"debug": {"level": 3}}, level=2)
    assert configuration.tree("debug.level", 2) == 2  # not saved: gone
    configuration.change({"debug": {"level": 3}}, level=2, save=True)
    configuration.change({"sys": {"wdt_timeout": 9}}, level=5, save=True)
    assert configuration.get(DEBUG_LEVEL) == 2
    assert device.file("conf2.json") == {"debug": {"level": 3}}
    assert device.file("conf5.json") == {"sys": {"wdt_timeout": 9}}
    assert device.boot().get(DEBUG_LEVEL) == 3


@pytest.mark.parametrize("level", [-1, 0, 10])
def test_levels_that_cannot_be_set(level: int) -> None:
    with pytest.raises(ConfigError, match=f"level {level} cannot be set: expected 1 to 9"):
        Device().boot().change({}, level=level)


# -- for one boot only ----------------------------------------------------------------------------


def test_tried_once_holds_for_the_next_boot_only() -> None:
    device = Device()
    configuration = device.boot()
    configuration.change({"debug": {"level": 1}}, save=True)
    configuration.change({"debug": {"level": 4}}, save=True, try_once=True)
    assert configuration.get(DEBUG_LEVEL) == 4
    assert device.file("conf9.json") == {"debug": {"level": 1}}
    assert device.boot().get(DEBUG_LEVEL) == 4
    assert list(device.files.contents) == ["conf9.json"]
    assert device.boot().get(DEBUG_LEVEL) == 1


def test_what_was_tried_is_kept_when_it_is_saved() -> None:
    device = Device()
    configuration = device.boot()
    configuration.change({"debug": {"level": 4}})
    configuration.save(try_once=True)
    device.boot().save()
    assert device.boot().get(DEBUG_LEVEL) == 4


def test_saving_for_good_ends_a_trial_that_has_not_begun() -> None:
    device = Device()
    configuration = device.boot()
    configuration.change({"debug": {"level": 4}}, save=True, try_once=True)
    configuration.change({"debug": {"level": 3}}, save=True)
    assert device.boot().get(DEBUG_LEVEL) == 3


def test_looking_at_a_level_does_not_end_its_trial() -> None:
    device = Device()
    configuration = device.boot()
    configuration.change({"debug": {"level": 4}}, level=3, save=True, try_once=True)
    assert configuration.tree("debug.level", 3) == 4
    assert configuration.tree("debug.level", 2) == 2
    assert device.boot().get(DEBUG_LEVEL) == 4
    assert device.boot().get(DEBUG_LEVEL) == 2


def test_conf_acl_is_read_anew_for_each_change() -> None:
    configuration = Device().boot()
    configuration.change({"conf_acl": "debug.*"})
    configuration.change({"debug": {"level": 4}})
    with pytest.raises(NotAllowedError):
        configuration.change({"conf_acl": "*"})
    assert configuration.get(CONF_ACL) == "debug.*"
