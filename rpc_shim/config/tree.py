"""Settings as hosts and files see them: a tree of JSON objects, and one flat list of keys.

`{"rpc": {"auth_algo": 1}}` is `rpc.auth_algo` = 1. Trees may be sparse.
"""

from collections.abc import Iterator, Mapping

from rpc_shim.config.schema import (
    SETTINGS,
    ConfigError,
    SettingValue,
    UnknownKeyError,
)
from rpc_shim.frame import JsonValue, describe

_OBJECTS = frozenset(
    key[:end] for key in SETTINGS for end in range(len(key)) if key[end] == "."
)  # keys of objects, such as `update`


def flatten(
    tree: JsonValue, key: str | None = None
) -> Iterator[tuple[str, SettingValue] | ConfigError]:
    """Every setting in `tree` with its checked value, or what is wrong with it.

    Args:
        tree: an object, or the value of one setting.
        key: where in the whole tree it is, None for the whole.
    """
    if key is not None and key not in _OBJECTS:
        yield _checked(key, tree)
    elif not isinstance(tree, Mapping):
        what = "the configuration" if key is None else key
        yield ConfigError(f"{what} must be an object, got {describe(tree)}", key or "")
    else:
        for name, value in tree.items():
            yield from flatten(value, name if key is None else f"{key}.{name}")


def subtree(values: Mapping[str, SettingValue], key: str | None = None) -> JsonValue:
    """The object or value at `key`, of settings in the order of `values`; the whole for None.

    Raises:
        UnknownKeyError: no setting and no object has that key.
    """
    if key is not None and key not in _OBJECTS:
        if key not in values:
            raise _unknown(key)
        return values[key]
    prefix = "" if key is None else f"{key}."
    tree: dict[str, JsonValue] = {}
    for name in dict.fromkeys(
        found.removeprefix(prefix).partition(".")[0] for found in values if found.startswith(prefix)
    ):
        tree[name] = subtree(values, prefix + name)
    return tree


def _checked(key: str, value: JsonValue) -> tuple[str, SettingValue] | ConfigError:
    setting = SETTINGS.get(key)
    if setting is None:
        return _unknown(key)
    try:
        return key, setting.value(value)
    except ConfigError as error:
        return error


def _unknown(key: str) -> UnknownKeyError:
    return UnknownKeyError(f"invalid config key: {describe(key)}", key)
