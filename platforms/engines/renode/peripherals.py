"""The board's Python models as Renode sees them: an adapter of a few lines for each kind.

.NET calls these on Renode's processor thread. Every call goes through `Access`, which brings the
board's clock up to date first and lets no exception of a model escape into .NET, where it would
end the process.
"""

from collections.abc import Callable
from typing import Protocol

import clr
import System
from Antmicro.Renode.Core import IGPIOReceiver
from Antmicro.Renode.Peripherals import IKnownSize, IPeripheral
from Antmicro.Renode.Peripherals.Bus import (
    IBytePeripheral,
    IDoubleWordPeripheral,
    IWordPeripheral,
)
from Antmicro.Renode.Peripherals.SPI import ISPIPeripheral

from platforms.devices.spi import SpiSlave, exchange
from platforms.engines.bus import PeripheralBus
from platforms.engines.protocol import FaultKind


class Access(Protocol):
    """Runs what the processor's access does, with the board's clock at the access's time."""

    def __call__(self, action: Callable[[], int]) -> int:
        """The result of `action`, or 0 when it failed; the run ends then."""
        ...


class BusAdapter(IDoubleWordPeripheral, IWordPeripheral, IBytePeripheral, IKnownSize, IPeripheral):
    """A range that the project's own bus decodes: models, and holes that are errors."""

    __namespace__ = "Otasim"

    def __init__(self, bus: PeripheralBus, base: int, size: int, access: Access) -> None:
        super().__init__()
        self._bus = bus
        self._base = base
        self._size = size
        self._access = access

    @clr.clrproperty(System.Int64)
    def Size(self) -> int:  # noqa: N802 - Renode's name
        """Bytes on the bus."""
        return self._size

    def ReadDoubleWord(self, offset: int) -> int:  # noqa: N802
        """A 32-bit load."""
        return self._access(lambda: self._bus.read(self._base + offset, 4))

    def WriteDoubleWord(self, offset: int, value: int) -> None:  # noqa: N802
        """A 32-bit store."""
        self._write(offset, 4, value)

    def ReadWord(self, offset: int) -> int:  # noqa: N802
        """A 16-bit load."""
        return self._access(lambda: self._bus.read(self._base + offset, 2))

    def WriteWord(self, offset: int, value: int) -> None:  # noqa: N802
        """A 16-bit store."""
        self._write(offset, 2, value)

    def ReadByte(self, offset: int) -> int:  # noqa: N802
        """An 8-bit load."""
        return self._access(lambda: self._bus.read(self._base + offset, 1))

    def WriteByte(self, offset: int, value: int) -> None:  # noqa: N802
        """An 8-bit store."""
        self._write(offset, 1, value)

    def Reset(self) -> None:  # noqa: N802
        """The board resets its models itself, whatever engine runs."""

    def _write(self, offset: int, width: int, value: int) -> None:
        def write() -> int:
            self._bus.write(self._base + offset, width, value)
            return 0

        self._access(write)


class UnmappedAdapter(
    IDoubleWordPeripheral, IWordPeripheral, IBytePeripheral, IKnownSize, IPeripheral
):
    """A range of addresses where there is nothing at all.

    Loads, stores and fetches stop before they come here. What comes is what the processor does when
    it enters or leaves an exception, and people who look around.
    """

    __namespace__ = "Otasim"

    def __init__(self, base: int, size: int, fault: Callable[[FaultKind, int], None]) -> None:
        super().__init__()
        self._base = base
        self._size = size
        self._fault = fault

    @clr.clrproperty(System.Int64)
    def Size(self) -> int:  # noqa: N802
        """Bytes on the bus."""
        return self._size

    def _read(self, offset: int) -> int:
        self._fault(FaultKind.UNMAPPED_READ, self._base + offset)
        return 0

    def _write(self, offset: int, _value: int) -> None:
        self._fault(FaultKind.UNMAPPED_WRITE, self._base + offset)

    ReadDoubleWord = ReadWord = ReadByte = _read
    WriteDoubleWord = WriteWord = WriteByte = _write

    def Reset(self) -> None:  # noqa: N802
        """Nothing is nothing."""


class SpiAdapter(ISPIPeripheral, IGPIOReceiver, IPeripheral):
    """A chip on one of Renode's SPI controllers; its chip select, active low, is GPIO input 0."""

    __namespace__ = "Otasim"

    def __init__(self, chip: SpiSlave, access: Access) -> None:
        super().__init__()
        self._chip = chip
        self._access = access

    def Transmit(self, data: int) -> int:  # noqa: N802
        """Shift one byte in and one out."""
        return self._access(lambda: exchange(self._chip, bytes((data,)))[0])

    def FinishTransmission(self) -> None:  # noqa: N802
        """Renode's STM32 controller never says so: chip select does."""

    def OnGPIO(self, _number: int, level: bool) -> None:  # noqa: N802
        """Chip select changes."""

        def select() -> int:
            self._chip.chip_select(not level)
            return 0

        self._access(select)

    def Reset(self) -> None:  # noqa: N802
        """The board resets its models itself, whatever engine runs."""
