"""The application's code on the processor, for every state of a campaign.

The loader has been computed by then. What it starts runs on a processor, and the RPC service in its
main loop is the least that answers: no files, no settings, no updates, which would cost ten times
as much and are looked at elsewhere (`campaign.judge.update_problem`, `otasim.campaign_check`).
"""

from bootloader_model.protocol import BootTarget, Loader, LoaderHardware
from campaign.boot import BootRun
from campaign.cells import Reading
from campaign.judge import Problem
from campaign.real import RealBoot
from otasim.application import ARCHITECTURE, MAC, RAM_SIZE, Application, RunningImage
from otasim.campaign_board import CampaignBoard, no_downloads
from otasim.device import DeviceSoftware
from otasim.engines import EMBEDDED
from otasim.settings import DeviceSettings
from platforms.devices.reset_cause import ResetCause
from platforms.machine import Machine
from rpc_shim.dispatch import Dispatcher
from rpc_shim.services.rpc import register_rpc_service
from rpc_shim.services.sys import DeviceInfo, register_sys_service
from rpc_shim.uart import HostOutput, UartChannel

WATCHDOG_TIMEOUT_S = 10
"""How long the application may go without feeding the watchdog, in virtual seconds."""


class _Starter:
    """A loader that has decided already."""

    def __init__(self, target: BootTarget) -> None:
        self._target = target

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        hardware.start_watchdog(WATCHDOG_TIMEOUT_S)
        return self._target


class _Answerer:
    """The RPC service on the serial line that says what the device is, and no more."""

    def __init__(self, machine: Machine, output: HostOutput, image: RunningImage) -> None:
        self._image = image
        self._device_id = DeviceSettings().device_id
        dispatcher = Dispatcher(self._device_id, output.write_line)
        register_rpc_service(dispatcher)
        register_sys_service(dispatcher, self)
        self._machine = machine
        self._channel = UartChannel(dispatcher, output, self._to_firmware)

    def start(self) -> None:
        """The firmware is about to run."""

    def turn(self) -> None:
        """One turn of the firmware's main loop."""
        self._channel.turn()

    def host_bytes(self, data: bytes) -> None:
        """Bytes from the host on the serial line."""
        self._channel.host_bytes(data)

    def firmware_bytes(self, data: bytes) -> None:
        """The service does not listen to the firmware."""

    def close(self) -> None:
        """The RAM is gone."""
        self._channel.close()

    def device_info(self) -> DeviceInfo:
        """What runs, as its descriptor in the flash says."""
        info = self._image.info
        return DeviceInfo(
            id=self._device_id,
            app=info.name,
            fw_version=info.version,
            fw_id=info.build_id,
            mac=MAC,
            arch=ARCHITECTURE,
            uptime=0,
            ram_size=RAM_SIZE,
            ram_free=RAM_SIZE,
            ram_min_free=RAM_SIZE,
        )

    def reboot_after(self, delay_ms: int) -> None:
        """Nobody asks for it."""

    def set_log_level(self, level: int) -> None:
        """There is no log."""

    def _to_firmware(self, data: bytes) -> None:
        self._machine.engine.uart_input(data)


class _AnsweringDevice(DeviceSoftware):
    """A board's software with the least of services."""

    def __init__(self, machine: Machine, loader: Loader, output: HostOutput) -> None:
        super().__init__(machine, loader, output, DeviceSettings(), no_downloads, None)
        self._board = machine, output

    def make_application(self, image: RunningImage) -> Application:
        """The service of one boot."""
        return _Answerer(*self._board, image)


class BoardProcessor:
    """Runs applications; the `Processor` of a campaign. One for each process.

    Args:
        engine: what runs the processor.
    """

    def __init__(self, engine: str = EMBEDDED) -> None:
        self._board = CampaignBoard(engine, _AnsweringDevice)

    def answer(self, boot: BootRun) -> str | Problem:
        """The version that answers after a boot that has started something, or why none does."""
        assert boot.target is not None  # noqa: S101 - it was started
        state = RealBoot(boot.contents, ResetCause.POWER_ON, Reading.STORED, 0)
        return self._board.boot(state, _Starter(boot.target)).answer

    def close(self) -> None:
        """Give back what the engine holds."""
        self._board.close()
