"""The device's settings: the one list of what can be configured.

Keys, defaults and titles are those of the device's libraries (`config_schema` in their `mos.yml`),
as far as this board obeys them: one that it does not obey is not here. A `Setting` is a constant
that code reads its value with, so that the value's type is known to the type checker:

    timeout_s: int = configuration.get(UPDATE_TIMEOUT)
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from bootloader_model.loader import DEFAULT_WATCHDOG_TIMEOUT_S
from platforms.errors import OtasimError
from rpc_shim.access.acl import AclError, parse_rules
from rpc_shim.arguments import INT32_MAX, whole_number
from rpc_shim.bundle.signature import KEY_COUNT, NOT_REQUIRED
from rpc_shim.frame import JsonValue, describe
from rpc_shim.framing import DEFAULT_MAX_FRAME_SIZE

SettingValue: TypeAlias = bool | int | str
ValueT_co = TypeVar("ValueT_co", bound=SettingValue, covariant=True)

MAX_COMMIT_TIMEOUT_S = 30 * 24 * 3600

_MAX_WATCHDOG_TIMEOUT_S = 32  # the slowest the independent watchdog counts
_MIN_FRAME_SIZE = 512  # with less, `mos config-set` could not undo the setting
_PRINTABLE = r"[ -~]"


class ConfigError(OtasimError):
    """Settings cannot be set like that.

    Attributes:
        key: the setting at fault, empty when it is not a single one.
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class UnknownKeyError(ConfigError):
    """There is no such setting."""


@dataclass(frozen=True, slots=True)
class Setting(Generic[ValueT_co]):
    """One thing that can be configured.

    Attributes:
        key: its name, with a dot between the levels of the tree.
        default: what holds when nobody has set it.
        title: what it is, for people.
        expected: what a value must be, to complete the sentence "KEY must be ...".
        parse: the value, or None when it is not what is expected.
    """

    key: str
    default: ValueT_co
    title: str
    expected: str
    parse: Callable[[JsonValue], ValueT_co | None]

    def value(self, given: JsonValue) -> ValueT_co:
        """Check one value; ConfigError says what was expected and what came."""
        parsed = self.parse(given)
        if parsed is None:
            raise ConfigError(
                f"{self.key} must be {self.expected}, got {describe(given)}", self.key
            )
        return parsed


def _boolean(key: str, default: bool, title: str) -> Setting[bool]:
    def parse(given: JsonValue) -> bool | None:
        return given if isinstance(given, bool) else None

    return Setting(key, default, title, "true or false", parse)


def _integer(key: str, default: int, title: str, minimum: int, maximum: int) -> Setting[int]:
    def parse(given: JsonValue) -> int | None:
        number = whole_number(given)
        return number if number is not None and minimum <= number <= maximum else None

    return Setting(key, default, title, f"a whole number ({minimum:,} to {maximum:,})", parse)


def _string(key: str, default: str, title: str, pattern: str, expected: str) -> Setting[str]:
    compiled = re.compile(pattern)

    def parse(given: JsonValue) -> str | None:
        return given if isinstance(given, str) and compiled.fullmatch(given) else None

    return Setting(key, default, title, expected, parse)


def _text(key: str, title: str, *, default: str = "", max_length: int = 1024) -> Setting[str]:
    expected = f"a string of up to {max_length:,} printable ASCII characters"
    return _string(key, default, title, f"{_PRINTABLE}{{0,{max_length}}}", expected)


def _file_name(key: str, title: str) -> Setting[str]:
    return _text(key, title, max_length=128)


def _access_rules(key: str, title: str) -> Setting[str]:
    """Rules that nobody could use are not taken: they would lock out whoever sets them."""

    def parse(given: JsonValue) -> str | None:
        if not isinstance(given, str) or len(given) > DEFAULT_MAX_FRAME_SIZE:
            return None
        if not given or given.startswith("@"):
            return given
        try:
            parse_rules(given)
        except AclError:
            return None
        return given

    expected = 'JSON such as [{"method": "FS.*", "ch_type": "HTTP", "acl": "+alice,-*"}], or @FILE'
    return Setting(key, "", title, expected, parse)


DEVICE_ID = _string(
    "device.id", "otasim", "Device ID", r"[A-Za-z0-9_.-]{1,63}",
    "1 to 63 letters, digits, underscores, dots and hyphens",
)  # fmt: skip
DEBUG_LEVEL = _integer("debug.level", 2, "Debug Level", -1, 4)
WATCHDOG_TIMEOUT = _integer(
    "sys.wdt_timeout",
    DEFAULT_WATCHDOG_TIMEOUT_S,
    "Watchdog timeout (seconds)",
    1,
    _MAX_WATCHDOG_TIMEOUT_S,
)
CONF_ACL = _text("conf_acl", "Conf ACL", default="*")

UPDATE_TIMEOUT = _integer(
    "update.timeout", 600, "Update will be aborted if it does not finish within this time",
    1, INT32_MAX,
)  # fmt: skip
UPDATE_COMMIT_TIMEOUT = _integer(
    "update.commit_timeout", 0, "After applying update, wait for commit up to this long",
    0, MAX_COMMIT_TIMEOUT_S,
)  # fmt: skip
UPDATE_URL = _text("update.url", "Fetch updates from here")
UPDATE_INTERVAL = _integer(
    "update.interval", 0, "Check for updates this often (seconds, 0: never)", 0, INT32_MAX
)
UPDATE_SSL_CA_FILE = _file_name(
    "update.ssl_ca_file", "Verify the update server by the CA certificates in this file"
)
UPDATE_KEYS = tuple(
    _string(
        f"update.key{number}", "",
        f"Update signature verification key {number}. ECDSA P-256, DER + Base64.",
        r"[A-Za-z0-9+/]{0,1024}={0,2}", "a public key, DER in Base64",
    )
    for number in range(KEY_COUNT)
)  # fmt: skip
UPDATE_SIGNATURES_REQUIRED = _integer(
    "update.sig_req_mask", NOT_REQUIRED,
    "Update signature requirements. If >= 0, bit N says that key N must have signed.",
    NOT_REQUIRED, (1 << KEY_COUNT) - 1,
)  # fmt: skip
UPDATE_ENABLE_POST = _boolean("update.enable_post", True, "Take updates by HTTP POST to /update")

RPC_MAX_FRAME_SIZE = _integer(
    "rpc.max_frame_size", DEFAULT_MAX_FRAME_SIZE, "Max Frame Size", _MIN_FRAME_SIZE, 65_536
)
RPC_ACL = _access_rules("rpc.acl", "RPC ACL spec - JSON or @file")
RPC_ACL_FILE = _file_name("rpc.acl_file", "File with RPC ACL JSON, used if rpc.acl is not set")
RPC_AUTH_DOMAIN = _string(
    "rpc.auth_domain", "RPC", "Realm to use for digest authentication",
    r"""(?:(?![":\\])[ -~]){0,64}""",
    'up to 64 printable ASCII characters without quotes, colons and backslashes',
)  # fmt: skip
RPC_AUTH_FILE = _file_name("rpc.auth_file", "File with user credentials in the htdigest format")
RPC_AUTH_ALGO = _integer(
    "rpc.auth_algo", 0, "Password file hashing algorithm: 0 - MD5, 1 - SHA-256", 0, 1
)

SCHEMA: tuple[Setting[SettingValue], ...] = (
    DEVICE_ID,
    DEBUG_LEVEL,
    WATCHDOG_TIMEOUT,
    UPDATE_TIMEOUT,
    UPDATE_COMMIT_TIMEOUT,
    *UPDATE_KEYS,
    UPDATE_SIGNATURES_REQUIRED,
    UPDATE_URL,
    UPDATE_INTERVAL,
    UPDATE_SSL_CA_FILE,
    UPDATE_ENABLE_POST,
    RPC_MAX_FRAME_SIZE,
    RPC_ACL,
    RPC_ACL_FILE,
    RPC_AUTH_DOMAIN,
    RPC_AUTH_FILE,
    RPC_AUTH_ALGO,
    CONF_ACL,
)
SETTINGS: Mapping[str, Setting[SettingValue]] = {setting.key: setting for setting in SCHEMA}

PROTECTIONS: tuple[Setting[SettingValue], ...] = (
    *UPDATE_KEYS,
    UPDATE_SIGNATURES_REQUIRED,
    UPDATE_SSL_CA_FILE,
    UPDATE_ENABLE_POST,
    RPC_ACL,
    RPC_ACL_FILE,
    RPC_AUTH_DOMAIN,
    RPC_AUTH_FILE,
    RPC_AUTH_ALGO,
    CONF_ACL,
)
"""The settings that say who may do what. Without them a device is open, so that one that cannot be
understood must not be left out."""


def protects(key: str) -> bool:
    """Whether `key`, of a setting or of an object, is or holds one of `PROTECTIONS`."""
    return any(f"{setting.key}.".startswith(f"{key}.") for setting in PROTECTIONS)
