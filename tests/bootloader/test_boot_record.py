import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootloader_model.boot_record import (
    HEADER,
    RECORD,
    RECORD_MAGIC,
    RECORD_SIZE,
    SLOT,
    RecordError,
    RecordProblem,
    build_record,
    check_record,
    parse_record,
    record_sequence,
)
from bootloader_model.boot_state import (
    BootFlag,
    BootState,
    Slot,
    SlotConfiguration,
    SlotFlag,
    SlotState,
)
from bootloader_model.layout import DEFAULT_SLOTS
from bootloader_model.provisioning import initial_state
from platforms.errors import InvalidArgumentError

U32 = st.integers(0, 2**32 - 1)


def sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


def real_record() -> bytes:
    """As a device writes it, put together by hand from the format's description."""
    word = "{:08x}".format

    def little(value: int) -> bytes:
        return bytes.fromhex(word(value))[::-1]

    body = b"MOS1" + little(7) + little(1) + bytes([4, 1, 0]) + little(0x0E)
    for flags, app, address, fs, length, origin, crc, errors in (
        (3, b"app0", 0x08010000, b"fs0", 4812, 0x08010000, 0x11223344, 0),
        (3, b"app1", 0, b"fs1", 5000, 0x08010000, 0x55667788, 2),
        # strcpy of an empty name leaves what stood behind the NUL.
        (3, b"appT", 0, b"\0s1", 0, 0, 0, 0),
        (1, b"appF", 0, b"fsF", 0, 0, 0, 0),
        (0, b"", 0, b"", 0, 0, 0, 0),
    ):
        body += little(flags) + app.ljust(8, b"\0") + little(address) + fs.ljust(8, b"\0")
        body += little(length) + little(origin) + little(crc) + little(0) + bytes([errors])
    assert len(body) == 224
    return sealed(body + b"\xff" * 28)


SLOTS = st.builds(
    Slot,
    st.builds(
        SlotConfiguration,
        U32.map(SlotFlag),
        st.binary(min_size=8, max_size=8),
        U32,
        st.binary(min_size=8, max_size=8),
    ),
    st.builds(SlotState, U32, U32, U32, U32, st.integers(0, 255)),
)
STATES = st.builds(
    BootState,
    seq=U32,
    version=U32,
    active_slot=st.integers(-128, 127),
    revert_slot=st.integers(-128, 127),
    flags=U32.map(BootFlag),
    slots=st.lists(SLOTS, min_size=1, max_size=5).map(tuple),
    commit_timeout=st.none() | U32,
)


def test_the_format_has_the_documented_sizes() -> None:
    assert HEADER.sizeof() == 19
    assert SLOT.sizeof() == 41
    assert RECORD.sizeof() == RECORD_SIZE == 256


def test_a_real_record_says_what_it_says() -> None:
    state = parse_record(real_record())
    assert (state.seq, state.version) == (7, 1)
    assert (state.active_slot, state.revert_slot) == (1, 0)
    assert state.flags == BootFlag.FIRST_BOOT_A | BootFlag.FIRST_BOOT_B | BootFlag.MERGE_FS
    assert not state.is_committed
    assert state.commit_timeout is None
    assert len(state.slots) == 4
    configuration, image = state.slots[0].configuration, state.slots[0].state
    assert configuration.flags == SlotFlag.VALID | SlotFlag.WRITEABLE
    assert (configuration.app_dev, configuration.fs_dev) == ("app0", "fs0")
    assert configuration.app_map_addr == 0x08010000
    assert (image.app_len, image.app_org, image.app_crc32) == (4812, 0x08010000, 0x11223344)
    assert state.slots[0].is_directly_bootable
    assert not state.slots[1].is_directly_bootable
    assert state.slots[1].state.err_count == 2
    assert state.slots[2].configuration.fs_dev == ""
    # Linked for 0 and mapped nowhere: equal numbers, but not bootable.
    assert not state.slots[2].is_directly_bootable


def test_a_real_record_is_built_to_the_same_bytes() -> None:
    assert build_record(parse_record(real_record())) == real_record()


@given(STATES)
def test_what_is_built_is_parsed_to_the_same_state(state: BootState) -> None:
    assert parse_record(build_record(state)) == state


@given(st.binary(min_size=240, max_size=240), st.integers(1, 5), st.binary(max_size=28))
def test_any_record_with_a_right_crc_is_built_to_the_same_bytes(
    rest: bytes, num_slots: int, padding: bytes
) -> None:
    body = RECORD_MAGIC.to_bytes(4, "little") + rest[:8] + bytes([num_slots]) + rest[9:]
    body = (body[: 252 - len(padding)] + padding).ljust(252, b"\xff")
    raw = sealed(body)
    assert check_record(raw) is None
    assert build_record(parse_record(raw)) == raw
    assert record_sequence(raw) == parse_record(raw).seq


def test_the_commit_timeout_survives_and_shares_the_padding_with_nothing_else() -> None:
    state = replace(parse_record(real_record()), commit_timeout=0xFFFFFFFF)
    raw = build_record(state)
    assert raw[:224] == real_record()[:224]
    assert raw[224:232] == b"OTCT\xff\xff\xff\xff"
    assert raw[232:252] == b"\xff" * 20
    assert parse_record(raw) == state
    assert build_record(replace(state, commit_timeout=None)) == real_record()


@pytest.mark.parametrize("length", [0, 1, 255, 257])
def test_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(RecordError, match="expected 256") as caught:
        parse_record(real_record().ljust(300, b"\0")[:length])
    assert caught.value.problem is RecordProblem.TRUNCATED


def test_an_erased_record_is_called_erased() -> None:
    error = check_record(b"\xff" * 256)
    assert error is not None
    assert error.problem is RecordProblem.ERASED


def test_every_single_flipped_bit_is_noticed() -> None:
    raw = real_record()
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        error = check_record(bytes(flipped))
        assert error is not None
        expected = RecordProblem.BAD_MAGIC if bit < 32 else RecordProblem.BAD_CRC
        assert error.problem is expected


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(raw: bytes) -> None:
    with pytest.raises(RecordError):
        parse_record(raw)


@pytest.mark.parametrize("num_slots", [0, 6, 255])
def test_an_impossible_number_of_slots_is_refused_in_spite_of_a_right_crc(num_slots: int) -> None:
    raw = bytearray(real_record()[:252])
    raw[12] = num_slots
    with pytest.raises(RecordError, match="expected 1 to 5") as caught:
        parse_record(sealed(bytes(raw)))
    assert caught.value.problem is RecordProblem.IMPLAUSIBLE


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 2**32},
        {"active_slot": 128},
        {"commit_timeout": -1},
        {"slots": ()},
        {"slots": DEFAULT_SLOTS * 2},
        {"padding": b""},
        {"unused_slots": b"\0"},
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object]) -> None:
    state = initial_state(b"image")
    with pytest.raises(InvalidArgumentError, match="boot state record"):
        build_record(replace(state, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["eight678", "caf\u00e9", "a\0b"])
def test_device_names_that_cannot_be_stored_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="at most 7 ASCII"):
        SlotConfiguration.of(SlotFlag.VALID, name)


def test_a_name_of_noise_is_shown_and_kept() -> None:
    configuration = SlotConfiguration(SlotFlag.VALID, b"\x80pp45678", 0, b"\0" * 8)
    assert configuration.app_dev == "\\x80pp45678"
