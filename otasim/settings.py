"""What a user chooses about a board, besides what is in its flash."""

from dataclasses import dataclass
from enum import Enum

from rpc_shim.config.schema import DEVICE_ID, UPDATE_TIMEOUT


class RpcMode(Enum):
    """Who answers RPC requests."""

    SERVICE = "service"
    """The board's own service, which lives in the main loop of whatever firmware runs."""

    PASSTHROUGH = "passthrough"
    """The firmware, on its UART; what comes over the network is bridged to it."""


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What a user chooses about the device.

    Attributes:
        device_id: its name, `src` of every answer, unless its configuration says otherwise.
        update_timeout_s: virtual seconds after which an update that has not ended fails, unless
            its configuration says otherwise.
        strict_original: loader and service behave as the original, soft spots included (see
            `bootloader_model.loader.LoaderSettings`). Does not change a loader of your own.
        service_poll_ms: for firmware that feeds no watchdog: give the RPC service a turn every so
            many virtual milliseconds. It then answers even while the firmware hangs.
        rpc: who answers RPC requests.
        nonce_seed: a number that the challenges of digest authentication depend on. Where a proof
            that somebody has recorded must not open a later run, it must be random. The same one
            makes the same run.
    """

    device_id: str = DEVICE_ID.default
    update_timeout_s: int = UPDATE_TIMEOUT.default
    strict_original: bool = False
    service_poll_ms: int | None = None
    rpc: RpcMode = RpcMode.SERVICE
    nonce_seed: int = 0
