"""The application's side of a device's life: the board's real OTA services, called by RPC frames.

A campaign adds nothing to them. They run on whichever flash devices they are given: those of a
campaign, or the real drivers. File systems stay empty.
"""

import base64

from bootloader_model.layout import DEFAULT_LAYOUT
from bootloader_model.partition import Partitions
from campaign.images import Image, bundle_of
from platforms.clock import NS_PER_S, Clock
from platforms.errors import OtasimError
from platforms.flash import FlashDevice
from rpc_shim.boot_configuration import BootConfiguration
from rpc_shim.boot_files import BootFiles
from rpc_shim.dispatch import Channel, Dispatcher, RpcError
from rpc_shim.download import ByteSource
from rpc_shim.frame import JsonValue
from rpc_shim.links.rest import Params, call_frame, result_of
from rpc_shim.services.ota import OtaService
from rpc_shim.services.ota_update import UpdateService, UpdateSettings

_DEVICE_ID = "campaign"
_CHANNEL = Channel("UART")
_CHUNK_SIZE = 2048


class ApplicationError(OtasimError):
    """The application did not do what it was asked for.

    Attributes:
        method: what was called.
    """

    def __init__(self, method: str, problem: str) -> None:
        super().__init__(f"{method}: {problem}")
        self.method = method


class Application:
    """One boot of the application: RAM, thrown away at a reset.

    Args:
        nor: the SPI NOR flash.
        internal_flash: the internal flash.
        clock: virtual time, which `wait` moves.
        vector_table: where the loader has started it.

    Attributes:
        console: what it has logged, a line each.
        reset_after_ms: after how many milliseconds it wants to be reset; None = it does not.
    """

    def __init__(
        self, nor: FlashDevice, internal_flash: FlashDevice, clock: Clock, vector_table: int
    ) -> None:
        self._partitions = Partitions(DEFAULT_LAYOUT, nor=nor, internal_flash=internal_flash)
        self._clock = clock
        self.console: list[str] = []
        self.reset_after_ms: int | None = None
        boot = BootConfiguration.of_image_at(self._partitions, vector_table)
        self._dispatcher = Dispatcher(_DEVICE_ID, self.log)
        files = BootFiles(boot, self._partitions, self.feed_watchdog, self.log)
        self._updates = UpdateService(
            self._dispatcher,
            self,
            boot,
            _no_downloads,
            settings=UpdateSettings,
            is_running=lambda _manifest: False,
        )
        self._ota = OtaService(
            self._dispatcher, self, boot, files, self._updates.refuse_during_update
        )
        self._boot = boot

    @property
    def is_committed(self) -> bool:
        """Whether the firmware that runs is there to stay."""
        return self._boot.state.is_committed

    def start(self) -> None:
        """The firmware runs, its initialisation has succeeded."""
        self._ota.start(is_initialised=True)

    def wait(self, seconds: float) -> None:
        """Let virtual time pass, with a turn of the main loop at its end."""
        self._clock.advance_to(self._clock.now_ns + round(seconds * NS_PER_S))
        self._ota.turn()

    def call(self, method: str, params: Params = None) -> JsonValue:
        """Call a method; ApplicationError when the answer is an error."""
        answers: list[bytes] = []
        self._dispatcher.handle(call_frame(1, method, params), answers.append, _CHANNEL)
        if not answers:
            raise ApplicationError(method, "no answer")
        try:
            return result_of(answers[0])
        except RpcError as error:
            raise ApplicationError(method, error.message) from error

    def update(self, image: Image, commit_timeout_s: int) -> None:
        """Take an update as a host pushes it; the reboot that follows is the caller's business."""
        bundle = bundle_of(image)
        self.call("OTA.Begin", {"size": len(bundle), "commit_timeout": commit_timeout_s})
        for offset in range(0, len(bundle), _CHUNK_SIZE):
            chunk = base64.b64encode(bundle[offset : offset + _CHUNK_SIZE]).decode()
            self.call("OTA.Write", {"offset": offset, "data": chunk})
        self.call("OTA.End")

    # -- the board, as the services see it --------------------------------------------------------

    @property
    def partitions(self) -> Partitions:
        """The partitions."""
        return self._partitions

    @property
    def clock(self) -> Clock:
        """Virtual time."""
        return self._clock

    def log(self, text: str) -> None:
        """One line on the console."""
        self.console.append(text)

    def reboot_after(self, delay_ms: int) -> None:
        """Scenarios say themselves when the board is reset; they look whether it was asked for."""
        self.reset_after_ms = delay_ms

    def feed_watchdog(self) -> None:
        """A campaign has no time in which it could bite."""

    def record(self, kind: str, **details: int | str | bool | None) -> None:
        """There is no trace to put it on."""


def _no_downloads(url: str) -> ByteSource:
    raise ApplicationError("OTA.Update", f"{url}: campaigns push updates, they do not download")
