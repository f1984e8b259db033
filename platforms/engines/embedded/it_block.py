"""The conditions of an IT block; ARMv7-M ARM A7.3."""

LONGEST_IT_BLOCK = 4
_IT, _IT_MASK = 0xBF00, 0xFF00
_NEGATIVE, _ZERO, _CARRY, _OVERFLOW = 31, 30, 29, 28  # bits of APSR


def last_condition_of(instruction: int, length: int, flags: int) -> bool:
    """Whether `instruction` begins an IT block of `length` whose last condition `flags` meet."""
    mask = instruction & 0xF
    if instruction & _IT_MASK != _IT or not mask:
        return False
    if length != LONGEST_IT_BLOCK - ((mask & -mask).bit_length() - 1):
        return False
    condition = instruction >> 4 & 0xF
    if length > 1:
        condition = condition & 0xE | instruction >> (5 - length) & 1
    return is_met(condition, flags)


def is_met(condition: int, flags: int) -> bool:
    """Whether the flags of APSR meet a condition, 0 (EQ) to 15."""
    negative, zero, carry, overflow = (
        bool(flags >> bit & 1) for bit in (_NEGATIVE, _ZERO, _CARRY, _OVERFLOW)
    )
    met = (
        zero,
        carry,
        negative,
        overflow,
        carry and not zero,
        negative == overflow,
        negative == overflow and not zero,
        True,
    )[condition >> 1]
    return met != bool(condition & 1) or condition >> 1 == 0b111
