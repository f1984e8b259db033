"""The boot state record: 256 bytes, "MOS1", little-endian, packed; defined once, here.

Source of the format: the public boot configuration library of Mongoose OS (mgos_boot_cfg.h). A
record of a real device that is parsed and built again is the same to the byte.
"""

import zlib
from enum import Enum
from functools import lru_cache

from construct import Array, Bytes, ConstructError, Int8sl, Int8ul, Int32ul, Struct

from bootloader_model.boot_state import (
    ERASED_PADDING,
    NAME_SIZE,
    BootFlag,
    BootState,
    Slot,
    SlotConfiguration,
    SlotFlag,
    SlotState,
)
from platforms.errors import InvalidArgumentError, OtasimError

RECORD_SIZE = 256
RECORD_MAGIC = 0x31534F4D  # "MOS1" read as a little-endian word
MAX_SLOTS = 5

_SLOT_SIZE = 41
_PADDING_SIZE = len(ERASED_PADDING)

# Records and states are immutable, and the same few are read and built again and again, by a power
# cut campaign in every one of some hundred thousand boots.
_CACHED = 4096
_CRC_SIZE = 4

# The commit timeout. The original keeps it in a file of the application's file system; there is no
# such file here, and it has to survive a reset together with the state. The padding is the place:
# the record's CRC covers it, so timeout and state change in one atomic write, and the original
# loader never looks at it. The padding of real devices is 0xFF throughout, hence a marker: without
# it no timeout is stored, and no number of seconds can be mistaken for "none".
_TIMEOUT_MARKER = b"OTCT"
_TIMEOUT_SIZE = len(_TIMEOUT_MARKER) + 4

HEADER = Struct(
    "magic" / Int32ul,
    "seq" / Int32ul,
    "version" / Int32ul,
    "num_slots" / Int8ul,
    "active_slot" / Int8sl,
    "revert_slot" / Int8sl,
    "flags" / Int32ul,
)
SLOT = Struct(
    "flags" / Int32ul,
    "app_dev" / Bytes(NAME_SIZE),
    "app_map_addr" / Int32ul,
    "fs_dev" / Bytes(NAME_SIZE),
    "app_len" / Int32ul,
    "app_org" / Int32ul,
    "app_crc32" / Int32ul,
    "app_flags" / Int32ul,
    "err_count" / Int8ul,
)
RECORD = Struct(
    "header" / HEADER,
    "slots" / Array(MAX_SLOTS, Bytes(_SLOT_SIZE)),
    "padding" / Bytes(_PADDING_SIZE),
    "crc32" / Int32ul,
)


class RecordProblem(Enum):
    """Why 256 bytes are no boot state record; the value is the name people read."""

    TRUNCATED = "truncated"
    ERASED = "erased"
    BAD_MAGIC = "bad magic"
    BAD_CRC = "bad CRC"
    IMPLAUSIBLE = "implausible"


class RecordError(OtasimError):
    """These bytes are no boot state record.

    Attributes:
        problem: what is wrong with them.
    """

    def __init__(self, problem: RecordProblem, message: str) -> None:
        super().__init__(f"boot state record: {message}")
        self.problem = problem


def check_record(raw: bytes) -> RecordError | None:
    """What is wrong with a record of 256 bytes; None when it is good.

    Cheap, so that a whole journal can be gone through at every boot: slots are not looked at.
    """
    if len(raw) != RECORD_SIZE:
        return RecordError(
            RecordProblem.TRUNCATED, f"{len(raw)} bytes, expected {RECORD_SIZE}: data is missing"
        )
    if raw.count(0xFF) == RECORD_SIZE:
        return RecordError(RecordProblem.ERASED, "erased, every byte is 0xFF")
    header = HEADER.parse(raw)
    if header.magic != RECORD_MAGIC:
        return RecordError(
            RecordProblem.BAD_MAGIC, f"magic 0x{header.magic:08x}, expected 0x{RECORD_MAGIC:08x}"
        )
    stored = int.from_bytes(raw[-_CRC_SIZE:], "little")
    computed = zlib.crc32(raw[:-_CRC_SIZE])
    if stored != computed:
        return RecordError(
            RecordProblem.BAD_CRC, f"CRC-32 0x{stored:08x}, computed 0x{computed:08x}"
        )
    if not 1 <= header.num_slots <= MAX_SLOTS:
        # Nothing the original writes; a state without slots could boot nothing, and more than five
        # do not fit. Taking it for bad lets an older, sane record win.
        return RecordError(
            RecordProblem.IMPLAUSIBLE, f"{header.num_slots} slots, expected 1 to {MAX_SLOTS}"
        )
    return None


def record_sequence(raw: bytes) -> int:
    """The sequence number of a record that `check_record` found good."""
    return int(HEADER.parse(raw).seq)


@lru_cache(maxsize=_CACHED)
def parse_record(raw: bytes) -> BootState:
    """The boot state in a record of 256 bytes.

    Raises RecordError when it is not a good one. Slot numbers may still point nowhere: that is
    for those who use them to find out.
    """
    error = check_record(raw)
    if error is not None:
        raise error
    record = RECORD.parse(raw)
    header = record.header
    used = header.num_slots
    unused_slots = b"".join(record.slots[used:])
    padding: bytes = record.padding
    commit_timeout = None
    if padding.startswith(_TIMEOUT_MARKER):
        commit_timeout = int.from_bytes(padding[len(_TIMEOUT_MARKER) : _TIMEOUT_SIZE], "little")
        padding = b"\xff" * _TIMEOUT_SIZE + padding[_TIMEOUT_SIZE:]
    return BootState(
        seq=header.seq,
        version=header.version,
        active_slot=header.active_slot,
        revert_slot=header.revert_slot,
        flags=BootFlag(header.flags),
        slots=tuple(_parse_slot(entry) for entry in record.slots[:used]),
        commit_timeout=commit_timeout,
        unused_slots=unused_slots if any(unused_slots) else b"",
        padding=padding,
    )


@lru_cache(maxsize=_CACHED)
def build_record(state: BootState) -> bytes:
    """The record of 256 bytes for a boot state; the inverse of `parse_record`.

    Raises InvalidArgumentError when a value does not fit its field.
    """
    if not 1 <= len(state.slots) <= MAX_SLOTS:
        raise InvalidArgumentError(
            f"boot state record: {len(state.slots)} slots, expected 1 to {MAX_SLOTS}"
        )
    entries_left = MAX_SLOTS - len(state.slots)
    unused_slots = state.unused_slots or bytes(entries_left * _SLOT_SIZE)
    if len(unused_slots) != entries_left * _SLOT_SIZE or len(state.padding) != _PADDING_SIZE:
        raise InvalidArgumentError(
            f"boot state record: {len(unused_slots)} bytes of unused slots and"
            f" {len(state.padding)} of padding, expected {entries_left * _SLOT_SIZE}"
            f" and {_PADDING_SIZE}"
        )
    try:
        padding = state.padding
        if state.commit_timeout is not None:
            timeout = Int32ul.build(state.commit_timeout)
            padding = _TIMEOUT_MARKER + timeout + padding[_TIMEOUT_SIZE:]
        header = {
            "magic": RECORD_MAGIC,
            "seq": state.seq,
            "version": state.version,
            "num_slots": len(state.slots),
            "active_slot": state.active_slot,
            "revert_slot": state.revert_slot,
            "flags": int(state.flags),
        }
        entries = [_build_slot(slot) for slot in state.slots]
        entries += [
            unused_slots[start : start + _SLOT_SIZE]
            for start in range(0, len(unused_slots), _SLOT_SIZE)
        ]
        raw: bytes = RECORD.build(
            {"header": header, "slots": entries, "padding": padding, "crc32": 0}
        )
    except ConstructError as error:
        raise InvalidArgumentError(
            f"boot state record: a value does not fit its field: {error}"
        ) from error
    body = raw[:-_CRC_SIZE]
    return body + zlib.crc32(body).to_bytes(_CRC_SIZE, "little")


def _parse_slot(raw: bytes) -> Slot:
    entry = SLOT.parse(raw)
    return Slot(
        SlotConfiguration(SlotFlag(entry.flags), entry.app_dev, entry.app_map_addr, entry.fs_dev),
        SlotState(entry.app_len, entry.app_org, entry.app_crc32, entry.app_flags, entry.err_count),
    )


def _build_slot(slot: Slot) -> bytes:
    configuration, state = slot.configuration, slot.state
    raw: bytes = SLOT.build(
        {
            "flags": int(configuration.flags),
            "app_dev": configuration.app_dev_field,
            "app_map_addr": configuration.app_map_addr,
            "fs_dev": configuration.fs_dev_field,
            "app_len": state.app_len,
            "app_org": state.app_org,
            "app_crc32": state.app_crc32,
            "app_flags": state.app_flags,
            "err_count": state.err_count,
        }
    )
    return raw
