"""Faults of Renode's processor, made to be what ARMv7-M says they are.

Renode 1.16 has no bus fault, ends its processor for good when that fetches from where there is no
memory, escalates nothing, and gives HardFault the priority 0, behind PRIMASK, where it should have
-1. Here the processor's external MMU knows what the board has: an access to anything else stops
before it happens, and the instruction waits for the exception that is made pending.
"""

from collections.abc import Callable
from typing import Any

import System
from Antmicro.Renode.Core import Range
from Antmicro.Renode.Peripherals.CPU import (
    ExternalMmuFaultHook,
    ExternalMmuPosition,
    ExternalMmuResult,
    RegisterValue,
)
from Antmicro.Renode.Peripherals.Miscellaneous import ExternalMmuBase

from platforms.description import BoardDescription
from platforms.devices.interrupt_controller import (
    BUS_FAULT,
    HARD_FAULT,
    MEM_MANAGE,
    NMI,
    SVCALL,
    THREAD_PRIORITY,
    USAGE_FAULT,
)
from platforms.devices.system_control import HFSR_FORCED
from platforms.engines.address_map import is_executable
from platforms.engines.entries import MEMORY, MODELLED_REGIONS, ranges
from platforms.engines.protocol import FaultKind

# What Renode's processor library counts.
_IRQ, _SVC = 5, 2
_OWN_FAULTS = {
    1: FaultKind.UNDEFINED_INSTRUCTION,
    7: FaultKind.BREAKPOINT,
    17: FaultKind.UNDEFINED_INSTRUCTION,  # NOCP: the floating-point unit is off
    18: FaultKind.INVALID_STATE,
}
# By the number of the kind of access in Renode.
_ACCESS_FAULTS = (FaultKind.UNMAPPED_READ, FaultKind.UNMAPPED_WRITE, FaultKind.UNMAPPED_FETCH)

# The exception that takes a fault if it is enabled, and what CFSR shows; ARMv7-M ARM B3.2.15.
# UsageFault's part of CFSR is set by Renode.
_PRECISE = 1 << 9 | 1 << 15  # PRECISERR, BFARVALID
_OWN_EXCEPTIONS = {
    FaultKind.UNDEFINED_INSTRUCTION: (USAGE_FAULT, 0),
    FaultKind.INVALID_STATE: (USAGE_FAULT, 0),
    FaultKind.EXECUTE_NEVER: (MEM_MANAGE, 1 << 0),  # IACCVIOL
    FaultKind.UNMAPPED_READ: (BUS_FAULT, _PRECISE),
    FaultKind.UNMAPPED_WRITE: (BUS_FAULT, _PRECISE),
    FaultKind.UNMAPPED_FETCH: (BUS_FAULT, 1 << 8),  # IBUSERR
}
_ENABLED_IN_SHCSR = {MEM_MANAGE: 1 << 16, BUS_FAULT: 1 << 17, USAGE_FAULT: 1 << 18}
_HFSR_DEBUGEVT = 1 << 31

# From the start of Renode's interrupt controller.
_IPR, _AIRCR, _SHPR1, _SHCSR, _HFSR, _BFAR = 0x400, 0xD0C, 0xD18, 0xD24, 0xD2C, 0xD38
_PRIVILEGES = ExternalMmuBase.Privilege
_BASEPRI, _XPSR, _PRIMASK, _FAULTMASK = 19, 25, 28, 30  # Renode's numbers of these registers
_FIXED_PRIORITIES = {0: THREAD_PRIORITY, NMI: -2, HARD_FAULT: -1}
_LOWEST_PRIORITY = 0xFF


class FaultUnit:
    """What decides about faults in Renode's processor and its interrupt controller."""

    def __init__(self, processor: Any, controller: Any, system_bus: Any) -> None:  # noqa: ANN401
        self._processor = processor
        self._controller = controller
        self._hard_fault_status = 0
        self._bus_fault_address = 0
        self._lowered: tuple[int, int] | None = None  # an exception and its own priority
        self._masked = False
        self._when_entered: Callable[[], object] | None = None
        self._watches_returns = False
        self._read_hook = System.Func[System.UInt32, System.Int64, System.UInt32](self._read_status)
        self._write_hook = System.Func[System.UInt32, System.Int64, System.UInt32](
            self._write_status
        )
        system_bus.SetHookAfterPeripheralRead[System.UInt32](
            controller, self._read_hook, Range(_HFSR, _BFAR + 4 - _HFSR)
        )
        system_bus.SetHookBeforePeripheralWrite[System.UInt32](
            controller, self._write_hook, Range(_HFSR, 4)
        )

    def reset(self) -> None:
        """The processor has been reset."""
        self._hard_fault_status = self._bus_fault_address = 0
        self._lowered = None
        self._masked = False
        self._when_entered = None

    # -- what is found ----------------------------------------------------------------------------

    def guard(
        self, description: BoardDescription, failed: Callable[[FaultKind, int], None]
    ) -> None:
        """Call `failed` in place of an access to what the board does not have.

        Code runs in memories only; loads and stores reach the peripherals too, whose holes are
        found by the bus.
        """
        everything = _PRIVILEGES.Read | _PRIVILEGES.Write | _PRIVILEGES.Execute
        self._processor.EnableExternalWindowMmu(ExternalMmuPosition.BeforeInternal)
        for start, end, entry in ranges(description):
            if entry.type == MEMORY:
                self._allow(start, end, everything)
        for start, end in MODELLED_REGIONS:
            self._allow(start, end, _PRIVILEGES.Read | _PRIVILEGES.Write)

        def accessed(
            address: int, access: object, _window: object, only_asked: bool
        ) -> ExternalMmuResult:
            # Renode asks first, and a debugger that looks around only asks.
            if only_asked:
                return ExternalMmuResult.Fault
            kind = _ACCESS_FAULTS[int(access)]  # type: ignore[call-overload]
            if kind is FaultKind.UNMAPPED_FETCH and not is_executable(address):
                kind = FaultKind.EXECUTE_NEVER
            failed(kind, address)
            return ExternalMmuResult.NoFault  # the instruction starts again, later

        self._mmu_hook = ExternalMmuFaultHook(accessed)
        self._processor.AddHookOnMmuFault(self._mmu_hook)

    def _allow(self, start: int, end: int, privileges: object) -> None:
        window = self._processor.AcquireExternalMmuWindow(privileges)
        self._processor.SetMmuWindowStart(window, start)
        self._processor.SetMmuWindowEnd(window, end)
        self._processor.SetMmuWindowAddend(window, 0)
        self._processor.SetMmuWindowPrivileges(window, privileges)

    def on_fault(self, act: Callable[[FaultKind], None]) -> None:
        """Call `act` when the processor finds a fault without touching memory."""

        def taken(index: int) -> None:
            if index == _IRQ:
                self._enter()
            elif index == _SVC:
                if self._priority(SVCALL) >= self.execution_priority():
                    act(FaultKind.SUPERVISOR_CALL_BLOCKED)
            elif index in _OWN_FAULTS:
                act(_OWN_FAULTS[index])

        self._taken_hook = System.Action[System.UInt64](taken)
        self._processor.AddHookAtInterruptBegin(self._taken_hook)

    def when_entered(self, act: Callable[[], object]) -> None:
        """Call `act` when the processor next enters an exception, its PC being where it was."""
        self._when_entered = act

    def _enter(self) -> None:
        if self._masked:
            self._masked = False
            self._set_register(_PRIMASK, 1)
        act, self._when_entered = self._when_entered, None
        if act is not None:
            act()

    # -- what is done -----------------------------------------------------------------------------

    def take(self, kind: FaultKind, address: int | None) -> int | None:
        """Make the processor take a fault before its next instruction.

        Returns the number of the exception, or None when there is none that can take it: the
        processor is locked up then, until somebody resets it; ARMv7-M ARM B1.5.14 and B1.5.15.
        """
        priority = self.execution_priority()
        own_exception, status = _OWN_EXCEPTIONS.get(kind, (HARD_FAULT, 0))
        exception = own_exception if self._preempts(own_exception, priority) else HARD_FAULT
        if exception == HARD_FAULT and priority <= _FIXED_PRIORITIES[HARD_FAULT]:
            return None
        if status:
            self._processor.FaultStatus = int(self._processor.FaultStatus) | status
        if status == _PRECISE and address is not None:
            self._bus_fault_address = address
        if exception == HARD_FAULT:
            breakpoint_ = kind is FaultKind.BREAKPOINT
            self._hard_fault_status |= _HFSR_DEBUGEVT if breakpoint_ else HFSR_FORCED
        return exception if self._force(exception) else None

    def execution_priority(self) -> int:
        """The priority that a new exception must beat; ARMv7-M ARM B1.5.4."""
        active = self._register(_XPSR) & 0x1FF
        fixed = _FIXED_PRIORITIES.get(active)
        priority = self._priority(active) if fixed is None else fixed
        if base := self._register(_BASEPRI):
            priority = min(priority, self._group(base))
        if self._register(_PRIMASK):
            priority = min(priority, 0)
        if self._register(_FAULTMASK):
            priority = min(priority, -1)
        return priority

    def _preempts(self, exception: int, priority: int) -> bool:
        enabled = self._controller.ReadDoubleWord(_SHCSR) & _ENABLED_IN_SHCSR.get(exception, 0)
        return bool(enabled) and self._priority(exception) < priority

    def _force(self, exception: int) -> bool:
        """Make an exception pending, and whatever Renode would hold it back with give way."""
        controller = self._controller
        controller.SetPendingIRQ(exception)
        if controller.FindPendingInterrupt() != exception:
            # Only the exception under way can be in front of it.
            active = self._register(_XPSR) & 0x1FF
            self._lowered = active, self._priority_byte(active)
            self._set_priority(active, _LOWEST_PRIORITY)
            self._watch_returns()
        if self._register(_PRIMASK):
            self._masked = True
            self._set_register(_PRIMASK, 0)
        return bool(controller.FindPendingInterrupt() == exception)

    def _watch_returns(self) -> None:
        if self._watches_returns:
            return
        self._watches_returns = True

        def returned(_index: int) -> None:
            if self._lowered is None:
                return
            exception, priority = self._lowered
            self._lowered = None
            self._set_priority(exception, priority)
            # What only the lowered priority let through has to wait again.
            if self._controller.FindPendingInterrupt() >= _NO_INTERRUPT:
                self._controller.IRQ.Set(False)

        self._return_hook = System.Action[System.UInt64](returned)
        self._processor.AddHookAtInterruptEnd(self._return_hook)

    # -- registers --------------------------------------------------------------------------------

    def _read_status(self, value: int, offset: int) -> int:
        if offset == _HFSR:
            return self._hard_fault_status
        return self._bus_fault_address if offset == _BFAR else value

    def _write_status(self, value: int, _offset: int) -> int:
        self._hard_fault_status &= ~value
        return value

    def _priority(self, exception: int) -> int:
        return self._group(self._priority_byte(exception))

    def _priority_byte(self, exception: int) -> int:
        offset, shift = _priority_place(exception)
        return int(self._controller.ReadDoubleWord(offset)) >> shift & 0xFF

    def _set_priority(self, exception: int, priority: int) -> None:
        offset, shift = _priority_place(exception)
        others = int(self._controller.ReadDoubleWord(offset)) & ~(0xFF << shift)
        self._controller.WriteDoubleWord(offset, others | priority << shift)

    def _group(self, priority: int) -> int:
        """The part of a priority that decides about preemption, as PRIGROUP splits it."""
        group = int(self._controller.ReadDoubleWord(_AIRCR)) >> 8 & 7
        return priority & (0xFF << (group + 1)) & 0xFF

    def _register(self, number: int) -> int:
        return int(self._processor.GetRegister(number).RawValue)

    def _set_register(self, number: int, value: int) -> None:
        self._processor.SetRegister(number, RegisterValue.Create(value, 32))


_NO_INTERRUPT = 512  # and more: what Renode's controller says when nothing is to be taken


def _priority_place(exception: int) -> tuple[int, int]:
    """Where an exception's priority stands: the word's offset, and the shift in it."""
    place = _SHPR1 + exception - 4 if exception < 16 else _IPR + exception - 16
    return place & ~3, 8 * (place & 3)
