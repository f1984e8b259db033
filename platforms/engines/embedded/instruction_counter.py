"""How many instructions a run of Unicorn has begun, and how to end it behind the present one.

Unicorn counts instructions when it is given a limit, but its interface tells nobody the count. The
count and the limit stand side by side in its private state, so they are looked for once in each
process: three runs of known lengths leave three known pairs, and the place where all of them
appeared is the one. Where no single place fits (another build of Unicorn, say), a hook counts in
Python: the same numbers to the last instruction, at about two million instructions a second.
"""

import ctypes
from functools import cache
from typing import Protocol

from unicorn import arm_const as arm
from unicorn import unicorn_const as uc
from unicorn.unicorn_py3.unicorn import HOOK_CODE_CFUNC, Uc, uclib

_SEARCHED_BYTES = 4096  # of Unicorn's state, which is several times as long (its jump buffers)
_WORD = ctypes.sizeof(ctypes.c_size_t)
_KNOWN_LENGTHS = (12_347, 6_091, 947)
_LOOP_ADDRESS, _LOOP = 0x1000, b"\xfe\xe7"  # b .
_NOWHERE = 0xFFFF_FFFE


class InstructionCounter(Protocol):
    """The count of one Unicorn engine.

    Attributes:
        native: whether Unicorn itself counts. Else a hook does, which is slow.
    """

    native: bool

    def prepare(self, instructions: int) -> int:
        """A run of `instructions` is about to begin; returns the count to give to Unicorn."""
        ...

    @property
    def begun(self) -> int:
        """Instructions begun in this run, the one that the limit stopped in front of included."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether the limit stopped the run, in front of the last instruction counted."""
        ...

    def end(self) -> None:
        """Let the run end in front of the next instruction; in an IT block, behind the block."""
        ...


class NativeCounter:
    """Unicorn's own count, read and limited where it stands."""

    native = True

    def __init__(self, handle: ctypes.c_void_p, offset: int) -> None:
        assert handle.value is not None  # noqa: S101 - Unicorn was opened
        self._count = ctypes.c_size_t.from_address(handle.value + offset)
        self._limit = ctypes.c_size_t.from_address(handle.value + offset + _WORD)

    def prepare(self, instructions: int) -> int:
        """Unicorn sets its count itself."""
        return instructions

    @property
    def begun(self) -> int:
        """See InstructionCounter."""
        return self._count.value

    @property
    def exhausted(self) -> bool:
        """See InstructionCounter."""
        return self._count.value > self._limit.value

    def end(self) -> None:
        """See InstructionCounter."""
        self._limit.value = 0


class HookCounter:
    """A count kept by a hook on every instruction, for a Unicorn whose own cannot be found."""

    native = False

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self._handle = handle
        self._count = 0
        self._limit = 0
        self._hook = HOOK_CODE_CFUNC(self._note)
        added = ctypes.c_size_t()
        everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)
        uclib.uc_hook_add(
            handle,
            ctypes.byref(added),
            uc.UC_HOOK_CODE,
            ctypes.cast(self._hook, ctypes.c_void_p),
            None,
            *everywhere,
        )

    def _note(self, _uc: object, _address: int, _size: int, _data: object) -> None:
        self._count += 1
        if self._count > self._limit:
            uclib.uc_emu_stop(self._handle)

    def prepare(self, instructions: int) -> int:
        """Unicorn runs without a limit of its own."""
        self._count, self._limit = 0, instructions
        return 0

    @property
    def begun(self) -> int:
        """See InstructionCounter."""
        return self._count

    @property
    def exhausted(self) -> bool:
        """See InstructionCounter."""
        return self._count > self._limit

    def end(self) -> None:
        """See InstructionCounter."""
        self._limit = 0


def counter_of(handle: ctypes.c_void_p) -> InstructionCounter:
    """The counter for one Unicorn engine, before it first runs."""
    offset = native_offset()
    return HookCounter(handle) if offset is None else NativeCounter(handle, offset)


@cache
def native_offset() -> int | None:
    """Where in Unicorn's state its count stands, the limit behind it; None when nobody can tell."""
    engine = Uc(uc.UC_ARCH_ARM, uc.UC_MODE_THUMB | uc.UC_MODE_MCLASS)
    engine.ctl_set_cpu_model(arm.UC_CPU_ARM_CORTEX_M4)
    engine.mem_map(_LOOP_ADDRESS, 0x1000)
    engine.mem_write(_LOOP_ADDRESS, _LOOP)
    handle = engine._uch  # noqa: SLF001 - there is no other way to its state
    found: set[int] | None = None
    for length in _KNOWN_LENGTHS:
        engine.emu_start(_LOOP_ADDRESS | 1, _NOWHERE, 0, length)
        state = ctypes.string_at(handle, _SEARCHED_BYTES)
        places = places_of_pair(state, length + 1, length)
        found = places if found is None else found & places
    return found.pop() if found is not None and len(found) == 1 else None


def places_of_pair(state: bytes, first: int, second: int) -> set[int]:
    """Every word-aligned offset in `state` where `first` stands with `second` right behind it."""
    pair = b"".join(value.to_bytes(_WORD, "little") for value in (first, second))
    places = set()
    place = state.find(pair)
    while place != -1:
        if place % _WORD == 0:
            places.add(place)
        place = state.find(pair, place + 1)
    return places
