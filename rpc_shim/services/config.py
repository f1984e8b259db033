"""Config.Get, Config.GetOne, Config.Set, Config.Save: the device's configuration for hosts.

Arguments, results and codes are those of mongoose-os-libs/rpc-service-config, which has no GetOne:
that is Config.Get for a single setting, and refuses a whole object. Stricter than the
device, which ignores them and still answers that it has saved: settings that do not exist, and ones
that `conf_acl` protects, are refused, and with them the whole call.
"""

from collections.abc import Callable

from platforms.errors import OtasimError
from rpc_shim.arguments import Argument, Arguments, flag, integer, text
from rpc_shim.config.configuration import (
    DEFAULT_LEVEL,
    USER_LEVEL,
    Configuration,
    NotAllowedError,
)
from rpc_shim.config.schema import SETTINGS, ConfigError, UnknownKeyError
from rpc_shim.dispatch import BAD_REQUEST, FAILED, FORBIDDEN, NOT_FOUND, Call, Dispatcher, RpcError
from rpc_shim.frame import JsonValue

REBOOT_DELAY_MS = 500

_RUNNING = -1

_KEY = text("key", max_length=128, conversion="%Q")
_ONE_KEY = text("key", max_length=128, conversion="%Q", required=True)
_LEVEL = integer("level", minimum=_RUNNING, maximum=USER_LEVEL)
_CONFIG: Argument[JsonValue] = Argument("config", "%T", "a JSON value", lambda given: given)
_VALUE: Argument[JsonValue] = Argument("value", "%T", "a JSON value", lambda given: given)
_SAVE = flag("save")
_TRY_ONCE = flag("try_once")
_REBOOT = flag("reboot")


def register_config_service(
    dispatcher: Dispatcher, configuration: Configuration, reboot_after: Callable[[int], None]
) -> None:
    """Offer the methods on `dispatcher`.

    Args:
        dispatcher: where they are offered.
        configuration: what they show and change.
        reboot_after: resets the processor by software when so many virtual milliseconds have
            passed; must return before it does.
    """

    def get(call: Call) -> JsonValue:
        try:
            return configuration.tree(call.arguments.get(_KEY), _level(call))
        except UnknownKeyError as error:
            raise RpcError(NOT_FOUND, str(error)) from error

    def set_values(call: Call) -> JsonValue:
        given = call.arguments
        value = given.get(_VALUE)
        if value is None:
            value = given.get(_CONFIG)
        if value is None:
            raise RpcError(BAD_REQUEST, "value is required")
        level, save = _level(call), given.get(_SAVE) or False
        if level == DEFAULT_LEVEL:
            raise RpcError(BAD_REQUEST, "not allowed: level 0 is the built-in defaults")
        try:
            configuration.change(
                value,
                given.get(_KEY),
                level=level,
                save=save,
                try_once=given.get(_TRY_ONCE) or False,
            )
        except UnknownKeyError as error:
            raise RpcError(NOT_FOUND, str(error)) from error
        except NotAllowedError as error:
            raise RpcError(FORBIDDEN, str(error)) from error
        except ConfigError as error:
            raise RpcError(BAD_REQUEST, f"invalid config value: {error}") from error
        except OtasimError as error:
            raise _saving_failed(error) from error
        if save:
            reboot_if_asked(call)
        return {"saved": save}

    def save_values(call: Call) -> JsonValue:
        try:
            configuration.save(try_once=call.arguments.get(_TRY_ONCE) or False)
        except OtasimError as error:
            raise _saving_failed(error) from error
        reboot_if_asked(call)
        return {"saved": True}

    def reboot_if_asked(call: Call) -> None:
        if call.arguments.get(_REBOOT):
            reboot_after(REBOOT_DELAY_MS)

    def get_one(call: Call) -> JsonValue:
        key = call.arguments.require(_ONE_KEY)
        if key not in SETTINGS:
            raise RpcError(NOT_FOUND, f"{key} is no single setting (Config.Get shows all of them)")
        return configuration.tree(key, _level(call))

    dispatcher.register("Config.Get", get, Arguments(_KEY, _LEVEL))
    dispatcher.register("Config.GetOne", get_one, Arguments(_ONE_KEY, _LEVEL))
    dispatcher.register(
        "Config.Set",
        set_values,
        Arguments(_KEY, _CONFIG, _VALUE, _LEVEL, _SAVE, _TRY_ONCE, _REBOOT),
    )
    dispatcher.register("Config.Save", save_values, Arguments(_TRY_ONCE, _REBOOT))


def _level(call: Call) -> int:
    """The level asked for; none, or -1, is what is in force."""
    level = call.arguments.get(_LEVEL)
    return USER_LEVEL if level is None or level == _RUNNING else level


def _saving_failed(error: OtasimError) -> RpcError:
    return RpcError(FAILED, f"error saving config: {error}")
