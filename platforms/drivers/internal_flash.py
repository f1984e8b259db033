"""The driver of the STM32's internal flash, as firmware has it: through the FLASH registers."""

from collections.abc import Callable

from platforms.clock import NS_PER_MS, NS_PER_US
from platforms.devices import internal_flash as registers
from platforms.devices import stm32f405_flash as chip
from platforms.devices.internal_flash import InternalFlash, Register
from platforms.flash import ERASED_BYTE, FlashError, Sector

_WORD = 4
_SHORTEST_POLL_INTERVAL = 20 * NS_PER_US
_X32 = chip.PSIZE_X32 << registers.CR_PSIZE_SHIFT

_REASONS = {
    registers.SR_WRPERR: "write-protected by the option bytes (nWRP)",
    registers.SR_PGAERR: "alignment error (PGAERR)",
    registers.SR_PGPERR: "parallelism error (PGPERR)",
    registers.SR_PGSERR: "sequence error (PGSERR)",
}


class InternalFlashDriver:
    """A `platforms.flash.FlashDevice` on the internal flash.

    Programs 32-bit words, the widest access without a programming supply. The interface is unlocked
    for each call only.

    Attributes:
        name: what the device is called in logs and errors.
        geometry: 4 sectors of 16 KB, one of 64 KB, 7 of 128 KB; programmed in bursts of 1 KB.
    """

    def __init__(
        self, flash: InternalFlash, wait: Callable[[int], None], *, name: str = "internal"
    ) -> None:
        """Make a driver. It touches the flash at the first call only.

        Args:
            flash: the peripheral.
            wait: lets so many nanoseconds of virtual time pass.
            name: what the device is called.
        """
        self.name = name
        self.geometry = chip.GEOMETRY
        self._flash = flash
        self._wait = wait

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address`; FlashError outside the device.

        Takes no time of its own: the flash is memory-mapped.
        """
        self._check_bounds(address, length)
        self._finish(address, length, limit_ns=_longest_erase_ns())
        return self._flash.memory.read(address, length)

    def program(self, address: int, data: bytes) -> None:
        """Clear bits, word by word; an unaligned edge is filled up with 0xFF, which leaves alone.

        Raises FlashError outside the device or when the flash refuses (write protection).
        """
        self._check_bounds(address, len(data))
        if not data:
            return
        lead = address % _WORD
        start = address - lead
        filled = bytes([ERASED_BYTE]) * lead + data
        filled += bytes([ERASED_BYTE]) * (-len(filled) % _WORD)
        self._unlock(address, len(data))
        try:
            self._write(Register.CR, registers.CR_PG | _X32)
            for position in range(0, len(filled), chip.BURST_SIZE):
                burst = filled[position : position + chip.BURST_SIZE]
                self._flash.program_burst(start + position, burst)
                words = len(burst) // _WORD
                self._wait(words * chip.PROGRAM_TIME_NS)
                self._finish(
                    start + position,
                    len(burst),
                    limit_ns=words * (chip.PROGRAM_TIME_MAXIMUM_NS - chip.PROGRAM_TIME_NS),
                )
                self._check_errors(start + position, len(burst))
        except FlashError:
            # A reset on the way is another exception, and leaves no code running that could lock.
            self._lock()
            raise
        self._lock()

    def erase(self, address: int, length: int) -> None:
        """Set whole sectors to 0xFF.

        Raises FlashError when the range is not made of sectors or the flash refuses.
        """
        self._check_bounds(address, length)
        numbers = self._sectors(address, length)
        if not numbers:
            return
        self._unlock(address, length)
        try:
            for number in numbers:
                self._erase_sector(number, self.geometry.sectors[number])
        except FlashError:
            self._lock()
            raise
        self._lock()

    def _erase_sector(self, number: int, sector: Sector) -> None:
        duration_ns = chip.ERASE_TIME_NS[sector.size][chip.PSIZE_X32]
        select = registers.CR_SER | (number << registers.CR_SNB_SHIFT) | _X32
        self._write(Register.CR, select)
        self._write(Register.CR, select | registers.CR_STRT)
        if self._read(Register.SR) & registers.SR_BSY:
            self._wait(duration_ns)
        longest_ns = chip.ERASE_TIME_MAXIMUM_FACTOR * duration_ns
        self._finish(sector.address, sector.size, limit_ns=longest_ns - duration_ns)
        self._check_errors(sector.address, sector.size)

    def _sectors(self, address: int, length: int) -> list[int]:
        """Numbers of the sectors that make up the range exactly."""
        end = address + length
        sectors = self.geometry.sectors
        numbers = [
            number
            for number, sector in enumerate(sectors)
            if sector.address >= address and sector.end <= end
        ]
        if sum(sectors[number].size for number in numbers) != length:
            raise self._error(
                "an erase covers whole sectors only (4 x 16 KB, 64 KB, 7 x 128 KB)",
                address,
                length,
            )
        return numbers

    def _unlock(self, address: int, length: int) -> None:
        self._finish(address, length, limit_ns=_longest_erase_ns())
        if self._read(Register.CR) & registers.CR_LOCK:
            self._write(Register.KEYR, registers.KEY1)
            self._write(Register.KEYR, registers.KEY2)
        if self._read(Register.CR) & registers.CR_LOCK:
            raise self._error(
                "the flash interface stays locked: a wrong key was written before, which only a "
                "reset clears",
                address,
                length,
            )
        # Flags that somebody else left behind must not be taken for this call's.
        self._write(Register.SR, registers.SR_ERRORS | registers.SR_EOP)

    def _lock(self) -> None:
        # A write to CR stalls the bus while the flash is busy, and that may be for ever.
        if not self._read(Register.SR) & registers.SR_BSY:
            self._write(Register.CR, registers.CR_LOCK)

    def _finish(self, address: int, length: int, *, limit_ns: int) -> None:
        """Poll BSY until it falls; FlashError when that takes longer than `limit_ns`."""
        interval_ns = max(_SHORTEST_POLL_INTERVAL, limit_ns // 1000)
        waited_ns = 0
        while self._read(Register.SR) & registers.SR_BSY:
            if waited_ns >= limit_ns:
                raise self._error(
                    f"still busy {waited_ns / NS_PER_MS:g} ms after the operation should have "
                    "ended",
                    address,
                    length,
                )
            self._wait(interval_ns)
            waited_ns += interval_ns

    def _check_errors(self, address: int, length: int) -> None:
        flags = self._read(Register.SR)
        reasons = [reason for flag, reason in _REASONS.items() if flags & flag]
        if reasons:
            raise self._error(f"refused: {', '.join(reasons)}", address, length)

    def _read(self, register: Register) -> int:
        return self._flash.read(register, 4)

    def _write(self, register: Register, value: int) -> None:
        self._flash.write(register, 4, value)

    def _check_bounds(self, address: int, length: int) -> None:
        if address < 0 or length < 0 or address + length > chip.SIZE:
            raise self._error(
                f"outside the device, which has 0x{chip.SIZE:x} bytes", address, length
            )

    def _error(self, message: str, address: int, length: int) -> FlashError:
        return FlashError(message, device=self.name, address=address, length=length)


def _longest_erase_ns() -> int:
    """What an operation begun by somebody else can still take: a mass erase, byte-wide."""
    return chip.ERASE_TIME_MAXIMUM_FACTOR * max(chip.MASS_ERASE_TIME_NS)
