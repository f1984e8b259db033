"""The running configuration, and the levels of files that it is made from.

As on the device (`mgos_sys_config.c` of Mongoose OS): level 0 is the schema's defaults, levels 1 to
8 are the vendor's `conf1.json` to `conf8.json`, level 9 is the user's `conf9.json`. Each holds a
sparse tree that overlays the levels below, and may only set what their `conf_acl` allows. What is
saved for one boot only goes to `confN.json.try`, which is taken instead of `confN.json` and deleted
as soon as it is loaded: the boot after that has `confN.json` again, unless it is saved meanwhile.

No file keeps the device from starting. A setting that cannot be used is logged and left out, but
one that would protect the device (see `PROTECTIONS`) must not be lost that way, unlike in the
original. So the configuration is damaged, until the next start, when one of its files

- cannot be read,
- is no JSON object, in UTF-8 with or without a byte order mark, or
- sets one of `PROTECTIONS`, or an object that holds one, to what it cannot be.

A device with a damaged configuration refuses all updates, and all calls but those that repair it
over the serial port: whoever is at the port has the device in hand.
"""

import codecs
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from platforms.errors import OtasimError
from rpc_shim.access.acl import may_access
from rpc_shim.config.schema import (
    CONF_ACL,
    SCHEMA,
    ConfigError,
    Setting,
    SettingValue,
    UnknownKeyError,
    protects,
)
from rpc_shim.config.tree import flatten, subtree
from rpc_shim.frame import FrameError, JsonValue, ascii_json, decode_json, describe

DEFAULT_LEVEL = 0
USER_LEVEL = 9

REPAIR = (
    "until it is repaired all updates and calls are refused, except FS.* and Sys.Reboot over the "
    "serial port: remove or rewrite the file there (FS.Remove, FS.Put), then reboot"
)
"""What to do about a damaged configuration."""

_MAX_LOGGED = 8
_ValueT = TypeVar("_ValueT", bound=SettingValue)
Values = Mapping[str, SettingValue]


class NotAllowedError(ConfigError):
    """`conf_acl` does not allow this setting to be changed."""


class ConfigFiles(Protocol):
    """The device's file system as the configuration needs it. Any method may raise OtasimError."""

    def read(self, name: str) -> bytes | None:
        """The contents of a file, None when there is none."""
        ...

    def write_atomically(self, name: str, data: bytes) -> None:
        """Replace a file: whatever happens meanwhile, it has its old or its new contents."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file; harmless when there is none."""
        ...


@dataclass(slots=True)
class _Loaded:
    """What files say: all settings, and why they cannot be trusted; empty when they can."""

    values: dict[str, SettingValue]
    damage: str = ""


class Configuration:
    """What is configured in this boot of the application. It is RAM, as on the device.

    Args:
        files: where the levels are kept.
        log: takes one line of text.
        defaults: values of level 0 where they are not the schema's.

    Attributes:
        damage: why the files cannot be trusted, as it was at the start; empty when they can.

    Raises:
        ConfigError: when `defaults` are wrong.
    """

    def __init__(
        self,
        files: ConfigFiles,
        log: Callable[[str], None],
        defaults: Values | None = None,
    ) -> None:
        self._files = files
        self._log = log
        self._defaults = {setting.key: setting.default for setting in SCHEMA}
        self._defaults |= _checked_changes(defaults or {}, "**")
        loaded = self._load(USER_LEVEL, log, end_trial=True)
        self._values = loaded.values
        self.damage = loaded.damage
        if loaded.damage:
            log(f"config: DAMAGED: {loaded.damage}; {REPAIR}")

    def get(self, setting: Setting[_ValueT]) -> _ValueT:
        """The value that is in force."""
        return setting.value(self._values[setting.key])

    def tree(self, key: str | None = None, level: int = USER_LEVEL) -> JsonValue:
        """The object or value at `key`, everything for None.

        For the user's level it is what is in force, saved or not; for a lower one what the files up
        to it say.

        Raises:
            UnknownKeyError: there is no such key.
        """
        return subtree(self._values_at(level), key)

    def change(
        self,
        tree: JsonValue,
        key: str | None = None,
        *,
        level: int = USER_LEVEL,
        save: bool = False,
        try_once: bool = False,
    ) -> None:
        """Change settings, all that are given or none.

        A change of the user's level is in force at once. One of another level is only worth
        something when it is saved, and in force after the next start.

        Args:
            tree: a sparse object, or the value of one setting.
            key: what `tree` is, None for the whole configuration.
            level: which level to change, 1 to 9.
            save: also write the level's file.
            try_once: save it for the next boot only.

        Raises:
            ConfigError: the level is not to be changed, or a value is wrong; `UnknownKeyError` and
                `NotAllowedError` tell those cases apart.
            OtasimError: the file cannot be written.
        """
        if not DEFAULT_LEVEL < level <= USER_LEVEL:
            raise ConfigError(f"level {level} cannot be set: expected 1 to {USER_LEVEL}")
        changes = _checked_changes(tree, self.get(CONF_ACL), key)
        values = {**self._values_at(level), **changes}
        if save:
            self._save(values, level, try_once=try_once)
        if level == USER_LEVEL:
            self._values = values

    def save(self, *, try_once: bool = False) -> None:
        """Write what is in force to the user's file; OtasimError when it cannot be written.

        Args:
            try_once: for the next boot only.
        """
        self._save(self._values, USER_LEVEL, try_once=try_once)

    def _values_at(self, level: int) -> dict[str, SettingValue]:
        if level >= USER_LEVEL:
            return self._values
        return self._load(level, _log_nothing, end_trial=False).values

    def _save(self, values: Values, level: int, *, try_once: bool) -> None:
        below = self._values_at(level - 1)
        different = {key: value for key, value in values.items() if value != below[key]}
        data = json.dumps(subtree(different), indent=2).encode("ascii")
        name = _file_name(level)
        if try_once:
            self._files.write_atomically(_trial_name(name), data)
        else:
            self._files.write_atomically(name, data)
            self._files.remove(_trial_name(name))
        self._log(f"config: saved to {_trial_name(name) if try_once else name}")

    def _load(self, level: int, log: Callable[[str], None], *, end_trial: bool) -> _Loaded:
        loaded = _Loaded(dict(self._defaults))
        for number in range(1, level + 1):
            name = _file_name(number)
            try:
                trial = self._files.read(_trial_name(name))
                data = self._files.read(name) if trial is None else trial
                if trial is not None:
                    name = _trial_name(name)
                    if end_trial:
                        self._files.remove(name)
            except OtasimError as error:
                loaded.damage = f"{name} cannot be read: {error}"
                continue
            if data is not None:
                _read_level(name, data, loaded, log)
        return loaded


def _read_level(name: str, data: bytes, loaded: _Loaded, log: Callable[[str], None]) -> None:
    """Add what a level's file sets, without what it cannot or may not, to what `loaded` holds."""
    try:
        tree = decode_json(ascii_json(data.removeprefix(codecs.BOM_UTF8)))
    except FrameError as error:
        loaded.damage = f"{name}: {error}"
        return
    acl = str(loaded.values[CONF_ACL.key])
    problems: list[ConfigError] = []
    for found in flatten(tree):
        if isinstance(found, ConfigError):
            problems.append(found)
            if _is_damage(found):
                loaded.damage = f"{name}: {found}"
        elif not may_access(found[0], acl):
            problems.append(_not_allowed(found[0], acl))
        else:
            loaded.values[found[0]] = found[1]
    for problem in problems[:_MAX_LOGGED]:
        log(f"config: {name}: ignored: {problem}")
    if len(problems) > _MAX_LOGGED:
        log(f"config: {name}: {len(problems) - _MAX_LOGGED} more settings are ignored")


def _is_damage(problem: ConfigError) -> bool:
    """Whether what is left out for `problem`, a setting or the whole file, protects the device."""
    if isinstance(problem, UnknownKeyError):
        return False
    return not problem.key or protects(problem.key)


def _checked_changes(tree: JsonValue, acl: str, key: str | None = None) -> dict[str, SettingValue]:
    """What `tree` sets; ConfigError for the first thing in it that is wrong or not allowed."""
    changes: dict[str, SettingValue] = {}
    for found in flatten(tree, key):
        if isinstance(found, ConfigError):
            raise found
        if not may_access(found[0], acl):
            raise _not_allowed(found[0], acl)
        changes[found[0]] = found[1]
    return changes


def _not_allowed(key: str, acl: str) -> NotAllowedError:
    return NotAllowedError(f"{key} may not be set: conf_acl is {describe(acl)}", key)


def _file_name(level: int) -> str:
    return f"conf{level}.json"


def _trial_name(name: str) -> str:
    return f"{name}.try"


def _log_nothing(_text: str) -> None:
    """The files were loaded at the start already, and what is wrong with them was said then."""
