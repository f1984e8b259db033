"""The internal flash behind its registers: locking, programming, erasing, errors, times."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platforms.clock import NS_PER_MS, NS_PER_S, NS_PER_US, Clock
from platforms.devices.flash_memory import FlashMemory
from platforms.devices.internal_flash import (
    CR_EOPIE,
    CR_ERRIE,
    CR_LOCK,
    CR_MER,
    CR_PG,
    CR_SER,
    CR_STRT,
    KEY1,
    KEY2,
    OPTCR_OPTLOCK,
    OPTCR_OPTSTRT,
    OPTKEY1,
    OPTKEY2,
    SR_BSY,
    SR_EOP,
    SR_OPERR,
    SR_PGAERR,
    SR_PGPERR,
    SR_PGSERR,
    SR_WRPERR,
    InternalFlash,
    Register,
)
from platforms.devices.peripheral import UnsupportedRegisterError
from platforms.devices.torn import TornShape
from platforms.errors import InvalidArgumentError
from platforms.flash import FlashGeometry
from tests.devices.memories import internal_memory, operations_of

X8, X16, X32, X64 = (size << 8 for size in range(4))


class Rig:
    """The peripheral, its cells and a clock that moves when the bus stalls."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.memory = internal_memory(self.clock)
        self.flash = InternalFlash(self.memory, self.pass_time)
        self.operations = operations_of(self.memory)

    def pass_time(self, duration_ns: int) -> None:
        self.clock.advance_to(self.clock.now_ns + duration_ns)

    def read(self, register: Register) -> int:
        return self.flash.read(register, 4)

    def write(self, register: Register, value: int) -> None:
        self.flash.write(register, 4, value)

    def unlock(self) -> None:
        self.write(Register.KEYR, KEY1)
        self.write(Register.KEYR, KEY2)

    def unlock_options(self) -> None:
        self.write(Register.OPTKEYR, OPTKEY1)
        self.write(Register.OPTKEYR, OPTKEY2)

    @property
    def locked(self) -> bool:
        return bool(self.read(Register.CR) & CR_LOCK)

    def errors(self) -> int:
        return self.read(Register.SR) & ~(SR_BSY | SR_EOP)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_reset_values(rig: Rig) -> None:
    assert rig.read(Register.ACR) == 0
    assert rig.read(Register.SR) == 0
    assert rig.read(Register.CR) == 0x80000000
    assert rig.read(Register.OPTCR) == 0x0FFFAAED
    assert rig.read(Register.KEYR) == rig.read(Register.OPTKEYR) == 0


def test_access_control_keeps_the_bits_it_has(rig: Rig) -> None:
    rig.write(Register.ACR, 0xFFFFFFFF)
    assert rig.read(Register.ACR) == 0x1F07
    rig.flash.write(Register.ACR, 1, 5)
    assert rig.read(Register.ACR) == 0x1F05
    assert rig.flash.read(Register.ACR + 1, 1) == 0x1F


@pytest.mark.parametrize("offset", [0x18, 0x1C, 0x3FC])
def test_registers_that_do_not_exist_are_an_error(rig: Rig, offset: int) -> None:
    with pytest.raises(UnsupportedRegisterError, match=r"FLASH\+0x"):
        rig.flash.read(offset, 4)
    with pytest.raises(UnsupportedRegisterError, match=r"FLASH\+0x"):
        rig.flash.write(offset, 4, 0)


def test_both_keys_in_order_unlock(rig: Rig) -> None:
    rig.write(Register.KEYR, KEY1)
    assert rig.locked
    rig.write(Register.KEYR, KEY2)
    assert not rig.locked
    rig.write(Register.CR, CR_LOCK)
    assert rig.locked
    rig.unlock()
    assert not rig.locked


@given(st.lists(st.sampled_from([KEY1, KEY2, 0, 0xFFFFFFFF]), min_size=1, max_size=6))
@settings(deadline=None)
def test_any_other_sequence_locks_until_reset(keys: list[int]) -> None:
    rig = Rig()
    for key in keys:
        rig.write(Register.KEYR, key)
    correct = keys[:2] == [KEY1, KEY2]
    assert rig.locked != correct
    rig.write(Register.CR, CR_LOCK)
    if keys != [KEY1]:
        rig.unlock()
        assert rig.locked != correct
    rig.flash.reset()
    rig.unlock()
    assert not rig.locked


def test_locked_control_register_ignores_writes(rig: Rig) -> None:
    rig.write(Register.CR, CR_PG | X32)
    assert rig.read(Register.CR) == CR_LOCK


@pytest.mark.parametrize(("psize", "width"), [(X8, 1), (X16, 2), (X32, 4), (X64, 8)])
def test_programming_takes_16_us_for_each_access(rig: Rig, psize: int, width: int) -> None:
    rig.unlock()
    rig.write(Register.CR, CR_PG | psize)
    rig.flash.program_word(0x10000, b"\xa5" * width)
    assert rig.read(Register.SR) == SR_BSY
    rig.pass_time(16 * NS_PER_US - 1)
    assert rig.read(Register.SR) == SR_BSY
    rig.pass_time(1)
    assert rig.read(Register.SR) == 0
    assert rig.memory.read(0x10000, width + 1) == b"\xa5" * width + b"\xff"


def test_programming_clears_bits_only(rig: Rig) -> None:
    rig.unlock()
    rig.write(Register.CR, CR_PG | X16)
    rig.flash.program_word(0, b"\xf0\x0f")
    rig.flash.program_word(0, b"\x3c\xff")
    assert rig.memory.read(0, 2) == b"\x30\x0f"


def test_a_store_while_busy_stalls_the_bus(rig: Rig) -> None:
    rig.unlock()
    rig.write(Register.CR, CR_PG | X32)
    rig.flash.program_word(0, bytes(4))
    rig.flash.program_word(4, bytes(4))
    assert [operation.start_ns for operation in rig.operations] == [0, 16 * NS_PER_US]
    rig.write(Register.CR, CR_LOCK)
    assert rig.clock.now_ns == 32 * NS_PER_US


@pytest.mark.parametrize(
    ("control", "address", "data", "flag"),
    [
        (None, 0, bytes(4), SR_PGSERR),  # locked
        (X32, 0, bytes(4), SR_PGSERR),  # PG not set
        (CR_PG | CR_SER | X32, 0, bytes(4), SR_PGSERR),
        (CR_PG | X8, 0, bytes(4), SR_PGPERR),
        (CR_PG | X32, 0, bytes(1), SR_PGPERR),
        (CR_PG | X64, 0, bytes(4), SR_PGPERR),
        (CR_PG | X32, 14, bytes(4), SR_PGAERR),
        (CR_PG | X64, 12, bytes(8), SR_PGAERR),
    ],
)
def test_a_wrong_store_raises_its_flag_and_changes_nothing(
    rig: Rig, control: int | None, address: int, data: bytes, flag: int
) -> None:
    if control is not None:
        rig.unlock()
        rig.write(Register.CR, control)
    rig.flash.program_word(address, data)
    assert rig.read(Register.SR) == flag
    assert not rig.operations
    rig.write(Register.SR, flag)
    assert rig.read(Register.SR) == 0


def test_error_and_end_flags_of_the_interrupts_need_their_enables(rig: Rig) -> None:
    rig.unlock()
    rig.write(Register.CR, CR_PG | X32 | CR_ERRIE | CR_EOPIE)
    rig.flash.program_word(0, b"\x00")
    assert rig.read(Register.SR) == SR_PGPERR | SR_OPERR
    rig.write(Register.SR, SR_PGPERR | SR_OPERR)
    rig.flash.program_word(0, bytes(4))
    rig.pass_time(16 * NS_PER_US)
    assert rig.read(Register.SR) == SR_EOP
    rig.flash.write(Register.SR, 1, SR_EOP)
    assert rig.read(Register.SR) == 0


def test_clearing_one_flag_by_a_narrow_write_leaves_the_others(rig: Rig) -> None:
    rig.flash.program_word(0, bytes(4))
    rig.flash.write(Register.SR + 1, 1, 0xFF)
    assert rig.read(Register.SR) == SR_PGSERR


SECTORS = [(n * 0x4000, 0x4000) for n in range(4)] + [(0x10000, 0x10000)]
SECTORS += [(0x20000 * n, 0x20000) for n in range(1, 8)]
TYPICAL_MS = {
    0x4000: (400, 300, 250),
    0x10000: (1200, 700, 550),
    0x20000: (2000, 1300, 1000),
}


@pytest.mark.parametrize("psize", [X8, X16, X32])
@pytest.mark.parametrize("number", range(12))
def test_sector_erase_covers_the_sector_and_takes_its_time(
    rig: Rig, number: int, psize: int
) -> None:
    address, size = SECTORS[number]
    rig.unlock()
    rig.write(Register.CR, CR_SER | (number << 3) | psize | CR_STRT)
    [operation] = rig.operations
    assert (operation.address, operation.length) == (address, size)
    assert operation.duration_ns == TYPICAL_MS[size][psize >> 8] * NS_PER_MS
    assert rig.read(Register.CR) & CR_STRT
    rig.pass_time(operation.duration_ns)
    assert not rig.read(Register.CR) & CR_STRT
    assert list(rig.memory.wear) == [int(index == number) for index in range(12)]


def test_mass_erase(rig: Rig) -> None:
    rig.unlock()
    rig.write(Register.CR, CR_MER | X32 | CR_STRT)
    assert rig.operations[0].duration_ns == 8 * NS_PER_S
    assert list(rig.memory.wear) == [1] * 12


@pytest.mark.parametrize(
    "control", [CR_STRT, CR_SER | CR_MER | CR_STRT, CR_SER | (12 << 3) | CR_STRT]
)
def test_an_erase_of_nothing_or_of_a_missing_sector_is_an_error(rig: Rig, control: int) -> None:
    rig.unlock()
    rig.write(Register.CR, control)
    assert rig.read(Register.SR) == SR_PGSERR
    assert not rig.operations


def protect_sector(rig: Rig, number: int) -> None:
    rig.unlock_options()
    rig.write(Register.OPTCR, (rig.read(Register.OPTCR) & ~(1 << (16 + number))) | OPTCR_OPTSTRT)
    rig.pass_time(rig.memory.remaining_ns)
    rig.operations.clear()


def test_write_protected_sectors_are_neither_programmed_nor_erased(rig: Rig) -> None:
    protect_sector(rig, 4)
    rig.unlock()
    rig.write(Register.CR, CR_PG | X32)
    rig.flash.program_word(0x1FFFC, bytes(4))
    assert rig.read(Register.SR) == SR_WRPERR
    rig.write(Register.SR, SR_WRPERR)
    for control in (CR_SER | (4 << 3), CR_MER):
        rig.write(Register.CR, control | X32 | CR_STRT)
        assert rig.read(Register.SR) == SR_WRPERR
        rig.write(Register.SR, SR_WRPERR)
    assert not rig.operations
    rig.write(Register.CR, CR_PG | X32)
    rig.flash.program_word(0x20000, bytes(4))
    assert len(rig.operations) == 1


def test_options_need_their_keys_and_their_start_bit(rig: Rig) -> None:
    rig.write(Register.OPTCR, 0)
    assert rig.read(Register.OPTCR) == 0x0FFFAAED
    rig.unlock_options()
    assert rig.read(Register.OPTCR) == 0x0FFFAAEC
    rig.write(Register.OPTCR, 0x0FEFAAEC)
    rig.flash.reset()
    assert rig.read(Register.OPTCR) == 0x0FFFAAED, "not started, so not kept"
    rig.unlock_options()
    rig.write(Register.OPTCR, 0x0FEFAAEC | OPTCR_OPTSTRT)
    assert rig.read(Register.SR) == SR_BSY
    rig.pass_time(rig.memory.remaining_ns)
    rig.write(Register.OPTCR, 0x0FEFAAEC | OPTCR_OPTLOCK)
    rig.flash.reset()
    assert rig.read(Register.OPTCR) == 0x0FEFAAED


@pytest.mark.parametrize("end", ["reset", "power"])
def test_a_reset_or_power_cut_during_an_erase_tears_it_and_locks(rig: Rig, end: str) -> None:
    rig.unlock()
    rig.write(Register.CR, CR_PG | X32)
    rig.flash.program_burst(0, bytes(1024))
    rig.write(Register.CR, CR_SER | X32 | CR_STRT)
    rig.pass_time(125 * NS_PER_MS)
    if end == "reset":
        rig.flash.reset()
    else:
        rig.flash.power_lost(TornShape.RANDOM_BITS, 3)
    assert rig.memory.read(0, 1024) not in (bytes(1024), b"\xff" * 1024)
    assert rig.read(Register.CR) == CR_LOCK
    assert rig.read(Register.SR) == 0


def test_a_power_cut_in_a_burst_tears_one_word(rig: Rig) -> None:
    rig.unlock()
    rig.write(Register.CR, CR_PG | X32)
    rig.flash.program_burst(0, bytes(1024))
    rig.pass_time(8 * 16 * NS_PER_US + 9 * NS_PER_US)
    rig.flash.power_lost(TornShape.RANDOM_BITS, 3)
    assert rig.memory.read(0, 32) == bytes(32)
    assert rig.memory.read(32, 4) not in (bytes(4), b"\xff" * 4)
    assert rig.memory.read(36, 988) == b"\xff" * 988


def test_the_watchdog_option_counts_once_it_is_stored(rig: Rig) -> None:
    assert not rig.flash.starts_watchdog
    rig.unlock_options()
    rig.write(Register.OPTCR, 0x0FFFAACC | OPTCR_OPTSTRT)
    rig.pass_time(rig.memory.remaining_ns)
    assert rig.flash.starts_watchdog


def test_reset_when_idle_keeps_the_cells(rig: Rig) -> None:
    rig.unlock()
    rig.write(Register.CR, CR_PG | X32)
    rig.flash.program_word(0, bytes(4))
    rig.pass_time(16 * NS_PER_US)
    rig.flash.reset()
    assert rig.memory.read(0, 5) == bytes(4) + b"\xff"


@given(
    st.integers(0, 40),
    st.binary(max_size=64),
    st.sampled_from([X8, X16, X32]),
    st.booleans(),
)
@settings(deadline=None)
def test_a_burst_equals_its_single_accesses(
    start: int,
    data: bytes,
    psize: int,
    unlocked: bool,
) -> None:
    width = 1 << (psize >> 8)
    start -= start % width
    data = data[: len(data) // width * width]
    burst, single = Rig(), Rig()
    for rig in (burst, single):
        if unlocked:
            rig.unlock()
        rig.write(Register.CR, CR_PG | psize)
    burst.flash.program_burst(start, data)
    for position in range(0, len(data), width):
        single.flash.program_word(start + position, data[position : position + width])
    for rig in (burst, single):
        rig.pass_time(rig.memory.remaining_ns)
    assert burst.memory.read(0, 128) == single.memory.read(0, 128)
    if data:
        assert burst.read(Register.SR) == single.read(Register.SR)
        assert burst.clock.now_ns == single.clock.now_ns


@pytest.mark.parametrize(("start", "length"), [(2, 8), (0, 6)])
def test_an_unaligned_burst_is_refused(rig: Rig, start: int, length: int) -> None:
    rig.unlock()
    rig.write(Register.CR, CR_PG | X32)
    rig.flash.program_burst(start, bytes(length))
    assert rig.errors() == SR_PGPERR
    assert not rig.operations


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*range(0x18)]),
            st.sampled_from([1, 2, 4]),
            st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([KEY1, KEY2, OPTKEY1, OPTKEY2])),
        ),
        max_size=20,
    )
)
@settings(deadline=None)
def test_no_sequence_of_register_writes_breaks_the_model(
    writes: list[tuple[int, int, int]],
) -> None:
    rig = Rig()
    for offset, width, value in writes:
        rig.flash.write(offset, width, value & ((1 << 8 * width) - 1))
        assert 0 <= rig.flash.read(offset, width) < 1 << 8 * width


def test_cells_of_another_chip_are_refused() -> None:
    geometry = FlashGeometry.of(4096, page_size=256)
    memory = FlashMemory("small", geometry, Clock(), bytearray(4096))
    with pytest.raises(InvalidArgumentError, match="12 sectors"):
        InternalFlash(memory, lambda _duration_ns: None)


def test_a_reset_ends_what_hangs_and_until_then_no_write_is_taken(rig: Rig) -> None:
    rig.unlock()
    rig.write(Register.CR, CR_SER | X32 | CR_STRT)
    rig.memory.hang()
    before_ns = rig.clock.now_ns
    rig.write(Register.CR, CR_LOCK)
    rig.write(Register.OPTCR, 0)
    rig.flash.program_word(0x20000, bytes(4))
    assert rig.clock.now_ns == before_ns, "nothing waits for what never comes"
    assert rig.read(Register.SR) == SR_BSY
    assert not rig.read(Register.CR) & CR_LOCK
    rig.flash.reset()
    assert rig.read(Register.SR) == 0
    assert rig.read(Register.CR) == CR_LOCK
    assert rig.memory.read(0x20000, 4) == b"\xff" * 4
