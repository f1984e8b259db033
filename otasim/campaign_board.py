"""A board that a campaign keeps alive: its flash is given contents again and again, and booted.

A loader runs on the real drivers, the application's code on the processor of an engine, and the
service in its main loop is asked over the UART who it is. Making a board takes many times as
long as a boot, so one is used for all states; the contents of its flash are changed only where they
differ from what is there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bootloader_model.layout import FlashName
from bootloader_model.protocol import BootTarget, Loader, LoaderHardware
from campaign.boot import Ending
from campaign.cells import PAGE_SIZE, Cells, Contents
from campaign.judge import Kind, Problem
from campaign.real import RealBoot, difference, memories_of, put_odd_bits
from otasim.device import DeviceSoftware
from otasim.engines import engine_factory
from platforms import storage
from platforms.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from platforms.devices import stm32f405_flash, w25q32jv
from platforms.devices.flash_memory import BitSource, FlashMemory
from platforms.devices.reset_cause import ResetCause
from platforms.devices.torn import TornShape
from platforms.errors import OtasimError
from platforms.machine import EntryPoint, Machine, ResetAsserted
from rpc_shim.dispatch import RpcError
from rpc_shim.download import ByteSource
from rpc_shim.framing import (
    Delimiter,
    FrameReceived,
    ReplyStyle,
    decode_segment,
    encode_frame,
)
from rpc_shim.links.rest import call_frame, result_of
from rpc_shim.uart import HostOutput

LONGEST_SILENCE_S = 30
"""Virtual seconds in which an application has to answer; its watchdog is quicker as a rule."""

MakeDevice = Callable[[Machine, Loader, HostOutput], DeviceSoftware]

_METHOD = "Sys.GetInfo"
_FRAME = encode_frame(call_frame(1, _METHOD, None), ReplyStyle(Delimiter.NEWLINE, with_crc=True))
_FIRST_STEP_NS, _LONGEST_STEP_NS = 10 * NS_PER_US, 10 * NS_PER_MS
_NOISE_SEED = 0
"""RAM holds the same noise at each boot, so that no state depends on which came before it."""


@dataclass(frozen=True, slots=True)
class BoardBoot:
    """What a board did from a reset to its first answer.

    Attributes:
        ending: how the loader ended.
        target: what it started; None when nothing was.
        reasons: names of its decisions.
        difference: where the flash was not as expected when the loader had ended; None if it was,
            or if nothing was expected.
        answer: the version that answered, or why none did.
    """

    ending: Ending
    target: BootTarget | None
    reasons: tuple[str, ...]
    difference: str | None
    answer: str | Problem


class _Flash:
    """One flash memory of the board, and which of its pages are not what was put there."""

    def __init__(self, memory: FlashMemory, flash: FlashName) -> None:
        self._memory = memory
        self._cells = Cells.erased(flash)
        self._changed: set[int] = set()
        memory.on_change.append(self._note_change)

    def put(self, cells: Cells, bits: BitSource) -> None:
        """Give the memory these contents, whose marginal bits read as `bits` says."""
        changed = self._changed
        for old, new in zip(self._cells.regions, cells.regions, strict=True):
            if old is not new:
                numbers = old.pages.keys() | new.pages.keys()
                changed |= {n for n in numbers if old.pages.get(n) != new.pages.get(n)}
        memory = self._memory
        for address, length in _runs(changed):
            memory.storage[address : address + length] = cells.stored(address, length)
            for listener in memory.on_change:
                listener(address, length)
        put_odd_bits(memory, cells, bits)
        self._cells, self._changed = cells, set()

    def _note_change(self, address: int, length: int) -> None:
        self._changed.update(range(address // PAGE_SIZE, -(-(address + length) // PAGE_SIZE)))


def _runs(pages: set[int]) -> Iterator[tuple[int, int]]:
    """Address and length of each run of neighbouring pages."""
    numbers = sorted(pages)
    while numbers:
        count = next((i for i, n in enumerate(numbers) if n != numbers[0] + i), len(numbers))
        yield numbers[0] * PAGE_SIZE, count * PAGE_SIZE
        numbers = numbers[count:]


class _CurrentLoader:
    """Stands for whichever loader is to run at the next reset.

    Attributes:
        loader: that one.
    """

    def __init__(self) -> None:
        self.loader: Loader | None = None

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        assert self.loader is not None  # noqa: S101 - _Software has just looked
        return self.loader.boot(hardware)


class _Software:
    """The board's own software, seen from outside for one boot and one call.

    Attributes:
        ending: how the loader ended; None before it has.
        target: what it started.
        answer: the version that answered, or why none will; None as long as it may.
        started_ns: when the application was started, in virtual time; None before it was.
    """

    def __init__(self, machine: Machine, make: MakeDevice) -> None:
        self._machine = machine
        self._current = _CurrentLoader()
        self._device = make(machine, self._current, HostOutput(self._note_output))
        self._memories = memories_of(machine.models)
        machine.uart_output = self._device.firmware_bytes
        machine.software = self

    def expect(self, loader: Loader | None, contents: Contents | None) -> None:
        """At the next reset `loader` is to run, and to leave these contents if any are given.

        None: nothing is to run.
        """
        self._current.loader = loader
        self._expected = contents
        self.ending: Ending | None = None
        self.target: BootTarget | None = None
        self.difference: str | None = None
        self.answer: str | Problem | None = None
        self.started_ns: int | None = None

    def boot(self, cause: ResetCause) -> EntryPoint | None:
        """The loader, once; any other reset is the end of what there is to see."""
        if self._current.loader is None:
            self._give_up(f"it is reset before it answers ({cause.value})")
            return None
        try:
            entry = self._device.boot(cause)
        except ResetAsserted:
            self._loader_ended(Ending.WATCHDOG)
            raise
        except Exception as error:  # noqa: BLE001 - a user's loader may raise anything: a finding
            self._loader_ended(Ending.RAISED)
            self._give_up(f"the loader raised {type(error).__name__}: {error}")
            return None
        if entry is not None:
            self.target = BootTarget(entry.vector_table, entry.stack_pointer, entry.program_counter)
        self._loader_ended(Ending.STARTED)
        return entry

    def application_started(self) -> None:
        """The application's service, and the call that is to be answered."""
        self.started_ns = self._machine.clock.now_ns
        self._device.application_started()
        self._device.host_bytes(_FRAME)

    def turn(self) -> None:
        """One turn of the main loop."""
        self._device.turn()

    def application_ended(self) -> None:
        """The RAM is gone."""
        self._device.application_ended()

    def _loader_ended(self, ending: Ending) -> None:
        self._current.loader = None
        self.ending = ending
        if self._expected is not None:
            self.difference = difference(self._memories, self._expected)

    def _give_up(self, why: str) -> None:
        if self.answer is None:
            self.answer = Problem(Kind.NO_ANSWER, why)

    def _note_output(self, data: bytes) -> None:
        # An answer comes in one piece, on a line of its own; nobody else writes whole frames.
        for line in data.splitlines():
            if self.answer is None and line.startswith(b"{"):
                frame = decode_segment(line, Delimiter.NEWLINE)
                if isinstance(frame, FrameReceived):
                    self.answer = _version_in(frame.json)


def _version_in(answer: bytes) -> str | Problem:
    try:
        result = result_of(answer)
    except RpcError as error:
        text = f"{_METHOD} is answered with error {error.code}: {error.message}"
        return Problem(Kind.NO_ANSWER, text)
    return str(result["fw_version"]) if isinstance(result, dict) else ""


def no_downloads(url: str, _ca_certificates: bytes | None) -> ByteSource:
    """Refuses to download: scenarios push their updates."""
    raise OtasimError(f"{url}: the board of a campaign downloads nothing")


class CampaignBoard:
    """One board for all states.

    Args:
        engine: what runs its processor. There can be one board on Renode in a process.
        make: makes its loader and service.
    """

    def __init__(self, engine: str, make: MakeDevice) -> None:
        self._machine = Machine(engine_factory(engine), storage.in_memory())
        models = self._machine.models
        self._nor = _Flash(models.nor.memory, FlashName.NOR)
        self._internal = _Flash(models.internal_flash.memory, FlashName.INTERNAL)
        self._software = _Software(self._machine, make)
        self._machine.power_on()

    def close(self) -> None:
        """Give back what the engine holds."""
        self._machine.engine.close()

    def boot(self, state: RealBoot, loader: Loader, expected: Contents | None = None) -> BoardBoot:
        """Boot the board from a state, and wait for the application's answer.

        Args:
            state: what its flash holds, and how it boots.
            loader: the boot loader; for each boot a new one.
            expected: what the flash should hold when the loader has ended.
        """
        software = self._software
        # A reset that the last application left due, or the power-on, would come before this one.
        if self._machine.reset_is_due:
            software.expect(None, None)
            self._machine.run_until(self._machine.clock.now_ns + 1)
        self._put(state)
        software.expect(loader, expected)
        self._machine.trace.events.clear()
        self._machine.reset(state.cause)
        answer = self._answer()
        assert software.ending is not None  # noqa: S101 - the board was reset
        decisions = self._machine.trace.of_kind("boot-decision")
        return BoardBoot(
            software.ending,
            software.target,
            tuple(str(decision.details["reason"]) for decision in decisions),
            software.difference,
            answer,
        )

    def _put(self, state: RealBoot) -> None:
        """The supply has gone and come back, and this is what the cells hold now."""
        models = self._machine.models
        # What the last application was at is void, and must not be torn in the new contents.
        models.nor.power_lost(TornShape.COMPLETE, 0)
        models.internal_flash.power_lost(TornShape.COMPLETE, 0)
        models.nor.memory.status_cells[:] = w25q32jv.FACTORY_STATUS
        models.internal_flash.memory.status_cells[:] = stm32f405_flash.FACTORY_OPTIONS
        self._nor.put(state.contents.nor, state.reading.bits(state.seed))
        self._internal.put(state.contents.internal, state.reading.bits(state.seed))
        models.nor.power_on()
        self._machine.engine.power_lost(_NOISE_SEED)

    def _answer(self) -> str | Problem:
        software, clock = self._software, self._machine.clock
        step_ns = _FIRST_STEP_NS
        try:
            while software.answer is None:
                if self._is_silent():
                    return self._problem(f"no answer within {LONGEST_SILENCE_S} s")
                self._machine.run_until(clock.now_ns + step_ns)
                step_ns = min(2 * step_ns, _LONGEST_STEP_NS)
        except OtasimError as error:
            return self._problem(str(error))
        if isinstance(software.answer, Problem):
            return self._problem(software.answer.text)
        return software.answer

    def _is_silent(self) -> bool:
        started_ns = self._software.started_ns
        if started_ns is None:
            return False
        return self._machine.clock.now_ns - started_ns >= LONGEST_SILENCE_S * NS_PER_S

    def _problem(self, text: str) -> Problem:
        faults = self._machine.trace.of_kind("fault")
        if faults:
            what, counter = (faults[0].details[name] for name in ("what", "program_counter"))
            text = f"{text}; the processor took a fault: {what} at 0x{counter:08x}"
        return Problem(Kind.NO_ANSWER, text)
