"""Whether a slot holds an image that can be started. Pure: the image's facts are handed in."""

import struct
from dataclasses import dataclass

from bootloader_model.boot_state import Slot, SlotFlag

VECTOR_TABLE_HEAD_SIZE = 8
"""Initial stack pointer and reset vector, one word each (ARMv7-M, B1.5.3)."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A range of addresses in which a stack may lie; `size` in bytes."""

    base: int
    size: int


STACK_MEMORIES = (
    Memory(0x2000_0000, 0x2_0000),  # SRAM1 and SRAM2
    Memory(0x1000_0000, 0x1_0000),  # CCM data RAM
)
"""The memories of an STM32F405 that can hold a stack (RM0090 section 2.3.1)."""


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """What came out of checking the image in a slot; `problem` in words, None when it is good."""

    problem: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether the image can be started, once it is where it is linked for."""
        return self.problem is None


@dataclass(frozen=True, slots=True)
class VectorTableHead:
    """The first two words of a vector table: what the processor starts with."""

    stack_pointer: int
    reset_vector: int

    @classmethod
    def parse(cls, image: bytes) -> "VectorTableHead":
        """The head of the vector table at the start of an image of at least 8 bytes."""
        return cls(*struct.unpack_from("<II", image))


def check_configuration(slot: Slot, room: int) -> str | None:
    """What keeps a slot's image from being looked at; None when nothing does.

    Args:
        slot: the slot.
        room: size of its partition, in bytes.
    """
    if SlotFlag.VALID not in slot.configuration.flags:
        return "the slot is not marked valid"
    length = slot.state.app_len
    if length == 0:
        return "it holds no image"
    if length < VECTOR_TABLE_HEAD_SIZE:
        return f"the image of {length:,} bytes is too short for a vector table"
    if length > room:
        return f"the image of {length:,} bytes is longer than its room of {room:,} bytes"
    return None


def check_crc(slot: Slot, crc32: int) -> str | None:
    """What is wrong with an image that has this CRC-32; None when it is the recorded one."""
    expected = slot.state.app_crc32
    if crc32 == expected:
        return None
    return f"its image has CRC32 0x{crc32:08x} instead of 0x{expected:08x}"


def check_vector_table(head: VectorTableHead, origin: int, length: int) -> str | None:
    """What is wrong with a vector table; None when the processor can be started with it.

    Args:
        head: its first two words.
        origin: address the image is linked for.
        length: of the image, in bytes.
    """
    stack_pointer, reset_vector = head.stack_pointer, head.reset_vector
    # The stack grows down from the initial value, which may thus be one past the end. Bits 1 and 0
    # of the stack pointer do not exist (ARMv7-M B1.4.1); the processor itself aligns to 8 on
    # exception entry, so that 4 will do here.
    if stack_pointer % 4:
        return f"its stack pointer 0x{stack_pointer:08x} is not aligned to 4 bytes"
    if not any(0 < stack_pointer - memory.base <= memory.size for memory in STACK_MEMORIES):
        return f"its stack pointer 0x{stack_pointer:08x} is outside RAM"
    if not reset_vector & 1:
        return f"its reset vector 0x{reset_vector:08x} is even: not Thumb code"
    if not origin <= reset_vector < origin + length:
        return (
            f"its reset vector 0x{reset_vector:08x} is outside the image"
            f" (0x{origin:08x} to 0x{origin + length - 1:08x})"
        )
    return None
