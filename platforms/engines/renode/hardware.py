"""The board as a machine of Renode: its platform file loaded, the Python models attached."""

import ctypes
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import System
from Antmicro.Renode.Core.Structure import NullRegistrationPoint
from Antmicro.Renode.Peripherals.Bus import Access as BusAccess
from Antmicro.Renode.Peripherals.Bus import BusHookDelegate, BusRangeRegistration, SysbusAccessWidth
from Antmicro.Renode.Peripherals.CPU import RegisterValue
from Antmicro.Renode.Peripherals.Timers import LimitTimer
from Antmicro.Renode.Time import Direction, TimeInterval, WorkMode
from Antmicro.Renode.UserInterface import MonitorTimeExtensions
from pyrenode3 import interface_to_class
from pyrenode3.wrappers import Emulation, Machine

from platforms.clock import NS_PER_S
from platforms.description import BoardDescription, DescriptionError
from platforms.engines.bus import PeripheralBus
from platforms.engines.protocol import BoardModels, EngineError
from platforms.engines.renode.peripherals import Access, BusAdapter, SpiAdapter

MACHINE_NAME = "otasim"

# Where a load or store without a model is an error that names the address; elsewhere (RAM, flash)
# it is the processor's own bus fault.
_MODELLED_REGIONS = ((0x4000_0000, 0x6000_0000), (0xE000_0000, 0xE010_0000))
_DEFAULT_SIZE = 0x400
_SYSTEM_CONTROL_SIZE = 0x1000
_CONTROLLER, _MEMORY = "IRQControllers.NVIC", "Memory.MappedMemory"
_UART, _SPI, _GPIO = "UART.STM32_UART", "SPI.STM32SPI", "GPIOPort.STM32_GPIOPort"
_PROCESSOR = "CPU.CortexM"
SUPPORTED_TYPES = (_PROCESSOR, _CONTROLLER, _MEMORY, _UART, _SPI, _GPIO)

_AIRCR = 0xE000_ED0C
_AIRCR_KEY, _AIRCR_SYSRESETREQ = 0x05FA_0000, 1 << 2  # ARMv7-M ARM B3.2.6
_CR1, _CR1_UE_RE = 0x0C, 1 << 13 | 1 << 2  # RM0090 30.6.4

_REGISTERS = (*(f"r{number}" for number in range(13)), "sp", "lr", "pc", "xpsr")


class Hardware:
    """One machine of Renode.

    Attributes:
        processor: Renode's CortexM.
    """

    def __init__(
        self, description: BoardDescription, models: BoardModels, bus: PeripheralBus, access: Access
    ) -> None:
        self._models = models
        self._emulation = Emulation()
        if list(self._emulation.internal.Names):
            raise EngineError(
                "there is a board on Renode in this process already: close it before making "
                "another one, or make this one with the embedded engine"
            )
        wrapper = self._emulation.add_mach(MACHINE_NAME)
        self._machine = wrapper.internal
        try:
            self._assemble(wrapper, description, bus, access)
        except BaseException:
            self.close()
            raise

    def _assemble(
        self,
        wrapper: Machine,
        description: BoardDescription,
        bus: PeripheralBus,
        access: Access,
    ) -> None:
        try:
            wrapper.load_repl(str(description.path))
        except System.Exception as error:
            raise DescriptionError(
                f"Renode does not accept it: {error.Message}", path=description.path
            ) from error
        self._sysbus = interface_to_class(self._machine.SystemBus)
        self.processor = self._entry(description.only(_PROCESSOR).name)
        self._console = self._entry(self._models.console)
        self._flash_base = min(
            place.address
            for place in description.named(self._models.flash.memory).registrations
            if place.address
        )
        self._ram = [
            (entry.address(), entry.number("size"))
            for entry in description.of_type(_MEMORY)
            if entry.name != self._models.flash.memory
        ]
        self._clock_source = interface_to_class(self._machine.ClockSource)
        self._time_source = self._emulation.internal.MasterTimeSource
        MonitorTimeExtensions.SetGlobalAdvanceImmediately(self._emulation.internal, True)
        # What is reachable from .NET only must stay reachable from here.
        self._adapters: list[object] = []
        for start, end in _holes(description):
            adapter = BusAdapter(bus, start, end - start, access)
            self._sysbus.Register(adapter, BusRangeRegistration(start, end - start))
            self._adapters.append(adapter)
        for chip in self._models.spi:
            adapter = SpiAdapter(chip.chip, access)
            controller = self._entry(chip.controller)
            controller.Register(adapter, NullRegistrationPoint.Instance)
            self._entry(chip.port).Connections[chip.pin].Connect(adapter, 0)
            self._adapters.append(adapter)

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

    def run_for(self, duration_ns: int) -> None:
        """Let the machine run for so long."""
        duration = TimeInterval.FromNanoseconds(duration_ns)
        self._time_source.Quantum = duration
        self._emulation.internal.RunFor(duration)

    def pass_time(self, duration_ns: int) -> None:
        """Move the machine's timers on, SysTick among them, while its processor does nothing."""
        self._clock_source.Advance(TimeInterval.FromNanoseconds(duration_ns), False)

    # -- processor and memory ---------------------------------------------------------------------

    def reset(self) -> None:
        """Reset the machine; its processor is halted afterwards."""
        self.processor.IsHalted = True
        self._machine.Reset()
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
        address = ctypes.addressof(ctypes.c_char.from_buffer(cells))
        data = System.Array.CreateInstance(System.Byte, length)
        System.Runtime.InteropServices.Marshal.Copy(System.IntPtr(address), data, 0, length)
        self._sysbus.WriteBytes(data, self._flash_base + offset)

    def read(self, address: int, length: int) -> bytes:
        """Memory as a debugger sees it."""
        return bytes(self._sysbus.ReadBytes(address, length))

    def write(self, address: int, data: bytes) -> None:
        """Write RAM as a debugger does."""
        self._sysbus.WriteBytes(System.Array[System.Byte](data), address)

    def registers(self) -> Mapping[str, int]:
        """The processor's registers by name."""
        names = {name.lower(): name for name in self.processor.GetRegistersNames()}
        return {
            name: int(self.processor.GetRegisterUnsafe(names[name]).RawValue) for name in _REGISTERS
        }

    def close(self) -> None:
        """Take the machine out of Renode."""
        self._emulation.clear()


def _holes(description: BoardDescription) -> Iterator[tuple[int, int]]:
    """The ranges of the peripheral regions that no entry of the platform file covers."""
    taken: Sequence[tuple[int, int]] = sorted(
        (place.address, place.address + (place.size or _size_of(entry.type)))
        for entry in description.entries
        if entry.type not in (_MEMORY, _PROCESSOR)
        for place in entry.registrations
        if place.address is not None
    )
    for start, end in _MODELLED_REGIONS:
        free = start
        for first, last in taken:
            if start <= first < end:
                if first > free:
                    yield free, first
                free = max(free, last)
        if free < end:
            yield free, end


def _size_of(type_name: str) -> int:
    return _SYSTEM_CONTROL_SIZE if type_name == _CONTROLLER else _DEFAULT_SIZE
