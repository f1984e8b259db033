"""The internal flash of the STM32F405/F407 and its interface registers; RM0090 section 3.

Left out: the flash interrupt itself (EOP and OPERR appear in SR as the manual says, but no
interrupt line is driven), the OTP area, and the effect of a changed read protection level (RDP is
stored only). While an operation is under way real silicon stalls every access to the flash, a
processor that runs from it included: engines look at `memory.busy_until_ns` and stall the
processor. A write to CR or into the flash while busy is stalled here, through `stall`. While the
memory hangs such a write never ends and so has no effect, and the processor stands still until a
reset, which ends the operation: the interface is part of what a system reset resets.
"""

import enum
from collections.abc import Callable

from platforms.devices import stm32f405_flash as chip
from platforms.devices.flash_memory import FlashMemory
from platforms.devices.peripheral import UnsupportedRegisterError, mask_of, merge
from platforms.devices.torn import TornShape
from platforms.errors import InvalidArgumentError


class Register(enum.IntEnum):
    """Offsets of the registers (RM0090 3.9)."""

    ACR = 0x00
    KEYR = 0x04
    OPTKEYR = 0x08
    SR = 0x0C
    CR = 0x10
    OPTCR = 0x14


KEY1, KEY2 = 0x45670123, 0xCDEF89AB
OPTKEY1, OPTKEY2 = 0x08192A3B, 0x4C5D6E7F

SR_EOP, SR_OPERR, SR_WRPERR, SR_PGAERR, SR_PGPERR, SR_PGSERR, SR_BSY = (
    1 << bit for bit in (0, 1, 4, 5, 6, 7, 16)
)
SR_ERRORS = SR_OPERR | SR_WRPERR | SR_PGAERR | SR_PGPERR | SR_PGSERR
CR_PG, CR_SER, CR_MER = 1 << 0, 1 << 1, 1 << 2
CR_SNB_SHIFT, CR_SNB_MASK = 3, 0xF
CR_PSIZE_SHIFT, CR_PSIZE_MASK = 8, 0x3
CR_STRT, CR_EOPIE, CR_ERRIE, CR_LOCK = 1 << 16, 1 << 24, 1 << 25, 1 << 31
OPTCR_OPTLOCK, OPTCR_OPTSTRT, OPTCR_WDG_SW = 1 << 0, 1 << 1, 1 << 5
OPTCR_NWRP_SHIFT = 16

_ACR_MASK = 0x1F07
_CR_STORED = 0x0300037F
_OPTCR_STORED = 0x0FFFFFEC


class _KeySequence:
    """The two keys that unlock a register; a wrong one locks it until reset (RM0090 3.6.1)."""

    def __init__(self, first: int, second: int) -> None:
        self._keys = (first, second)
        self.reset()

    def reset(self) -> None:
        self.locked = True
        self._given = 0
        self._dead = False

    def lock(self) -> None:
        self.locked = True
        self._given = 0

    def give(self, key: int) -> None:
        if not self.locked or self._dead:
            return
        if key != self._keys[self._given]:
            self._dead = True
        elif self._given == 1:
            self.locked = False
        else:
            self._given = 1


class InternalFlash:
    """Flash cells behind the FLASH registers, as a peripheral on the bus.

    Attributes:
        name: what the reference manual calls the peripheral.
        memory: the cells; its status cells are the option bytes in the layout of OPTCR.
        abort_shape: what a system reset during an operation leaves in the cells (RM0090 3.6: the
            contents are not guaranteed then).
        abort_seed: chooses among the outcomes that the shape allows.
    """

    def __init__(
        self,
        memory: FlashMemory,
        stall: Callable[[int], None],
        *,
        abort_shape: TornShape = TornShape.RANDOM_BITS,
        abort_seed: int = 0,
    ) -> None:
        """Make the peripheral.

        Args:
            memory: cells of `stm32f405_flash.GEOMETRY` with 4 status cells.
            stall: lets so many nanoseconds of virtual time pass while the bus is stalled.
            abort_shape: see the attribute.
            abort_seed: see the attribute.
        """
        if memory.geometry != chip.GEOMETRY or len(memory.status_cells) != 4:
            raise InvalidArgumentError(
                f"{memory.name}: the STM32F405's flash has 12 sectors (4 x 16 KB, 64 KB, "
                "7 x 128 KB) and 4 option bytes; use stm32f405_flash.GEOMETRY and "
                "stm32f405_flash.FACTORY_OPTIONS"
            )
        self.name = "FLASH"
        self.memory = memory
        self.abort_shape = abort_shape
        self.abort_seed = abort_seed
        self._stall = stall
        self._keys = _KeySequence(KEY1, KEY2)
        self._option_keys = _KeySequence(OPTKEY1, OPTKEY2)
        self._load_reset_values()

    def reset(self) -> None:
        """A system reset: registers return to their reset values, an operation is torn."""
        self.memory.power_lost(self.abort_shape, self.abort_seed)
        self._load_reset_values()

    def power_lost(self, shape: TornShape, seed: int) -> None:
        """Supply goes away; an operation in progress is torn in the given shape."""
        self.memory.power_lost(shape, seed)
        self._load_reset_values()

    def _load_reset_values(self) -> None:
        self._keys.reset()
        self._option_keys.reset()
        self._access_control = 0
        self._control = 0
        self._flags = 0
        self._options = self._stored_options
        self._end_pending = False

    def read(self, offset: int, width: int) -> int:
        """A register; KEYR and OPTKEYR read as zero."""
        register = offset & ~3
        return (self._value(register, offset) >> (8 * (offset & 3))) & mask_of(width)

    def write(self, offset: int, width: int, value: int) -> None:
        """A register; narrow writes change the bytes they name."""
        register = offset & ~3
        # Flags clear by writing ones, and keys act by being written: there is nothing to keep.
        kept = (
            0
            if register in (Register.SR, Register.KEYR, Register.OPTKEYR)
            else self._value(register, offset)
        )
        merged = merge(kept, offset & 3, width, value)
        match register:
            case Register.ACR:
                self._access_control = merged & _ACR_MASK
            case Register.KEYR:
                self._keys.give(merged)
            case Register.OPTKEYR:
                self._option_keys.give(merged)
            case Register.SR:
                self._settle()
                self._flags &= ~merged
            case Register.CR:
                self._write_control(merged)
            case Register.OPTCR:
                self._write_options(merged)

    @property
    def programming(self) -> bool:
        """Whether a store into the flash would program it: unlocked, and PG is set."""
        return not self._keys.locked and self._control & CR_PG != 0

    @property
    def starts_watchdog(self) -> bool:
        """Whether the option byte WDG_SW (0: hardware) has the watchdog started at every reset."""
        return not self._stored_options & OPTCR_WDG_SW

    def program_word(self, address: int, data: bytes) -> None:
        """A store of the processor into the flash: 1, 2, 4 or 8 bytes in one access.

        RM0090 3.6, "Programming". When the interface is not ready for it, an error flag rises and
        the cells stay as they are.

        Args:
            address: from the start of the flash, in bytes.
            data: what is stored; its length is the width of the access, in bytes.
        """
        self._program(address, data, accesses=1)

    def program_burst(self, address: int, data: bytes) -> None:
        """As many stores of PSIZE width as `data` makes, one after the other, as one operation.

        It has the effect and takes the time of `program_word` called for each with a wait between.
        Power going away tears the store that is under way; those before it are done, those behind
        it have not begun.
        """
        width = 1 << self._parallelism
        aligned = address % width == 0 and len(data) % width == 0
        self._program(address, data, accesses=len(data) // width if aligned else 1)

    def _value(self, register: int, offset: int) -> int:
        match register:
            case Register.ACR:
                return self._access_control
            case Register.KEYR | Register.OPTKEYR:
                return 0
            case Register.SR:
                self._settle()
                return self._flags | (SR_BSY if self.memory.busy else 0)
            case Register.CR:
                self._settle()
                return self._control | (CR_LOCK if self._keys.locked else 0)
            case Register.OPTCR:
                return self._options | (OPTCR_OPTLOCK if self._option_keys.locked else 0)
            case _:
                raise UnsupportedRegisterError(self.name, offset, "access")

    @property
    def _stored_options(self) -> int:
        return int.from_bytes(self.memory.status_cells[0:4], "little") & _OPTCR_STORED

    @property
    def _parallelism(self) -> int:
        return (self._control >> CR_PSIZE_SHIFT) & CR_PSIZE_MASK

    def _write_control(self, value: int) -> None:
        if not self._wait_while_busy() or self._keys.locked:
            return
        self._control = value & _CR_STORED
        if value & CR_STRT:
            self._start_erase()
        if value & CR_LOCK:
            self._keys.lock()

    def _write_options(self, value: int) -> None:
        """RM0090 3.9, "FLASH_OPTCR": the fields, and OPTSTRT to make them last."""
        if not self._wait_while_busy() or self._option_keys.locked:
            return
        self._options = value & _OPTCR_STORED
        if value & OPTCR_OPTSTRT:
            data = self._options.to_bytes(4, "little")
            # The data sheet gives no time of its own for the option sector: that of a small sector.
            duration_ns = chip.ERASE_TIME_NS[chip.GEOMETRY.sectors[0].size][chip.PSIZE_X32]
            self._end_pending = True
            self.memory.begin_write_status(0, data, duration_ns)
        if value & OPTCR_OPTLOCK:
            self._option_keys.lock()

    def _start_erase(self) -> None:
        """RM0090 3.6, "Erase": one sector (SER, SNB) or all (MER); with both set, neither."""
        control = self._control
        sector_erase, mass_erase = bool(control & CR_SER), bool(control & CR_MER)
        if sector_erase == mass_erase:
            self._raise_error(SR_PGSERR)
            return
        sectors = chip.GEOMETRY.sectors
        if mass_erase:
            first, count, duration_ns = 0, len(sectors), chip.MASS_ERASE_TIME_NS[self._parallelism]
        else:
            first, count = (control >> CR_SNB_SHIFT) & CR_SNB_MASK, 1
            if first >= len(sectors):
                self._raise_error(SR_PGSERR)
                return
            duration_ns = chip.ERASE_TIME_NS[sectors[first].size][self._parallelism]
        if any(self._is_protected(number) for number in range(first, first + count)):
            self._raise_error(SR_WRPERR)
            return
        start, end = sectors[first].address, sectors[first + count - 1].end
        self._control |= CR_STRT
        self._end_pending = True
        self.memory.begin_erase(start, end - start, duration_ns)

    def _program(self, address: int, data: bytes, accesses: int) -> None:
        if not self._wait_while_busy():
            return
        if error := self._programming_error(address, data, accesses):
            self._raise_error(error)
        elif data:
            self._end_pending = True
            self.memory.begin_program(
                address,
                data,
                accesses * chip.PROGRAM_TIME_NS,
                access_size=len(data) // accesses,
            )

    def _programming_error(self, address: int, data: bytes, accesses: int) -> int:
        """The flag that the accesses raise, or 0 when they may program (RM0090 3.6, 3.9)."""
        if self._keys.locked or self._control & (CR_PG | CR_SER | CR_MER) != CR_PG:
            return SR_PGSERR
        width = 1 << self._parallelism
        if len(data) != accesses * width:
            return SR_PGPERR
        if address % chip.ROW_SIZE + min(width, len(data)) > chip.ROW_SIZE:
            return SR_PGAERR
        first = chip.GEOMETRY.sector_index(address)
        last = chip.GEOMETRY.sector_index(address + max(0, len(data) - 1))
        if any(self._is_protected(number) for number in range(first, last + 1)):
            return SR_WRPERR
        return 0

    def _is_protected(self, sector: int) -> bool:
        """Option bit nWRPi = 0 protects sector i; options count once they are stored."""
        return not (self._stored_options >> (OPTCR_NWRP_SHIFT + sector)) & 1

    def _raise_error(self, flag: int) -> None:
        self._flags |= flag
        if self._control & CR_ERRIE:
            self._flags |= SR_OPERR

    def _wait_while_busy(self) -> bool:
        """The bus stalls until the operation has ended (RM0090 3.6); False when it never does."""
        if self.memory.hangs:
            return False
        if self.memory.busy:
            self._stall(self.memory.remaining_ns)
        self._settle()
        return True

    def _settle(self) -> None:
        """Notice that an operation has ended: STRT falls; EOP rises if its interrupt is on."""
        if self._end_pending and not self.memory.busy:
            self._end_pending = False
            self._control &= ~CR_STRT
            if self._control & CR_EOPIE:
                self._flags |= SR_EOP
