"""What runs on the board besides its firmware: the boot loader, and what talks to the outside.

Both live for one boot: a loader hardware and an application are made at every reset.
"""

import zlib

from bootloader_model.app_info import SEARCH_LENGTH, AppInfo, read_app_info
from bootloader_model.boot_state import NO_SLOT, BootState
from bootloader_model.journal import Journal
from bootloader_model.layout import DEFAULT_LAYOUT, FLASH_BASE
from bootloader_model.partition import Partitions
from bootloader_model.protocol import BootTarget, Loader
from otasim.application import (
    Application,
    BridgeApplication,
    OpenUrl,
    RunningImage,
    ServiceApplication,
    flash_drivers,
)
from otasim.settings import DeviceSettings, RpcMode
from platforms.devices.reset_cause import ResetCause
from platforms.errors import OtasimError
from platforms.flash import FlashContents
from platforms.machine import EntryPoint, Machine
from rpc_shim.links.network import Network
from rpc_shim.uart import HostOutput


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
        self._watchdog.start()
        self._watchdog.set_timeout(timeout_s)

    def feed_watchdog(self) -> None:
        self._watchdog.feed()

    def log(self, text: str) -> None:
        self._output.write_console(text.encode("ascii", "backslashreplace"))

    def wait(self, duration_ns: int) -> None:
        self._machine.wait(duration_ns)

    def record_decision(self, reason: str, **details: int | str) -> None:
        self._machine.trace.record("boot-decision", reason=reason, **details)


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
        open_url: OpenUrl,
        network: Network | None,
    ) -> None:
        self._machine = machine
        self._loader = loader
        self._output = output
        self._settings = settings
        self._open_url = open_url
        self._network = network
        self._application: Application | None = None
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
        self._application = self.make_application(self.image)
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
            self._application.host_bytes(data)

    def firmware_bytes(self, data: bytes) -> None:
        """Bytes from the firmware's UART, on their way to the host."""
        self._output.write_console(data)
        if self._application is not None:
            self._application.firmware_bytes(data)

    def make_application(self, image: RunningImage) -> Application:
        """The service of one boot; a board for a special purpose has another."""
        if self._settings.rpc is RpcMode.PASSTHROUGH:
            return BridgeApplication(self._machine, self._settings, self._network, self._note)
        return ServiceApplication(
            self._machine, self._output, self._settings, image, self._open_url, self._network
        )

    def _note(self, text: str) -> None:
        self._machine.trace.record("bridge", text=text)


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
    if state is not None and (found := state.slot_at(vector_table)) != NO_SLOT:
        number, length = found, state.slots[found].state.app_len
    if not 0 <= offset < len(content):
        return RunningImage(number, AppInfo("unknown", "unknown", ""))
    return RunningImage(number, image_info(bytes(content[offset : offset + length])))
