"""The system control space of a Cortex-M4: SCB, SysTick, NVIC, FPU and debug registers.

Registers are those of ARMv7-M ARM B3.2, at their offsets from 0xE000E000.
"""

from collections.abc import Callable

from platforms.clock import NS_PER_S, Clock
from platforms.devices.interrupt_controller import (
    BUS_FAULT,
    MEM_MANAGE,
    NMI,
    PENDSV,
    SVCALL,
    SYSTICK,
    USAGE_FAULT,
    InterruptController,
)
from platforms.devices.peripheral import (
    UnsupportedHardwareError,
    UnsupportedRegisterError,
    mask_of,
    merge,
)
from platforms.devices.system_timer import SystemTimer

ACTLR, CPUID, ICSR, VTOR, AIRCR, SCR, CCR = 0x008, 0xD00, 0xD04, 0xD08, 0xD0C, 0xD10, 0xD14
SHPR1, SHPR3, SHCSR, CFSR, HFSR, DFSR, MMFAR, BFAR, AFSR = (
    0xD18, 0xD20, 0xD24, 0xD28, 0xD2C, 0xD30, 0xD34, 0xD38, 0xD3C,
)  # fmt: skip
CPACR, MPU_TYPE, DHCSR, DCRSR, DEMCR = 0xD88, 0xD90, 0xDF0, 0xDF4, 0xDFC
FPCCR, FPCAR, FPDSCR, MVFR0, MVFR1 = 0xF34, 0xF38, 0xF3C, 0xF40, 0xF44

CPUID_CORTEX_M4_R0P1 = 0x410F_C241
AIRCR_KEY_WRITE, AIRCR_KEY_READ = 0x05FA, 0xFA05
AIRCR_SYSRESETREQ = 1 << 2
SCR_SLEEPONEXIT, SCR_SEVONPEND = 1 << 1, 1 << 4
CCR_DIV_0_TRP, CCR_UNALIGN_TRP, CCR_STKALIGN = 1 << 4, 1 << 3, 1 << 9
CPACR_CP10 = 0b11 << 20
HFSR_VECTTBL, HFSR_FORCED, HFSR_DEBUGEVT = 1 << 1, 1 << 30, 1 << 31
DFSR_BKPT = 1 << 1
SYSTEM_CONTROL_SPACE = 0xE000_E000

# Traps that the processor emulation cannot take.
_UNMODELLED_TRAPS = (
    (CCR_DIV_0_TRP, "DIV_0_TRP", "a division by zero gives zero here"),
    (CCR_UNALIGN_TRP, "UNALIGN_TRP", "an unaligned access is carried out here"),
)

_SHCSR_ENABLES = {16: MEM_MANAGE, 17: BUS_FAULT, 18: USAGE_FAULT}
_SHCSR_ACTIVE = {0: MEM_MANAGE, 1: BUS_FAULT, 3: USAGE_FAULT, 7: SVCALL, 10: PENDSV, 11: SYSTICK}

# Registers that only remember: value after reset.
_STORAGE = {
    ACTLR: 0, SCR: 0, CCR: CCR_STKALIGN, DFSR: 0, MMFAR: 0, BFAR: 0, AFSR: 0, CPACR: 0,
    FPCCR: 0xC000_0000, FPCAR: 0, FPDSCR: 0, DHCSR: 0, DCRSR: 0, DEMCR: 0,
}  # fmt: skip
_READ_ONLY = {CPUID: CPUID_CORTEX_M4_R0P1, MPU_TYPE: 0, MVFR0: 0x1011_0021, MVFR1: 0x1100_0011,
              0x004: 2}  # ICTR: 82 lines need three words  # fmt: skip


class SystemControlSpace:
    """Everything from 0xE000E000 to 0xE000EFFF, dispatched to the part that owns the register.

    Attributes:
        vector_table: VTOR, the address of the vector table.
        event_register: what WFE waits for and takes; ARMv7-M ARM B1.5.18.
        on_system_reset: called when AIRCR.SYSRESETREQ is written.
        on_float_off: called when CPACR switches the FPU off.
    """

    name = "SCS"

    def __init__(self, interrupts: InterruptController, timer: SystemTimer) -> None:
        self.interrupts = interrupts
        self.timer = timer
        self.on_system_reset: Callable[[], None] = lambda: None
        self.on_float_off: Callable[[], None] = lambda: None
        interrupts.on_pended = self._note_pended
        self.reset()

    def reset(self) -> None:
        """The state after a system reset."""
        self.interrupts.reset()
        self.timer.reset()
        self.vector_table = 0
        self.fault_status = 0
        self.hard_fault_status = 0
        self.event_register = False
        self._storage = dict(_STORAGE)

    def record_fault_address(self, register: int, address: int) -> None:
        """Put the address of a failed access into MMFAR or BFAR."""
        self._storage[register] = address

    def note_breakpoint(self) -> None:
        """A BKPT became a HardFault: show it in DFSR and HFSR."""
        self._storage[DFSR] |= DFSR_BKPT
        self.hard_fault_status |= HFSR_DEBUGEVT

    def _note_pended(self) -> None:
        if self._storage[SCR] & SCR_SEVONPEND:
            self.event_register = True

    @property
    def float_enabled(self) -> bool:
        """Whether CPACR lets code use the FPU."""
        return bool(self._storage[CPACR] & CPACR_CP10)

    @property
    def sleep_on_exit(self) -> bool:
        """Whether the processor sleeps again when it returns to thread mode."""
        return bool(self._storage[SCR] & SCR_SLEEPONEXIT)

    def read(self, offset: int, width: int) -> int:
        """The register's value, narrow accesses included."""
        if CTRL_FIRST <= offset <= CTRL_LAST:
            return self.timer.read(offset)
        if NVIC_FIRST <= offset < NVIC_END:
            return self.interrupts.read(offset, width)
        if SHPR1 <= offset < SHPR3 + 4:
            first = 4 + offset - SHPR1
            priorities = [self.interrupts.priority(n) & 0xFF for n in range(first, first + width)]
            return int.from_bytes(bytes(priorities), "little")
        word = self._read_word(offset & ~3)
        return word >> 8 * (offset & 3) & mask_of(width)

    def write(self, offset: int, width: int, value: int) -> None:
        """Store into the register, narrow accesses included."""
        if CTRL_FIRST <= offset <= CTRL_LAST:
            self.timer.write(offset, value)
        elif NVIC_FIRST <= offset < NVIC_END or offset == 0xF00:
            self.interrupts.write(offset, width, value)
        elif SHPR1 <= offset < SHPR3 + 4:
            for index in range(width):
                self.interrupts.set_priority(4 + offset - SHPR1 + index, value >> 8 * index & 0xFF)
        else:
            self._write_word(offset & ~3, offset & 3, width, value)

    def _read_word(self, offset: int) -> int:
        match offset:
            case 0xD04:
                return self._icsr()
            case 0xD08:
                return self.vector_table
            case 0xD0C:
                return AIRCR_KEY_READ << 16 | self.interrupts.priority_group << 8
            case 0xD24:
                return self._shcsr()
            case 0xD28:
                return self.fault_status
            case 0xD2C:
                return self.hard_fault_status
        if offset in _READ_ONLY:
            return _READ_ONLY[offset]
        if offset in self._storage:
            return self._storage[offset]
        raise UnsupportedRegisterError(self.name, offset, "read")

    def _write_word(self, offset: int, byte: int, width: int, value: int) -> None:
        written = merge(0, byte, width, value)
        match offset:
            case 0xD04:
                self._write_icsr(written)
            case 0xD08:
                self.vector_table = value & 0xFFFF_FF80
            case 0xD0C:
                self._write_aircr(written)
            case 0xD24:
                for bit, exception in _SHCSR_ENABLES.items():
                    self.interrupts.set_enabled(exception, enabled=bool(written >> bit & 1))
            case 0xD14:
                self._write_configuration(merge(self._storage[CCR], byte, width, value))
            case 0xD28:
                self.fault_status &= ~written
            case 0xD2C:
                self.hard_fault_status &= ~written
            case 0xD30:
                self._storage[DFSR] &= ~written
            case 0xD88:
                before = self.float_enabled
                self._storage[CPACR] = merge(self._storage[CPACR], byte, width, value)
                if before and not self.float_enabled:
                    self.on_float_off()
            case _ if offset in self._storage:
                self._storage[offset] = merge(self._storage[offset], byte, width, value)
            case _ if offset in _READ_ONLY:
                pass
            case _:
                hint = "the MPU is not modelled" if MPU_TYPE < offset < DHCSR else ""
                raise UnsupportedRegisterError(self.name, offset, "write", hint)

    def _write_configuration(self, value: int) -> None:
        for bit, name, meaning in _UNMODELLED_TRAPS:
            if value & bit:
                raise UnsupportedHardwareError(
                    f"firmware sets CCR.{name} (bus address 0x{SYSTEM_CONTROL_SPACE + CCR:08x}), "
                    f"which is not modelled: {meaning}; leave the bit clear",
                    address=SYSTEM_CONTROL_SPACE + CCR,
                )
        if not value & CCR_STKALIGN:
            raise UnsupportedHardwareError(
                f"firmware clears CCR.STKALIGN (bus address 0x{SYSTEM_CONTROL_SPACE + CCR:08x}), "
                "which is not modelled: exception frames are aligned to 8 bytes; leave the bit set",
                address=SYSTEM_CONTROL_SPACE + CCR,
            )
        self._storage[CCR] = value

    def _icsr(self) -> int:
        interrupts = self.interrupts
        active = interrupts.active
        current = (
            min((n for n in range(active.bit_length()) if active >> n & 1), key=interrupts.priority)
            if active
            else 0
        )
        return (
            (interrupts.pending >> NMI & 1) << 31
            | (interrupts.pending >> PENDSV & 1) << 28
            | (interrupts.pending >> SYSTICK & 1) << 26
            | (1 if interrupts.pending >> 16 else 0) << 22
            | interrupts.highest_pending << 12
            | (1 if active & (active - 1) == 0 else 0) << 11
            | current
        )

    def _write_icsr(self, value: int) -> None:
        for bit, action, exception in (
            (31, self.interrupts.pend, NMI),
            (28, self.interrupts.pend, PENDSV),
            (27, self.interrupts.clear, PENDSV),
            (26, self.interrupts.pend, SYSTICK),
            (25, self.interrupts.clear, SYSTICK),
        ):
            if value >> bit & 1:
                action(exception)

    def _write_aircr(self, value: int) -> None:
        if value >> 16 != AIRCR_KEY_WRITE:
            return  # without the key the write is ignored
        self.interrupts.priority_group = value >> 8 & 7
        if value & AIRCR_SYSRESETREQ:
            self.on_system_reset()

    def _shcsr(self) -> int:
        value = 0
        for bit, exception in _SHCSR_ENABLES.items():
            value |= (self.interrupts.enabled >> exception & 1) << bit
        for bit, exception in _SHCSR_ACTIVE.items():
            value |= (self.interrupts.active >> exception & 1) << bit
        return value


CTRL_FIRST, CTRL_LAST = 0x010, 0x01C
NVIC_FIRST, NVIC_END = 0x100, 0x500


class DataWatchpointUnit:
    """DWT as far as firmware uses it to count cycles; ARMv7-M ARM C1.8."""

    name = "DWT"

    def __init__(self, clock: Clock, frequency_hz: int) -> None:
        self._clock = clock
        self._frequency_hz = frequency_hz
        self.reset()

    def reset(self) -> None:
        """Counting is off."""
        self._control = 0
        self._offset = 0

    def read(self, offset: int, width: int) -> int:  # noqa: ARG002 - bus signature
        """CTRL and CYCCNT; the cycles follow virtual time."""
        if offset == 0:
            return 0x4000_0000 | self._control
        if offset == 4:
            return (self._cycles() - self._offset) & 0xFFFF_FFFF if self._control & 1 else 0
        raise UnsupportedRegisterError(self.name, offset, "read")

    def write(self, offset: int, width: int, value: int) -> None:  # noqa: ARG002 - bus signature
        """CTRL and CYCCNT."""
        if offset == 0:
            self._control = value & 1
        elif offset == 4:
            self._offset = self._cycles() - value
        else:
            raise UnsupportedRegisterError(self.name, offset, "write")

    def _cycles(self) -> int:
        return self._clock.now_ns * self._frequency_hz // NS_PER_S
