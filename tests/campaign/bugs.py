"""Boot loaders with one bug each: the shipped one, and a few lines that break one rule.

A bug in a module of the loader is made by exchanging one of its names for as long as the loader
runs; the application goes on with the code as it is. What each one is caught by is in `seeded`.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from unittest.mock import patch

from bootloader_model import decision, journal, loader
from bootloader_model.boot_record import (
    RECORD_SIZE,
    RecordError,
    check_record,
    parse_record,
)
from bootloader_model.boot_state import BootFlag, BootState, Slot
from bootloader_model.decision import (
    Boot,
    CheckImage,
    CopyImage,
    Decision,
    Evidence,
    Halt,
    Plan,
    Reason,
    Step,
    WriteState,
    decide,
)
from bootloader_model.journal import MAX_RECORDS, Journal, JournalWriteError, Winner
from bootloader_model.layout import DEFAULT_LAYOUT, DEFAULT_SLOTS, FACTORY_SLOT
from bootloader_model.loader import LoaderSettings, MosLoader
from bootloader_model.partition import OpenPartition, Partitions
from bootloader_model.protocol import BootTarget, LoaderHardware
from bootloader_model.slot_access import SlotAccess
from platforms.clock import NS_PER_S
from platforms.devices.reset_cause import ResetCause

Answer = Plan | CheckImage


# What the journal remembers of an area or a place, it has found without the bug.
_UNCACHED = (
    (journal, "_scan_area", journal._scan_area.__wrapped__),
    (journal, "_scan_place", journal._scan_place.__wrapped__),
)


class Buggy:
    """The shipped loader with some names exchanged while it runs."""

    def __init__(self, *patches: tuple[object, str, object]) -> None:
        self._patches = patches

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        with ExitStack() as undo:
            for owner, name, value in self._patches:
                undo.enter_context(patch.object(owner, name, value))
            return MosLoader().boot(hardware)


def _other_plan(change: Callable[[Plan, Evidence], Plan]) -> Buggy:
    """Another plan where the loader makes one."""

    def buggy(evidence: Evidence, *, strict_original: bool = False) -> Answer:
        answer = decide(evidence, strict_original=strict_original)
        return change(answer, evidence) if isinstance(answer, Plan) else answer

    return Buggy((loader, "decide", buggy))


def _other_state(change: Callable[[BootState], BootState]) -> Buggy:
    """Decides as if the boot state were another one."""

    def buggy(evidence: Evidence, *, strict_original: bool = False) -> Answer:
        if evidence.state is not None:
            evidence = replace(evidence, state=change(evidence.state))
        return decide(evidence, strict_original=strict_original)

    return Buggy((loader, "decide", buggy))


def _without(state: BootState, flag: BootFlag) -> BootState:
    return replace(state, flags=BootFlag(int(state.flags) & ~int(flag)))


def _was_started(state: BootState) -> bool:
    """Whether it is that of an update that has been started and is not committed."""
    return not state.is_committed and BootFlag.FIRST_BOOT_B not in state.flags


def record_before_copy() -> Buggy:
    """The record that ends a swap is written before the copy that it speaks of."""

    def change(plan: Plan, _evidence: Evidence) -> Plan:
        match plan.steps:
            case (*first, CopyImage() as copy, WriteState() as write, Boot() as boot):
                return replace(plan, steps=(*first, write, copy, boot))
        return plan

    return _other_plan(change)


def backup_not_recorded() -> Buggy:
    """The way back is copied, and nothing says where to."""

    def change(plan: Plan, _evidence: Evidence) -> Plan:
        match plan.steps:
            case (CopyImage() as backup, WriteState(), *rest):
                return replace(plan, steps=(backup, *rest))
        return plan

    return _other_plan(change)


def started_copy_trusted() -> Buggy:
    """A copy that begins like its source is taken for done, to save time after a power cut."""
    original = SlotAccess.copy_image

    def copy(access: SlotAccess, source: Slot, target: Slot) -> None:
        as_copied = replace(target, state=source.state)
        if access.read_head(source, 64) != access.read_head(as_copied, 64):
            original(access, source, target)

    return Buggy((SlotAccess, "copy_image", copy))


def no_backup() -> Buggy:
    """The way back is not kept before the swap overwrites it."""

    def change(plan: Plan, _evidence: Evidence) -> Plan:
        copies = [step for step in plan.steps if isinstance(step, CopyImage)]
        skipped = copies[:-1]
        return replace(plan, steps=tuple(step for step in plan.steps if step not in skipped))

    return _other_plan(change)


def first_boot_noted_too_early() -> Buggy:
    """The start of an update is noted before the swap: cut short, the update is dropped."""

    def change(plan: Plan, evidence: Evidence) -> Plan:
        state = evidence.state
        if state is None or BootFlag.FIRST_BOOT_B not in state.flags:
            return plan
        return replace(plan, steps=(WriteState(state.begin_first_boot()), *_started(plan)))

    return _other_plan(change)


def _started(plan: Plan) -> Iterator[Step]:
    for step in plan.steps:
        if isinstance(step, WriteState):
            yield WriteState(step.state.begin_first_boot())
        else:
            yield step


def first_boot_never_noted() -> Buggy:
    """The start of an update is not noted: it is started again and again without a commit."""

    def same(state: BootState) -> BootState:
        return state

    return Buggy((BootState, "begin_first_boot", same))


def rollback_not_recorded() -> Buggy:
    """The rollback goes on without its record: the state still says that the update is active."""

    def change(plan: Plan, _evidence: Evidence) -> Plan:
        if all(made.reason is not Reason.ROLLBACK_UNCOMMITTED for made in plan.decisions):
            return plan
        steps = tuple(step for step in plan.steps if not isinstance(step, WriteState))
        return replace(plan, steps=steps)

    return _other_plan(change)


def never_rolls_back() -> Buggy:
    """An uncommitted update counts as committed at its second boot."""

    def change(state: BootState) -> BootState:
        return state.fall_back_to(state.active_slot) if _was_started(state) else state

    return _other_state(change)


def commit_ignored() -> Buggy:
    """The flag COMMITTED is not looked at where there is a slot with another image."""

    def change(state: BootState) -> BootState:
        if not state.is_committed or not state.slots[2].state.app_len:
            return state
        return replace(_without(state, BootFlag.COMMITTED), revert_slot=2)

    return _other_state(change)


def copy_not_erased() -> Buggy:
    """The target of a copy is not erased when it looks blank at its start."""
    original = OpenPartition.erase_runs

    def runs(partition: OpenPartition, length: int, largest: int) -> list[tuple[int, int]]:
        is_blank = partition.read(0, 16) == b"\xff" * 16
        return [] if is_blank else original(partition, length, largest)

    return Buggy((OpenPartition, "erase_runs", runs))


def torn_record_accepted() -> Buggy:
    """A record counts when its magic is right: the CRC is not checked."""

    def check(raw: bytes) -> RecordError | None:
        return check_record(_with_good_crc(raw))

    def parse(raw: bytes) -> BootState:
        return parse_record(_with_good_crc(raw))

    return Buggy(
        (journal, "check_record", check),
        (journal, "parse_record", parse),
        *_UNCACHED,
    )


def _with_good_crc(raw: bytes) -> bytes:
    return raw[:-4] + zlib.crc32(raw[:-4]).to_bytes(4, "little")


def sequence_not_compared() -> Buggy:
    """The record that is read last counts, whatever its number."""

    def newer(_seq: int, _than: int, **_: bool) -> bool:
        return True

    return Buggy(
        (journal, "is_newer", newer),
        *_UNCACHED,
    )


def newest_erased_first() -> Buggy:
    """The area with the newest record is erased to make room for the next one."""

    def place(journal_: Journal) -> tuple[int, int]:
        newest = journal_.newest
        return (0, 0) if newest is None else (newest.area, 0)

    return Buggy((Journal, "_next_place", place))


def marginal_record_trusted() -> Buggy:
    """The shipped loader as it was: it rests on a record that may be marginal."""

    def nothing(_run: object, _state: BootState) -> None:
        return

    return Buggy((loader._BootRun, "_make_firm", nothing))


def newest_not_made_firm() -> Buggy:
    """The older records are erased while the newest one may be marginal."""

    def blot_out(journal_: Journal, newest: Winner) -> None:
        partition = journal_._areas[newest.area]
        for offset in range(newest.offset + 256, partition.size, 256):
            if partition.read(offset, 256) not in (b"\xff" * 256, bytes(256)):
                partition.program(offset, bytes(256))

    return Buggy((Journal, "_prepare_to_leave", blot_out))


class NoWatchdog:
    """The watchdog is not started."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        with patch.object(type(hardware), "start_watchdog", lambda *_: None):
            return MosLoader().boot(hardware)


class WatchdogStartedLate:
    """The watchdog is started when all copying is done."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        target = NoWatchdog().boot(hardware)
        hardware.start_watchdog(10)
        return target


class WrongEntry:
    """The stack pointer is left as it was."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        return replace(MosLoader().boot(hardware), stack_pointer=0x2000_0400)


class OldStart:
    """Starts slot 0, whatever the boot state says."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        hardware.start_watchdog(10)
        hardware.log("boot: slot 0, whatever there is\n")
        head = hardware.internal_flash.read(0x10000, 8)
        return BootTarget(0x08010000, *struct.unpack("<II", head))


class ExpectsNoTornRecord:
    """Raises where a record is neither good nor missing."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        for address in range(0, 0x2000, 256):
            record = hardware.nor.read(address, 256)
            if record != b"\xff" * 256:
                parse_record(record)
        return MosLoader().boot(hardware)


class WaitsForever:
    """Waits for a button when an update is there, and feeds the watchdog meanwhile."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        hardware.start_watchdog(10)
        while hardware.nor.read(0x10000, 4) != b"\xff" * 4:
            hardware.feed_watchdog()
        return MosLoader().boot(hardware)


# -- the swap --------------------------------------------------------------------------------------


def way_back_over_the_update() -> Buggy:
    """The way back is kept in the slot that the update is in."""

    def spare(_evidence: Evidence, state: BootState, _target: int) -> int:
        return state.active_slot

    return Buggy((decision, "_find_spare", spare))


def way_back_over_the_factory_image() -> Buggy:
    """The way back is kept in the factory slot, which must never be written."""

    def spare(*_: object) -> int:
        return FACTORY_SLOT

    return Buggy((decision, "_find_spare", spare))


def started_where_it_arrived() -> Buggy:
    """Any good image counts as directly bootable: it is started without being copied."""
    return Buggy((Slot, "is_directly_bootable", True))


def length_of_the_old_image() -> Buggy:
    """A copy is as long as the image that it overwrites."""
    original = SlotAccess.copy_image

    def copy(access: SlotAccess, source: Slot, target: Slot) -> None:
        length = target.state.app_len or source.state.app_len
        original(access, replace(source, state=replace(source.state, app_len=length)), target)

    return Buggy((SlotAccess, "copy_image", copy))


def interrupted_swap_is_a_failure() -> Buggy:
    """A swap that was cut short counts as an update that has failed."""

    def change(state: BootState) -> BootState:
        return _without(state, BootFlag.FIRST_BOOT_B) if state.revert_slot == 2 else state

    return _other_state(change)


# -- trial and rollback ----------------------------------------------------------------------------


def tried_twice() -> Buggy:
    """The boots of an update are counted from the second on: it has two first ones."""

    def begin(state: BootState) -> BootState:
        is_first = BootFlag.FIRST_BOOT_A in state.flags
        return _without(state, BootFlag.FIRST_BOOT_A if is_first else BootFlag.FIRST_BOOT_B)

    return Buggy((BootState, "begin_first_boot", begin))


def committed_by_the_loader() -> Buggy:
    """An update without a commit timeout is committed before it has run."""
    original = BootState.begin_first_boot

    def begin(state: BootState) -> BootState:
        return original(state) if state.commit_timeout else state.fall_back_to(state.active_slot)

    return Buggy((BootState, "begin_first_boot", begin))


class OnlyTheWatchdogRollsBack:
    """An update that was started and lost power is started once more."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        def change(state: BootState) -> BootState:
            if hardware.reset_cause is ResetCause.WATCHDOG or not _was_started(state):
                return state
            return replace(state, flags=state.flags | BootFlag.FIRST_BOOT_B)

        return _other_state(change).boot(hardware)


def rolled_back_to_the_factory_image() -> Buggy:
    """A rollback goes to the factory image, though the way back is good."""

    def change(state: BootState) -> BootState:
        return replace(state, revert_slot=FACTORY_SLOT) if _was_started(state) else state

    return _other_state(change)


def installed_again() -> Buggy:
    """An image in slot 1 that is not the one that runs counts as an update, always."""

    def change(state: BootState) -> BootState:
        update, active = state.slots[1].state, state.slots[state.active_slot].state
        if not state.is_committed or update.app_crc32 in (0, active.app_crc32):
            return state
        tried = _without(state, BootFlag.COMMITTED)
        flags = tried.flags | BootFlag.FIRST_BOOT_B
        return replace(tried, flags=flags, active_slot=1, revert_slot=state.active_slot)

    return _other_state(change)


def way_back_erased_before_the_record() -> Buggy:
    """A rollback frees the slot that it came from while the record still points there."""
    original = SlotAccess.copy_image

    def copy(access: SlotAccess, source: Slot, target: Slot) -> None:
        original(access, source, target)
        if source.configuration.app_dev == "appT":
            access._open(source).erase(0, 0x1000)

    return Buggy((SlotAccess, "copy_image", copy))


def boot_count_never_reset() -> Buggy:
    """Each boot is counted, nobody ever resets the count, and the fourth is refused."""

    def change(plan: Plan, evidence: Evidence) -> Plan:
        state = evidence.state
        if state is None or not state.is_committed:
            return plan
        if state.slots[0].state.err_count >= 3:
            refused = Decision(Reason.NO_BOOTABLE_IMAGE, why="booted too often")
            return Plan((refused,), (Halt(),))
        return replace(plan, steps=(WriteState(state.copy_failed(0)), *plan.steps))

    return _other_plan(change)


# -- the journal -----------------------------------------------------------------------------------


def sequence_wraps() -> Buggy:
    """Sequence numbers are compared in six bits: after 63 nothing is ever newer."""

    def newer(seq: int, than: int, **_: bool) -> bool:
        return seq % 64 > than % 64

    return Buggy(
        (journal, "is_newer", newer),
        *_UNCACHED,
    )


def sequence_starts_anew() -> Buggy:
    """The loader numbers its records from 1 in each boot."""
    original = Journal.append

    def append(journal_: Journal, state: BootState) -> BootState:
        newest = journal_._newest
        if newest is not None:
            journal_._newest = replace(newest, state=replace(newest.state, seq=0))
        return original(journal_, state)

    return Buggy((Journal, "append", append))


def full_area_refused() -> Buggy:
    """When the area is full, no record is written: there is no other area."""
    original = Journal.append

    def append(journal_: Journal, state: BootState) -> BootState:
        newest = journal_.newest
        if newest is not None and newest.offset >= (MAX_RECORDS - 1) * RECORD_SIZE:
            raise JournalWriteError(["the area is full"])
        return original(journal_, state)

    return Buggy((Journal, "append", append))


class ReadsUntilItIsGood:
    """A record that reads as bad is read again every 5 s, for as long as it takes."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        hardware.start_watchdog(10)
        parts = Partitions(DEFAULT_LAYOUT, nor=hardware.nor, internal_flash=hardware.internal_flash)
        for record in range(MAX_RECORDS):
            while _is_torn(parts.journal_areas[0].read(record * RECORD_SIZE, RECORD_SIZE)):
                hardware.feed_watchdog()
                hardware.wait(5 * NS_PER_S)
        return MosLoader().boot(hardware)


def _is_torn(record: bytes) -> bool:
    return record != b"\xff" * RECORD_SIZE and check_record(record) is not None


# -- the start -------------------------------------------------------------------------------------


class StackAndEntrySwapped:
    """The two words of the vector table are taken in the wrong order."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        target = MosLoader().boot(hardware)
        return BootTarget(target.vector_table, target.program_counter, target.stack_pointer)


def vectors_of_the_update() -> Buggy:
    """Stack pointer and entry are taken from the slot in which updates arrive, if it has any."""
    original = SlotAccess.read_head

    def read(access: SlotAccess, slot: Slot, length: int) -> bytes:
        head = original(access, replace(DEFAULT_SLOTS[1], state=slot.state), length)
        return original(access, slot, length) if head.startswith(b"\xff" * 8) else head

    return Buggy((SlotAccess, "read_head", read))


class WaitsLongerThanTheWatchdog:
    """Waits 15 s for a host, with a watchdog of 10 s that nobody feeds."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        hardware.start_watchdog(10)
        hardware.wait(15 * NS_PER_S)
        return MosLoader().boot(hardware)


def original() -> MosLoader:
    """The original's behaviour, soft spots included."""
    return MosLoader(LoaderSettings(strict_original=True))
