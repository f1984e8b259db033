"""The nested vectored interrupt controller of a Cortex-M4: what is pending, and what runs next.

Exceptions carry their architectural numbers (ARMv7-M ARM table B1-4): 2 NMI, 3 HardFault, ...,
15 SysTick, 16 + n for interrupt line n. STM32F4 implements 82 lines and 4 priority bits (PM0214).
"""

from collections.abc import Callable

from platforms.devices.peripheral import UnsupportedRegisterError

NMI, HARD_FAULT, MEM_MANAGE, BUS_FAULT, USAGE_FAULT = 2, 3, 4, 5, 6
SVCALL, DEBUG_MONITOR, PENDSV, SYSTICK = 11, 12, 14, 15
FIRST_INTERRUPT = 16
INTERRUPT_LINES = 82
EXCEPTION_COUNT = FIRST_INTERRUPT + INTERRUPT_LINES

PRIORITY_MASK = 0xF0  # the four bits that STM32F4 implements
THREAD_PRIORITY = 256  # lower than any exception
_FIXED_PRIORITIES = {NMI: -2, HARD_FAULT: -1}

# System exceptions that are always enabled; the configurable faults are enabled through SHCSR.
_ALWAYS_ENABLED = sum(1 << n for n in (NMI, HARD_FAULT, SVCALL, DEBUG_MONITOR, PENDSV, SYSTICK))

ISER, ICER, ISPR, ICPR, IABR, IPR, STIR = 0x100, 0x180, 0x200, 0x280, 0x300, 0x400, 0xF00


class InterruptController:
    """Pending, enabled and active exceptions as bit sets over exception numbers.

    Attributes:
        on_pended: called when an exception that was not pending becomes so, enabled or not.
    """

    def __init__(self) -> None:
        self.on_pended: Callable[[], None] = lambda: None
        self._lines: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """Nothing pending, enabled or active; all configurable priorities are 0."""
        self.pending = 0
        self.enabled = _ALWAYS_ENABLED
        self.active = 0
        self.priority_group = 0
        self._priorities = [0] * EXCEPTION_COUNT
        for number, priority in _FIXED_PRIORITIES.items():
            self._priorities[number] = priority
        self._lines.clear()

    def pend(self, exception: int) -> None:
        """Make `exception` pending."""
        self._pend(1 << exception)

    def _pend(self, exceptions: int) -> None:
        if exceptions & ~self.pending:
            self.pending |= exceptions
            self.on_pended()

    def clear(self, exception: int) -> None:
        """Make `exception` not pending."""
        self.pending &= ~(1 << exception)

    def set_enabled(self, exception: int, *, enabled: bool) -> None:
        """Allow or forbid `exception` to become active."""
        if enabled:
            self.enabled |= 1 << exception
        else:
            self.enabled &= ~(1 << exception)

    def set_line(self, line: int, level: bool) -> None:
        """A peripheral drives its interrupt line; a high level pends until it is serviced."""
        exception = FIRST_INTERRUPT + line
        if level and exception not in self._lines:
            self._lines.add(exception)
            if not self.active >> exception & 1:
                self.pend(exception)
        elif not level:
            self._lines.discard(exception)

    def activate(self, exception: int) -> None:
        """The processor enters `exception`."""
        self.pending &= ~(1 << exception)
        self.active |= 1 << exception

    def deactivate(self, exception: int) -> None:
        """The processor leaves `exception`; a line that is still high pends it again."""
        self.active &= ~(1 << exception)
        if exception in self._lines:
            self.pend(exception)

    def priority(self, exception: int) -> int:
        """The priority of `exception`: lower is more urgent."""
        return self._priorities[exception]

    def set_priority(self, exception: int, value: int) -> None:
        """Set a configurable priority, as the byte that stands in the register."""
        self._priorities[exception] = value & PRIORITY_MASK

    def group_priority(self, value: int) -> int:
        """The part of a priority that decides about preemption, as PRIGROUP splits it."""
        return value if value < 0 else value & (0xFF << (self.priority_group + 1)) & 0xFF

    def execution_priority(self, *, primask: int, basepri: int, faultmask: int) -> int:
        """The priority that a new exception must beat; ARMv7-M ARM B1.5.4."""
        priority = THREAD_PRIORITY
        for exception in _bits(self.active):
            priority = min(priority, self.group_priority(self._priorities[exception]))
        if basepri:
            priority = min(priority, self.group_priority(basepri & PRIORITY_MASK))
        if primask & 1:
            priority = min(priority, 0)
        if faultmask & 1:
            priority = min(priority, -1)
        return priority

    def next_exception(self, execution_priority: int) -> int | None:
        """The pending exception that preempts `execution_priority`, or None."""
        candidates = self.pending & self.enabled
        if not candidates:
            return None
        # Ties go to the lowest exception number, which is the order the bits come in.
        best = min(_bits(candidates), key=self._priorities.__getitem__)
        if self.group_priority(self._priorities[best]) < execution_priority:
            return best
        return None

    @property
    def highest_pending(self) -> int:
        """The number of the most urgent pending and enabled exception, 0 for none (ICSR)."""
        candidates = self.pending & self.enabled
        return min(_bits(candidates), key=self._priorities.__getitem__) if candidates else 0

    def read(self, offset: int, width: int) -> int:
        """Registers from 0xE000E000; bit registers by word, priorities by any width."""
        for base, bits in ((ISER, self.enabled), (ICER, self.enabled)):
            if base <= offset < base + 0x20:
                return self._word(bits, offset - base)
        for base, bits in ((ISPR, self.pending), (ICPR, self.pending), (IABR, self.active)):
            if base <= offset < base + 0x20:
                return self._word(bits, offset - base)
        if IPR <= offset < IPR + 0xF0:
            first = FIRST_INTERRUPT + offset - IPR
            chosen = self._priorities[first : first + width]
            return int.from_bytes(bytes(chosen), "little")
        raise UnsupportedRegisterError("NVIC", offset, "read")

    def write(self, offset: int, width: int, value: int) -> None:
        """Registers from 0xE000E000; bit registers by word, priorities by any width."""
        if ISER <= offset < ISER + 0x20:
            self.enabled |= self._bits_of(value, offset - ISER)
        elif ICER <= offset < ICER + 0x20:
            self.enabled &= ~self._bits_of(value, offset - ICER)
        elif ISPR <= offset < ISPR + 0x20:
            self._pend(self._bits_of(value, offset - ISPR))
        elif ICPR <= offset < ICPR + 0x20:
            cleared = self._bits_of(value, offset - ICPR)
            # A line that is high cannot be cleared; one that is being serviced is not pending.
            held = sum(1 << exception for exception in self._lines) & ~self.active
            self.pending &= ~(cleared & ~held)
        elif IPR <= offset < IPR + 0xF0:
            for index in range(width):
                exception = FIRST_INTERRUPT + offset - IPR + index
                if exception < EXCEPTION_COUNT:
                    self.set_priority(exception, value >> 8 * index & 0xFF)
        elif offset == STIR:
            self._pend(self._bits_of(1 << (value & 0x1F), (value >> 5 & 0xF) * 4))
        else:
            raise UnsupportedRegisterError("NVIC", offset, "write")

    @staticmethod
    def _word(bits: int, byte_offset: int) -> int:
        return bits >> FIRST_INTERRUPT >> 8 * byte_offset & 0xFFFF_FFFF

    @staticmethod
    def _bits_of(value: int, byte_offset: int) -> int:
        implemented = ((1 << INTERRUPT_LINES) - 1) << FIRST_INTERRUPT
        return (value << 8 * byte_offset << FIRST_INTERRUPT) & implemented


def _bits(value: int) -> list[int]:
    """The positions of the ones in `value`, ascending."""
    positions = []
    while value:
        lowest = value & -value
        positions.append(lowest.bit_length() - 1)
        value ^= lowest
    return positions
