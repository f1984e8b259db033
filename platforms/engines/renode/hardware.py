"""The board as a machine of Renode: its platform file loaded, the Python models attached."""

import ctypes
import random
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import System
from Antmicro.Renode.Core.Structure import NullRegistrationPoint
from Antmicro.Renode.Logging import Logger, LogLevel
from Antmicro.Renode.Logging.Profiling import MemoryOperation
from Antmicro.Renode.Peripherals.Bus import Access as BusAccess
from Antmicro.Renode.Peripherals.Bus import BusHookDelegate, BusRangeRegistration, SysbusAccessWidth
from Antmicro.Renode.Peripherals.CPU import (
    HaltArguments,
    HaltReason,
    MemoryAccessHook,
    RegisterValue,
)
from Antmicro.Renode.Peripherals.Timers import LimitTimer
from Antmicro.Renode.Time import Direction, TimeInterval, WorkMode
from Antmicro.Renode.UserInterface import MonitorTimeExtensions
from pyrenode3 import interface_to_class
from pyrenode3.wrappers import Emulation, Machine

from platforms.clock import NS_PER_S
from platforms.description import BoardDescription, DescriptionError
from platforms.engines.bus import PeripheralBus
from platforms.engines.entries import (
    CONTROLLER,
    MEMORY,
    MODELLED_REGIONS,
    PROCESSOR,
    check,
    ranges,
)
from platforms.engines.protocol import BoardModels, EngineError, FaultKind
from platforms.engines.renode import library, tools
from platforms.engines.renode.faults import FaultUnit
from platforms.engines.renode.peripherals import Access, BusAdapter, SpiAdapter, UnmappedAdapter

MACHINE_NAME = "otasim"
_ATTENTION_S = 0.25

_AIRCR = 0xE000_ED0C
_AIRCR_KEY, _AIRCR_SYSRESETREQ = 0x05FA_0000, 1 << 2  # ARMv7-M ARM B3.2.6
_CR1, _CR1_UE_RE = 0x0C, 1 << 13 | 1 << 2  # RM0090 30.6.4

_REGISTERS = {f"r{number}": number for number in range(13)} | {
    "sp": 13, "lr": 14, "pc": 15, "xpsr": 25,
}  # fmt: skip


class Hardware:
    """One machine of Renode.

    Attributes:
        processor: Renode's CortexM.
        faults: what decides about its faults.
    """

    def __init__(
        self,
        description: BoardDescription,
        models: BoardModels,
        bus: PeripheralBus,
        access: Access,
        unmapped: Callable[[FaultKind, int], None],
    ) -> None:
        check(description, models)
        self._models = models
        self._visited: ThreadPoolExecutor | None = None
        self._emulation = Emulation()
        if list(self._emulation.internal.Names):
            raise EngineError(
                "there is a board on Renode in this process already: close it before making "
                "another one, or make this one with the embedded engine"
            )
        wrapper = self._emulation.add_mach(MACHINE_NAME)
        self._machine = wrapper.internal
        try:
            with library.uninterrupted():
                self._assemble(wrapper, description, bus, access, unmapped)
        except System.Exception as error:
            self.close()
            raise _refusal(description, str(error.Message)) from error
        except BaseException:
            self.close()
            raise

    def _assemble(
        self,
        wrapper: Machine,
        description: BoardDescription,
        bus: PeripheralBus,
        access: Access,
        unmapped: Callable[[FaultKind, int], None],
    ) -> None:
        wrapper.load_repl(str(description.path))
        self._sysbus = interface_to_class(self._machine.SystemBus)
        self.processor = self._entry(description.only(PROCESSOR).name)
        self._controller = self._entry(description.only(CONTROLLER).name)
        self._console = self._entry(self._models.console)
        places = description.named(self._models.flash.memory).registrations
        self._flash_bases = [place.address for place in places if place.address is not None]
        self._ram = [
            (entry.registrations[0].address or 0, entry.number("size"))
            for entry in description.of_type(MEMORY)
            if entry.name != self._models.flash.memory
        ]
        self._clock_source = interface_to_class(self._machine.ClockSource)
        self._time_source = self._emulation.internal.MasterTimeSource
        self._duration_ns = 0
        MonitorTimeExtensions.SetGlobalAdvanceImmediately(self._emulation.internal, True)
        # What is reachable from .NET only must stay reachable from here.
        self._adapters: list[object] = []
        for start, end, modelled in _holes(description):
            size = end - start
            adapter = (
                BusAdapter(bus, start, size, access)
                if modelled
                else UnmappedAdapter(start, size, unmapped)
            )
            self._sysbus.Register(adapter, BusRangeRegistration(start, size))
            self._machine.SetLocalName(adapter, f"otasim_{start:08x}")
            self._adapters.append(adapter)
        for chip in self._models.spi:
            adapter = SpiAdapter(chip.chip, access)
            controller = self._entry(chip.controller)
            controller.Register(adapter, NullRegistrationPoint.Instance)
            self._machine.SetLocalName(adapter, f"otasim_{chip.controller}")
            self._entry(chip.port).Connections[chip.pin].Connect(adapter, 0)
            self._adapters.append(adapter)
        self.faults = FaultUnit(self.processor, self._controller, self._sysbus)
        self._gave_up = False
        self._halted_hook = System.Action[HaltArguments](self._note_halt)
        self.processor.Halted += self._halted_hook

    def _note_halt(self, halted: HaltArguments) -> None:
        if halted.Reason == HaltReason.Abort:
            self._gave_up = True

    def _entry(self, name: str) -> Any:  # noqa: ANN401 - an object of .NET
        return interface_to_class(self._machine[f"sysbus.{name}"])

    # -- events -----------------------------------------------------------------------------------

    def on_console_output(self, take: Callable[[int], None]) -> None:
        """Call `take` with each byte that the firmware sends on the console UART."""
        self._console.CharReceived += System.Action[System.Byte](take)

    def on_reset_request(self, act: Callable[[], None]) -> None:
        """Call `act` when the firmware sets SYSRESETREQ."""

        def written(_cpu: object, _address: int, _width: object, value: int) -> None:
            if value & 0xFFFF_0000 == _AIRCR_KEY and value & _AIRCR_SYSRESETREQ:
                act()

        self._hook = BusHookDelegate(written)
        self._sysbus.AddWatchpointHook(
            _AIRCR, SysbusAccessWidth.DoubleWord, BusAccess.Write, self._hook
        )

    def watch_stores(self, act: Callable[[int, bytes], None] | None) -> None:
        """Call `act` with address and data of each store to memory, or stop that.

        Renode looks at every single access then, which is slow.
        """
        if act is None:
            self.processor.SetHookAtMemoryAccess(None)
            return
        store = act

        def accessed(
            _pc: int, operation: object, _virtual: int, address: int, width: int, value: int
        ) -> None:
            if operation == MemoryOperation.MemoryWrite:
                store(address, value.to_bytes(width, "little"))
                self.processor.FlushTlb()  # or the next store to this page is not seen

        self._store_hook = MemoryAccessHook(accessed)
        self.processor.SetHookAtMemoryAccess(self._store_hook)
        self.processor.FlushTlb()
        # Blocks translated so far go around the hook.
        self.processor.ClearTranslationCache()

    def on_alarm(self, act: Callable[[], None]) -> None:
        """Call `act` when the time set by `set_alarm` has come."""
        self._alarm = LimitTimer(
            self._machine.ClockSource, NS_PER_S, None, "otasim",
            1, Direction.Ascending, False, WorkMode.OneShot, True,
        )  # fmt: skip
        self._alarm.LimitReached += System.Action(act)

    # -- time -------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """Renode's own virtual time for this machine."""
        return int(self._clock_source.CurrentValue.TotalNanoseconds)

    def set_alarm(self, delay_ns: int) -> None:
        """Have the alarm go off when this machine's time has moved on by so much."""
        self._alarm.Limit = max(1, delay_ns)
        self._alarm.ResetValue()
        self._alarm.Enabled = True

    def synchronize(self) -> None:
        """Count the instructions executed so far; only on the processor's thread."""
        self.processor.SyncTime()

    def run_for(self, duration_ns: int, attention: Callable[[], None]) -> None:
        """Let the machine run for so long; `attention` is called now and then if it takes long.

        Raises EngineError when Renode's processor has given up, which only a reset mends.
        """
        self._check_processor()
        if duration_ns != self._duration_ns:
            # Most runs are equally long, and setting this takes a good part of one.
            self._duration_ns = duration_ns
            self._duration = TimeInterval.FromNanoseconds(duration_ns)
            self._time_source.Quantum = self._duration
        if self._visited is None:
            self._run_renode()
        else:
            self._run_attended(self._visited, attention)
        self._check_processor()

    def _check_processor(self) -> None:
        if self._gave_up:
            raise EngineError(
                f"at PC 0x{self.program_counter:08x}: Renode's processor has given up; its log "
                "says why (--renode-log FILE). Reset the board, or use --engine embedded"
            )

    def _run_attended(self, visited: ThreadPoolExecutor, attention: Callable[[], None]) -> None:
        # A debugger or somebody at the monitor may hold the processor for as long as they like: the
        # run is waited for, from a thread that can still be told to end.
        run = visited.submit(self._run_renode)
        while True:
            try:
                run.result(_ATTENTION_S)
            except TimeoutError:
                attention()
            else:
                return

    def _run_renode(self) -> None:
        self._emulation.internal.RunFor(self._duration)

    def open_monitor(self, port: int) -> None:
        """Open Renode's monitor on a TCP port."""
        tools.open_monitor(MACHINE_NAME, port)
        self._expect_visitors()

    def start_gdb_server(self, port: int) -> None:
        """Start Renode's GDB server on a TCP port."""
        tools.start_gdb_server(self._machine, port)
        self._expect_visitors()

    def _expect_visitors(self) -> None:
        if self._visited is None:
            self._visited = ThreadPoolExecutor(1, "otasim: Renode")

    @property
    def on_processor_thread(self) -> bool:
        """Whether it is the processor that calls here, and not somebody at its tools."""
        return self._visited is None or bool(self.processor.OnPossessedThread)

    def warn(self, message: str) -> None:
        """Put a line into Renode's log."""
        Logger.LogAs(self._machine, LogLevel.Warning, message.replace("{", "{{").replace("}", "}}"))

    def log_to(self, path: Path) -> None:
        """Write Renode's log to a file."""
        tools.log_to(self._machine, path)

    def pass_time(self, duration_ns: int) -> None:
        """Move the machine's timers on, SysTick among them, while its processor does nothing."""
        self._clock_source.Advance(TimeInterval.FromNanoseconds(duration_ns), False)

    # -- processor and memory ---------------------------------------------------------------------

    def reset(self) -> None:
        """Reset the machine; its processor is halted afterwards."""
        self.processor.IsHalted = True
        with library.uninterrupted():
            self._machine.Reset()
        self.faults.reset()
        self._gave_up = False
        self.processor.IsHalted = True

    def hold(self) -> None:
        """Halt the processor where it is, from its own thread or another."""
        self.processor.IsHalted = True

    @property
    def program_counter(self) -> int:
        """Where the processor is."""
        return int(self.processor.PC.RawValue)

    def scramble_ram(self, seed: int) -> None:
        """Fill every memory but the flash with chance content."""
        noise = random.Random(seed)  # noqa: S311 - chance, not secrecy
        for address, size in self._ram:
            self.write(address, noise.randbytes(size))

    def start(self, vector_table: int, stack_pointer: int, program_counter: int) -> None:
        """Release the processor."""
        self.processor.VectorTableOffset = vector_table
        self.processor.SP = RegisterValue.Create(stack_pointer & ~3, 32)
        self.processor.PC = RegisterValue.Create(program_counter | 1, 32)
        self.processor.IsHalted = False

    def receive(self, data: bytes) -> int:
        """Bytes arrive at the console UART; none are taken while its receiver is off."""
        if self._console.ReadDoubleWord(_CR1) & _CR1_UE_RE != _CR1_UE_RE:
            return 0
        for byte in data:
            self._console.WriteChar(byte)
        return len(data)

    def copy_flash(self, offset: int, length: int) -> None:
        """Bring the processor's view of the internal flash up to date with its model."""
        cells = self._models.flash.cells[offset : offset + length]
        self._copy(cells, self._flash_bases[0] + offset)

    def _copy(self, data: bytearray | memoryview, address: int) -> None:
        """Copy in one piece: pythonnet converts byte by byte, 600 ns each."""
        length = len(data)
        source = System.IntPtr(ctypes.addressof(ctypes.c_char.from_buffer(data)))
        copy = System.Array.CreateInstance(System.Byte, length)
        System.Runtime.InteropServices.Marshal.Copy(source, copy, 0, length)
        self._sysbus.WriteBytes(copy, address)

    def flash_offset(self, address: int) -> int | None:
        """Where in the internal flash an address is; None outside."""
        for base in self._flash_bases:
            if base <= address < base + len(self._models.flash.cells):
                return address - base
        return None

    def read(self, address: int, length: int) -> bytes:
        """Memory as a debugger sees it."""
        return bytes(self._sysbus.ReadBytes(address, length))

    def write(self, address: int, data: bytes) -> None:
        """Write RAM as a debugger does."""
        self._copy(bytearray(data), address)

    def registers(self) -> Mapping[str, int]:
        """The processor's registers by name."""
        get = self.processor.GetRegister
        return {name: int(get(index).RawValue) for name, index in _REGISTERS.items()}

    def close(self) -> None:
        """Take the machine out of Renode."""
        self._emulation.clear()


def _refusal(description: BoardDescription, message: str) -> DescriptionError:
    """What Renode says about a platform file, with the place it names in its own words."""
    what, _, rest = message.replace("\r", "").partition("\n")
    place = re.search(rf"At {re.escape(str(description.path))}:(\d+):\d+", rest)
    line = int(place[1]) if place else 0
    about = [entry.name for entry in description.entries if entry.line <= line]
    return DescriptionError(
        f"Renode does not accept it: {what}",
        path=description.path,
        line=line,
        entry=about[-1] if about else "",
    )


def _holes(description: BoardDescription) -> Iterator[tuple[int, int, bool]]:
    """The ranges that no entry of the platform file covers, and whether models may be there."""
    taken = sorted((start, end) for start, end, _ in ranges(description))
    for start, end, modelled in _regions():
        free = start
        for first, last in taken:
            if start <= first < end:
                if first > free:
                    yield free, first, modelled
                free = max(free, last)
        if free < end:
            yield free, end, modelled


def _regions() -> Iterator[tuple[int, int, bool]]:
    """All addresses: start, end, and whether models may be there."""
    end = 0
    for first, last in MODELLED_REGIONS:
        yield end, first, False
        yield first, last, True
        end = last
    yield end, 1 << 32, False
