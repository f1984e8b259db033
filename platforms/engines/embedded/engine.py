"""A Cortex-M4 board on Unicorn, in virtual time.

The processor runs in slices of at most `SLICE_INSTRUCTIONS`, each ending no later than the next
event of the clock; between slices time moves on and exceptions are taken. An access that changes
what should run next (PendSV pended, a line raised, a reset asked for) ends its slice at once.
How many instructions a slice had executed when it was cut short cannot be learnt from Unicorn, so
such a slice is charged a fixed small time: a stated, deterministic error of less than one slice.
"""

import random
from collections.abc import Callable, Mapping
from enum import Enum, auto

from unicorn import unicorn_const as uc

from platforms.clock import NS_PER_US, Clock
from platforms.description import BoardDescription
from platforms.devices.interrupt_controller import (
    BUS_FAULT,
    HARD_FAULT,
    NMI,
    SVCALL,
    SYSTICK,
    USAGE_FAULT,
    InterruptController,
)
from platforms.devices.peripheral import UnsupportedHardwareError, mask_of
from platforms.devices.reset_cause import ResetCause
from platforms.devices.system_control import (
    BFAR,
    HFSR_FORCED,
    HFSR_VECTTBL,
    DataWatchpointUnit,
    SystemControlSpace,
)
from platforms.devices.system_timer import SystemTimer
from platforms.engines.embedded import processor as cpu
from platforms.engines.embedded.assembly import Assembly, assemble
from platforms.engines.embedded.exceptions import (
    XPSR_EXCEPTION,
    XPSR_THUMB,
    ExceptionUnit,
    decode_return,
)
from platforms.engines.entries import PERIPHERAL_REGION, PRIVATE_REGION
from platforms.engines.protocol import (
    BoardModels,
    BusModel,
    EngineError,
    EngineEvents,
    FaultKind,
    ProcessorFault,
)

SLICE_INSTRUCTIONS = 16_000
MASKED_SLICE_INSTRUCTIONS = 256  # while an interrupt waits for the firmware to unmask it
CUT_SLICE_INSTRUCTIONS = 16  # what a slice that ended early is charged

SYSTEM_CONTROL_SPACE = 0xE000_E000
DATA_WATCHPOINT_UNIT = 0xE000_1000

# Thumb hints that Unicorn cannot execute as silicon does (ARMv7-M ARM A6.7: WFE, WFI, YIELD).
WFI, WFE, YIELD = 0xBF30, 0xBF20, 0xBF10
CFSR_BFARVALID = 1 << 15
HINTS = (WFI, WFE, YIELD)
BRANCH_TO_SELF = 0xE7FE

# Interrupt numbers of Unicorn's hook.
_INTERRUPT_SVC, _INTERRUPT_BKPT, _INTERRUPT_RETURN = 2, 7, 8

# CFSR bits (ARMv7-M ARM B3.2.15) by kind of fault, with the exception that takes it if enabled.
_FAULT_STATUS = {
    FaultKind.UNMAPPED_READ: (BUS_FAULT, 1 << 9 | 1 << 15),  # PRECISERR, BFARVALID
    FaultKind.UNMAPPED_WRITE: (BUS_FAULT, 1 << 9 | 1 << 15),
    FaultKind.UNMAPPED_FETCH: (BUS_FAULT, 1 << 8),  # IBUSERR
    FaultKind.UNDEFINED_INSTRUCTION: (USAGE_FAULT, 1 << 16),  # UNDEFINSTR
    FaultKind.BREAKPOINT: (HARD_FAULT, 0),
    FaultKind.INVALID_EXCEPTION_RETURN: (USAGE_FAULT, 1 << 18),  # INVPC
    FaultKind.INVALID_VECTOR: (HARD_FAULT, 0),
    FaultKind.SUPERVISOR_CALL_BLOCKED: (HARD_FAULT, 0),
}

_ACCESS_FAULTS = {
    uc.UC_MEM_READ_UNMAPPED: FaultKind.UNMAPPED_READ,
    uc.UC_MEM_WRITE_UNMAPPED: FaultKind.UNMAPPED_WRITE,
    uc.UC_MEM_FETCH_UNMAPPED: FaultKind.UNMAPPED_FETCH,
}


class _State(Enum):
    HELD = auto()
    RUNNING = auto()
    SLEEPING = auto()
    LOCKED_UP = auto()


class EmbeddedEngine:
    """The engine protocol on Unicorn."""

    name = "embedded"

    def __init__(
        self,
        description: BoardDescription,
        models: BoardModels,
        clock: Clock,
        events: EngineEvents,
    ) -> None:
        self.clock = clock
        self._events = events
        self._flash = models.flash
        self._processor = cpu.Processor()
        self._exceptions = ExceptionUnit(self._processor)
        self._masks = self._processor.batch(cpu.PRIMASK, cpu.BASEPRI, cpu.FAULTMASK)
        self._all_registers = self._processor.batch(*cpu.GENERAL_REGISTERS.values())
        self._state = _State.HELD
        self._program_counter = 0
        self._stop_requested = False
        self._event_register = False
        self._slice_limit = SLICE_INSTRUCTIONS
        # What happened in the slice under way:
        self._in_slice = False
        self._cut_slice = False
        self._cut_program_counter = 0
        self._replaying = False
        self._replayed_value = 0
        self._interrupt: int | None = None
        self._bad_access: tuple[FaultKind, int] | None = None
        self._flash_stores: list[tuple[int, bytes, bytes]] = []
        # What is known of the code in flash:
        self._stale_flash = [(0, len(models.flash.cells))]
        self._hint_hooks: dict[int, int] = {}

        self._interrupts = InterruptController()
        self._board: Assembly = assemble(description, models, self._interrupts)
        self._instructions_per_us = self._board.instructions_per_us
        frequency_hz = self._board.system_timer_hz
        timer = SystemTimer(clock, frequency_hz)
        timer.on_tick = lambda: self._interrupts.pend(SYSTICK)
        self._system = SystemControlSpace(self._interrupts, timer)
        self._system.on_system_reset = lambda: events.reset_requested(ResetCause.SOFTWARE)
        self._cycle_counter = DataWatchpointUnit(clock, frequency_hz)
        bus = self._board.bus
        bus.attach(BusModel(SYSTEM_CONTROL_SPACE, 0x1000, self._system))
        bus.attach(BusModel(DATA_WATCHPOINT_UNIT, 0x1000, self._cycle_counter))
        self._board.console.on_transmit = lambda byte: events.uart_output(bytes((byte,)))

        self._map_memory()
        self._processor.on_interrupt(self._note_interrupt)
        self._processor.on_invalid_access(self._note_bad_access)

    # -- construction -----------------------------------------------------------------------------

    def _map_memory(self) -> None:
        for base, end in (PERIPHERAL_REGION, PRIVATE_REGION):
            self._processor.map_bus(base, end - base, self._reader(base), self._writer(base))
        self._code_regions = [
            (address, address + len(memory.cells), memory.cells)
            for memory in self._board.memories
            for address in memory.addresses
        ]
        self._flash_addresses = [
            address
            for memory in self._board.memories
            if memory.is_flash
            for address in memory.addresses
        ]
        for memory in self._board.memories:
            for address in memory.addresses:
                self._processor.map_shared(address, memory.cells, writable=not memory.is_flash)
        for address in self._flash_addresses:
            last = address + len(self._flash.cells) - 1
            self._processor.on_store(address, last, self._note_flash_store)

    def _reader(self, base: int) -> Callable[[int, int], int]:
        read = self._board.bus.read

        def read_bus(offset: int, width: int) -> int:
            if self._replaying:
                return self._replayed_value
            value = read(base + offset, width)
            if self._cut_slice:
                self._replayed_value = value
                self._cut_here()
            return value

        return read_bus

    def _writer(self, base: int) -> Callable[[int, int, int], None]:
        write = self._board.bus.write
        interrupts = self._interrupts

        def write_bus(offset: int, width: int, value: int) -> None:
            if self._replaying:
                return
            before = interrupts.pending & interrupts.enabled
            write(base + offset, width, value)
            if interrupts.pending & interrupts.enabled & ~before:
                self._cut_slice = True  # an exception may come before the next instruction
            if self._cut_slice:
                self._cut_here()

        return write_bus

    def _cut_here(self) -> None:
        self._cut_program_counter = self._processor.read_register(cpu.PC)
        self._processor.stop()

    # -- the engine protocol ----------------------------------------------------------------------

    def reset(self) -> None:
        """System reset of the processor and of the peripherals this engine made."""
        self._state = _State.HELD
        self._interrupt = None
        self._event_register = False
        self._system.reset()
        self._cycle_counter.reset()
        for peripheral in self._board.owned:
            peripheral.reset()
        if self._in_slice:
            self._cut_slice = True

    def power_lost(self, seed: int) -> None:
        """RAM comes up with chance content; firmware must not count on zeros or on the past."""
        noise = random.Random(seed)  # noqa: S311 - chance, not secrecy
        for memory in self._board.memories:
            if not memory.is_flash:
                memory.cells[:] = noise.randbytes(len(memory.cells))

    def start(self, *, vector_table: int, stack_pointer: int, program_counter: int) -> None:
        """Release the processor with VTOR, MSP and PC set, all else as after a reset."""
        processor = self._processor
        processor.write_register(cpu.XPSR, XPSR_THUMB)
        for register in (cpu.CONTROL, cpu.PRIMASK, cpu.BASEPRI, cpu.FAULTMASK):
            processor.write_register(register, 0)
        for name, register in cpu.GENERAL_REGISTERS.items():
            if name.startswith("r"):
                processor.write_register(register, 0)
        processor.write_register(cpu.LR, 0xFFFF_FFFF)  # ARMv7-M ARM B1.5.5: LR is -1 after reset
        processor.write_register(cpu.MSP, stack_pointer & ~3)
        self._system.vector_table = vector_table
        self._program_counter = program_counter & ~1
        self._state = _State.RUNNING

    def run_until(self, deadline_ns: int) -> None:
        """Run until virtual time reaches `deadline_ns` or `stop` is called."""
        clock = self.clock
        self._stop_requested = False
        while not self._stop_requested and clock.now_ns < deadline_ns:
            if self._state is _State.RUNNING or self._state is _State.SLEEPING:
                self._take_exception()
            if self._state is _State.RUNNING:
                self._run_slice(deadline_ns)
            else:
                self._skip_to_next_event(deadline_ns)

    def advance(self, duration_ns: int) -> None:
        """Let virtual time pass with the processor held."""
        self.clock.advance_to(self.clock.now_ns + duration_ns)

    def stop(self) -> None:
        """Make `run_until` return; in the middle of an instruction, right behind it."""
        self._stop_requested = True
        self._cut_slice = True

    def call_held(self, action: Callable[[], None]) -> None:
        """Run `action` here and now: a device calls while its instruction waits, so it is held."""
        action()

    def uart_input(self, data: bytes) -> int:
        """Bytes arrive at the console UART; returns how many it took."""
        return self._board.console.receive(data)

    def flash_changed(self, offset: int, length: int) -> None:
        """Code may have changed: translations and known hints are stale from here on."""
        self._stale_flash.append((offset, length))

    def read_memory(self, address: int, length: int) -> bytes:
        """Memory as a debugger sees it."""
        return self._processor.read_memory(address, length)

    def write_memory(self, address: int, data: bytes) -> None:
        """Write RAM as a debugger does; the internal flash is changed through its model only."""
        self._processor.write_memory(address, data)
        self._processor.forget_translations()

    def registers(self) -> Mapping[str, int]:
        """The processor's registers by name."""
        values = dict(
            zip(cpu.GENERAL_REGISTERS, self._all_registers.read(), strict=True),
        )
        if not self._in_slice:
            values["pc"] = self._program_counter
        return values

    def close(self) -> None:
        """Let go of the memory shared with the models."""
        self._processor.close()

    # -- slices -----------------------------------------------------------------------------------

    def _skip_to_next_event(self, deadline_ns: int) -> None:
        due_ns = self.clock.next_event_ns
        self.clock.advance_to(deadline_ns if due_ns is None else min(due_ns, deadline_ns))

    def _run_slice(self, deadline_ns: int) -> None:
        clock = self.clock
        now_ns = clock.now_ns
        busy_until_ns = self._flash.busy_until_ns()
        if busy_until_ns > now_ns:
            # RM0090 3.5: the bus stalls every access to the flash until the operation has ended.
            clock.advance_to(min(busy_until_ns, deadline_ns))
            return
        if self._stale_flash:
            self._refresh_flash()
        due_ns = clock.next_event_ns
        limit_ns = deadline_ns if due_ns is None else min(due_ns, deadline_ns)
        budget = -((now_ns - limit_ns) * self._instructions_per_us // NS_PER_US)
        budget = max(1, min(budget, self._slice_limit))
        executed = self._execute(budget)
        duration_ns = -(-executed * NS_PER_US // self._instructions_per_us)
        # Waits inside callbacks have moved the clock already; the slice's own time comes on top.
        clock.advance_to(clock.now_ns + duration_ns)
        if (
            self._state is _State.RUNNING
            and not self._stop_requested
            and self._halfword(self._program_counter) == BRANCH_TO_SELF
            and self._interrupts.next_exception(self._execution_priority()) is None
        ):
            # Only an exception leads out of here, and none can come before the next event.
            self._skip_to_next_event(deadline_ns)

    def _execute(self, budget: int) -> int:
        """Run up to `budget` instructions; returns how many to charge."""
        processor = self._processor
        self._cut_slice = False
        self._in_slice = True
        try:
            status = processor.run(self._program_counter, budget)
        except UnsupportedHardwareError as error:
            self._program_counter = processor.read_register(cpu.PC)
            raise UnsupportedHardwareError(
                f"at PC 0x{self._program_counter:08x}: {error}",
                address=error.address,
                program_counter=self._program_counter,
            ) from error
        finally:
            self._in_slice = False
        self._program_counter = processor.read_register(cpu.PC)
        if self._state is _State.HELD:
            return 0  # reset in the middle: what the processor did since is void
        if status != uc.UC_ERR_OK:
            self._handle_error(status)
            return CUT_SLICE_INSTRUCTIONS
        if self._interrupt is not None:
            self._handle_interrupt()
            return CUT_SLICE_INSTRUCTIONS
        if self._cut_slice:
            self._complete_instruction()
            return CUT_SLICE_INSTRUCTIONS
        return self._handle_hint(budget)

    def _complete_instruction(self) -> None:
        """Finish the instruction whose access cut the slice: its side effect happened already.

        Unicorn leaves PC on it and would repeat the access, so it runs once more with the access
        swallowed. Inside an IT block Unicorn stops only behind the block, with nothing to repeat.
        """
        while self._cut_slice and self._program_counter == self._cut_program_counter:
            self._cut_slice = False
            self._replaying = True
            try:
                status = self._processor.run(self._program_counter, 1)
            finally:
                self._replaying = False
            self._program_counter = self._processor.read_register(cpu.PC)
            if status != uc.UC_ERR_OK:
                self._handle_error(status)

    def _handle_hint(self, budget: int) -> int:
        address = self._program_counter
        instruction = self._halfword(address)
        if instruction in HINTS:
            # Stopped in front of it, by a hook or by chance: either way it comes next.
            self._program_counter = address + 2
            self._execute_hint(instruction)
            return CUT_SLICE_INSTRUCTIONS
        if self._halfword(address - 2) == WFI and address - 2 not in self._hint_hooks:
            # Code outside the flash (in RAM) is not searched for hints before it runs.
            self._watch_hint(address - 2)
            self._execute_hint(WFI)
            return CUT_SLICE_INSTRUCTIONS
        return budget

    def _execute_hint(self, instruction: int) -> None:
        if instruction == WFI:
            self._state = _State.SLEEPING
        elif instruction == WFE:
            if self._event_register:
                self._event_register = False
            else:
                self._state = _State.SLEEPING

    def _halfword(self, address: int) -> int:
        for base, end, cells in self._code_regions:
            if base <= address < end - 1:
                return cells[address - base] | cells[address - base + 1] << 8
        return 0

    def _watch_hint(self, address: int) -> None:
        self._hint_hooks[address] = self._processor.stop_before(address)

    def _forget_hints(self, start: int, end: int) -> None:
        """Other code may stand there now: stopping in front of it would stop it for ever."""
        for address in [known for known in self._hint_hooks if start <= known < end]:
            self._processor.do_not_stop(self._hint_hooks.pop(address))

    def _refresh_flash(self) -> None:
        """Translate changed code anew, and find the hints in it that must stop the processor."""
        for offset, length in self._stale_flash:
            hints = _find_hints(bytes(self._flash.cells[offset : offset + length]), offset)
            for base in self._flash_addresses:
                self._forget_hints(base + offset, base + offset + length)
                for hint in hints:
                    self._watch_hint(base + hint)
        self._stale_flash.clear()
        self._processor.forget_translations()

    # -- exceptions and faults --------------------------------------------------------------------

    def _note_interrupt(self, number: int) -> None:
        self._interrupt = number

    def _note_bad_access(self, kind: int, address: int) -> None:
        fault = _ACCESS_FAULTS.get(kind)
        if fault is not None:
            self._bad_access = (fault, address)

    def _execution_priority(self) -> int:
        primask, basepri, faultmask = self._masks.read()
        return self._interrupts.execution_priority(
            primask=primask, basepri=basepri, faultmask=faultmask
        )

    def _take_exception(self) -> None:
        """Enter the most urgent pending exception, or wake from sleep because of it."""
        interrupts = self._interrupts
        self._slice_limit = SLICE_INSTRUCTIONS
        if not interrupts.pending & interrupts.enabled:
            return
        exception = interrupts.next_exception(self._execution_priority())
        if exception is not None:
            self._state = _State.RUNNING
            self._enter(exception, FaultKind.INVALID_VECTOR)
            return
        _primask, basepri, faultmask = self._masks.read()
        unmasked = interrupts.execution_priority(primask=0, basepri=basepri, faultmask=faultmask)
        if interrupts.next_exception(unmasked) is not None:
            # ARMv7-M ARM B1.5.17: WFI ends for an exception that only PRIMASK holds back.
            self._state = _State.RUNNING
        self._slice_limit = MASKED_SLICE_INSTRUCTIONS

    def _enter(self, exception: int, kind: FaultKind) -> None:
        """Push the frame and go on at the vector; without a stack the processor locks up."""
        interrupts = self._interrupts
        address = self._program_counter
        vector_address = self._system.vector_table + 4 * exception
        try:
            self._exceptions.enter(exception, address)
            vector = int.from_bytes(self._processor.read_memory(vector_address, 4), "little")
        except cpu.UnmappedMemoryError:
            self._lock_up(kind, vector_address)
            return
        interrupts.activate(exception)
        self._program_counter = vector & ~1
        if not vector & 1:
            self._system.hard_fault_status |= HFSR_VECTTBL
            self._fault(FaultKind.INVALID_VECTOR, vector_address)

    def _lock_up(self, kind: FaultKind, address: int | None) -> None:
        self._state = _State.LOCKED_UP
        self._events.fault(ProcessorFault(kind, self._program_counter, address, None))

    def _fault(self, kind: FaultKind, address: int | None = None) -> None:
        """Take a fault at the present PC: the configured exception, HardFault, or lock-up."""
        exception, status = _FAULT_STATUS[kind]
        self._system.fault_status |= status
        if status & CFSR_BFARVALID and address is not None:
            self._system.record_fault_address(BFAR, address)
        interrupts = self._interrupts
        priority = self._execution_priority()
        taken = (
            interrupts.enabled >> exception & 1
            and interrupts.group_priority(interrupts.priority(exception)) < priority
        )
        if not taken:
            if exception != HARD_FAULT:
                self._system.hard_fault_status |= HFSR_FORCED
            exception = HARD_FAULT
            if priority <= interrupts.priority(HARD_FAULT):
                self._lock_up(kind, address)
                return
        self._events.fault(ProcessorFault(kind, self._program_counter, address, exception))
        self._enter(exception, kind)

    def _handle_interrupt(self) -> None:
        number = self._interrupt
        self._interrupt = None
        if number == _INTERRUPT_SVC:
            priority = self._interrupts.group_priority(self._interrupts.priority(SVCALL))
            if priority < self._execution_priority():
                self._enter(SVCALL, FaultKind.INVALID_VECTOR)
            else:
                self._fault(FaultKind.SUPERVISOR_CALL_BLOCKED)
        elif number == _INTERRUPT_RETURN:
            self._return_from_exception()
        elif number == _INTERRUPT_BKPT:
            self._fault(FaultKind.BREAKPOINT)
        else:
            raise EngineError(
                f"at PC 0x{self._program_counter:08x}: Unicorn raised exception {number}, "
                "which the embedded engine does not know: please report it with the firmware"
            )

    def _return_from_exception(self) -> None:
        processor = self._processor
        exception = processor.read_register(cpu.XPSR) & XPSR_EXCEPTION
        target = decode_return(self._program_counter)
        if target is None or not self._interrupts.active >> exception & 1:
            self._fault(FaultKind.INVALID_EXCEPTION_RETURN)
            return
        if exception != NMI:
            processor.write_register(cpu.FAULTMASK, 0)
        self._interrupts.deactivate(exception)
        try:
            self._program_counter = self._exceptions.leave(target)
        except cpu.UnmappedMemoryError:
            self._fault(FaultKind.INVALID_EXCEPTION_RETURN)
            return
        if target.thread and self._system.sleep_on_exit:
            self._state = _State.SLEEPING

    def _handle_error(self, status: int) -> None:
        """Unicorn gave up on an instruction: find out which fault that is."""
        if self._bad_access is not None:
            kind, address = self._bad_access
            self._bad_access = None
            self._fault(kind, address)
        elif status == uc.UC_ERR_WRITE_PROT:
            self._store_to_flash()
        elif status == uc.UC_ERR_INSN_INVALID:
            before = self._program_counter - 2
            hint = self._halfword(before)
            if hint in (WFE, YIELD) and before not in self._hint_hooks:
                self._watch_hint(before)
                self._execute_hint(hint)
            else:
                self._fault(FaultKind.UNDEFINED_INSTRUCTION)
        elif status in (uc.UC_ERR_FETCH_UNMAPPED, uc.UC_ERR_FETCH_PROT, uc.UC_ERR_EXCEPTION):
            self._fault(FaultKind.UNMAPPED_FETCH, self._program_counter)
        else:
            raise EngineError(
                f"at PC 0x{self._program_counter:08x}: Unicorn stopped with error {status}, "
                "which the embedded engine does not know: please report it with the firmware"
            )

    # -- stores to the internal flash -------------------------------------------------------------

    def _note_flash_store(self, address: int, width: int, value: int) -> None:
        for base in self._flash_addresses:
            offset = address - base
            if 0 <= offset < len(self._flash.cells):
                before = bytes(self._flash.cells[offset : offset + width])
                stored = (value & mask_of(width)).to_bytes(width, "little")
                self._flash_stores.append((offset, before, stored))
                return

    def _store_to_flash(self) -> None:
        """Let the store happen, take it back, and hand it to the model, which knows the physics."""
        length = len(self._flash.cells)
        for base in self._flash_addresses:
            self._processor.protect(base, length, writable=True)
        self._flash_stores.clear()
        status = self._processor.run(self._program_counter, 1)
        for base in self._flash_addresses:
            self._processor.protect(base, length, writable=False)
        self._program_counter = self._processor.read_register(cpu.PC)
        stores, self._flash_stores = self._flash_stores, []
        for offset, before, _stored in reversed(stores):
            self._flash.cells[offset : offset + len(before)] = before
        for offset, _before, stored in stores:
            self._flash.program(offset, stored)
        if status != uc.UC_ERR_OK:
            self._handle_error(status)


def _find_hints(content: bytes, offset: int) -> list[int]:
    """Where hint instructions may stand in `content`, which begins at `offset` of the flash.

    Data that looks like one does no harm: a stop in front of it never comes.
    """
    found = []
    for hint in HINTS:
        pattern = hint.to_bytes(2, "little")
        place = content.find(pattern)
        while place != -1:
            if (offset + place) % 2 == 0:
                found.append(offset + place)
            place = content.find(pattern, place + 1)
    return found
