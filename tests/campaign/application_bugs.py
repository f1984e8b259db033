"""Applications with one bug each: the shipped services, and a few lines that break one rule.

The bug is there for as long as the campaign runs. Where the loader runs the same code, it has the
bug as well: both are built from one journal, as on a real device.
"""

import zlib
from contextlib import ExitStack
from dataclasses import replace
from typing import Self
from unittest.mock import patch

from bootloader_model.boot_record import RECORD_SIZE
from bootloader_model.boot_state import NO_SLOT, BootFlag, BootState
from bootloader_model.journal import MAX_RECORDS, Journal
from bootloader_model.partition import OpenPartition
from rpc_shim import update
from rpc_shim.dispatch import Call
from rpc_shim.frame import JsonValue
from rpc_shim.services.ota import OtaService
from rpc_shim.update import _PartitionWriter


class Patched:
    """Some names exchanged for as long as this context lasts."""

    def __init__(self, *patches: tuple[object, str, object]) -> None:
        self._patches = patches
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        for owner, name, value in self._patches:
            self._undo.enter_context(patch.object(owner, name, value))
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()


# -- updates ---------------------------------------------------------------------------------------


def update_over_the_running_image() -> Patched:
    """An update is written to the slot of the application that runs."""

    def active(state: BootState, _origin: int) -> int:
        return state.active_slot

    def nothing(*_: object) -> None:
        return

    return Patched((update, "find_update_slot", active), (BootState, "_expect_writeable", nothing))


def update_not_erased() -> Patched:
    """The slot of an update is not erased when it looks blank at its start."""
    original = _PartitionWriter.__init__

    def init(writer: _PartitionWriter, partition: OpenPartition, length: int) -> None:
        original(writer, partition, length)
        if partition.read(0, 16) == b"\xff" * 16:
            writer._erase_runs = []

    return Patched((_PartitionWriter, "__init__", init))


def checksum_of_whole_pages() -> Patched:
    """The CRC in the record is that of whole pages, not of the image."""

    def verify(writer: _PartitionWriter) -> int:
        return zlib.crc32(writer.read(-(-writer.length // 256) * 256))

    return Patched((_PartitionWriter, "verify", verify))


def way_back_is_the_update() -> Patched:
    """The record of an update names the slot of the update as the way back."""
    original = BootState.update_finished

    def finished(state: BootState, slot: int, **facts: int) -> BootState:
        return replace(original(state, slot, **facts), revert_slot=slot)

    return Patched((BootState, "update_finished", finished))


def committed_when_received() -> Patched:
    """An update is committed as soon as it is in its slot."""
    original = BootState.update_finished

    def finished(state: BootState, slot: int, **facts: int) -> BootState:
        received = original(state, slot, **facts)
        return replace(received, flags=received.flags | BootFlag.COMMITTED)

    return Patched((BootState, "update_finished", finished))


def timeout_kept_in_ram() -> Patched:
    """The commit timeout is not in the record: the update takes it that there is none."""
    original = BootState.update_finished

    def finished(state: BootState, slot: int, **facts: int) -> BootState:
        return replace(original(state, slot, **facts), commit_timeout=None)

    return Patched((BootState, "update_finished", finished))


# -- commit and rollback ---------------------------------------------------------------------------


def commit_timer_not_armed() -> Patched:
    """Nobody waits for the commit."""

    def nothing(*_: object) -> None:
        return

    return Patched((OtaService, "_arm", nothing))


def commit_answered_first() -> Patched:
    """A commit is acknowledged, and recorded in the next turn of the main loop."""
    commit, turn = OtaService._commit, OtaService.turn
    due: dict[OtaService, Call] = {}

    def answer(service: OtaService, call: Call) -> JsonValue:
        due[service] = call
        return None

    def record(service: OtaService) -> None:
        call = due.pop(service, None)
        if call is not None:
            commit(service, call)
        turn(service)

    return Patched((OtaService, "_commit", answer), (OtaService, "turn", record))


def wrong_slot_committed() -> Patched:
    """A commit is recorded for the way back instead of what runs."""

    def commit(state: BootState) -> BootState:
        return state.fall_back_to(state.revert_slot)

    return Patched((BootState, "commit", commit))


def way_back_erased_before_the_commit() -> Patched:
    """A commit first frees the slot of the way back, and is recorded afterwards."""
    original = OtaService._commit

    def commit(service: OtaService, call: Call) -> JsonValue:
        state = service._boot.state
        if state.revert_slot != NO_SLOT:
            way_back = state.slots[state.revert_slot].configuration.app_dev
            service._device.partitions.open(way_back).erase(0, 0x1000)
        return original(service, call)

    return Patched((OtaService, "_commit", commit))


def snapshot_recorded_too_early() -> Patched:
    """A snapshot is on record as the way back before it is made."""
    original = OtaService._create_snapshot

    def create(service: OtaService, call: Call) -> JsonValue:
        state = service._boot.state
        early = replace(state.slots[1], state=state.slots[0].state)
        slots = (state.slots[0], early, *state.slots[2:])
        service._write(replace(state, slots=slots).set_as_revert(1, commit_timeout=None))
        service._boot._state = state
        return original(service, call)

    return Patched((OtaService, "_create_snapshot", create))


# -- the journal, which the loader shares ----------------------------------------------------------


def area_begun_without_erase() -> Patched:
    """An area is used again without being erased."""

    def write(journal: Journal, area: int, offset: int, record: bytes) -> str | None:
        partition = journal._areas[area]
        partition.program(offset, record)
        is_good = partition.read(offset, RECORD_SIZE) == record
        return None if is_good else "the record does not read back as written"

    return Patched((Journal, "_write", write))


def record_not_read_back() -> Patched:
    """A record is programmed behind the newest one, whatever is there, and not read back."""

    def place(journal: Journal) -> tuple[int, int]:
        newest = journal._newest
        if newest is None:
            return 0, 0
        number = newest.offset // RECORD_SIZE + 1
        return (newest.area, number * RECORD_SIZE) if number < MAX_RECORDS else (1 - newest.area, 0)

    def write(journal: Journal, area: int, offset: int, record: bytes) -> None:
        partition = journal._areas[area]
        if offset == 0:
            partition.erase(0, partition.size)
        partition.program(offset, record)

    return Patched((Journal, "_next_place", place), (Journal, "_write", write))


def full_area_forgotten() -> Patched:
    """When the area is full, the boot state is kept in RAM."""
    original = Journal.append

    def append(journal: Journal, state: BootState) -> BootState:
        newest = journal.newest
        if newest is not None and newest.offset >= (MAX_RECORDS - 1) * RECORD_SIZE:
            return state
        return original(journal, state)

    return Patched((Journal, "append", append))
