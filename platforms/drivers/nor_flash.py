"""The driver of the SPI NOR flash, as firmware has it: every byte goes over the SPI bus."""

from collections.abc import Callable

from platforms.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from platforms.devices import w25q32jv as chip
from platforms.devices.spi import SpiSlave
from platforms.flash import FlashError

_READ_DATA, _PAGE_PROGRAM, _READ_STATUS_1 = 0x03, 0x02, 0x05
_WRITE_ENABLE, _RELEASE_POWER_DOWN = 0x06, 0xAB

# How often a busy chip is asked again: a small share of the shortest and of the longest operation.
_POLL_INTERVAL = 20 * NS_PER_US
_SLOW_POLL_INTERVAL = 1 * NS_PER_MS

_LARGEST_ERASE_FIRST = sorted(chip.ERASE_TYPES, key=lambda erase: erase.size, reverse=True)


class NorFlashDriver:
    """A `platforms.flash.FlashDevice` on a W25Q32JV behind an SPI bus.

    Attributes:
        name: what the device is called in logs and errors.
        geometry: 4 KB sectors and 256-byte pages.
    """

    def __init__(
        self,
        spi: SpiSlave,
        wait: Callable[[int], None],
        *,
        name: str = "nor",
        spi_hz: int = 8_000_000,
    ) -> None:
        """Make a driver. It touches the chip at the first call only.

        Args:
            spi: the chip on the bus.
            wait: lets so many nanoseconds of virtual time pass.
            name: what the device is called.
            spi_hz: the SPI clock in hertz. Half of the 16 MHz that a STM32F4 starts with is the
                fastest that its SPI1 can make then.
        """
        self.name = name
        self.geometry = chip.GEOMETRY
        self._spi = spi
        self._wait = wait
        self._spi_hz = spi_hz
        self._bus_bytes = 0
        self._awake = False

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address`.

        Raises FlashError outside the device, or when the chip stays busy for longer than any
        operation takes.
        """
        self._check_bounds(address, length)
        if length == 0:
            return b""
        self._wait_until_ready(address, length)
        content = self._command(_READ_DATA, address, bytes(length))
        self._spend_bus_time()
        return content

    def program(self, address: int, data: bytes) -> None:
        """Clear bits, page by page.

        Raises FlashError outside the device, when the chip refuses (the range is write-protected)
        or when it does not come to an end.
        """
        self._check_bounds(address, len(data))
        self._wait_until_ready(address, len(data))
        position = 0
        while position < len(data):
            start = address + position
            room = chip.PAGE_SIZE - start % chip.PAGE_SIZE
            page = data[position : position + room]
            self._change(_PAGE_PROGRAM, start, page, len(page), chip.PAGE_PROGRAM_TIME)
            position += len(page)

    def erase(self, address: int, length: int) -> None:
        """Set whole sectors to 0xFF, with the largest erase instructions that fit.

        Raises FlashError when the range is not made of sectors, and as `program` does.
        """
        self._check_bounds(address, length)
        if address % chip.SECTOR_SIZE or length % chip.SECTOR_SIZE:
            raise self._error(
                f"an erase covers whole sectors of 0x{chip.SECTOR_SIZE:x} bytes only",
                address,
                length,
            )
        self._wait_until_ready(address, length)
        end = address + length
        while address < end:
            erase = next(
                erase
                for erase in _LARGEST_ERASE_FIRST
                if address % erase.size == 0 and address + erase.size <= end
            )
            self._change(erase.opcode, address, b"", erase.size, erase.duration)
            address += erase.size

    def _change(
        self, opcode: int, address: int, data: bytes, length: int, duration: chip.Duration
    ) -> None:
        """One program or erase instruction, from write enable to its end."""
        self._exchange(bytes([_WRITE_ENABLE]))
        if not self._status() & chip.SR1_WEL:
            raise self._error("the chip does not take the write enable command", address, length)
        self._command(opcode, address, data)
        self._spend_bus_time(duration.typical_ns)
        waited_ns = duration.typical_ns
        while (status := self._status()) & chip.SR1_BUSY:
            if waited_ns >= duration.maximum_ns:
                raise self._error(
                    f"still busy after {waited_ns / NS_PER_MS:g} ms, the longest that command "
                    f"{opcode:02x}h may take",
                    address,
                    length,
                )
            self._spend_bus_time(_POLL_INTERVAL)
            waited_ns += _POLL_INTERVAL
        # The latch falls at the end of an operation. Still set, there has been none.
        if status & chip.SR1_WEL:
            raise self._error(
                f"the chip refused command {opcode:02x}h: write-protected by its status registers "
                f"(first one 0x{status:02x}); clear the block protection first",
                address,
                length,
            )

    def _wait_until_ready(self, address: int, length: int) -> None:
        """Wake the chip and let it finish what was begun before the last reset.

        A reset of the processor does not reach the chip, so it may be asleep or still erasing.
        """
        if not self._awake:
            self._exchange(bytes([_RELEASE_POWER_DOWN]))
            self._spend_bus_time(chip.RELEASE_POWER_DOWN_NS)
            self._awake = True
        waited_ns = 0
        while self._status() & chip.SR1_BUSY:
            if waited_ns >= chip.CHIP_ERASE_TIME.maximum_ns:
                raise self._error(
                    f"the chip has been busy for {waited_ns // NS_PER_S} s, longer than any "
                    "operation takes: is it powered and connected?",
                    address,
                    length,
                )
            self._spend_bus_time(_SLOW_POLL_INTERVAL)
            waited_ns += _SLOW_POLL_INTERVAL

    def _status(self) -> int:
        return self._exchange(bytes([_READ_STATUS_1, 0]))[1]

    def _command(self, opcode: int, address: int, data: bytes) -> bytes:
        """An instruction with an address; the bytes that came back with `data`."""
        return self._exchange(bytes([opcode]) + address.to_bytes(3, "big") + data)[4:]

    def _exchange(self, data: bytes) -> bytes:
        self._bus_bytes += len(data)
        self._spi.chip_select(active=True)
        answer = self._spi.exchange(data)
        self._spi.chip_select(active=False)
        return answer

    def _spend_bus_time(self, extra_ns: int = 0) -> None:
        """Let the time pass that the bytes since the last call took on the bus, and some more.

        It is spent in one piece, because every wait costs host time.
        """
        bus_ns = self._bus_bytes * 8 * NS_PER_S // self._spi_hz
        self._bus_bytes = 0
        self._wait(bus_ns + extra_ns)

    def _check_bounds(self, address: int, length: int) -> None:
        if address < 0 or length < 0 or address + length > chip.SIZE:
            raise self._error(
                f"outside the device, which has 0x{chip.SIZE:x} bytes", address, length
            )

    def _error(self, message: str, address: int, length: int) -> FlashError:
        return FlashError(message, device=self.name, address=address, length=length)
