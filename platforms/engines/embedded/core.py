"""What a Cortex-M4 is besides its instructions: exceptions, faults, sleep, special registers.

This knows no time. The engine runs slices of instructions and asks here, between them, what comes
next; inside a slice this learns from callbacks what the slice must end for.
"""

from enum import Enum, auto

from unicorn import unicorn_const as uc

from platforms.devices.interrupt_controller import (
    BUS_FAULT,
    HARD_FAULT,
    MEM_MANAGE,
    NMI,
    PRIORITY_MASK,
    SVCALL,
    USAGE_FAULT,
    InterruptController,
)
from platforms.devices.peripheral import UnsupportedHardwareError
from platforms.devices.system_control import (
    BFAR,
    CPACR,
    HFSR_FORCED,
    HFSR_VECTTBL,
    SYSTEM_CONTROL_SPACE,
    SystemControlSpace,
)
from platforms.engines.address_map import is_executable, refusal, unmodelled_region
from platforms.engines.embedded import processor as cpu
from platforms.engines.embedded.exceptions import (
    CONTROL_FPCA,
    CONTROL_NPRIV,
    XPSR_EXCEPTION,
    XPSR_IT,
    XPSR_THUMB,
    ExceptionUnit,
    decode_return,
)
from platforms.engines.embedded.it_block import LONGEST_IT_BLOCK, last_condition_of
from platforms.engines.protocol import EngineError, EngineEvents, FaultKind, ProcessorFault

# Thumb hints, with their wide forms behind them (ARMv7-M ARM A7.7.262 to A7.7.264).
_WFI, _WFE, _YIELD = 0xBF30, 0xBF20, 0xBF10
_WIDE_HINT, _WIDE_WFI, _WIDE_WFE, _WIDE_YIELD = 0xF3AF, 0x8003, 0x8002, 0x8001
_BRANCH_TO_SELF = 0xE7FE
_UNDEFINED, _WIDE_UNDEFINED = 0xDE00, 0xF7F0  # UDF by its first halfword, under the masks below
_UNDEFINED_MASK, _WIDE_UNDEFINED_MASK = 0xFF00, 0xFFF0

# What Unicorn's hook is called with.
_INTERRUPT_SVC, _INTERRUPT_PREFETCH_ABORT, _INTERRUPT_BKPT, _INTERRUPT_RETURN = 2, 3, 7, 8

CFSR_STKERR, CFSR_BFARVALID = 1 << 12, 1 << 15

# CFSR bits (ARMv7-M ARM B3.2.15) by kind of fault, with the exception that takes it if enabled.
_FAULT_STATUS = {
    FaultKind.UNMAPPED_READ: (BUS_FAULT, 1 << 9 | CFSR_BFARVALID),  # PRECISERR
    FaultKind.UNMAPPED_WRITE: (BUS_FAULT, 1 << 9 | CFSR_BFARVALID),
    FaultKind.UNMAPPED_FETCH: (BUS_FAULT, 1 << 8),  # IBUSERR
    FaultKind.UNSTACKING: (BUS_FAULT, 1 << 11),  # UNSTKERR
    FaultKind.EXECUTE_NEVER: (MEM_MANAGE, 1 << 0),  # IACCVIOL
    FaultKind.UNDEFINED_INSTRUCTION: (USAGE_FAULT, 1 << 16),  # UNDEFINSTR
    FaultKind.INVALID_STATE: (USAGE_FAULT, 1 << 17),  # INVSTATE
    FaultKind.INVALID_EXCEPTION_RETURN: (USAGE_FAULT, 1 << 18),  # INVPC
    FaultKind.BREAKPOINT: (HARD_FAULT, 0),
    FaultKind.INVALID_VECTOR: (USAGE_FAULT, 1 << 17),
    FaultKind.SUPERVISOR_CALL_BLOCKED: (SVCALL, 0),
}

_ACCESS_FAULTS = {
    uc.UC_MEM_READ_UNMAPPED: FaultKind.UNMAPPED_READ,
    uc.UC_MEM_WRITE_UNMAPPED: FaultKind.UNMAPPED_WRITE,
    uc.UC_MEM_FETCH_UNMAPPED: FaultKind.UNMAPPED_FETCH,
}


class State(Enum):
    """What the processor is doing."""

    HELD = auto()
    RUNNING = auto()
    SLEEPING = auto()  # WFI
    WAITING = auto()  # WFE
    LOCKED_UP = auto()


class Core:
    """One processor between its slices.

    Attributes:
        state: what it is doing.
        program_counter: where it goes on; while a slice runs, where that began.
    """

    def __init__(
        self,
        processor: cpu.Processor,
        system: SystemControlSpace,
        events: EngineEvents,
    ) -> None:
        self.state = State.HELD
        self.program_counter = 0
        self._processor = processor
        self._system = system
        self._interrupts: InterruptController = system.interrupts
        self._events = events
        self._exceptions = ExceptionUnit(processor)
        self._place = processor.batch(cpu.PC, cpu.XPSR, cpu.FAULTMASK)
        self._masks = processor.batch(cpu.PRIMASK, cpu.BASEPRI, cpu.FAULTMASK)
        self._special = processor.batch(cpu.PRIMASK, cpu.BASEPRI, cpu.FAULTMASK, cpu.CONTROL)
        numbered = [cpu.GENERAL_REGISTERS[f"r{number}"] for number in range(13)]
        self._start_registers = processor.batch(*numbered, cpu.LR, cpu.MSP)
        self._unprivileged = False
        self._exception_held_back = False
        # What ended the slice under way:
        self._interrupt: int | None = None
        self._bad_access: tuple[FaultKind, int] | None = None
        self._status = uc.UC_ERR_OK
        self._xpsr = self._faultmask = 0
        self._nothing_before: int | None = None  # PC, when this was the first instruction
        self._stopped_in_front = False
        system.on_float_off = self._note_float_off
        processor.on_interrupt(self._note_interrupt)

    def hold(self) -> None:
        """Stop where it is, until `start`."""
        self.state = State.HELD

    def start(self, *, vector_table: int, stack_pointer: int, program_counter: int) -> None:
        """Go, with VTOR, MSP and PC set, all else as after a reset."""
        processor = self._processor
        # Only privileged code may clear CONTROL.nPRIV, only thread mode CONTROL.SPSEL.
        processor.write_register(cpu.XPSR, XPSR_THUMB | HARD_FAULT)
        processor.write_register(cpu.CONTROL, 0)
        processor.write_register(cpu.XPSR, XPSR_THUMB)
        self._special.write(0, 0, 0, 0)
        # ARMv7-M ARM B1.5.5: LR is -1 after reset.
        self._start_registers.write(*[0] * 13, 0xFFFF_FFFF, stack_pointer & ~3)
        self._unprivileged = False
        self._interrupt = None
        self._bad_access = None
        self._system.vector_table = vector_table
        self.program_counter = program_counter & ~1
        self.state = State.RUNNING

    @property
    def held(self) -> bool:
        """Whether it waits for `start`."""
        return self.state is State.HELD

    @property
    def on_the_spot(self) -> bool:
        """Whether it stands on a branch to itself: only an exception leads out of there."""
        return self._processor.halfword(self.program_counter) == _BRANCH_TO_SELF

    # -- inside a slice ---------------------------------------------------------------------------

    def note_special_register_written(self) -> None:
        """An instruction may have unmasked an exception or changed the privilege."""
        primask, basepri, faultmask, control = self._special.read()
        if basepri & ~PRIORITY_MASK:
            # Bits that the priorities of this chip do not have read as zero.
            basepri &= PRIORITY_MASK
            self._processor.write_register(cpu.BASEPRI, basepri)
        self._unprivileged = bool(control & CONTROL_NPRIV)
        if self._exception_held_back:
            priority = self._interrupts.execution_priority(
                primask=primask, basepri=basepri, faultmask=faultmask
            )
            if self._interrupts.next_exception(priority) is not None:
                self._processor.cut()

    def note_event(self) -> None:
        """SEV is about to be executed."""
        self._system.event_register = True

    def note_bad_access(self, kind: int, address: int) -> None:
        """An access that Unicorn is about to give up on."""
        fault = _ACCESS_FAULTS.get(kind)
        if fault is not None:
            self._bad_access = (fault, address)

    def refuses(self, kind: FaultKind, address: int) -> bool:
        """Whether an access to the system's own registers is a fault: unprivileged code's is."""
        if not self._unprivileged or self._interrupts.active:
            return False
        self._bad_access = (kind, address)
        self._processor.abort()
        return True

    def _note_interrupt(self, number: int) -> None:
        self._interrupt = number

    def _note_float_off(self) -> None:
        if self._processor.read_register(cpu.CONTROL) & CONTROL_FPCA:
            raise UnsupportedHardwareError(
                f"firmware switches the FPU off in CPACR (bus address "
                f"0x{SYSTEM_CONTROL_SPACE + CPACR:08x}) after using it, which is not modelled: "
                "leave it on",
                address=SYSTEM_CONTROL_SPACE + CPACR,
            )

    # -- between slices ---------------------------------------------------------------------------

    def take_exception(self) -> None:
        """Enter the most urgent pending exception, or wake from sleep because of it."""
        if self.state is State.HELD or self.state is State.LOCKED_UP:
            return
        if self.state is State.WAITING and self._system.event_register:
            self._system.event_register = False
            self.state = State.RUNNING
        interrupts = self._interrupts
        self._exception_held_back = False
        if not interrupts.pending & interrupts.enabled:
            return
        primask, basepri, faultmask = self._masks.read()
        priority = interrupts.execution_priority(
            primask=primask, basepri=basepri, faultmask=faultmask
        )
        exception = interrupts.next_exception(priority)
        if exception is not None:
            self.state = State.RUNNING
            self._enter(exception)
            return
        self._exception_held_back = True
        if self.state is State.SLEEPING:
            # ARMv7-M ARM B1.5.19: WFI ends for an exception that only PRIMASK holds back.
            unmasked = interrupts.execution_priority(
                primask=0, basepri=basepri, faultmask=faultmask
            )
            if interrupts.next_exception(unmasked) is not None:
                self.state = State.RUNNING

    def end_slice(self, status: int) -> int:
        """A slice has ended with Unicorn's `status`; returns how many instructions it took.

        `conclude` follows, unless it is held by then.
        """
        counter = self._processor.counter
        start = self.program_counter
        self.program_counter, xpsr, self._faultmask = self._place.read()
        self._status, self._xpsr = status, xpsr
        self._nothing_before = start if counter.begun == 1 else None
        self._stopped_in_front = (
            status == uc.UC_ERR_OK
            and self._interrupt is None
            and self._bad_access is None
            and counter.exhausted
            and not self._is_behind_conditional_wfi(xpsr)
        )
        return counter.begun - self._stopped_in_front

    def conclude(self) -> None:
        """Do what the processor does at the end of this slice."""
        if self._bad_access is not None:
            (kind, address), self._bad_access = self._bad_access, None
            self._take_access_fault(kind, address)
        elif self._status != uc.UC_ERR_OK:
            self._handle_error(self._status)
        elif self._interrupt is not None:
            number, self._interrupt = self._interrupt, None
            self._handle_interrupt(number)
        elif not self._stopped_in_front:
            self.state = State.SLEEPING
        elif not self._system.float_enabled:
            self._check_float_use(self._processor.read_register(cpu.CONTROL) & CONTROL_FPCA)

    def _is_behind_conditional_wfi(self, xpsr: int) -> bool:
        """Whether a WFI in an IT block, which ends as a whole, came behind the slice's limit."""
        halfword, address = self._processor.halfword, self.program_counter - 2
        if halfword(address) == _WIDE_WFI and halfword(address - 2) == _WIDE_HINT:
            address -= 2
        elif halfword(address) != _WFI:
            return False
        if xpsr & XPSR_IT:
            return True  # nothing else stops there
        return any(
            last_condition_of(halfword(address - 2 * count), count, xpsr)
            for count in range(1, LONGEST_IT_BLOCK + 1)
        )

    def _execution_priority(self) -> int:
        primask, basepri, faultmask = self._masks.read()
        return self._interrupts.execution_priority(
            primask=primask, basepri=basepri, faultmask=faultmask
        )

    def _group_priority(self, exception: int) -> int:
        return self._interrupts.group_priority(self._interrupts.priority(exception))

    def _handle_interrupt(self, number: int) -> None:
        if number == _INTERRUPT_SVC:
            if self._group_priority(SVCALL) < self._execution_priority():
                self._enter(SVCALL)
            else:
                self._fault(FaultKind.SUPERVISOR_CALL_BLOCKED)
        elif number == _INTERRUPT_RETURN:
            self._return_from_exception()
        elif number == _INTERRUPT_BKPT:
            self._system.note_breakpoint()
            self._fault(FaultKind.BREAKPOINT)
        elif number == _INTERRUPT_PREFETCH_ABORT:
            self._take_fetch_fault(self.program_counter)
        else:
            raise EngineError(
                f"at PC 0x{self.program_counter:08x}: Unicorn raised exception {number}, "
                "which the embedded engine does not know: please report it with the firmware"
            )

    def _handle_error(self, status: int) -> None:
        """Unicorn gave up on an instruction: find out which fault that is."""
        if status == uc.UC_ERR_INSN_INVALID:
            if not self._xpsr & XPSR_THUMB:
                self._fault(FaultKind.INVALID_STATE)
            elif (hint := self._hint_executed()) is None:
                self._fault(FaultKind.UNDEFINED_INSTRUCTION)
            elif hint in (_WFE, _WIDE_WFE):
                if self._system.event_register:
                    self._system.event_register = False
                else:
                    self.state = State.WAITING
        elif status in (uc.UC_ERR_FETCH_UNMAPPED, uc.UC_ERR_FETCH_PROT, uc.UC_ERR_EXCEPTION):
            self._take_fetch_fault(self.program_counter)
        else:
            raise EngineError(
                f"at PC 0x{self.program_counter:08x}: Unicorn stopped with error {status}, "
                "which the embedded engine does not know: please report it with the firmware"
            )

    def _hint_executed(self) -> int | None:
        """The hint that Unicorn stopped behind; None when it stopped on an undefined instruction.

        Unicorn tells the two apart by nothing but PC: behind WFE or YIELD, or on the instruction.
        """
        halfword, address = self._processor.halfword, self.program_counter
        here = halfword(address)
        if (
            address == self._nothing_before
            or here & _UNDEFINED_MASK == _UNDEFINED
            or here & _WIDE_UNDEFINED_MASK == _WIDE_UNDEFINED
        ):
            return None
        before = halfword(address - 2)
        if before in (_WFE, _YIELD):
            return before
        if before in (_WIDE_WFE, _WIDE_YIELD) and halfword(address - 4) == _WIDE_HINT:
            return before
        return None

    # -- exceptions and faults --------------------------------------------------------------------

    def _enter(self, exception: int) -> None:
        """Push the frame and go on at the vector; ARMv7-M ARM B1.5.6, B1.5.12."""
        interrupts, system = self._interrupts, self._system
        lost_frame = self._exceptions.enter(exception, self.program_counter)
        self._check_float_use(self._exceptions.float_in_use)
        if lost_frame is not None:
            system.fault_status |= CFSR_STKERR
            exception = self._derive(exception, lost_frame)
        vector_address = system.vector_table + 4 * exception
        try:
            vector = self._read_word(vector_address)
        except cpu.UnmappedMemoryError:
            system.hard_fault_status |= HFSR_VECTTBL
            if exception in (NMI, HARD_FAULT):
                self._lock_up(FaultKind.INVALID_VECTOR, vector_address)
                return
            interrupts.pend(exception)
            self._note_fault(FaultKind.INVALID_VECTOR, vector_address, HARD_FAULT)
            exception = HARD_FAULT
            self._exceptions.replace(exception)
            try:
                vector = self._read_word(system.vector_table + 4 * exception)
            except cpu.UnmappedMemoryError:
                self._lock_up(FaultKind.INVALID_VECTOR, vector_address)
                return
        interrupts.activate(exception)
        system.event_register = True
        self.program_counter = vector & ~1
        if not vector & 1:
            self._fault(FaultKind.INVALID_VECTOR, vector_address)

    def _derive(self, exception: int, stack: int) -> int:
        """The exception to enter when the frame of `exception` could not be pushed.

        The other one waits. The frame is not pushed again: it is lost.
        """
        interrupts = self._interrupts
        derived = exception
        if exception not in (NMI, HARD_FAULT):
            if not interrupts.enabled >> BUS_FAULT & 1:
                derived = HARD_FAULT
                self._system.hard_fault_status |= HFSR_FORCED
            elif self._group_priority(BUS_FAULT) < self._group_priority(exception):
                derived = BUS_FAULT
            else:
                interrupts.pend(BUS_FAULT)
        self._note_fault(FaultKind.STACKING, stack, derived)
        if derived != exception:
            interrupts.pend(exception)
            self._exceptions.replace(derived)
        return derived

    def _return_from_exception(self) -> None:
        exception = self._xpsr & XPSR_EXCEPTION
        if not exception:
            # EXC_RETURN means nothing in thread mode: a jump to a region without code.
            self._take_fetch_fault(self.program_counter)
            return
        target = decode_return(self.program_counter)
        if target is None or not self._interrupts.active >> exception & 1:
            self._fault(FaultKind.INVALID_EXCEPTION_RETURN)
            return
        if self._faultmask and exception != NMI:
            self._processor.write_register(cpu.FAULTMASK, 0)
        self._interrupts.deactivate(exception)
        self._system.event_register = True
        try:
            resumed = self._exceptions.leave(target)
        except cpu.UnmappedMemoryError as error:
            self._fault(FaultKind.UNSTACKING, error.address)
            return
        self.program_counter = resumed.address
        if not resumed.thumb:
            self._fault(FaultKind.INVALID_STATE)
        elif target.thread and self._system.sleep_on_exit:
            self.state = State.SLEEPING

    def _take_access_fault(self, kind: FaultKind, address: int) -> None:
        if kind is FaultKind.UNMAPPED_FETCH:
            self._take_fetch_fault(address)
            return
        if unmodelled_region(address) is not None:
            raise refusal(address)
        self._fault(kind, address)

    def _take_fetch_fault(self, address: int) -> None:
        executable = is_executable(address)
        self._fault(FaultKind.UNMAPPED_FETCH if executable else FaultKind.EXECUTE_NEVER, address)

    def _fault(self, kind: FaultKind, address: int | None = None) -> None:
        """Take a fault at the present PC: the configured exception, HardFault, or lock-up."""
        exception, status = _FAULT_STATUS[kind]
        self._system.fault_status |= status
        if status & CFSR_BFARVALID and address is not None:
            self._system.record_fault_address(BFAR, address)
        interrupts = self._interrupts
        priority = self._execution_priority()
        taken = interrupts.enabled >> exception & 1 and self._group_priority(exception) < priority
        if not taken:
            if exception != HARD_FAULT:
                self._system.hard_fault_status |= HFSR_FORCED
            exception = HARD_FAULT
            if priority <= interrupts.priority(HARD_FAULT):
                self._lock_up(kind, address)
                return
        self._note_fault(kind, address, exception)
        self._enter(exception)

    def _lock_up(self, kind: FaultKind, address: int | None) -> None:
        self.state = State.LOCKED_UP
        self._note_fault(kind, address, None)

    def _note_fault(self, kind: FaultKind, address: int | None, exception: int | None) -> None:
        self._events.fault(ProcessorFault(kind, self.program_counter, address, exception))

    def _read_word(self, address: int) -> int:
        return int.from_bytes(self._processor.read_memory(address, 4), "little")

    def _check_float_use(self, used: int) -> None:
        """Unicorn's FPU works without being switched on; silicon takes a UsageFault, NOCP."""
        if used and not self._system.float_enabled:
            raise UnsupportedHardwareError(
                f"the FPU was used before PC 0x{self.program_counter:08x} while CPACR (bus address "
                f"0x{SYSTEM_CONTROL_SPACE + CPACR:08x}) keeps it off: a real processor faults "
                "there (UsageFault, NOCP); set CP10 and CP11 of CPACR to full access first",
                address=SYSTEM_CONTROL_SPACE + CPACR,
                program_counter=self.program_counter,
            )
