"""Thumb instructions as bytes, by the names of the ARMv7-M manual; encodings: its chapter A7.7."""

SELF = b"\xfe\xe7"  # b .
BX_LR = b"\x70\x47"
BARRIERS = b"\xbf\xf3\x4f\x8f\xbf\xf3\x6f\x8f"  # dsb; isb
NOP, WFI, WFE, SEV = b"\x00\xbf", b"\x30\xbf", b"\x20\xbf", b"\x40\xbf"
WFE_WIDE = b"\xaf\xf3\x02\x80"
CPSID_I, CPSIE_I, CPSID_F = b"\x72\xb6", b"\x62\xb6", b"\x71\xb6"
SVC = b"\x00\xdf"
VMOV_ONE = b"\xb7\xee\x00\x0a"  # vmov.f32 s0, #1.0

MSP, PSP, PRIMASK, BASEPRI, FAULTMASK, CONTROL, IPSR = 8, 9, 16, 17, 19, 20, 5


def halfwords(*values: int) -> bytes:
    """Instructions as the manual prints them."""
    return b"".join(value.to_bytes(2, "little") for value in values)


def move(register: int, value: int) -> bytes:
    """A low register becomes a constant of up to 8 bits."""
    return halfwords(0x2000 | register << 8 | value)


def load(register: int, base: int, offset: int = 0) -> bytes:
    """A word from the address in `base` plus `offset` (a multiple of 4 below 128)."""
    return halfwords(0x6800 | offset // 4 << 6 | base << 3 | register)


def put(register: int, base: int, offset: int = 0) -> bytes:
    """A word to the address in `base` plus `offset` (a multiple of 4 below 128)."""
    return halfwords(0x6000 | offset // 4 << 6 | base << 3 | register)


def read_special(register: int, special: int) -> bytes:
    """MRS."""
    return halfwords(0xF3EF, 0x8000 | register << 8 | special)


def write_special(special: int, register: int) -> bytes:
    """MSR."""
    return halfwords(0xF380 | register, 0x8800 | special)


def branch_exchange(register: int) -> bytes:
    """BX."""
    return halfwords(0x4700 | register << 3)


def jump(address: int) -> bytes:
    """A branch to any address, by way of r3."""
    return load_constant(3, address) + branch_exchange(3)


def back_to(start: bytes) -> bytes:
    """A branch from behind `start` to its beginning."""
    return halfwords(0xE000 | (-(len(start) + 4) // 2) & 0x7FF)


def spend(turns: int) -> bytes:
    """2 * `turns` + 1 instructions, by way of r3: movw; subs r3, #1; bne back."""
    return load_constant(3, turns)[:4] + halfwords(0x3B01, 0xD1FD)


def load_constant(register: int, value: int) -> bytes:
    """The pair movw, movt (ARMv7-M ARM A7.7.76, A7.7.79)."""

    def half(opcode: int, part: int) -> bytes:
        imm4, i, imm3, imm8 = part >> 12, part >> 11 & 1, part >> 8 & 7, part & 0xFF
        first = opcode | i << 10 | imm4
        second = imm3 << 12 | register << 8 | imm8
        return first.to_bytes(2, "little") + second.to_bytes(2, "little")

    return half(0xF240, value & 0xFFFF) + half(0xF2C0, value >> 16)


def store(value: int, address: int) -> bytes:
    """Store a word by way of r0 and r1."""
    return load_constant(0, address) + load_constant(1, value) + b"\x01\x60"  # str r1, [r0]


def add_one(address: int) -> bytes:
    """Increment the word at `address` by way of r0 and r1."""
    return load_constant(0, address) + b"\x01\x68\x01\x31\x01\x60"  # ldr; adds r1, #1; str


def keep(register: int, address: int) -> bytes:
    """Store a register but r0 by way of r0."""
    return load_constant(0, address) + put(register, 0)


def fetch(register: int, address: int) -> bytes:
    """Load a register but r0 from an address, by way of r0."""
    return load_constant(0, address) + load(register, 0)
