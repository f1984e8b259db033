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
XPSR_STACK_ALIGNED = 1 << 9
CONTROL_SPSEL, CONTROL_FPCA = 1 << 1, 1 << 2

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


def decode_return(value: int) -> ReturnTarget | None:
    """The meaning of an EXC_RETURN value, or None when it is not a valid one; table B1-8."""
    if value | 1 not in VALID_RETURNS:
        return None
    return ReturnTarget(
        thread=bool(value & 0x8), process_stack=bool(value & 0x4), floats=not value & _BASIC
    )


class ExceptionUnit:
    """Pushes and pops the frames of one processor."""

    def __init__(self, processor: cpu.Processor) -> None:
        self._processor = processor
        self._entry_state = processor.batch(
            cpu.R0, cpu.R1, cpu.R2, cpu.R3, cpu.R12, cpu.LR, cpu.XPSR, cpu.SP, cpu.CONTROL
        )
        self._switch = processor.batch(cpu.SP, cpu.XPSR, cpu.LR)
        self._stacks = processor.batch(cpu.MSP, cpu.PSP, cpu.CONTROL)
        self._floats = processor.batch(*cpu.FLOAT_REGISTERS, cpu.FPSCR)
        self._restored = processor.batch(cpu.R0, cpu.R1, cpu.R2, cpu.R3, cpu.R12, cpu.LR, cpu.XPSR)

    def enter(self, exception: int, return_address: int) -> None:
        """Push the frame and switch to handler mode; the caller goes on at the vector.

        Raises UnmappedMemoryError when the stack is not in RAM.
        """
        *basic, xpsr, stack, control = self._entry_state.read()
        floats = bool(control & CONTROL_FPCA)
        size = BASIC_FRAME.size + (FLOAT_FRAME.size if floats else 0)
        aligned = (stack - size) & ~7
        if aligned != stack - size:
            xpsr |= XPSR_STACK_ALIGNED
        else:
            xpsr &= ~XPSR_STACK_ALIGNED
        frame = BASIC_FRAME.pack(*basic, return_address, xpsr | XPSR_THUMB)
        if floats:
            frame += FLOAT_FRAME.pack(*self._floats.read(), 0)
        self._processor.write_memory(aligned, frame)
        if xpsr & XPSR_EXCEPTION:
            link = _RETURN_TO_HANDLER
        elif control & CONTROL_SPSEL:
            link = _RETURN_TO_THREAD_PROCESS
        else:
            link = _RETURN_TO_THREAD_MAIN
        # SP first: writing XPSR switches to the main stack.
        self._switch.write(aligned, XPSR_THUMB | exception, link | (0 if floats else _BASIC))
        if control & (CONTROL_SPSEL | CONTROL_FPCA):
            self._processor.write_register(cpu.CONTROL, control & ~(CONTROL_SPSEL | CONTROL_FPCA))

    def leave(self, target: ReturnTarget) -> int:
        """Pop the frame that `target` names and return the address to go on at.

        Raises UnmappedMemoryError when the stack is not in RAM.
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
        processor.write_register(cpu.PSP if target.process_stack else cpu.MSP, stack)
        # XPSR first: it leaves handler mode, which decides what CONTROL and SP mean.
        self._restored.write(*basic, xpsr & ~XPSR_STACK_ALIGNED)
        wanted = control & ~(CONTROL_SPSEL | CONTROL_FPCA)
        if target.thread and target.process_stack:
            wanted |= CONTROL_SPSEL
        if target.floats:
            wanted |= CONTROL_FPCA
        if wanted != control:
            processor.write_register(cpu.CONTROL, wanted)
        resumed: int = address & ~1
        return resumed
