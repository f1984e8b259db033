"""What talks to the outside world in one boot of the application.

It is RAM: made when the firmware starts, thrown away at a reset.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bootloader_model.app_info import AppInfo
from bootloader_model.boot_state import APP_FLAGS_OF_ORIGINAL
from bootloader_model.layout import DEFAULT_LAYOUT
from bootloader_model.partition import Partitions
from otasim.settings import DeviceSettings
from platforms.clock import NS_PER_MS, NS_PER_S, Clock
from platforms.devices.reset_cause import ResetCause
from platforms.drivers.internal_flash import InternalFlashDriver
from platforms.drivers.nor_flash import NorFlashDriver
from platforms.errors import OtasimError
from platforms.machine import Machine
from platforms.trace import Detail
from rpc_shim.access.guard import AccessGuard
from rpc_shim.boot_configuration import BootConfiguration
from rpc_shim.boot_files import BootFiles
from rpc_shim.bridge import UartBridge
from rpc_shim.bundle.manifest import Manifest
from rpc_shim.bundle.signature import SignaturePolicy
from rpc_shim.config.configuration import Configuration
from rpc_shim.config.schema import (
    DEBUG_LEVEL,
    DEVICE_ID,
    RPC_MAX_FRAME_SIZE,
    UPDATE_COMMIT_TIMEOUT,
    UPDATE_ENABLE_POST,
    UPDATE_INTERVAL,
    UPDATE_KEYS,
    UPDATE_SIGNATURES_REQUIRED,
    UPDATE_SSL_CA_FILE,
    UPDATE_TIMEOUT,
    UPDATE_URL,
    WATCHDOG_TIMEOUT,
)
from rpc_shim.dispatch import Channel, Dispatcher, Reply
from rpc_shim.download import ByteSource
from rpc_shim.framing import DEFAULT_MAX_FRAME_SIZE
from rpc_shim.links.network import Network
from rpc_shim.services.config import register_config_service
from rpc_shim.services.fs import register_fs_service
from rpc_shim.services.ota import OtaService
from rpc_shim.services.ota_update import UpdateService, UpdateSettings
from rpc_shim.services.rpc import register_rpc_service
from rpc_shim.services.sys import DeviceInfo, register_sys_service
from rpc_shim.uart import HostOutput, UartChannel
from rpc_shim.update import identity_flags

RAM_SIZE = 0x2_0000
ARCHITECTURE = "stm32"
MAC = "02CAFE000405"  # locally administered: no real device has it

_INFORMATION = 2
"""The device's log level of everything that the services log."""

_BRIDGED_FRAME_SIZE = DEFAULT_MAX_FRAME_SIZE - 1
"""One byte less than the USART's queue: the newline that ends a line goes in as well."""

OpenUrl = Callable[[str, bytes | None], ByteSource]
"""Starts a download of a URL, whose server is verified by the given CA certificates (PEM), or by
what the system trusts when there are none; raises an OtasimError for a URL that cannot be one."""


@dataclass(frozen=True, slots=True)
class RunningImage:
    """The application that was started last.

    Attributes:
        slot: where it is; -1 when the boot state knows no slot there.
        info: what it says of itself.
    """

    slot: int
    info: AppInfo


class Application(Protocol):
    """One boot of the application, as far as the outside world can talk to it."""

    def start(self) -> None:
        """The firmware is about to run."""
        ...

    def turn(self) -> None:
        """One turn of the firmware's main loop."""
        ...

    def host_bytes(self, data: bytes) -> None:
        """Bytes from the host on the serial line."""
        ...

    def firmware_bytes(self, data: bytes) -> None:
        """Bytes that the firmware sent on the serial line; the host has them already."""
        ...

    def close(self) -> None:
        """The RAM is gone."""
        ...


def flash_drivers(machine: Machine) -> tuple[NorFlashDriver, InternalFlashDriver]:
    """The board's two flash memories as firmware reaches them, waiting in virtual time."""
    models = machine.models
    return (
        NorFlashDriver(models.nor, machine.wait),
        InternalFlashDriver(models.internal_flash, machine.wait),
    )


class ServiceApplication:
    """The board's own RPC service, on the serial line and on the network."""

    def __init__(
        self,
        machine: Machine,
        output: HostOutput,
        settings: DeviceSettings,
        image: RunningImage,
        open_url: OpenUrl,
        network: Network | None,
    ) -> None:
        self._machine = machine
        self._output = output
        self._image = image
        self._open_url = open_url
        self._network = network
        self._started_ns = machine.clock.now_ns
        self._reboot_at_ns: int | None = None
        self._log_level = _INFORMATION
        nor, internal_flash = flash_drivers(machine)
        self._partitions = Partitions(DEFAULT_LAYOUT, nor=nor, internal_flash=internal_flash)
        self._boot = boot = BootConfiguration(
            self._partitions, image.slot, strict_original=settings.strict_original
        )
        # The watchdog's own method: littlefs keeps it for good, and this application with ours.
        feed_watchdog = machine.models.watchdog.feed
        self._files = BootFiles(boot, self._partitions, feed_watchdog, self.log)
        self._is_initialised = self._prepare_files()
        self._configuration = Configuration(
            self._files,
            self.log,
            {DEVICE_ID.key: settings.device_id, UPDATE_TIMEOUT.key: settings.update_timeout_s},
        )
        self._log_level = self._configuration.get(DEBUG_LEVEL)
        self._dispatcher = Dispatcher(
            self._configuration.get(DEVICE_ID),
            self.log,
            AccessGuard(
                self._configuration,
                self._files.read,
                machine.clock,
                self.log,
                settings.nonce_seed,
            ),
        )
        self._channel = UartChannel(
            self._dispatcher,
            output,
            self._to_firmware,
            max_frame_size=self._configuration.get(RPC_MAX_FRAME_SIZE),
        )
        register_rpc_service(self._dispatcher)
        register_sys_service(self._dispatcher, self)
        register_config_service(self._dispatcher, self._configuration, self.reboot_after)
        if self._files.root is not None:
            register_fs_service(self._dispatcher, self._files.root, self.log)
        self._updates = UpdateService(
            self._dispatcher,
            self,
            boot,
            self._open,
            settings=self._update_settings,
            is_running=self._is_running,
        )
        self._ota = OtaService(
            self._dispatcher, self, boot, self._files, self._updates.refuse_during_update
        )

    # -- the application --------------------------------------------------------------------------

    def start(self) -> None:
        """The firmware is about to run."""
        self._set_watchdog()
        self._ota.start(is_initialised=self._is_initialised)
        if self._network is not None:
            self._network.application_started(
                self._configuration.get(DEVICE_ID),
                self._configuration.get(RPC_MAX_FRAME_SIZE),
                takes_uploads=self._configuration.get(UPDATE_ENABLE_POST),
            )

    def turn(self) -> None:
        """One turn of the firmware's main loop."""
        self._channel.turn()
        _serve(self._network, self.log, self._dispatcher.handle)
        self._ota.turn()
        self._updates.turn()
        if self._reboot_at_ns is not None and self.clock.now_ns >= self._reboot_at_ns:
            self._reboot_at_ns = None
            self._machine.reset(ResetCause.SOFTWARE)

    def host_bytes(self, data: bytes) -> None:
        """Bytes from the host on the serial line."""
        self._channel.host_bytes(data)

    def firmware_bytes(self, data: bytes) -> None:
        """The service does not listen to the firmware."""

    def close(self) -> None:
        """The RAM is gone."""
        self._channel.close()
        self._updates.close()
        if self._network is not None:
            self._network.application_ended()

    # -- the board, as the services see it --------------------------------------------------------

    @property
    def partitions(self) -> Partitions:
        """The partitions, by drivers that take virtual time."""
        return self._partitions

    @property
    def clock(self) -> Clock:
        """Virtual time."""
        return self._machine.clock

    def log(self, text: str) -> None:
        """One line on the console."""
        if self._log_level >= _INFORMATION:
            self._output.write_line(text)

    def set_log_level(self, level: int) -> None:
        """Log from -1 (nothing) to 4 (everything) until the next start."""
        self._log_level = level

    def record(self, kind: str, **details: Detail) -> None:
        """Put an event on record, for the trace."""
        self._machine.trace.record(kind, **details)

    def device_info(self) -> DeviceInfo:
        """What the device is and how it does at this moment."""
        info = self._image.info
        root = self._files.root
        mounted = None if root is None else root.mounted
        return DeviceInfo(
            id=self._dispatcher.device_id,
            app=info.name,
            fw_version=info.version,
            fw_id=info.build_id,
            mac=MAC,
            arch=ARCHITECTURE,
            uptime=(self.clock.now_ns - self._started_ns) // NS_PER_S,
            ram_size=RAM_SIZE,
            ram_free=RAM_SIZE,
            ram_min_free=RAM_SIZE,
            fs_size=0 if mounted is None else mounted.total_bytes,
            fs_free=0 if mounted is None else mounted.free_bytes,
        )

    def feed_watchdog(self) -> None:
        """Keep the watchdog quiet in the middle of work that takes long."""
        self._machine.models.watchdog.feed()

    def reboot_after(self, delay_ms: int) -> None:
        """Reset by software when `delay_ms` have passed, or earlier when that is due already."""
        at_ns = self.clock.now_ns + delay_ms * NS_PER_MS
        self._reboot_at_ns = at_ns if self._reboot_at_ns is None else min(at_ns, self._reboot_at_ns)

    # -- internals --------------------------------------------------------------------------------

    def _prepare_files(self) -> bool:
        try:
            self._files.prepare()
        except OtasimError as error:
            self.log(f"fs: {error}")
            return False
        return True

    def _set_watchdog(self) -> None:
        """The loader has started the watchdog; another timeout is the application's to set."""
        timeout_s = self._configuration.get(WATCHDOG_TIMEOUT)
        if timeout_s != WATCHDOG_TIMEOUT.default:
            self._machine.models.watchdog.set_timeout(timeout_s)

    def _update_settings(self) -> UpdateSettings:
        get = self._configuration.get
        damage = self._configuration.damage
        return UpdateSettings(
            timeout_s=get(UPDATE_TIMEOUT),
            commit_timeout_s=get(UPDATE_COMMIT_TIMEOUT),
            url=get(UPDATE_URL),
            interval_s=get(UPDATE_INTERVAL),
            signature_policy=SignaturePolicy(
                tuple(get(key) for key in UPDATE_KEYS),
                get(UPDATE_SIGNATURES_REQUIRED),
                damage and f"the configuration is damaged: {damage}",
            ),
        )

    def _open(self, url: str) -> ByteSource:
        name = self._configuration.get(UPDATE_SSL_CA_FILE)
        if not name:
            return self._open_url(url, None)
        certificates = self._files.read(name)
        if certificates is None:
            raise OtasimError(
                f"there is no file {name}, which {UPDATE_SSL_CA_FILE.key} names: put it there with "
                "FS.Put, or set the name to an empty string"
            )
        return self._open_url(url, certificates)

    def _is_running(self, manifest: Manifest) -> bool:
        info = self._image.info
        if (manifest.version, manifest.build_id) == (info.version, info.build_id):
            return True
        state = self._boot.state_or_none
        if state is None or not state.has_slot(self._image.slot):
            return False
        flags = state.slots[self._image.slot].state.app_flags
        return flags & ~APP_FLAGS_OF_ORIGINAL == identity_flags(manifest)

    def _to_firmware(self, data: bytes) -> None:
        self._machine.engine.uart_input(data)


class BridgeApplication:
    """Firmware with an RPC service of its own: the serial line is its, the network bridged to it.

    Args:
        machine: the board.
        settings: the device's name.
        network: where requests come from, None for the serial line alone.
        log: takes one line of text, for anywhere but the serial line.
    """

    def __init__(
        self,
        machine: Machine,
        settings: DeviceSettings,
        network: Network | None,
        log: Callable[[str], None],
    ) -> None:
        self._network = network
        self._device_id = settings.device_id
        self._log = log
        self._bridge = UartBridge(
            settings.device_id,
            log,
            self._to_firmware,
            machine.clock,
            max_frame_size=_BRIDGED_FRAME_SIZE,
        )
        self._machine = machine

    def start(self) -> None:
        """The firmware is about to run."""
        if self._network is not None:
            self._network.application_started(
                self._device_id, _BRIDGED_FRAME_SIZE, answers_to_any_name=True
            )

    def turn(self) -> None:
        """One turn of the firmware's main loop."""
        _serve(self._network, self._log, self._bridge.handle)
        self._bridge.turn()

    def host_bytes(self, data: bytes) -> None:
        """Bytes from the host on the serial line."""
        self._bridge.host_bytes(data)

    def firmware_bytes(self, data: bytes) -> None:
        """Bytes that the firmware sent: answers may be among them."""
        self._bridge.uart_output(data)

    def close(self) -> None:
        """The RAM is gone."""
        self._bridge.close()
        if self._network is not None:
            self._network.application_ended()

    def _to_firmware(self, data: bytes) -> None:
        self._machine.engine.uart_input(data)


def _serve(
    network: Network | None,
    log: Callable[[str], None],
    handle: Callable[[bytes, Reply, Channel], None],
) -> None:
    """Log what the links have to say, and handle what has come over them."""
    if network is None:
        return
    for line in network.take_lines():
        log(line)
    for request in network.take():
        handle(request.frame, request.reply, request.channel)
