"""The SPI NOR flash on its bus: what it answers, what it executes, what it ignores."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platforms.clock import NS_PER_MS, NS_PER_S, NS_PER_US, Clock
from platforms.devices import w25q32jv
from platforms.devices.flash_memory import FlashMemory, FlashOperation, OperationKind
from platforms.devices.nor_flash import SpiNorFlash
from platforms.devices.sfdp import build_sfdp
from platforms.devices.torn import TornShape
from platforms.errors import InvalidArgumentError
from platforms.flash import FlashGeometry
from tests.devices.memories import nor_memory, operations_of

BUSY, WEL = 1, 2


def bytes_up_to(most: int, least: int = 0) -> st.SearchStrategy[bytes]:
    """Bytes of evenly spread lengths; plain `st.binary` is mostly short."""
    return st.integers(least, most).flatmap(lambda n: st.binary(min_size=n, max_size=n))


class Rig:
    """The chip, its cells and a clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.memory = nor_memory(self.clock)
        self.chip = SpiNorFlash(self.memory, self.clock, unique_id=b"\x01\x23\x45\x67\x89\xab\xcd")
        self.operations = operations_of(self.memory)

    def send(self, command: str, read: int = 0) -> bytes:
        """One transaction: hexadecimal bytes out, then `read` bytes in."""
        data = bytes.fromhex(command)
        self.chip.chip_select(active=True)
        answer = self.chip.exchange(data + bytes(read))
        self.chip.chip_select(active=False)
        return answer[len(data) :]

    def pass_time(self, duration_ns: int) -> None:
        self.clock.advance_to(self.clock.now_ns + duration_ns)

    def status(self, opcode: str = "05") -> int:
        return self.send(opcode, 1)[0]

    def change(self, command: str) -> None:
        """A command with its write enable, to its end."""
        self.send("06")
        self.send(command)
        self.pass_time(self.memory.remaining_ns)

    def content(self, address: int, length: int) -> bytes:
        return self.memory.read(address, length)


def test_identification() -> None:
    rig = Rig()
    assert rig.send("9f", 3).hex() == "ef4016"
    assert rig.send("90 000000", 5).hex() == "ef15ef15ef"
    assert rig.send("90 000001", 4).hex() == "15ef15ef"
    assert rig.send("ab ffffff", 3).hex() == "151515"
    assert rig.send("4b ffffffff", 8).hex() == "0123456789abcdff"


@pytest.mark.parametrize(
    "command", ["9f", "90 000000", "90 000001", "ab", "4b 00000000", "5a 0000fe 00", "03 3ffffe"]
)
def test_answers_are_the_same_byte_by_byte(command: str) -> None:
    rig = Rig()
    whole = rig.send(command, 12)
    rig.chip.chip_select(active=True)
    rig.chip.exchange(bytes.fromhex(command))
    assert b"".join(rig.chip.exchange(b"\x00") for _ in range(12)) == whole


@pytest.mark.parametrize("address", [0x00, 0x80, 0xFE])
def test_sfdp_wraps_in_its_256_bytes(address: int) -> None:
    table = build_sfdp()
    answer = Rig().send(f"5a 0000{address:02x} 00", 300)
    assert answer == (table * 3)[address : address + 300]


def test_reads_of_the_array_and_where_they_wrap() -> None:
    rig = Rig()
    rig.change("02 000000 a1a2")
    rig.change("02 3fffff b1")
    assert rig.send("03 3ffffe", 4).hex() == "ffb1a1a2"
    assert rig.send("0b 3ffffe 00", 4).hex() == "ffb1a1a2"
    assert rig.send("03 fffffe", 4).hex() == "ffb1a1a2", "the upper two address bits do not count"


def test_reading_more_than_the_chip_holds_goes_round() -> None:
    rig = Rig()
    rig.change("02 000000 a1")
    answer = rig.send("03 000000", 2 * w25q32jv.SIZE + 1)
    assert [index for index, byte in enumerate(answer) if byte != 0xFF] == [
        0,
        w25q32jv.SIZE,
        2 * w25q32jv.SIZE,
    ]


def test_nobody_answers_without_chip_select() -> None:
    rig = Rig()
    assert rig.chip.exchange(b"\x9f\x00\x00") == b"\xff\xff\xff"


def test_page_program_clears_bits_takes_its_time_and_clears_the_latch() -> None:
    rig = Rig()
    rig.send("06")
    assert rig.status() == WEL
    rig.send("02 000010 f00f")
    assert rig.operations == [
        FlashOperation(0, "nor", OperationKind.PROGRAM, 0x10, 2, b"\xf0\x0f", 0, 400 * NS_PER_US, 2)
    ]
    rig.pass_time(400 * NS_PER_US - 1)
    assert rig.status() == BUSY | WEL
    rig.pass_time(1)
    assert rig.status() == 0
    rig.change("02 000010 3c")
    assert rig.content(0xF, 4).hex() == "ff300fff"


@pytest.mark.parametrize("command", ["02 000000 00", "20 000000", "52 000000", "d8 000000", "c7"])
def test_without_the_latch_nothing_is_executed(command: str) -> None:
    rig = Rig()
    rig.send(command)
    rig.send("06")
    rig.send("04")
    rig.send(command)
    assert not rig.operations
    assert rig.status() == 0


@settings(deadline=None)
@given(st.integers(0, 255), bytes_up_to(700, least=1))
def test_page_program_wraps_in_the_page_and_the_latest_bytes_count(
    column: int, data: bytes
) -> None:
    rig = Rig()
    rig.change(f"02 0012{column:02x} {data.hex()}")
    expected = [0xFF] * 256
    for index, byte in enumerate(data):
        expected[(column + index) % 256] = byte
    assert list(rig.content(0x1200, 256)) == expected
    assert rig.content(0x1100, 256) == rig.content(0x1300, 256) == b"\xff" * 256


@pytest.mark.parametrize(
    ("opcode", "size", "milliseconds"),
    [("20", 0x1000, 45), ("52", 0x8000, 120), ("d8", 0x10000, 150)],
)
def test_an_erase_covers_what_holds_its_address(opcode: str, size: int, milliseconds: int) -> None:
    rig = Rig()
    rig.send("06")
    rig.send(f"{opcode} 123456")
    [operation] = rig.operations
    assert operation.kind is OperationKind.ERASE
    assert operation.address == 0x123456 // size * size
    assert (operation.length, operation.duration_ns) == (size, milliseconds * NS_PER_MS)
    assert sum(rig.memory.wear) == size // 0x1000


@pytest.mark.parametrize("opcode", ["c7", "60"])
def test_chip_erase(opcode: str) -> None:
    rig = Rig()
    rig.change("02 123456 00")
    rig.change(opcode)
    assert rig.content(0x123456, 1) == b"\xff"
    assert rig.operations[-1].duration_ns == 10 * NS_PER_S
    assert list(rig.memory.wear) == [1] * 1024


@pytest.mark.parametrize(
    "command",
    [
        "02",
        "02 0000",
        "02 000000",  # no data
        "20 0000",
        "20 000000 00",
        "52 000000 00",
        "d8 000000 00",
        "c7 00",
        "60 00",
        "01",
        "01 000000",
        "31 0000",
        "11 0000",
    ],
)
def test_incomplete_and_overlong_instructions_are_not_executed(command: str) -> None:
    rig = Rig()
    rig.send("06")
    rig.send(command)
    assert not rig.operations
    assert rig.status() == WEL


@pytest.mark.parametrize("command", ["06 00", "04 00", "b9 00"])
def test_one_byte_instructions_with_more_bytes_are_not_executed(command: str) -> None:
    rig = Rig()
    rig.send("06")
    before = rig.status()
    if command == "06 00":
        rig.send("04")
        before = 0
    rig.send(command)
    assert rig.status() == before
    assert rig.send("9f", 1) == b"\xef"


def test_while_busy_only_the_status_registers_answer() -> None:
    rig = Rig()
    rig.send("06")
    rig.send("20 000000")
    assert rig.status() == BUSY | WEL
    assert rig.status("35") == 0x02
    assert rig.status("15") == 0x60
    for command in ("9f", "03 000000", "0b 000000 00", "5a 000000 00", "90 000000", "ab 000000"):
        assert rig.send(command, 3) == b"\xff\xff\xff"
    for command in ("04", "06", "02 000000 00", "20 001000", "01 fc", "b9"):
        rig.send(command)
    assert len(rig.operations) == 1
    rig.pass_time(45 * NS_PER_MS)
    assert rig.status() == 0


def test_an_instruction_begun_while_busy_stays_ignored() -> None:
    rig = Rig()
    rig.send("06")
    rig.send("02 000000 00")
    rig.chip.chip_select(active=True)
    rig.chip.exchange(b"\x9f")
    rig.pass_time(NS_PER_MS)
    assert rig.chip.exchange(b"\x00\x00\x00") == b"\xff\xff\xff"
    rig.chip.chip_select(active=False)


def test_the_status_register_can_be_polled_in_one_transaction() -> None:
    rig = Rig()
    rig.send("06")
    rig.send("02 000000 00")
    rig.chip.chip_select(active=True)
    assert rig.chip.exchange(b"\x05\x00\x00")[1:] == b"\x03\x03"
    rig.pass_time(400 * NS_PER_US)
    assert rig.chip.exchange(b"\x00") == b"\x00"


def test_an_operation_starts_when_chip_select_is_released() -> None:
    rig = Rig()
    rig.send("06")
    rig.chip.chip_select(active=True)
    rig.chip.exchange(bytes.fromhex("02 000000 00"))
    rig.pass_time(NS_PER_MS)
    assert not rig.operations
    rig.chip.chip_select(active=False)
    assert rig.operations[0].start_ns == NS_PER_MS
    rig.chip.chip_select(active=False)
    assert len(rig.operations) == 1


@pytest.mark.parametrize(
    ("command", "protected"),
    [
        ("02 3f0000 00", True),
        ("02 3eff00 00", False),
        ("20 3f0000", True),
        ("20 3ef000", False),
        ("d8 3f0000", True),
        ("52 3e8000", False),
        ("c7", True),
    ],
)
def test_block_protection(command: str, protected: bool) -> None:
    rig = Rig()
    rig.change("01 04")  # the uppermost 64 KB
    assert rig.status() == 0x04
    rig.send("06")
    rig.send(command)
    assert (len(rig.operations) == 1) == protected, "the status write is the first operation"
    assert rig.status() & WEL, "set while busy, and set when refused"


def test_status_registers_take_10_ms_and_survive_power_off() -> None:
    rig = Rig()
    rig.send("06")
    rig.send("01 8c 41")
    assert rig.operations[0].kind is OperationKind.WRITE_STATUS
    assert rig.operations[0].duration_ns == 10 * NS_PER_MS
    assert rig.status() & BUSY
    rig.pass_time(10 * NS_PER_MS)
    assert (rig.status(), rig.status("35")) == (0x8C, 0x43)
    rig.chip.power_lost(TornShape.NOTHING, 1)
    rig.chip.power_on()
    assert (rig.status(), rig.status("35")) == (0x8C, 0x42), "SRL falls with the power"


def test_one_byte_of_01h_leaves_register_2_alone() -> None:
    rig = Rig()
    rig.change("31 40")
    rig.change("01 04")
    assert (rig.status(), rig.status("35")) == (0x04, 0x42)
    rig.change("11 e4")
    assert rig.status("15") == 0xE4


def test_volatile_status_writes_take_no_time_and_are_gone_at_power_off() -> None:
    rig = Rig()
    rig.send("50")
    rig.send("01 1c")
    assert rig.status() == 0x1C
    assert not rig.operations
    rig.send("01 00")
    assert rig.status() == 0x1C, "50h counts for one write only"
    rig.chip.power_lost(TornShape.NOTHING, 1)
    rig.chip.power_on()
    assert rig.status() == 0


def test_srl_locks_the_status_registers_until_the_next_power_cycle() -> None:
    rig = Rig()
    rig.change("31 01")
    rig.change("01 04")
    rig.send("50")
    rig.send("01 04")
    rig.send("66")
    rig.send("99")
    rig.pass_time(30 * NS_PER_US)
    rig.change("01 04")
    assert (rig.status() & 0x04, rig.status("35")) == (0, 0x03)
    rig.chip.power_lost(TornShape.NOTHING, 1)
    rig.chip.power_on()
    rig.change("01 04")
    assert rig.status() == 0x04


def test_a_torn_status_write_shows_after_power_on() -> None:
    rig = Rig()
    rig.send("06")
    rig.send("01 fc 40")
    rig.pass_time(5 * NS_PER_MS)
    rig.chip.power_lost(TornShape.PREFIX, 1)
    rig.chip.power_on()
    assert (rig.status(), rig.status("35")) == (0xFC, 0x02)


def test_power_down_ignores_all_but_its_release() -> None:
    rig = Rig()
    rig.send("b9")
    assert rig.send("9f", 3) == b"\xff\xff\xff"
    assert rig.send("05", 1) == b"\xff"
    rig.send("06")
    rig.send("66")
    rig.send("99")
    rig.send("ab")
    rig.pass_time(3 * NS_PER_US - 1)
    assert rig.send("9f", 3) == b"\xff\xff\xff"
    rig.pass_time(1)
    assert rig.send("9f", 3).hex() == "ef4016"
    assert rig.status() == 0, "the write enable in power-down was ignored"


def test_releasing_power_down_while_reading_the_device_id() -> None:
    rig = Rig()
    rig.send("b9")
    assert rig.send("ab 000000", 1) == b"\x15"
    rig.pass_time(1_799)
    assert rig.status() == 0xFF
    rig.pass_time(1)
    assert rig.status() == 0


def test_software_reset_clears_volatile_state_and_takes_30_us() -> None:
    rig = Rig()
    rig.send("50")
    rig.send("01 1c")
    rig.send("06")
    rig.send("66")
    rig.send("99")
    rig.pass_time(30 * NS_PER_US - 1)
    assert rig.status() == 0xFF
    rig.pass_time(1)
    assert rig.status() == 0


@pytest.mark.parametrize("between", ["05", "00", "06", "66 00", "9f 000000"])
def test_software_reset_must_follow_its_enable_directly(between: str) -> None:
    rig = Rig()
    rig.send("50")
    rig.send("01 1c")
    rig.send("66")
    rig.send(between)
    rig.send("99")
    rig.pass_time(30 * NS_PER_US)
    assert rig.status() & 0x1C == 0x1C


def test_software_reset_during_an_operation_tears_it() -> None:
    rig = Rig()
    rig.change(f"02 000000 {'00' * 256}")
    rig.send("06")
    rig.send("20 000000")
    rig.pass_time(22_500_000)
    rig.send("66")
    rig.send("99")
    rig.pass_time(30 * NS_PER_US)
    assert rig.status() == 0
    content = rig.content(0, 256)
    assert content not in (bytes(256), b"\xff" * 256)


def test_a_processor_reset_leaves_the_operation_running() -> None:
    rig = Rig()
    rig.send("06")
    rig.send("20 000000")
    rig.chip.chip_select(active=False)
    assert rig.status() == BUSY | WEL


def test_power_loss_tears_the_operation_and_silences_the_chip() -> None:
    rig = Rig()
    rig.send("06")
    rig.send(f"02 000000 {'00' * 8}")
    rig.pass_time(100 * NS_PER_US)
    rig.chip.power_lost(TornShape.PREFIX, 1)
    assert rig.content(0, 8) == bytes(2) + b"\xff" * 6
    assert rig.send("9f", 3) == b"\xff\xff\xff"
    rig.chip.power_on()
    assert rig.send("9f", 3).hex() == "ef4016"
    assert rig.status() == 0


def test_power_loss_forgets_a_half_sent_instruction() -> None:
    rig = Rig()
    rig.send("06")
    rig.chip.chip_select(active=True)
    rig.chip.exchange(bytes.fromhex("02 000000 00"))
    rig.chip.power_lost(TornShape.NOTHING, 1)
    rig.chip.power_on()
    rig.chip.chip_select(active=False)
    assert not rig.operations


@pytest.mark.parametrize("opcode", ["00", "3b", "75", "7a", "ff"])
def test_unknown_instructions_are_ignored(opcode: str) -> None:
    rig = Rig()
    rig.send("06")
    assert rig.send(f"{opcode} 000000", 4) == b"\xff" * 4
    assert rig.status() == WEL
    assert not rig.operations


def test_cells_of_another_chip_are_refused() -> None:
    geometry = FlashGeometry.of(4096, page_size=256)
    memory = FlashMemory("small", geometry, Clock(), bytearray(4096))
    with pytest.raises(InvalidArgumentError, match="W25Q32JV has 0x400000 bytes"):
        SpiNorFlash(memory, Clock())


OPCODES = bytes.fromhex("01 02 03 04 05 06 0b 11 15 20 31 35 4b 50 52 5a 66 90 99 9f ab b9 d8")
transactions = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(OPCODES), st.integers(0, 255)),
        # Addresses are near each other, so that operations meet.
        st.one_of(st.just(b""), st.integers(0, 0x1200).map(lambda n: n.to_bytes(3, "big"))),
        st.one_of(st.binary(max_size=3), bytes_up_to(300)),
        st.sampled_from([0, 3_000, 400_000, 50_000_000]),
        st.booleans(),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(transactions, st.randoms(use_true_random=False))
def test_any_division_of_a_transfer_gives_the_same_result(
    script: list[tuple[int, bytes, bytes, int, bool]], rng: random.Random
) -> None:
    whole, divided = Rig(), Rig()
    for opcode, address, data, pause_ns, write_enable in script:
        message = bytes([opcode]) + address + data
        for rig in (whole, divided):
            if write_enable:
                rig.send("06")
            rig.chip.chip_select(active=True)
        answer = whole.chip.exchange(message)
        pieces = b""
        position = 0
        while position < len(message):
            count = rng.randrange(0, 8) if rng.random() < 0.5 else rng.randrange(0, 300)
            pieces += divided.chip.exchange(message[position : position + count])
            position += count
        assert pieces == answer
        assert len(answer) == len(message)
        for rig in (whole, divided):
            rig.chip.chip_select(active=False)
            rig.pass_time(pause_ns)
    assert whole.operations == divided.operations
    assert whole.status() == divided.status()
    assert whole.memory.storage == divided.memory.storage


def test_a_chip_that_hangs_is_busy_until_the_supply_is_cycled() -> None:
    rig = Rig()
    rig.send("06")
    rig.send("20 000000")
    rig.memory.hang()
    rig.pass_time(1000 * NS_PER_S)
    for command in ("04", "ab", "66", "99"):  # no instruction helps, a software reset included
        rig.send(command)
    rig.pass_time(NS_PER_S)
    assert rig.status() == BUSY | WEL
    assert rig.send("9f", 3) == b"\xff\xff\xff"
    rig.chip.power_lost(TornShape.NOTHING, 1)
    rig.chip.power_on()
    assert rig.status() == 0
    assert rig.send("9f", 3).hex() == "ef4016"
