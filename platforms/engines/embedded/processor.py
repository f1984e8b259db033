"""Unicorn as this engine uses it: a thin, fast layer over its Python binding.

The binding converts every register through several Python objects, which makes an exception entry
cost 50 us. Registers are therefore moved in batches through arrays made once, by the C functions
that the binding itself calls. Nothing else in the project touches the binding's internals.
"""

import ctypes
from collections.abc import Callable, Sequence

from unicorn import arm_const as arm
from unicorn import unicorn_const as uc
from unicorn.unicorn_py3.unicorn import (
    HOOK_CODE_CFUNC,
    MMIO_READ_CFUNC,
    MMIO_WRITE_CFUNC,
    Uc,
    uc_tb,
    uclib,
)

from platforms.engines.embedded.instruction_counter import counter_of
from platforms.errors import OtasimError

NEVER = 0xFFFF_FFFE  # an address that no program reaches: emulation ends by count or by a stop

R0, R1, R2, R3 = arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3
R12, SP, LR, PC = arm.UC_ARM_REG_R12, arm.UC_ARM_REG_SP, arm.UC_ARM_REG_LR, arm.UC_ARM_REG_PC
# Written as XPSR, the flags GE would stay as they are.
XPSR_ALL_FLAGS = arm.UC_ARM_REG_XPSR_NZCVQG
XPSR, MSP, PSP = arm.UC_ARM_REG_XPSR, arm.UC_ARM_REG_MSP, arm.UC_ARM_REG_PSP
CONTROL, PRIMASK = arm.UC_ARM_REG_CONTROL, arm.UC_ARM_REG_PRIMASK
BASEPRI, FAULTMASK = arm.UC_ARM_REG_BASEPRI, arm.UC_ARM_REG_FAULTMASK
FPSCR = arm.UC_ARM_REG_FPSCR
FLOAT_REGISTERS = tuple(arm.UC_ARM_REG_S0 + n for n in range(16))
GENERAL_REGISTERS = {
    **{f"r{n}": arm.UC_ARM_REG_R0 + n for n in range(13)},
    "sp": SP, "lr": LR, "pc": PC, "xpsr": XPSR,
}  # fmt: skip


class UnmappedMemoryError(OtasimError):
    """There is no memory of the wanted kind.

    Attributes:
        address: where it was looked for.
        length: how many bytes were wanted.
    """

    def __init__(self, address: int, length: int) -> None:
        super().__init__(f"there is no memory at 0x{address:08x} for {length} bytes")
        self.address = address
        self.length = length


class RegisterBatch:
    """A fixed group of 32-bit registers that is read and written in one call."""

    def __init__(self, handle: ctypes.c_void_p, registers: Sequence[int]) -> None:
        self._handle = handle
        self._count = len(registers)
        self._ids = (ctypes.c_int * self._count)(*registers)
        self._values = (ctypes.c_uint32 * self._count)()
        size = ctypes.sizeof(ctypes.c_uint32)
        base = ctypes.addressof(self._values)
        self._pointers = (ctypes.c_void_p * self._count)(
            *(base + size * index for index in range(self._count))
        )

    def read(self) -> list[int]:
        """The registers' values, in the order they were named."""
        uclib.uc_reg_read_batch(self._handle, self._ids, self._pointers, self._count)
        return self._values[:]

    def write(self, *values: int) -> None:
        """Set all registers of the group, in the order they were named."""
        self._values[:] = list(values)
        uclib.uc_reg_write_batch(self._handle, self._ids, self._pointers, self._count)


class Processor:
    """A Cortex-M4 with bare memory: no exceptions, no peripherals of its own."""

    def __init__(self) -> None:
        self._uc = Uc(uc.UC_ARCH_ARM, uc.UC_MODE_THUMB | uc.UC_MODE_MCLASS)
        self._uc.ctl_set_cpu_model(arm.UC_CPU_ARM_CORTEX_M4)
        self._handle = self._uc._uch  # noqa: SLF001 - see the module's text
        self._single: dict[int, RegisterBatch] = {}
        self._shared: list[tuple[int, int, object]] = []
        self._regions: list[tuple[int, int, memoryview, bool]] = []
        self._callbacks: list[object] = []  # what C calls must stay alive
        self._actions: dict[Callable[[], None], ctypes.c_void_p] = {}
        self._failure: BaseException | None = None
        self.counter = counter_of(self._handle)

    def batch(self, *registers: int) -> RegisterBatch:
        """A group of registers to be moved together."""
        return RegisterBatch(self._handle, registers)

    def read_register(self, register: int) -> int:
        """The value of one register."""
        return self._one(register).read()[0]

    def write_register(self, register: int, value: int) -> None:
        """Set one register."""
        self._one(register).write(value & 0xFFFF_FFFF)

    def _one(self, register: int) -> RegisterBatch:
        group = self._single.get(register)
        if group is None:
            group = self._single[register] = self.batch(register)
        return group

    # -- running ----------------------------------------------------------------------------------

    def run(self, program_counter: int, instructions: int) -> int:
        """Execute up to `instructions` from `program_counter`; returns Unicorn's error code.

        The limit is always counted. An IT block counts by its instructions but ends as a whole. An
        exception of a callback comes out of here, whatever Unicorn answered.
        """
        engine = self._uc
        engine._hook_exception = None  # noqa: SLF001 - as the binding's emu_start does
        status: int = uclib.uc_emu_start(
            self._handle, program_counter | 1, NEVER, 0, self.counter.prepare(instructions)
        )
        failure = self._failure or engine._hook_exception  # noqa: SLF001
        if failure is not None:
            self._failure = None
            raise failure
        return status

    def cut(self) -> None:
        """In a callback: end `run` behind the present instruction, or behind its IT block."""
        self.counter.end()

    def abort(self) -> None:
        """In a callback: end `run` with PC staying on the present instruction, outside IT blocks.

        What the instruction has loaded is lost.
        """
        uclib.uc_emu_stop(self._handle)

    # -- memory and callbacks ---------------------------------------------------------------------

    def map_shared(self, address: int, cells: memoryview, *, writable: bool) -> None:
        """Map `cells` at `address`, shared: a change on either side is seen by both."""
        array = (ctypes.c_uint8 * len(cells)).from_buffer(cells)
        self._shared.append((address, len(cells), array))
        self._regions.append((address, address + len(cells), cells, writable))
        # RAM first: exception frames are what is looked up most.
        self._regions.sort(key=lambda region: not region[3])
        protection = uc.UC_PROT_READ | uc.UC_PROT_EXEC | (uc.UC_PROT_WRITE if writable else 0)
        self._uc.mem_map_ptr(address, len(cells), protection, ctypes.addressof(array))

    def map_bus(
        self,
        address: int,
        length: int,
        read: Callable[[int, int], int],
        write: Callable[[int, int, int], None],
    ) -> None:
        """Call `read(address, width)` and `write(address, width, value)` for a range's accesses."""

        def on_read(_uc: object, offset: int, width: int, _data: object) -> int:
            try:
                return read(address + offset, width)
            except BaseException as error:  # noqa: BLE001 - raised again by run, not in C
                self._fail(error)
                return 0

        def on_write(_uc: object, offset: int, width: int, value: int, _data: object) -> None:
            try:
                write(address + offset, width, value)
            except BaseException as error:  # noqa: BLE001 - raised again by run, not in C
                self._fail(error)

        callbacks = MMIO_READ_CFUNC(on_read), MMIO_WRITE_CFUNC(on_write)
        self._callbacks += callbacks
        self._check(
            uclib.uc_mmio_map(
                self._handle,
                ctypes.c_uint64(address),
                ctypes.c_uint64(length),
                ctypes.cast(callbacks[0], ctypes.c_void_p),
                None,
                ctypes.cast(callbacks[1], ctypes.c_void_p),
                None,
            ),
            address,
        )

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self.abort()

    def on_interrupt(self, action: Callable[[int], None]) -> None:
        """Call `action(number)` for what Unicorn raises (SVC, BKPT, EXC_RETURN), and stop."""

        def hook(_uc: object, number: int, _data: object) -> None:
            action(number)
            uclib.uc_emu_stop(self._handle)

        self._uc.hook_add(uc.UC_HOOK_INTR, hook)

    def on_invalid_access(self, action: Callable[[int, int, int, int], bool]) -> None:
        """Call `action(kind, address, width, value)` before a bad access.

        With True, a forbidden store is done all the same; else `run` ends with an error.
        """

        def hook(
            _uc: object, kind: int, address: int, width: int, value: int, _data: object
        ) -> bool:
            return action(kind, address, width, value)

        self._uc.hook_add(uc.UC_HOOK_MEM_INVALID, hook)

    def on_block(self, first: int, last: int, action: Callable[[], None]) -> int:
        """Call `action` when a block that begins at `first` ... `last` is about to be executed.

        Code elsewhere is not slowed down. `forget_translations` must follow, here and below.
        Returns a handle for `remove_hook`.
        """
        return self._hook(uc.UC_HOOK_BLOCK, first, last, action)

    def on_translation(self, first: int, last: int, action: Callable[[int, int], None]) -> None:
        """Call `action(address, length)` when a block in a range was translated, before it runs."""

        def hook(_uc: object, block: uc_tb, _before: object, _data: object) -> None:
            action(block.pc, block.size)

        self._uc.hook_add(uc.UC_HOOK_EDGE_GENERATED, hook, None, first, last)

    def on_instruction(self, address: int, action: Callable[[], None]) -> int:
        """Call `action` before the instruction at `address`. All code runs slower from then on."""
        return self._hook(uc.UC_HOOK_CODE, address, address, action)

    def _hook(self, kind: int, first: int, last: int, action: Callable[[], None]) -> int:
        address = self._actions.get(action)
        if address is None:

            def act(_uc: object, _address: int, _size: int, _data: object) -> None:
                try:
                    action()
                except BaseException as error:  # noqa: BLE001 - raised again by run, not in C
                    self._fail(error)

            callback = HOOK_CODE_CFUNC(act)
            self._callbacks.append(callback)
            address = self._actions[action] = ctypes.cast(callback, ctypes.c_void_p)
        hook = ctypes.c_size_t()
        self._check(
            uclib.uc_hook_add(
                self._handle,
                ctypes.byref(hook),
                kind,
                address,
                None,
                ctypes.c_uint64(first),
                ctypes.c_uint64(last),
            ),
            first,
        )
        handle: int = hook.value
        return handle

    def remove_hook(self, handle: int) -> None:
        """Take a hook back; `forget_translations` must follow."""
        uclib.uc_hook_del(self._handle, ctypes.c_size_t(handle))

    @staticmethod
    def _check(status: int, address: int) -> None:
        if status != uc.UC_ERR_OK:
            raise RuntimeError(f"Unicorn refused a callback at 0x{address:08x}: error {status}")

    def forget_translations(self) -> None:
        """Code in memory has changed: translate it anew when it next runs."""
        self._uc.ctl_flush_tb()

    def read_memory(self, address: int, length: int) -> bytes:
        """Memory as it is mapped; raises UnmappedMemoryError where nothing is."""
        for base, end, cells, _writable in self._regions:
            if base <= address and address + length <= end:
                return bytes(cells[address - base : address - base + length])
        raise UnmappedMemoryError(address, length)

    def write_memory(self, address: int, data: bytes) -> None:
        """Write RAM; raises UnmappedMemoryError where there is none."""
        length = len(data)
        for base, end, cells, writable in self._regions:
            if writable and base <= address and address + length <= end:
                cells[address - base : address - base + length] = data
                return
        raise UnmappedMemoryError(address, length)

    def halfword(self, address: int) -> int:
        """The 16 bits of code at `address`; 0 where there is no memory."""
        for base, end, cells, _writable in self._regions:
            if base <= address < end - 1:
                place = address - base
                return cells[place] | cells[place + 1] << 8
        return 0

    def close(self) -> None:
        """Let go of shared memory, so that its owner may unmap it. Unicorn itself goes with us."""
        for address, length, _array in self._shared:
            self._uc.mem_unmap(address, length)
        self._shared.clear()
        self._regions.clear()
