"""The driver of the internal flash on the modelled peripheral."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platforms.clock import NS_PER_MS, NS_PER_S, NS_PER_US, Clock
from platforms.devices import stm32f405_flash
from platforms.devices.internal_flash import (
    CR_LOCK,
    OPTCR_OPTSTRT,
    OPTKEY1,
    OPTKEY2,
    SR_PGSERR,
    InternalFlash,
    Register,
)
from platforms.drivers.internal_flash import InternalFlashDriver
from platforms.flash import FlashDevice, FlashError
from tests.devices.memories import internal_memory, operations_of


class Rig:
    """Driver, peripheral, cells and clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.memory = internal_memory(self.clock)
        self.flash = InternalFlash(self.memory, self.wait)
        self.driver = InternalFlashDriver(self.flash, self.wait)
        self.waits: list[int] = []
        self.operations = operations_of(self.memory)

    def wait(self, duration_ns: int) -> None:
        self.waits.append(duration_ns)
        self.clock.advance_to(self.clock.now_ns + duration_ns)

    def protect_sector(self, number: int) -> None:
        self.flash.write(Register.OPTKEYR, 4, OPTKEY1)
        self.flash.write(Register.OPTKEYR, 4, OPTKEY2)
        self.flash.write(Register.OPTCR, 4, (0x0FFFAAEC & ~(1 << 16 + number)) | OPTCR_OPTSTRT)
        self.wait(self.memory.remaining_ns)
        self.operations.clear()

    @property
    def locked(self) -> bool:
        return bool(self.flash.read(Register.CR, 4) & CR_LOCK)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_it_is_a_flash_device(rig: Rig) -> None:
    device: FlashDevice = rig.driver
    assert device.name == "internal"
    assert [sector.size // 1024 for sector in device.geometry.sectors] == [16] * 4 + [64] + [
        128
    ] * 7


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000), st.randoms(use_true_random=False))
def test_what_is_programmed_is_read_back(address: int, length: int, rng: random.Random) -> None:
    rig = Rig()
    data = rng.randbytes(length)
    rig.driver.program(address, data)
    assert rig.driver.read(address, len(data)) == data
    assert rig.memory.read(0, address) == b"\xff" * address
    assert rig.memory.read(address + len(data), 64) == b"\xff" * 64
    assert rig.locked


def test_programming_clears_bits_only(rig: Rig) -> None:
    rig.driver.program(1, b"\xf0")
    rig.driver.program(1, b"\x3c")
    assert rig.driver.read(0, 4) == b"\xff\x30\xff\xff"


def test_a_kilobyte_is_one_operation_of_256_words(rig: Rig) -> None:
    rig.driver.program(0x10000, bytes(2500))
    assert [(operation.length, operation.duration_ns) for operation in rig.operations] == [
        (1024, 256 * 16 * NS_PER_US),
        (1024, 256 * 16 * NS_PER_US),
        (452, 113 * 16 * NS_PER_US),
    ]
    assert rig.clock.now_ns == 625 * 16 * NS_PER_US
    assert len(rig.waits) == 3


def test_erase_covers_sectors_of_every_size(rig: Rig) -> None:
    rig.driver.program(0x10000, bytes(16))
    start_ns = rig.clock.now_ns
    rig.driver.erase(0xC000, 0x34000)
    assert list(rig.memory.wear) == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert rig.clock.now_ns - start_ns == (250 + 550 + 1000) * NS_PER_MS
    assert rig.driver.read(0x10000, 16) == b"\xff" * 16
    assert rig.locked


def test_erasing_nothing_is_nothing(rig: Rig) -> None:
    rig.driver.erase(0x10000, 0)
    rig.driver.program(0x10000, b"")
    assert not rig.operations


@pytest.mark.parametrize(
    ("address", "length"),
    [(0, 0x2000), (0x2000, 0x4000), (0x10000, 0x8000), (0x10000, 0x20000), (0xE0000, 0x40000)],
)
def test_an_erase_off_sector_bounds_is_refused(rig: Rig, address: int, length: int) -> None:
    with pytest.raises(FlashError) as error:
        rig.driver.erase(address, length)
    assert (error.value.address, error.value.length) == (address, length)
    assert not rig.operations


def test_outside_the_device_is_refused(rig: Rig) -> None:
    for action in (
        lambda: rig.driver.read(stm32f405_flash.SIZE, 1),
        lambda: rig.driver.program(stm32f405_flash.SIZE - 1, b"\x00\x00"),
        lambda: rig.driver.erase(-0x4000, 0x4000),
    ):
        with pytest.raises(FlashError, match="outside the device"):
            action()


@pytest.mark.parametrize("action", ["program", "erase"])
def test_a_write_protected_sector_is_named_in_the_error(rig: Rig, action: str) -> None:
    rig.protect_sector(4)
    actions = {
        "program": lambda: rig.driver.program(0x10000, bytes(8)),
        "erase": lambda: rig.driver.erase(0x10000, 0x10000),
    }
    with pytest.raises(FlashError, match=r"internal at 0x010000.*nWRP"):
        actions[action]()
    assert rig.locked
    assert not rig.operations
    rig.driver.program(0x20000, bytes(8))
    assert rig.driver.read(0x20000, 8) == bytes(8)


def test_flags_left_behind_by_others_are_not_taken_for_its_own(rig: Rig) -> None:
    rig.flash.program_word(0, bytes(4))
    assert rig.flash.read(Register.SR, 4) == SR_PGSERR
    rig.driver.program(0, bytes(4))
    assert rig.driver.read(0, 4) == bytes(4)


def test_an_interface_locked_by_a_wrong_key_is_an_error(rig: Rig) -> None:
    rig.flash.write(Register.KEYR, 4, 0x12345678)
    with pytest.raises(FlashError, match="a wrong key was written before"):
        rig.driver.program(0, bytes(4))


def test_an_operation_under_way_is_waited_for(rig: Rig) -> None:
    rig.memory.begin_erase(0, 0x4000, 250 * NS_PER_MS)
    rig.driver.program(0x10000, bytes(4))
    assert rig.clock.now_ns > 250 * NS_PER_MS


class ResetError(Exception):
    pass


def test_a_reset_on_the_way_passes_through_and_locks(rig: Rig) -> None:
    def reset(_duration_ns: int) -> None:
        rig.flash.reset()
        raise ResetError

    driver = InternalFlashDriver(rig.flash, reset)
    with pytest.raises(ResetError):
        driver.erase(0, 0x4000)
    assert rig.locked
    assert not rig.memory.busy


@pytest.mark.parametrize("act", ["read", "program", "erase"])
def test_a_flash_that_hangs_is_given_up(rig: Rig, act: str) -> None:
    rig.memory.hang()
    acts: dict[str, Callable[[], object]] = {
        "read": lambda: rig.driver.read(0, 4),
        "program": lambda: rig.driver.program(0, bytes(4)),
        "erase": lambda: rig.driver.erase(0, 0x4000),
    }
    with pytest.raises(FlashError, match="still busy 32000 ms"):
        acts[act]()
    assert rig.clock.now_ns == 32 * NS_PER_S, "twice the time of a mass erase"
    assert not rig.operations


@pytest.mark.parametrize(
    ("act", "given_up_ns"),
    [("program", 100 * NS_PER_US), ("erase", 2 * 250 * NS_PER_MS)],
)
def test_an_operation_that_hangs_is_given_up_at_the_data_sheets_maximum(
    rig: Rig, act: str, given_up_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = rig.flash.write

    def checked_write(offset: int, width: int, value: int) -> None:
        assert not rig.memory.busy, "a write to CR would stall the bus for ever"
        write(offset, width, value)

    monkeypatch.setattr(rig.flash, "write", checked_write)
    rig.memory.on_operation.append(lambda _operation: rig.memory.hang())
    acts = {
        "program": lambda: rig.driver.program(0, bytes(4)),
        "erase": lambda: rig.driver.erase(0, 0x4000),
    }
    with pytest.raises(FlashError, match="still busy"):
        acts[act]()
    assert given_up_ns <= rig.clock.now_ns <= given_up_ns + 20 * NS_PER_US
    rig.flash.reset()
    rig.memory.on_operation.clear()
    rig.driver.program(0x4000, bytes(4))
