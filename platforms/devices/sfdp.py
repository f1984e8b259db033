"""The Serial Flash Discoverable Parameters (SFDP) table of the NOR flash; JEDEC JESD216B.

Laid out with construct from the facts in `platforms.devices.w25q32jv`. It describes what the model
does: one data line each way, so the dual and quad reads of the real part are not announced, and no
suspend. Each 32-bit word is written here as the standard prints it, from bit 31 down to bit 0, and
stored little-endian. Times can only be told in coarse units, so they are rounded up.
"""

from construct import (
    BitsInteger,
    BitStruct,
    Bytes,
    ByteSwapped,
    Const,
    Int8ul,
    Int24ul,
    Padding,
    Sequence,
    Struct,
)

from platforms.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from platforms.devices import w25q32jv as chip

SFDP_SIZE = 256
_TABLE_ADDRESS = 0x80
_DWORDS = 16
_REVISION = {"minor": 6, "major": 1}  # JESD216B is revision 1.6

# JESD216B section 6.2 (SFDP header) and 6.3 (parameter header).
_HEADER = Struct(
    "signature" / Const(b"SFDP"),
    "minor" / Int8ul,
    "major" / Int8ul,
    "last_parameter_header" / Const(0, Int8ul),
    "unused" / Const(0xFF, Int8ul),
    "id_lsb" / Const(0x00, Int8ul),
    "table_minor" / Int8ul,
    "table_major" / Int8ul,
    "table_dwords" / Int8ul,
    "table_address" / Int24ul,
    "id_msb" / Const(0xFF, Int8ul),
)


def _dword(**widths: int) -> ByteSwapped:
    """A little-endian word from named fields, the highest bits first."""
    return ByteSwapped(BitStruct(*[name / BitsInteger(bits) for name, bits in widths.items()]))


# JESD216B section 6.4: the Basic Flash Parameter Table, its words in order.
_BASIC_TABLE = Sequence(
    _dword(
        reserved=9, fast_read_114=1, fast_read_144=1, fast_read_122=1, double_rate=1,
        address_bytes=2, fast_read_112=1, erase_4k_opcode=8, ones=3, volatile_write_enable_06h=1,
        block_protect_volatile=1, write_granularity_64=1, uniform_4k_erase=2,
    ),
    _dword(log2_form=1, density_bits_minus_1=31),
    _dword(read_114=16, read_144=16),
    _dword(read_122=16, read_112=16),
    _dword(reserved_high=27, fast_read_444=1, reserved_low=3, fast_read_222=1),
    _dword(read_222=16, reserved=16),
    _dword(read_444=16, reserved=16),
    _dword(type_2_opcode=8, type_2_log2_size=8, type_1_opcode=8, type_1_log2_size=8),
    _dword(type_4_opcode=8, type_4_log2_size=8, type_3_opcode=8, type_3_log2_size=8),
    _dword(type_4_time=7, type_3_time=7, type_2_time=7, type_1_time=7, maximum_factor=4),
    _dword(
        reserved=1, chip_erase_time=7, additional_byte_time=5, first_byte_time=5,
        page_program_time=6, log2_page_size=4, maximum_factor=4,
    ),
    _dword(suspend_unsupported=1, suspend=22, reserved=1, prohibited=8),
    _dword(suspend_opcode=8, resume_opcode=8, program_suspend_opcode=8, program_resume_opcode=8),
    _dword(
        power_down_unsupported=1, enter_power_down_opcode=8, exit_power_down_opcode=8,
        exit_delay=7, poll_reserved=4, poll_flag_status=1, poll_status_1_busy=1, reserved=2,
    ),
    _dword(
        reserved=8, hold_disable=1, quad_enable=3, enter_044=4, exit_044=6, supports_044=1,
        enable_444=5, disable_444=4,
    ),
    _dword(
        enter_4_byte=8, exit_4_byte=10, reset_other=1, reset_66h_99h=1, reset_reserved=4,
        reserved=1, status_1_reserved=3, status_1_volatile_by_50h=1, status_1_other=3,
    ),
)  # fmt: skip

_FILE = Struct(
    "header" / _HEADER,
    Padding(_TABLE_ADDRESS - _HEADER.sizeof(), pattern=b"\xff"),
    "table" / _BASIC_TABLE,
    "rest" / Bytes(SFDP_SIZE - _TABLE_ADDRESS - 4 * _DWORDS),
)

_ERASE_TIME_UNITS = (NS_PER_MS, 16 * NS_PER_MS, 128 * NS_PER_MS, NS_PER_S)
_CHIP_ERASE_TIME_UNITS = (16 * NS_PER_MS, 256 * NS_PER_MS, 4 * NS_PER_S, 64 * NS_PER_S)
_PAGE_PROGRAM_TIME_UNITS = (8 * NS_PER_US, 64 * NS_PER_US)
_BYTE_PROGRAM_TIME_UNITS = (NS_PER_US, 8 * NS_PER_US)
_EXIT_DELAY_UNITS = (128, NS_PER_US, 8 * NS_PER_US, 64 * NS_PER_US)


def build_sfdp() -> bytes:
    """The 256 bytes that the Read SFDP instruction (5Ah) gives."""
    first, second, third = chip.ERASE_TYPES
    erase_times = [
        encode_time(erase.duration.typical_ns, _ERASE_TIME_UNITS, count_bits=5)
        for erase in chip.ERASE_TYPES
    ]
    erase_factor = max(
        _maximum_factor(erase.duration, told_ns)
        for erase, (_, told_ns) in zip(chip.ERASE_TYPES, erase_times, strict=True)
    )
    page_time, page_told_ns = encode_time(
        chip.PAGE_PROGRAM_TIME.typical_ns, _PAGE_PROGRAM_TIME_UNITS, count_bits=5
    )
    # The model takes the page time for a single byte too, as the data sheet gives no other: so the
    # first byte takes the longest that can be told and a further one the shortest.
    first_byte_time, _ = encode_time(128 * NS_PER_US, _BYTE_PROGRAM_TIME_UNITS, count_bits=4)
    additional_byte_time, _ = encode_time(NS_PER_US, _BYTE_PROGRAM_TIME_UNITS, count_bits=4)
    chip_erase_time, _ = encode_time(
        chip.CHIP_ERASE_TIME.typical_ns, _CHIP_ERASE_TIME_UNITS, count_bits=5
    )
    exit_delay, _ = encode_time(chip.RELEASE_POWER_DOWN_NS, _EXIT_DELAY_UNITS, count_bits=5)
    table = [
        {
            "reserved": 0x1FF, "fast_read_114": 0, "fast_read_144": 0, "fast_read_122": 0,
            "double_rate": 0, "address_bytes": 0b00, "fast_read_112": 0,
            "erase_4k_opcode": first.opcode, "ones": 0b111, "volatile_write_enable_06h": 0,
            "block_protect_volatile": 0, "write_granularity_64": 1, "uniform_4k_erase": 0b01,
        },
        {"log2_form": 0, "density_bits_minus_1": 8 * chip.SIZE - 1},
        {"read_114": 0, "read_144": 0},
        {"read_122": 0, "read_112": 0},
        {
            "reserved_high": 0x7FFFFFF, "fast_read_444": 0,
            "reserved_low": 0b111, "fast_read_222": 0,
        },
        {"read_222": 0, "reserved": 0xFFFF},
        {"read_444": 0, "reserved": 0xFFFF},
        {
            "type_2_opcode": second.opcode, "type_2_log2_size": _log2(second.size),
            "type_1_opcode": first.opcode, "type_1_log2_size": _log2(first.size),
        },
        {
            "type_4_opcode": 0, "type_4_log2_size": 0,
            "type_3_opcode": third.opcode, "type_3_log2_size": _log2(third.size),
        },
        {
            "type_4_time": 0, "type_3_time": erase_times[2][0], "type_2_time": erase_times[1][0],
            "type_1_time": erase_times[0][0], "maximum_factor": erase_factor,
        },
        {
            "reserved": 1, "chip_erase_time": chip_erase_time,
            "additional_byte_time": additional_byte_time, "first_byte_time": first_byte_time,
            "page_program_time": page_time, "log2_page_size": _log2(chip.PAGE_SIZE),
            "maximum_factor": _maximum_factor(chip.PAGE_PROGRAM_TIME, page_told_ns),
        },
        {"suspend_unsupported": 1, "suspend": 0, "reserved": 1, "prohibited": 0},
        {
            "suspend_opcode": 0, "resume_opcode": 0,
            "program_suspend_opcode": 0, "program_resume_opcode": 0,
        },
        {
            "power_down_unsupported": 0, "enter_power_down_opcode": 0xB9,
            "exit_power_down_opcode": 0xAB, "exit_delay": exit_delay, "poll_reserved": 0,
            "poll_flag_status": 0, "poll_status_1_busy": 1, "reserved": 0b11,
        },
        {
            # Quad Enable is bit 1 of status register 2: read by 35h, written by 01h with 2 bytes.
            "reserved": 0xFF, "hold_disable": 0, "quad_enable": 0b101, "enter_044": 0,
            "exit_044": 0, "supports_044": 0, "enable_444": 0, "disable_444": 0,
        },
        {
            "enter_4_byte": 0, "exit_4_byte": 0, "reset_other": 0, "reset_66h_99h": 1,
            "reset_reserved": 0, "reserved": 1, "status_1_reserved": 0,
            "status_1_volatile_by_50h": 1, "status_1_other": 0,
        },
    ]  # fmt: skip
    header = {
        **_REVISION,
        "table_minor": _REVISION["minor"],
        "table_major": _REVISION["major"],
        "table_dwords": _DWORDS,
        "table_address": _TABLE_ADDRESS,
    }
    rest = b"\xff" * (SFDP_SIZE - _TABLE_ADDRESS - 4 * _DWORDS)
    built: bytes = _FILE.build({"header": header, "table": table, "rest": rest})
    return built


def encode_time(time_ns: int, units_ns: tuple[int, ...], count_bits: int) -> tuple[int, int]:
    """A time as JESD216 writes it: a unit's number above a count, the count stored minus one.

    Returns the field and the time it tells, in ns: the shortest possible that is not below
    `time_ns`. Raises ValueError when the field cannot tell so long a time.
    """
    choices = []
    for number, unit_ns in enumerate(units_ns):
        count = max(1, -(-time_ns // unit_ns))
        if count <= 1 << count_bits:
            choices.append((count * unit_ns, (number << count_bits) | (count - 1)))
    if not choices:
        raise ValueError(f"{time_ns} ns is more than the SFDP field can tell")
    told_ns, field = min(choices)
    return field, told_ns


def _maximum_factor(duration: chip.Duration, told_ns: int) -> int:
    """The smallest N for which 2 * (N + 1) times the told typical time covers the maximum."""
    return max(0, -(-duration.maximum_ns // (2 * told_ns)) - 1)


def _log2(size: int) -> int:
    return size.bit_length() - 1
