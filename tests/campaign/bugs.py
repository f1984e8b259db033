"""Boot loaders with one bug each: the shipped one, and a few lines that break one rule.

A bug in a module of the loader is made by exchanging one of its names for as long as the loader
runs; the application goes on with the code as it is.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from unittest.mock import patch

from bootloader_model import journal, loader
from bootloader_model.boot_record import RecordError, check_record, parse_record
from bootloader_model.boot_state import BootFlag, BootState, Slot
from bootloader_model.decision import (
    Boot,
    CheckImage,
    CopyImage,
    Evidence,
    Plan,
    Reason,
    Step,
    WriteState,
    decide,
)
from bootloader_model.journal import Journal, Winner
from bootloader_model.loader import LoaderSettings, MosLoader
from bootloader_model.partition import OpenPartition
from bootloader_model.protocol import BootTarget, LoaderHardware
from bootloader_model.slot_access import SlotAccess

Answer = Plan | CheckImage


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

    def change(evidence: Evidence, *, strict_original: bool = False) -> Answer:
        state = evidence.state
        if (
            state is not None
            and not state.is_committed
            and BootFlag.FIRST_BOOT_B not in state.flags
        ):
            evidence = replace(evidence, state=state.fall_back_to(state.active_slot))
        return decide(evidence, strict_original=strict_original)

    return Buggy((loader, "decide", change))


def commit_ignored() -> Buggy:
    """The flag COMMITTED is not looked at where there is a slot with another image."""

    def change(evidence: Evidence, *, strict_original: bool = False) -> Answer:
        state = evidence.state
        if state is not None and state.is_committed and state.slots[2].state.app_len:
            flags = BootFlag(int(state.flags) & ~int(BootFlag.COMMITTED))
            evidence = replace(evidence, state=replace(state, flags=flags, revert_slot=2))
        return decide(evidence, strict_original=strict_original)

    return Buggy((loader, "decide", change))


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
        (journal, "_scan_area", journal._scan_area.__wrapped__),
        (journal, "_scan_place", journal._scan_place.__wrapped__),
    )


def _with_good_crc(raw: bytes) -> bytes:
    return raw[:-4] + zlib.crc32(raw[:-4]).to_bytes(4, "little")


def sequence_not_compared() -> Buggy:
    """The record that is read last counts, whatever its number."""

    def newer(_seq: int, _than: int, **_: bool) -> bool:
        return True

    return Buggy(
        (journal, "is_newer", newer),
        (journal, "_scan_area", journal._scan_area.__wrapped__),
        (journal, "_scan_place", journal._scan_place.__wrapped__),
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


class WrongEntry:
    """The stack pointer is left as it was."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        return replace(MosLoader().boot(hardware), stack_pointer=0x2000_0400)


class OldStart:
    """Starts slot 0, whatever the boot state says."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        hardware.start_watchdog(10)
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


def original() -> MosLoader:
    """The original's behaviour, soft spots included."""
    return MosLoader(LoaderSettings(strict_original=True))
