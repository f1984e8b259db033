"""The board as a user of the Python interface sees it: a virtual device with everything on it.

with Board(image="sample-1.0") as board:
    board.run(1)
    board.call("OTA.Update", {"url": url, "commit_timeout": 30})
    board.run(5)
    assert board.version == "2.0"
    board.cut_power()
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, TracebackType
from typing import Self

import firmware
from bootloader_model.boot_state import BootState
from bootloader_model.custom_loader import load_loader
from bootloader_model.layout import DEFAULT_LAYOUT
from bootloader_model.loader import LoaderSettings, MosLoader
from bootloader_model.partition import Partitions
from bootloader_model.protocol import Loader
from bootloader_model.provisioning import provision
from otasim.device import DeviceSoftware, read_boot_state
from otasim.engines import EMBEDDED, choose_engine, engine_factory
from otasim.interrupts import HeldInterrupt
from otasim.network import open_url
from otasim.settings import DeviceSettings
from platforms import storage
from platforms.clock import NS_PER_MS, NS_PER_S, Clock
from platforms.description import BOARD_FILE
from platforms.devices.reset_cause import ResetCause
from platforms.devices.torn import TornShape
from platforms.drivers.internal_flash import InternalFlashDriver
from platforms.drivers.nor_flash import NorFlashDriver
from platforms.errors import InvalidArgumentError, OtasimError
from platforms.machine import Machine
from platforms.models import make_models
from platforms.trace import Trace
from rpc_shim.bundle.image_file import load_image
from rpc_shim.client import RpcClient
from rpc_shim.download import ByteSource
from rpc_shim.filesystem import FileSystem
from rpc_shim.frame import JsonValue
from rpc_shim.links.network import LinkSettings, Network
from rpc_shim.uart import HostOutput

DEFAULT_IMAGE = "sample-1.0"

_ANSWER_STEP_NS = NS_PER_S // 100
_INTERRUPT_STEP_NS = NS_PER_S
"""Ctrl-C is looked at between such steps; each takes a fraction of a second of real time."""
TRANSCRIPT_LIMIT = 4 * 1024 * 1024


class TimeLimitError(OtasimError):
    """A condition did not come true within the virtual time it was given.

    Attributes:
        timeout_s: the limit in virtual seconds.
    """

    def __init__(self, what: str, timeout_s: float) -> None:
        super().__init__(f"{what} did not come true within {timeout_s:g} virtual seconds")
        self.timeout_s = timeout_s


class BoardClosedError(OtasimError):
    """A board is used after its `close`."""

    def __init__(self) -> None:
        super().__init__("the board is closed: make a new one (a state directory brings it back)")


class NoPowerError(OtasimError):
    """A board without power cannot answer."""

    def __init__(self) -> None:
        super().__init__("the board has no power, so nobody answers: call power_on() first")


@dataclass(frozen=True, slots=True)
class _Stream:
    """The UART as a client in this process sees it: reading lets virtual time pass."""

    board: "Board"
    received: bytearray

    def read(self, timeout_s: float) -> bytes:
        deadline_ns = self.board.machine.clock.now_ns + round(timeout_s * NS_PER_S)
        while not self.received and self.board.machine.clock.now_ns < deadline_ns:
            left_ns = deadline_ns - self.board.machine.clock.now_ns
            self.board.run(min(left_ns, _ANSWER_STEP_NS) / NS_PER_S)
        data = bytes(self.received)
        self.received.clear()
        return data

    def write(self, data: bytes) -> None:
        self.board.send(data)

    def close(self) -> None:
        self.board.outputs.remove(self.received.extend)


class Board:
    """A virtual STM32F405 with its loader, its firmware and its RPC service.

    Args:
        image: the application that slot 0 of a fresh board holds, committed: name of a sample
            (`sample-1.0`), path of a .hex, .elf, .bin or .zip file, or the bytes of an image linked
            for 0x08010000.
        factory_image: the same for slot 3; None leaves that slot empty.
        loader: the boot loader, or where to find it (`package.module:Class`).
        engine: what runs the processor: `embedded`, `renode`, or `auto` for Renode where it is.
        platform: the platform file (.repl) that describes the board's hardware.
        state_directory: where to keep the flash contents; None keeps them in memory. A directory
            that holds a board already is used as it is, `image` and `factory_image` unused.
        settings: the device's name and limits.
        links: ways to reach the board over the network, such as `TcpSettings()` of
            `rpc_shim.links.tcp`; `urls` says where they are. What comes over them is served while
            virtual time passes.

    Attributes:
        machine: the hardware underneath.
        outputs: functions that take what the board sends on its UART.
        is_kept: whether the flash contents are those that the state directory held already.
        console_outputs: functions that take the console text in it, without the RPC traffic.

    Raises:
        OtasimError: an image, the loader, the engine or the directory cannot be used.
    """

    def __init__(
        self,
        image: str | Path | bytes = DEFAULT_IMAGE,
        *,
        factory_image: str | Path | bytes | None = None,
        loader: Loader | str | None = None,
        engine: str = EMBEDDED,
        platform: str | Path = BOARD_FILE,
        state_directory: str | Path | None = None,
        settings: DeviceSettings | None = None,
        links: Sequence[LinkSettings] = (),
    ) -> None:
        self.engine = choose_engine(engine)
        factory = engine_factory(self.engine, Path(platform))
        settings = settings or DeviceSettings()
        boot_loader = _find_loader(loader, settings)
        self._strict_original = settings.strict_original
        with ExitStack() as cleanup:
            self.is_kept = True

            def manufacture() -> storage.FlashStorage:
                self.is_kept = False
                return _manufacture(
                    _image_bytes(image),
                    None if factory_image is None else _image_bytes(factory_image),
                )

            if state_directory is None:
                cells = manufacture()
            else:
                directory = storage.in_directory(Path(state_directory), manufacture)
                cells = cleanup.enter_context(directory)
            self._network = cleanup.enter_context(Network(links)) if links else None
            self.machine = Machine(factory, cells)
            cleanup.callback(self.machine.engine.close)
            self._cleanup = cleanup.pop_all()
        self._transcript = bytearray()
        self.outputs: list[Callable[[bytes], None]] = [self._keep]
        self.console_outputs: list[Callable[[bytes], None]] = []
        output = HostOutput(
            lambda data: _emit(data, self.outputs),
            lambda data: _emit(data, self.console_outputs),
        )
        self._software = DeviceSoftware(
            self.machine, boot_loader, output, settings, self._open_url, self._network
        )
        self.machine.uart_output = self._software.firmware_bytes
        self.machine.software = self._software
        if settings.service_poll_ms is not None:
            self.machine.service_poll_ns = settings.service_poll_ms * NS_PER_MS
        self._next_request_id = 1
        self.paced = False
        self._closed = False
        self.machine.power_on()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back files and memory; the flash contents of a state directory stay there.

        What has been recorded (`console`, `trace`, `version`) can still be read. Everything else
        raises BoardClosedError from now on.
        """
        self._closed = True
        self._software.application_ended()
        self._cleanup.close()

    # -- time and power ---------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Virtual seconds since the board was made."""
        return self.machine.clock.now_ns / NS_PER_S

    def run(self, seconds: float) -> None:
        """Let so many virtual seconds pass (a little more when that ends in the boot loader).

        Ctrl-C (KeyboardInterrupt) comes out of here, the board in good order.
        """
        self._run_until_ns(self.machine.clock.now_ns + round(seconds * NS_PER_S))

    def run_until(self, condition: Callable[[], bool], *, timeout_s: float = 60) -> None:
        """Run until `condition()` holds; TimeLimitError after so many virtual seconds."""
        deadline_ns = self.machine.clock.now_ns + round(timeout_s * NS_PER_S)
        while not condition():
            now_ns = self.machine.clock.now_ns
            if now_ns >= deadline_ns:
                raise TimeLimitError(_name_of(condition), timeout_s)
            self._run_until_ns(min(deadline_ns, now_ns + _ANSWER_STEP_NS))

    def power_on(self) -> None:
        """Switch the supply on; a new board is on already."""
        self._check_open()
        self.machine.power_on()

    @property
    def powered(self) -> bool:
        """Whether the supply is up."""
        return self.machine.powered

    def cut_power(
        self, shape: TornShape = TornShape.RANDOM_BITS, seed: int = 0, *, after_s: float = 0
    ) -> None:
        """Cut the supply; a flash operation under way is torn in the given shape.

        With `after_s` it is cut when so many virtual seconds have passed, whatever the board does
        then: in the middle of the boot loader's copying, if that is what it is at.
        """
        self._check_open()
        if after_s:
            delay_ns = round(after_s * NS_PER_S)
            self.machine.clock.call_after(delay_ns, lambda: self.machine.cut_power(shape, seed))
        else:
            self.machine.cut_power(shape, seed)

    def power_cycle(self) -> None:
        """Cut the supply and switch it on again."""
        self.cut_power()
        self.power_on()

    def reset(self, cause: ResetCause = ResetCause.PIN) -> None:
        """Reset the processor, by its pin unless another cause is asked for."""
        self._check_open()
        self.machine.reset(cause)

    # -- talking to it ----------------------------------------------------------------------------

    def call(
        self,
        method: str,
        params: Mapping[str, JsonValue] | Sequence[JsonValue] | None = None,
        *,
        timeout_s: float = 60,
    ) -> JsonValue:
        """Call an RPC method over the UART and return its result; virtual time passes meanwhile.

        Raises:
            RpcClientError: the device answered with an error.
            RpcTimeoutError: no answer within so many virtual seconds.
            NoPowerError: the supply is off.
        """
        self._check_open()
        if not self.powered:
            raise NoPowerError
        received = bytearray()
        self.outputs.append(received.extend)
        request_id, self._next_request_id = self._next_request_id, self._next_request_id + 1
        stream = _Stream(self, received)
        with RpcClient(stream, first_id=request_id, monotonic=lambda: self.now_s) as client:
            return client.call(method, params, timeout_s=timeout_s)

    def send(self, data: bytes) -> None:
        """Bytes from the host on the UART: console input or RPC frames."""
        self._check_open()
        self._software.host_bytes(data)

    def type(self, text: str) -> None:
        """Type on the console."""
        self.send(text.encode())

    @property
    def network(self) -> Network | None:
        """The network links, for a loop that has to notice requests in real time."""
        return self._network

    @property
    def urls(self) -> Mapping[str, str]:
        """Where the board can be reached: what `mos --port` takes, by name of the transport."""
        return {} if self._network is None else self._network.urls

    @property
    def console(self) -> str:
        """Everything the board has sent on its UART (the newest 4 MB of it)."""
        return self._transcript.decode("ascii", "backslashreplace")

    # -- looking at it ----------------------------------------------------------------------------

    @property
    def trace(self) -> Trace:
        """What happened, in virtual time."""
        return self.machine.trace

    @property
    def boot_state(self) -> BootState | None:
        """The boot state as it stands in the flash; None without a valid record."""
        self._check_open()
        return read_boot_state(self.machine, strict_original=self._strict_original)

    @property
    def running(self) -> bool:
        """Whether an application has been started since the last reset."""
        return self.machine.application_running

    @property
    def slot(self) -> int | None:
        """The slot of the application that was started last."""
        image = self._software.image
        return None if image is None else image.slot

    @property
    def version(self) -> str | None:
        """The version of the application that was started last."""
        image = self._software.image
        return None if image is None else image.info.version

    # -- internals --------------------------------------------------------------------------------

    def _run_until_ns(self, deadline_ns: int) -> None:
        self._check_open()
        clock = self.machine.clock
        with HeldInterrupt() as interrupt:
            while clock.now_ns < deadline_ns:
                self.machine.run_until(min(deadline_ns, clock.now_ns + _INTERRUPT_STEP_NS))
                interrupt.check()

    def _check_open(self) -> None:
        if self._closed:
            raise BoardClosedError

    def _keep(self, data: bytes) -> None:
        self._transcript += data
        if len(self._transcript) > TRANSCRIPT_LIMIT:
            del self._transcript[: TRANSCRIPT_LIMIT // 4]

    def _open_url(self, url: str, ca_certificates: bytes | None) -> ByteSource:
        return open_url(
            url, self.machine.clock, paced=lambda: self.paced, ca_certificates=ca_certificates
        )


def _name_of(condition: Callable[[], bool]) -> str:
    """What to call a condition in an error: its name, or where it stands when it has none."""
    name = getattr(condition, "__name__", "<lambda>")
    code = getattr(condition, "__code__", None)
    if name != "<lambda>":
        return str(name)
    if not isinstance(code, CodeType):
        return "what was waited for"
    return f"the condition in line {code.co_firstlineno} of {code.co_filename}"


def _emit(data: bytes, outputs: Sequence[Callable[[bytes], None]]) -> None:
    for output in outputs:
        output(data)


def _find_loader(loader: Loader | str | None, settings: DeviceSettings) -> Loader:
    if loader is None:
        return MosLoader(LoaderSettings(strict_original=settings.strict_original))
    return load_loader(loader, directory=Path.cwd()) if isinstance(loader, str) else loader


def _image_bytes(image: str | Path | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str) and image in firmware.images():
        image = firmware.path(image)
    elif isinstance(image, str) and "/" not in image and not Path(image).exists():
        raise InvalidArgumentError(
            f"there is neither a file nor a sample called {image!r}; the samples are "
            f"{', '.join(firmware.images())}"
        )
    return load_image(Path(image)).data


def _manufacture(image: bytes, factory_image: bytes | None) -> storage.FlashStorage:
    """Fill a board's flash before it is first switched on; that takes none of its own time."""
    cells = storage.in_memory()
    clock = Clock()
    models = make_models(clock, cells)

    def wait(duration_ns: int) -> None:
        clock.advance_to(clock.now_ns + duration_ns)

    nor = NorFlashDriver(models.nor, wait)
    internal_flash = InternalFlashDriver(models.internal_flash, wait)
    state = provision(nor, internal_flash, image, factory_image=factory_image, has_file_system=True)
    partitions = Partitions(DEFAULT_LAYOUT, nor=nor, internal_flash=internal_flash)
    FileSystem.format(partitions.open(state.slots[state.active_slot].configuration.fs_dev))
    return cells
