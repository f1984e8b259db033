"""What runs on the board besides its firmware: the boot loader and the RPC service.

The service is RAM: a `_Application` is made when the firmware starts and thrown away at a reset.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from bootloader_model.app_info import SEARCH_LENGTH, AppInfo, read_app_info
from bootloader_model.boot_state import NO_SLOT, BootState
from bootloader_model.journal import Journal
from bootloader_model.layout import DEFAULT_LAYOUT, FLASH_BASE
from bootloader_model.partition import Partitions
from bootloader_model.protocol import BootTarget, Loader
from platforms.clock import NS_PER_MS, NS_PER_S, Clock
from platforms.devices.reset_cause import ResetCause
from platforms.devices.watchdog import KEY_ENABLE_ACCESS, KEY_RELOAD, KEY_START, registers_for
from platforms.drivers.internal_flash import InternalFlashDriver
from platforms.drivers.nor_flash import NorFlashDriver
from platforms.errors import OtasimError
from platforms.flash import FlashContents
from platforms.machine import EntryPoint, Machine
from platforms.trace import Detail
from rpc_shim.boot_configuration import BootConfiguration
from rpc_shim.bundle.manifest import Manifest
from rpc_shim.dispatch import Dispatcher
from rpc_shim.download import ByteSource
from rpc_shim.services.ota import OtaService
from rpc_shim.services.ota_update import UpdateService, UpdateSettings
from rpc_shim.services.rpc import register_rpc_service
from rpc_shim.services.sys import DeviceInfo, register_sys_service
from rpc_shim.uart import HostOutput, UartChannel

RAM_SIZE = 0x2_0000
ARCHITECTURE = "stm32"
MAC = "02CAFE000405"  # locally administered: no real device has it

_KR, _PR, _RLR = 0x00, 0x04, 0x08


def flash_drivers(
    machine: Machine,
) -> tuple[NorFlashDriver, InternalFlashDriver]:
    """The board's two flash memories as firmware reaches them, waiting in virtual time."""
    models = machine.models
    return (
        NorFlashDriver(models.nor, machine.wait),
        InternalFlashDriver(models.internal_flash, machine.wait),
    )


class LoaderError(OtasimError):
    """A user's own boot loader does not do what `bootloader_model/protocol.py` says.

    Attributes:
        loader: its class.
    """

    def __init__(self, loader: type[object], target: object) -> None:
        super().__init__(
            f"loader {loader.__module__}:{loader.__qualname__}: boot returned {target!r}, expected "
            "a BootTarget(vector_table, stack_pointer, program_counter)"
        )
        self.loader = loader


class _LoaderHardware:
    """The board as one boot of the loader sees it."""

    def __init__(self, machine: Machine, output: HostOutput, cause: ResetCause) -> None:
        self.nor, self.internal_flash = flash_drivers(machine)
        self.reset_cause = cause
        self._machine = machine
        self._watchdog = machine.models.watchdog
        self._output = output

    def start_watchdog(self, timeout_s: float) -> None:
        prescaler, reload = registers_for(timeout_s)
        self._watchdog.write(_KR, 4, KEY_START)
        self._watchdog.write(_KR, 4, KEY_ENABLE_ACCESS)
        self._watchdog.write(_PR, 4, prescaler)
        self._watchdog.write(_RLR, 4, reload)
        self._watchdog.write(_KR, 4, KEY_RELOAD)

    def feed_watchdog(self) -> None:
        self._watchdog.write(_KR, 4, KEY_RELOAD)

    def log(self, text: str) -> None:
        self._output.write_console(text.encode("ascii", "backslashreplace"))

    def wait(self, duration_ns: int) -> None:
        self._machine.wait(duration_ns)

    def record_decision(self, reason: str, **details: int | str) -> None:
        self._machine.trace.record("boot-decision", reason=reason, **details)


@dataclass(frozen=True, slots=True)
class RunningImage:
    """The application that was started last.

    Attributes:
        slot: where it is; -1 when the boot state knows no slot there.
        info: what it says of itself.
    """

    slot: int
    info: AppInfo


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What a user chooses about the device.

    Attributes:
        device_id: its name, `src` of every answer.
        update_timeout_s: virtual seconds after which an update that has not ended fails.
        strict_original: loader and service behave as the original, soft spots included (see
            `bootloader_model.loader.LoaderSettings`). Does not change a loader of your own.
        service_poll_ms: for firmware that feeds no watchdog: give the RPC service a turn every so
            many virtual milliseconds. It then answers even while the firmware hangs.
    """

    device_id: str = "otasim"
    update_timeout_s: int = 600
    strict_original: bool = False
    service_poll_ms: int | None = None


class _Application:
    """The RPC service of one boot of the application."""

    def __init__(
        self,
        machine: Machine,
        output: HostOutput,
        settings: DeviceSettings,
        image: RunningImage,
        open_url: Callable[[str], ByteSource],
    ) -> None:
        self._machine = machine
        self._settings = settings
        self._image = image
        self._started_ns = machine.clock.now_ns
        self._reboot_at_ns: int | None = None
        nor, internal_flash = flash_drivers(machine)
        self._partitions = Partitions(DEFAULT_LAYOUT, nor=nor, internal_flash=internal_flash)
        dispatcher = Dispatcher(settings.device_id, output.write_line)
        self.channel = UartChannel(dispatcher, output, self._to_firmware)
        register_rpc_service(dispatcher)
        register_sys_service(dispatcher, self)
        boot = BootConfiguration(
            self._partitions, image.slot, strict_original=settings.strict_original
        )
        self._updates = UpdateService(
            dispatcher,
            self,
            boot,
            open_url,
            settings=lambda: UpdateSettings(settings.update_timeout_s),
            is_running=self._is_running,
        )
        self._ota = OtaService(dispatcher, self, boot, self._updates.refuse_during_update)

    @property
    def partitions(self) -> Partitions:
        return self._partitions

    @property
    def clock(self) -> Clock:
        return self._machine.clock

    def log(self, text: str) -> None:
        self.channel.log(text)

    def record(self, kind: str, **details: Detail) -> None:
        self._machine.trace.record(kind, **details)

    def device_info(self) -> DeviceInfo:
        info = self._image.info
        return DeviceInfo(
            id=self._settings.device_id,
            app=info.name,
            fw_version=info.version,
            fw_id=info.build_id,
            mac=MAC,
            arch=ARCHITECTURE,
            uptime=(self.clock.now_ns - self._started_ns) // NS_PER_S,
            ram_size=RAM_SIZE,
            ram_free=RAM_SIZE,
            ram_min_free=RAM_SIZE,
        )

    def feed_watchdog(self) -> None:
        self._machine.models.watchdog.feed()

    def reboot_after(self, delay_ms: int) -> None:
        """As `Device.reboot_after`; of several reboots the earliest counts."""
        at_ns = self.clock.now_ns + delay_ms * NS_PER_MS
        self._reboot_at_ns = at_ns if self._reboot_at_ns is None else min(at_ns, self._reboot_at_ns)

    def start(self) -> None:
        self._ota.start()

    def turn(self) -> None:
        self.channel.turn()
        self._ota.turn()
        self._updates.turn()
        if self._reboot_at_ns is not None and self.clock.now_ns >= self._reboot_at_ns:
            self._reboot_at_ns = None
            self._machine.reset(ResetCause.SOFTWARE)

    def close(self) -> None:
        self.channel.close()
        self._updates.close()

    def _is_running(self, manifest: Manifest) -> bool:
        info = self._image.info
        return (manifest.version, manifest.build_id) == (info.version, info.build_id)

    def _to_firmware(self, data: bytes) -> None:
        self._machine.engine.uart_input(data)


class DeviceSoftware:
    """Boot loader and service of one board; the machine's `BoardSoftware`.

    Attributes:
        image: what was started last, None before the first start.
    """

    def __init__(
        self,
        machine: Machine,
        loader: Loader,
        output: HostOutput,
        settings: DeviceSettings,
        open_url: Callable[[str], ByteSource],
    ) -> None:
        self._machine = machine
        self._loader = loader
        self._output = output
        self._settings = settings
        self._open_url = open_url
        self._application: _Application | None = None
        self._vector_table = 0
        self.image: RunningImage | None = None

    def boot(self, cause: ResetCause) -> EntryPoint | None:
        """Run the loader; its target is where the processor starts."""
        target: object = self._loader.boot(_LoaderHardware(self._machine, self._output, cause))
        if not isinstance(target, BootTarget):
            raise LoaderError(type(self._loader), target)
        self._vector_table = target.vector_table
        return EntryPoint(target.vector_table, target.stack_pointer, target.program_counter)

    def application_started(self) -> None:
        """Make the service of this boot."""
        self.image = _running_image(
            self._machine, self._vector_table, strict_original=self._settings.strict_original
        )
        self._application = _Application(
            self._machine, self._output, self._settings, self.image, self._open_url
        )
        self._machine.trace.record(
            "application-started", slot=self.image.slot, version=self.image.info.version
        )
        self._application.start()

    def turn(self) -> None:
        """One turn of the firmware's main loop."""
        if self._application is not None:
            self._application.turn()

    def application_ended(self) -> None:
        """The RAM is gone, and the service with it."""
        if self._application is not None:
            self._application.close()
            self._application = None

    def host_bytes(self, data: bytes) -> None:
        """Bytes from the host; while no application runs nobody listens."""
        if self._application is not None:
            self._application.channel.host_bytes(data)


def partitions_of(machine: Machine) -> Partitions:
    """The partitions to look at from outside, with no virtual time passing."""
    nor, internal = machine.models.nor.memory, machine.models.internal_flash.memory
    return Partitions(
        DEFAULT_LAYOUT,
        nor=FlashContents(nor.name, nor.geometry, nor.storage),
        internal_flash=FlashContents(internal.name, internal.geometry, internal.storage),
    )


def read_boot_state(machine: Machine, *, strict_original: bool = False) -> BootState | None:
    """The boot state in the flash; None when there is no valid record.

    With `strict_original`, as the original reads it.
    """
    areas = partitions_of(machine).journal_areas
    winner = Journal(areas, strict_original=strict_original).load().winner
    return None if winner is None else winner.state


def image_info(image: bytes) -> AppInfo:
    """What an image says of itself; one that says nothing is named by its checksum."""
    info = read_app_info(image[:SEARCH_LENGTH])
    return info or AppInfo("unknown", f"crc32:{zlib.crc32(image):08x}", "")


def _running_image(machine: Machine, vector_table: int, *, strict_original: bool) -> RunningImage:
    """What was started is where the vector table is, whatever the boot state says."""
    state = read_boot_state(machine, strict_original=strict_original)
    content = machine.models.internal_flash.memory.storage
    offset = vector_table - FLASH_BASE
    number, length = NO_SLOT, SEARCH_LENGTH
    for candidate, slot in enumerate(() if state is None else state.slots):
        if slot.configuration.app_map_addr == vector_table:
            number, length = candidate, slot.state.app_len
            break
    if not 0 <= offset < len(content):
        return RunningImage(number, AppInfo("unknown", "unknown", ""))
    return RunningImage(number, image_info(bytes(content[offset : offset + length])))
