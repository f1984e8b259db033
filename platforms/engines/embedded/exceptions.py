"""Exception entry and return of a Cortex-M4, done by hand; ARMv7-M ARM B1.5.6 to B1.5.8.

Unicorn executes instructions but takes no exceptions. It does keep the banked stack pointers, IPSR
and CONTROL: writing XPSR with an exception number switches to the main stack, as silicon does.
"""

import struct
from dataclasses import dataclass

from platforms.engines.embedded import processor as cpu

BASIC_FRAME = struct.Struct("<8I")  # R0-R3, R12, LR, return address, xPSR
FLOAT_FRAME = struct.Struct("<18I")  # S0-S15, FPSCR, reserved

XPSR_EXCEPTION = 0x1FF
XPSR_THUMB = 1 << 24
XPSR_IT = 0x0600_FC00
XPSR_STACK_ALIGNED = 1 << 9
CONTROL_NPRIV, CONTROL_SPSEL, CONTROL_FPCA = 1 << 0, 1 << 1, 1 << 2
_CONTROL_SFPA = 1 << 3  # ARMv8-M's, which Unicorn sets beside FPCA
_CONTROL_ENTRY_CLEARS = CONTROL_SPSEL | CONTROL_FPCA | _CONTROL_SFPA

# EXC_RETURN values without the bit that says "basic frame" (bit 4, set for it).
_RETURN_TO_HANDLER, _RETURN_TO_THREAD_MAIN, _RETURN_TO_THREAD_PROCESS = (
    0xFFFF_FFE1,
    0xFFFF_FFE9,
    0xFFFF_FFED,
)
_BASIC = 1 << 4
VALID_RETURNS = {
    base | basic
    for base in (_RETURN_TO_HANDLER, _RETURN_TO_THREAD_MAIN, _RETURN_TO_THREAD_PROCESS)
    for basic in (0, _BASIC)
}


@dataclass(frozen=True, slots=True)
class ReturnTarget:
    """Where an exception return goes: the stack its frame is on, the mode, the kind of frame."""

    thread: bool
    process_stack: bool
    floats: bool


@dataclass(frozen=True, slots=True)
class ReturnState:
    """What an exception return goes on with: the address, and the T bit of the popped xPSR."""

    address: int
    thumb: bool


def decode_return(value: int) -> ReturnTarget | None:
    """The meaning of an EXC_RETURN value, or None when it is not a valid one; table B1-8."""
    if value | 1 not in VALID_RETURNS:
        return None
    return ReturnTarget(
        thread=bool(value & 0x8), process_stack=bool(value & 0x4), floats=not value & _BASIC
    )


class ExceptionUnit:
    """Pushes and pops the frames of one processor.

    Attributes:
        float_in_use: whether the context last interrupted had used the FPU.
    """

    def __init__(self, processor: cpu.Processor) -> None:
        self._processor = processor
        self.float_in_use = False
        self._entry_state = processor.batch(
            cpu.R0, cpu.R1, cpu.R2, cpu.R3, cpu.R12, cpu.LR, cpu.XPSR, cpu.SP, cpu.CONTROL
        )
        self._switch = processor.batch(cpu.SP, cpu.XPSR, cpu.LR)
        self._stacks = processor.batch(cpu.MSP, cpu.PSP, cpu.CONTROL)
        self._floats = processor.batch(*cpu.FLOAT_REGISTERS, cpu.FPSCR)
        # The stack first: XPSR leaves handler mode, which decides what the stacks mean.
        restored = cpu.R0, cpu.R1, cpu.R2, cpu.R3, cpu.R12, cpu.LR, cpu.XPSR_ALL_FLAGS
        self._restored_main = processor.batch(cpu.MSP, *restored)
        self._restored_process = processor.batch(cpu.PSP, *restored)

    def enter(self, exception: int, return_address: int) -> int | None:
        """Push the frame and switch to handler mode; the caller goes on at the vector.

        A stack that is not in RAM moves all the same; the address of the lost frame is returned
        then, else None; B1.5.12.
        """
        *basic, xpsr, stack, control = self._entry_state.read()
        self.float_in_use = bool(control & CONTROL_FPCA)
        size = BASIC_FRAME.size + (FLOAT_FRAME.size if self.float_in_use else 0)
        aligned = (stack - size) & 0xFFFF_FFF8
        if aligned != stack - size:
            xpsr |= XPSR_STACK_ALIGNED
        else:
            xpsr &= ~XPSR_STACK_ALIGNED
        frame = BASIC_FRAME.pack(*basic, return_address, xpsr)
        if self.float_in_use:
            frame += FLOAT_FRAME.pack(*self._floats.read(), 0)
        lost_frame = None
        try:
            self._processor.write_memory(aligned, frame)
        except cpu.UnmappedMemoryError:
            lost_frame = aligned
        if xpsr & XPSR_EXCEPTION:
            link = _RETURN_TO_HANDLER
        elif control & CONTROL_SPSEL:
            link = _RETURN_TO_THREAD_PROCESS
        else:
            link = _RETURN_TO_THREAD_MAIN
        # SP first: writing XPSR switches to the main stack.
        basic_frame = 0 if self.float_in_use else _BASIC
        self._switch.write(aligned, XPSR_THUMB | exception, link | basic_frame)
        if control & _CONTROL_ENTRY_CLEARS:
            self._processor.write_register(cpu.CONTROL, control & ~_CONTROL_ENTRY_CLEARS)
        return lost_frame

    def replace(self, exception: int) -> None:
        """`exception` is entered instead of the one that was being entered, on the same frame."""
        self._processor.write_register(cpu.XPSR, XPSR_THUMB | exception)

    def leave(self, target: ReturnTarget) -> ReturnState:
        """Pop the frame that `target` names.

        Raises UnmappedMemoryError when the stack is not in RAM; nothing has changed then.
        """
        processor = self._processor
        main_stack, process_stack, control = self._stacks.read()
        stack = process_stack if target.process_stack else main_stack
        *basic, address, xpsr = BASIC_FRAME.unpack(processor.read_memory(stack, BASIC_FRAME.size))
        stack += BASIC_FRAME.size
        if target.floats:
            saved = FLOAT_FRAME.unpack(processor.read_memory(stack, FLOAT_FRAME.size))
            self._floats.write(*saved[:-1])
            stack += FLOAT_FRAME.size
        if xpsr & XPSR_STACK_ALIGNED:
            stack += 4
        restored = self._restored_process if target.process_stack else self._restored_main
        restored.write(stack, *basic, xpsr & ~XPSR_STACK_ALIGNED)
        wanted = control & ~_CONTROL_ENTRY_CLEARS
        if target.thread and target.process_stack:
            wanted |= CONTROL_SPSEL
        if target.floats:
            wanted |= CONTROL_FPCA
        if wanted != control:
            processor.write_register(cpu.CONTROL, wanted)
        return ReturnState(address & ~1, thumb=bool(xpsr & XPSR_THUMB))
