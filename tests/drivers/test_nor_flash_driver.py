"""The NOR driver on the modelled chip: content, commands chosen, time spent, refusals."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platforms.clock import NS_PER_MS, NS_PER_S, NS_PER_US, Clock
from platforms.devices import w25q32jv
from platforms.devices.flash_memory import OperationKind
from platforms.devices.nor_flash import SpiNorFlash
from platforms.devices.torn import TornShape
from platforms.drivers.nor_flash import NorFlashDriver
from platforms.flash import FlashDevice, FlashError
from tests.devices.memories import nor_memory, operations_of

US_PER_BYTE = 1  # at 8 MHz


class Rig:
    """Driver, chip, cells and clock; `waits` records every wait."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.memory = nor_memory(self.clock)
        self.chip = SpiNorFlash(self.memory, self.clock)
        self.waits: list[int] = []
        self.driver = NorFlashDriver(self.chip, self.wait)
        self.operations = operations_of(self.memory)

    def wait(self, duration_ns: int) -> None:
        self.waits.append(duration_ns)
        self.clock.advance_to(self.clock.now_ns + duration_ns)

    def send(self, command: str) -> None:
        self.chip.chip_select(active=True)
        self.chip.exchange(bytes.fromhex(command))
        self.chip.chip_select(active=False)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_it_is_a_flash_device(rig: Rig) -> None:
    device: FlashDevice = rig.driver
    assert device.name == "nor"
    assert device.geometry.size == 4 * 1024 * 1024


@settings(deadline=None)
@given(st.integers(0, 2000), st.integers(0, 1200), st.randoms(use_true_random=False))
def test_what_is_programmed_is_read_back(address: int, length: int, rng: random.Random) -> None:
    rig = Rig()
    data = rng.randbytes(length)
    rig.driver.program(address, data)
    assert rig.driver.read(address, len(data)) == data
    assert rig.memory.read(0, address) == b"\xff" * address
    assert rig.memory.read(address + len(data), 300) == b"\xff" * 300
    for operation in rig.operations:
        assert operation.address // 256 == (operation.address + operation.length - 1) // 256


def test_programming_needs_no_more_waits_than_pages(rig: Rig) -> None:
    rig.driver.read(0, 1)
    rig.waits.clear()
    start_ns = rig.clock.now_ns
    rig.driver.program(0x80, bytes(512))
    assert [(operation.address, operation.length) for operation in rig.operations] == [
        (0x80, 128),
        (0x100, 256),
        (0x200, 128),
    ]
    assert len(rig.waits) == 3
    # Each page: the status poll before, write enable, poll, command, address and data.
    bus_us = sum(2 + 1 + 2 + 4 + length for length in (128, 256, 128)) * US_PER_BYTE
    assert rig.clock.now_ns - start_ns == 3 * 400 * NS_PER_US + bus_us * NS_PER_US


def test_reading_takes_the_time_of_the_bus(rig: Rig) -> None:
    rig.driver.read(0, 1)
    start_ns = rig.clock.now_ns
    rig.driver.read(0x1000, 65536)
    assert rig.clock.now_ns - start_ns == (2 + 4 + 65536) * US_PER_BYTE * NS_PER_US


@pytest.mark.parametrize(
    ("address", "length", "sizes"),
    [
        (0x0000, 0x1000, [0x1000]),
        (0x0000, 0x8000, [0x8000]),
        (0x0000, 0x10000, [0x10000]),
        (0x8000, 0x8000, [0x8000]),
        (0x4000, 0x8000, [0x1000] * 8),
        (0x7000, 0x1A000, [0x1000, 0x8000, 0x10000, 0x1000]),
        (0x10000, 0x30000, [0x10000] * 3),
        (0x3FF000, 0x1000, [0x1000]),
        (0x1000, 0, []),
    ],
)
def test_an_erase_uses_the_largest_commands_that_fit(
    rig: Rig, address: int, length: int, sizes: list[int]
) -> None:
    rig.driver.erase(address, length)
    assert [operation.length for operation in rig.operations] == sizes
    assert sum(rig.memory.wear) == length // 0x1000
    covered = [at for at, wear in enumerate(rig.memory.wear) if wear]
    assert covered == list(range(address // 0x1000, (address + length) // 0x1000))


def test_an_erase_takes_its_typical_time(rig: Rig) -> None:
    rig.driver.erase(0, 0x10000)
    assert 150 * NS_PER_MS < rig.clock.now_ns < 151 * NS_PER_MS


@pytest.mark.parametrize(
    ("address", "length"), [(0x800, 0x1000), (0, 0x800), (0, 1), (0x3FF000, 0x2000), (-0x1000, 0)]
)
def test_an_erase_off_sector_bounds_or_outside_is_refused(
    rig: Rig, address: int, length: int
) -> None:
    with pytest.raises(FlashError) as error:
        rig.driver.erase(address, length)
    assert (error.value.address, error.value.length) == (address, length)
    assert not rig.operations


def test_reading_and_programming_outside_the_device_is_refused(rig: Rig) -> None:
    with pytest.raises(FlashError, match="outside the device"):
        rig.driver.read(w25q32jv.SIZE - 1, 2)
    with pytest.raises(FlashError, match="outside the device"):
        rig.driver.program(-1, b"\x00")
    assert rig.clock.now_ns == 0


@pytest.fixture
def protected_rig(rig: Rig) -> Rig:
    """The uppermost 64 KB are write-protected."""
    rig.send("06")
    rig.send("01 04")
    rig.wait(10 * NS_PER_MS)
    rig.operations.clear()
    return rig


def test_erasing_a_write_protected_range_is_an_error(protected_rig: Rig) -> None:
    with pytest.raises(FlashError, match=r"0x3f0000.*refused command 20h: write-protected"):
        protected_rig.driver.erase(0x3F0000, 0x1000)
    assert not protected_rig.operations
    protected_rig.driver.erase(0x3E0000, 0x1000)


def test_programming_stops_at_the_page_that_is_write_protected(protected_rig: Rig) -> None:
    with pytest.raises(FlashError, match=r"0x3f0000.*refused command 02h: write-protected"):
        protected_rig.driver.program(0x3F0000 - 4, bytes(8))
    assert protected_rig.memory.read(0x3F0000 - 4, 8) == bytes(4) + b"\xff" * 4


def test_a_chip_left_asleep_by_the_last_firmware_is_woken(rig: Rig) -> None:
    rig.send("b9")
    rig.driver.program(0, b"\x12")
    assert rig.driver.read(0, 1) == b"\x12"


def test_an_operation_left_over_from_before_a_reset_is_waited_for(rig: Rig) -> None:
    rig.send("06")
    rig.send("d8 000000")
    assert rig.driver.read(0, 1) == b"\xff"
    assert 150 * NS_PER_MS <= rig.clock.now_ns < 153 * NS_PER_MS
    rig.driver.program(0, b"\x12")
    assert [operation.kind for operation in rig.operations] == [
        OperationKind.ERASE,
        OperationKind.PROGRAM,
    ]


class Nobody:
    """An SPI bus with no chip: the line stays at one level."""

    def __init__(self, level: int) -> None:
        self._level = level

    def chip_select(self, active: bool) -> None:
        pass

    def exchange(self, data: bytes) -> bytes:
        return bytes([self._level]) * len(data)


def test_a_missing_chip_on_a_pulled_up_bus_is_an_error_in_bounded_time() -> None:
    clock = Clock()
    driver = NorFlashDriver(
        Nobody(0xFF), lambda duration_ns: clock.advance_to(clock.now_ns + duration_ns)
    )
    with pytest.raises(FlashError, match="powered and connected"):
        driver.read(0, 16)
    assert 50 * NS_PER_S <= clock.now_ns < 51 * NS_PER_S


def test_a_missing_chip_on_a_grounded_bus_is_an_error() -> None:
    driver = NorFlashDriver(Nobody(0x00), lambda _duration_ns: None)
    with pytest.raises(FlashError, match="write enable"):
        driver.program(0, b"\x00")


class StuckChip:
    """Passes everything to a chip, but once told to stick it claims to be busy for ever."""

    def __init__(self, chip: SpiNorFlash) -> None:
        self._chip = chip
        self._stuck = False

    def chip_select(self, active: bool) -> None:
        self._chip.chip_select(active)

    def exchange(self, data: bytes) -> bytes:
        answer = self._chip.exchange(data)
        if data[0] == 0x02:
            self._stuck = True
        return b"\xff\x03" if self._stuck and data[0] == 0x05 else answer


def test_an_operation_that_never_ends_is_given_up_at_the_data_sheets_maximum(rig: Rig) -> None:
    driver = NorFlashDriver(StuckChip(rig.chip), rig.wait, name="stuck")
    with pytest.raises(FlashError, match=r"stuck at 0x000100.*still busy after 3 ms.*02h"):
        driver.program(0x100, b"\x00")
    assert 3 * NS_PER_MS < rig.clock.now_ns < 4 * NS_PER_MS


class ResetError(Exception):
    pass


def test_a_reset_while_waiting_passes_through(rig: Rig) -> None:
    def reset(_duration_ns: int) -> None:
        raise ResetError

    rig.driver.read(0, 1)
    driver = NorFlashDriver(rig.chip, reset)
    with pytest.raises(ResetError):
        driver.erase(0, 0x1000)


@pytest.mark.parametrize("act", ["read", "program", "erase"])
def test_a_chip_that_hangs_is_given_up_until_its_supply_is_cycled(rig: Rig, act: str) -> None:
    rig.memory.hang()
    acts = {
        "read": lambda driver: driver.read(0, 4),
        "program": lambda driver: driver.program(0, bytes(4)),
        "erase": lambda driver: driver.erase(0, 0x1000),
    }
    for driver in (rig.driver, NorFlashDriver(rig.chip, rig.wait)):  # after a reset: no cure
        start_ns = rig.clock.now_ns
        with pytest.raises(FlashError, match="busy for 50 s"):
            acts[act](driver)
        assert 50 * NS_PER_S <= rig.clock.now_ns - start_ns < 51 * NS_PER_S
    assert not rig.operations
    rig.chip.power_lost(TornShape.NOTHING, 1)
    rig.chip.power_on()
    acts[act](rig.driver)


@pytest.mark.parametrize(
    ("act", "given_up_ns"), [("program", 3 * NS_PER_MS), ("erase", 400 * NS_PER_MS)]
)
def test_an_operation_that_hangs_is_given_up_too(rig: Rig, act: str, given_up_ns: int) -> None:
    rig.memory.on_operation.append(lambda _operation: rig.memory.hang())
    acts = {
        "program": lambda: rig.driver.program(0, bytes(4)),
        "erase": lambda: rig.driver.erase(0, 0x1000),
    }
    with pytest.raises(FlashError, match="still busy after"):
        acts[act]()
    # What the polls take on the bus comes on top.
    assert given_up_ns <= rig.clock.now_ns <= given_up_ns * 11 // 10 + NS_PER_MS
