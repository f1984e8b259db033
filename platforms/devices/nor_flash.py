"""The SPI NOR flash of the board: a Winbond W25Q32JV, as its SPI bus sees it.

Source: W25Q32JV data sheet, revision G, "Instructions" (8); the methods below name the instruction
that they carry out, which is also the title of its description there. The numbers are in
`platforms.devices.w25q32jv`. Left out, and ignored like any unknown instruction: dual and quad
transfers (the SPI controller has one data line each way), program/erase suspend and resume,
security registers, and the locks of single blocks, so that WPS = 1 protects everything, as those
locks do after power-on. The write protect pin has no effect, because Quad Enable is fixed to 1 in
this ordering option, which makes the pin a data line. Power-up takes no time: the board's processor
starts later than the chip is ready (tPUW).
"""

from dataclasses import dataclass
from functools import partial

from platforms.clock import Clock
from platforms.devices import w25q32jv as chip
from platforms.devices.flash_memory import FlashMemory
from platforms.devices.nor_instruction import Instruction, Transaction
from platforms.devices.sfdp import SFDP_SIZE, build_sfdp
from platforms.devices.torn import TornShape
from platforms.errors import InvalidArgumentError

# Nobody drives the data line: it is pulled up.
_HIGH_Z = b"\xff"


@dataclass(slots=True)
class _VolatileState:
    """What the chip forgets without power and at a software reset.

    Attributes:
        status: the working copies of the status registers.
        write_enable_latch: WEL.
        latch_falls: an operation that the latch allowed has begun; its end clears the latch.
        volatile_status_write: 50h was received.
        powered_down: in deep power-down.
        last_opcode: the last complete one-byte instruction, which 99h looks at.
    """

    status: bytes
    write_enable_latch: bool = False
    latch_falls: bool = False
    volatile_status_write: bool = False
    powered_down: bool = False
    last_opcode: int | None = None


class SpiNorFlash:
    """A W25Q32JV on an SPI bus in mode 0 or 3.

    Bytes are the grain of the bus here, so chip select always rises on a byte boundary. The chip
    knows no processor reset: whoever resets the processor only releases chip select, as the pull-up
    resistor does when the pin falls back to an input. That, too, starts a program or erase
    operation whose instruction is complete.

    Attributes:
        memory: the cells.
        abort_shape: what a software reset (66h, 99h) during an operation leaves in the cells.
        abort_seed: chooses among the outcomes that the shape allows.
    """

    def __init__(
        self,
        memory: FlashMemory,
        clock: Clock,
        *,
        unique_id: bytes = bytes.fromhex("d26024c3d7335c2a"),
        abort_shape: TornShape = TornShape.RANDOM_BITS,
        abort_seed: int = 0,
    ) -> None:
        if memory.geometry.size != chip.SIZE or len(memory.status_cells) != 3:
            raise InvalidArgumentError(
                f"{memory.name}: a W25Q32JV has 0x{chip.SIZE:x} bytes and 3 non-volatile status "
                f"bytes, not 0x{memory.geometry.size:x} and {len(memory.status_cells)}; use "
                "w25q32jv.GEOMETRY and w25q32jv.FACTORY_STATUS"
            )
        self.memory = memory
        self.abort_shape = abort_shape
        self.abort_seed = abort_seed
        self._clock = clock
        self._unique_id = unique_id
        self._sfdp = build_sfdp()
        self._instructions = self._instruction_set()
        self._transaction: Transaction | None = None
        self.power_on()

    def _instruction_set(self) -> dict[int, Instruction]:
        """The data sheet's "Instruction Set Table 1"."""
        erases = {
            erase.opcode: Instruction(header=3, execute=partial(self._erase, erase))
            for erase in chip.ERASE_TYPES
        }
        return erases | {
            0x01: Instruction(execute=partial(self._write_status, 0, 2)),
            0x02: Instruction(header=3, execute=self._page_program),
            0x03: Instruction(header=3, respond=self._read_data),
            0x04: Instruction(execute=self._write_disable),
            0x05: Instruction(respond=self._read_status_1, while_busy=True),
            0x06: Instruction(execute=self._write_enable),
            0x0B: Instruction(header=4, respond=self._read_data),
            0x11: Instruction(execute=partial(self._write_status, 2, 1)),
            0x15: Instruction(respond=partial(self._read_status, 2), while_busy=True),
            0x31: Instruction(execute=partial(self._write_status, 1, 1)),
            0x35: Instruction(respond=partial(self._read_status, 1), while_busy=True),
            0x4B: Instruction(header=4, respond=partial(_read_once, self._unique_id)),
            0x50: Instruction(execute=self._enable_volatile_status_write),
            0x5A: Instruction(header=4, respond=self._read_sfdp),
            0x60: Instruction(execute=self._chip_erase),
            0x66: Instruction(while_busy=True),
            0x90: Instruction(header=3, respond=self._read_manufacturer_and_device),
            0x99: Instruction(execute=self._software_reset, while_busy=True),
            0x9F: Instruction(respond=partial(_read_once, chip.JEDEC_ID)),
            0xAB: Instruction(respond=self._read_device_id, execute=self._release_power_down),
            0xB9: Instruction(execute=self._enter_power_down),
            0xC7: Instruction(execute=self._chip_erase),
        }

    def power_on(self) -> None:
        """Supply comes up: volatile state starts from the non-volatile status registers."""
        self._powered = True
        self._ready_at_ns = 0
        self._state = _VolatileState(bytes(self.memory.status_cells[0:3]))
        self._transaction = None

    def power_lost(self, shape: TornShape, seed: int) -> None:
        """Supply goes away; an operation in progress is torn in the given shape."""
        self.memory.power_lost(shape, seed)
        self._powered = False
        self._transaction = None

    def chip_select(self, active: bool) -> None:
        """The chip select line; active means selected (low on the wire).

        The falling edge begins an instruction; the rising edge ends it and starts what it asks for.
        """
        transaction = self._transaction
        if not self._powered or active == (transaction is not None):
            return
        self._transaction = Transaction() if active else None
        if transaction is not None:
            self._finish(transaction)

    def exchange(self, data: bytes) -> bytes:
        """Shift `data` in and the same number of bytes out.

        Any division of a transfer into calls gives the same result.
        """
        transaction = self._transaction
        if transaction is None or not data:
            return _HIGH_Z * len(data)
        position = 0
        if transaction.opcode is None:
            transaction.opcode = data[0]
            transaction.instruction = self._accept(data[0])
            position = 1
        instruction = transaction.instruction
        if instruction is None:
            return _HIGH_Z * len(data)
        if missing := instruction.header - len(transaction.header):
            taken = data[position : position + missing]
            transaction.header += taken
            position += len(taken)
        output = _HIGH_Z * position
        if count := len(data) - position:
            if instruction.respond is None:
                output += _HIGH_Z * count
                transaction.data = (transaction.data + data[position:])[-chip.PAGE_SIZE :]
            else:
                output += instruction.respond(transaction, count)
            transaction.data_count += count
        return output

    def _accept(self, opcode: int) -> Instruction | None:
        """The instruction, unless the chip ignores it now; decided once for a transaction."""
        instruction = self._instructions.get(opcode)
        if instruction is None or self._clock.now_ns < self._ready_at_ns:
            return None
        if self._state.powered_down and opcode != 0xAB:
            return None
        if self.memory.busy and not instruction.while_busy:
            return None
        self._settle()
        return instruction

    def _finish(self, transaction: Transaction) -> None:
        instruction = transaction.instruction
        if instruction is not None and len(transaction.header) == instruction.header:
            if instruction.execute is not None:
                instruction.execute(transaction)
            self._state.last_opcode = transaction.opcode if transaction.data_count == 0 else None
        elif transaction.opcode is not None:
            self._state.last_opcode = None

    def _settle(self) -> None:
        """The write enable latch falls when the operation that it allowed has ended."""
        if self._state.latch_falls and not self.memory.busy:
            self._state.write_enable_latch = False
            self._state.latch_falls = False

    # Reading: the next `count` bytes of the data phase.

    def _read_data(self, transaction: Transaction, count: int) -> bytes:
        """Read Data (03h), Fast Read (0Bh): goes on at address 0 behind the last byte."""
        address = (transaction.address + transaction.data_count) % chip.SIZE
        content = self.memory.read(address, min(count, chip.SIZE - address))
        while len(content) < count:
            content += self.memory.read(0, min(count - len(content), chip.SIZE))
        return content

    def _read_status_1(self, _transaction: Transaction, count: int) -> bytes:
        """Read Status Register-1 (05h): with the busy bit and the latch as they are now."""
        self._settle()
        status = self._state.status[0]
        status |= chip.SR1_BUSY if self.memory.busy else 0
        status |= chip.SR1_WEL if self._state.write_enable_latch else 0
        return bytes([status]) * count

    def _read_status(self, register: int, _transaction: Transaction, count: int) -> bytes:
        return bytes([self._state.status[register]]) * count

    def _read_sfdp(self, transaction: Transaction, count: int) -> bytes:
        """Read SFDP Register (5Ah): 256 bytes, the address wraps in them."""
        first = (transaction.address + transaction.data_count) % SFDP_SIZE
        return (self._sfdp * (count // SFDP_SIZE + 2))[first : first + count]

    def _read_manufacturer_and_device(self, transaction: Transaction, count: int) -> bytes:
        """Read Manufacturer / Device ID (90h): alternating; address bit 0 says which is first."""
        first = (transaction.address + transaction.data_count) % 2
        pair = bytes([chip.MANUFACTURER_ID, chip.DEVICE_ID])
        return (pair * (count // 2 + 2))[first : first + count]

    def _read_device_id(self, transaction: Transaction, count: int) -> bytes:
        """Device ID (ABh): behind three dummy bytes, repeated."""
        dummies = min(count, max(0, 3 - transaction.data_count))
        return _HIGH_Z * dummies + bytes([chip.DEVICE_ID]) * (count - dummies)

    # Executing, when chip select is released.

    def _write_enable(self, transaction: Transaction) -> None:
        """Write Enable (06h)."""
        if transaction.data_count == 0:
            self._state.write_enable_latch = True

    def _write_disable(self, transaction: Transaction) -> None:
        """Write Disable (04h)."""
        if transaction.data_count == 0:
            self._state.write_enable_latch = False

    def _enable_volatile_status_write(self, transaction: Transaction) -> None:
        """Write Enable for Volatile Status Register (50h).

        The next status register write takes effect at once and is gone at power-off.
        """
        if transaction.data_count == 0:
            self._state.volatile_status_write = True

    def _write_status(self, first: int, most: int, transaction: Transaction) -> None:
        """Write Status Register-1 (01h, a second byte goes to register 2), -2 (31h), -3 (11h)."""
        state = self._state
        volatile, state.volatile_status_write = state.volatile_status_write, False
        # SRL = 1 locks the registers until the next power cycle.
        if not 1 <= transaction.data_count <= most or state.status[1] & chip.SR2_SRL:
            return
        if not volatile and not state.write_enable_latch:
            return
        state.status = chip.status_after_write(
            state.status, first, transaction.data, volatile=volatile
        )
        if not volatile:
            kept = bytearray(state.status)
            kept[1] &= ~chip.SR2_SRL
            state.latch_falls = True
            self.memory.begin_write_status(
                first,
                bytes(kept[first : first + transaction.data_count]),
                chip.WRITE_STATUS_TIME.typical_ns,
            )

    def _page_program(self, transaction: Transaction) -> None:
        """Page Program (02h): wraps inside the page, where later bytes replace earlier ones."""
        page = transaction.address & -chip.PAGE_SIZE
        if transaction.data_count == 0 or not self._may_change(page, chip.PAGE_SIZE):
            return
        content = transaction.data
        dropped = transaction.data_count - len(content)
        column = (transaction.address + dropped) % chip.PAGE_SIZE
        address, room = page + column, chip.PAGE_SIZE - column
        if len(content) > room:
            # 0xFF leaves alone the bytes between the end of the wrapped part and the start.
            gap = _HIGH_Z * (chip.PAGE_SIZE - len(content))
            address, content = page, content[room:] + gap + content[:room]
        self._state.latch_falls = True
        self.memory.begin_program(address, content, chip.PAGE_PROGRAM_TIME.typical_ns)

    def _erase(self, erase: chip.EraseType, transaction: Transaction) -> None:
        """Sector Erase (20h), Block Erase (52h, D8h): what holds the address."""
        address = transaction.address & -erase.size
        if transaction.data_count == 0 and self._may_change(address, erase.size):
            self._state.latch_falls = True
            self.memory.begin_erase(address, erase.size, erase.duration.typical_ns)

    def _chip_erase(self, transaction: Transaction) -> None:
        """Chip Erase (C7h, 60h): not executed while any part is protected."""
        if transaction.data_count == 0 and self._may_change(0, chip.SIZE):
            self._state.latch_falls = True
            self.memory.begin_erase(0, chip.SIZE, chip.CHIP_ERASE_TIME.typical_ns)

    def _may_change(self, address: int, length: int) -> bool:
        """Whether the latch is set and no byte of the range is protected.

        The data sheet says that an instruction on a protected range is not executed, so nothing
        ends that would clear the latch: it stays set, by which firmware can tell a refusal.
        """
        state = self._state
        return state.write_enable_latch and not chip.is_protected(state.status, address, length)

    def _enter_power_down(self, transaction: Transaction) -> None:
        """Power-down (B9h)."""
        if transaction.data_count == 0:
            self._state.powered_down = True

    def _release_power_down(self, transaction: Transaction) -> None:
        """Release Power-down (ABh): ready tRES1 later, or tRES2 when the device ID was read."""
        if self._state.powered_down:
            self._state.powered_down = False
            id_was_read = transaction.data_count > 3
            self._ready_at_ns = self._clock.now_ns + (
                chip.RELEASE_POWER_DOWN_AND_READ_ID_NS
                if id_was_read
                else chip.RELEASE_POWER_DOWN_NS
            )

    def _software_reset(self, transaction: Transaction) -> None:
        """Reset Device (99h): only directly behind 66h; corrupts an operation in progress.

        A chip that hangs does not obey: what would carry this out is what hangs.
        """
        if self.memory.hangs:
            return
        if self._state.last_opcode == 0x66 and transaction.data_count == 0:
            self.memory.power_lost(self.abort_shape, self.abort_seed)
            # The lock of the status registers falls with the supply only.
            lock = self._state.status[1] & chip.SR2_SRL
            status = bytearray(self.memory.status_cells[0:3])
            status[1] |= lock
            self._state = _VolatileState(bytes(status))
            self._ready_at_ns = self._clock.now_ns + chip.SOFTWARE_RESET_NS


def _read_once(content: bytes, transaction: Transaction, count: int) -> bytes:
    """`content` in the data phase; what comes behind its end is not specified."""
    start = transaction.data_count
    return content[start : start + count].ljust(count, _HIGH_Z)
