"""Sys.GetInfo, Sys.Reboot and Sys.SetDebug: the device as a whole.

Names, arguments and errors are those of mongoose-os-libs/rpc-common, `mgos_rpc.c`.
"""

from dataclasses import asdict, dataclass
from typing import Protocol

from rpc_shim.arguments import INT32_MAX, Arguments, integer, text
from rpc_shim.dispatch import BAD_REQUEST, Call, Dispatcher, RpcError
from rpc_shim.frame import JsonValue

DEFAULT_REBOOT_DELAY_MS = 100

_DELAY_MS = integer("delay_ms", minimum=-INT32_MAX - 1, maximum=INT32_MAX)
_UDP_LOG_ADDRESS = text("udp_log_addr", conversion="%Q")
_LEVEL = integer("level", minimum=-INT32_MAX - 1, maximum=INT32_MAX)
_FILE_LEVEL = text("file_level", conversion="%Q")

_NOT_IMPLEMENTED = 501
_LOG_LEVELS = range(-1, 5)
"""From none to verbose debugging, as `cs_log_level` of the device."""


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What `Sys.GetInfo` answers; the names are the device's.

    Attributes:
        id: name of the device.
        app: name of the application.
        fw_version: version of the application.
        fw_id: build id of the application.
        mac: hardware address, 12 hex digits.
        arch: processor family, such as `stm32`.
        uptime: whole seconds since the boot, in virtual time.
        ram_size: bytes of RAM for the heap.
        ram_free: bytes of it that are free.
        ram_min_free: the least that was ever free.
        fs_size: bytes of the file system, 0 without one.
        fs_free: bytes of it that are free.
    """

    id: str
    app: str
    fw_version: str
    fw_id: str
    mac: str
    arch: str
    uptime: int
    ram_size: int
    ram_free: int
    ram_min_free: int
    fs_size: int = 0
    fs_free: int = 0


class System(Protocol):
    """The board as these methods see it."""

    def device_info(self) -> DeviceInfo:
        """What the device is and how it does at this moment."""
        ...

    def reboot_after(self, delay_ms: int) -> None:
        """Reset the processor by software when `delay_ms` of virtual time have passed.

        Must return before it does, so that the call is answered first, even for a delay of 0.
        """
        ...

    def set_log_level(self, level: int) -> None:
        """Log from -1 (nothing) to 4 (everything) until the next start."""
        ...


def register_sys_service(dispatcher: Dispatcher, system: System) -> None:
    """Offer the three methods on `dispatcher`."""

    def get_info(_call: Call) -> JsonValue:
        return asdict(system.device_info())

    def reboot(call: Call) -> JsonValue:
        delay_ms = call.arguments.get(_DELAY_MS)
        if delay_ms is None:
            delay_ms = DEFAULT_REBOOT_DELAY_MS
        if delay_ms < 0:
            raise RpcError(
                BAD_REQUEST, f"invalid delay value: delay_ms is {delay_ms}, it must be 0 or more"
            )
        system.reboot_after(delay_ms)
        return None

    def set_debug(call: Call) -> JsonValue:
        if call.arguments.get(_UDP_LOG_ADDRESS) or call.arguments.get(_FILE_LEVEL):
            raise RpcError(
                _NOT_IMPLEMENTED,
                "this device logs to its console, all of it at one level: set level alone",
            )
        level = call.arguments.get(_LEVEL)
        if level is not None:
            if level not in _LOG_LEVELS:
                raise RpcError(
                    BAD_REQUEST,
                    f"invalid level: {level}, expected {_LOG_LEVELS[0]} to {_LOG_LEVELS[-1]}",
                )
            system.set_log_level(level)
        return None

    dispatcher.register("Sys.GetInfo", get_info)
    dispatcher.register("Sys.SetDebug", set_debug, Arguments(_UDP_LOG_ADDRESS, _LEVEL, _FILE_LEVEL))
    dispatcher.register("Sys.Reboot", reboot, Arguments(_DELAY_MS))
