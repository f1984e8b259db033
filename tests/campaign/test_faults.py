"""Which fault can end an operation of which memory in which way, against the board's own models."""

from contextlib import suppress
from dataclasses import replace

import pytest

from bootloader_model import decision, loader, slot_access
from bootloader_model.boot_state import BootFlag, Slot
from bootloader_model.decision import CheckImage, Evidence, Plan
from bootloader_model.journal import Journal
from bootloader_model.layout import FlashName
from bootloader_model.loader import MosLoader
from bootloader_model.protocol import BootTarget, LoaderHardware
from bootloader_model.slot_access import CopyError, SlotAccess
from campaign import expand
from campaign.boot import LoaderFactory
from campaign.check import states_of
from campaign.expand import Life, Settings
from campaign.explore import Explorer, Result
from campaign.faults import Fault, power_cut_tears, tears_of
from campaign.images import OLD
from campaign.judge import Kind
from campaign.scenario import Boot, Scenario, steady
from campaign.story import Story
from otasim import Board, ResetCause, TornShape
from platforms.machine import Machine
from tests.campaign import seeded
from tests.campaign.bugs import Buggy

TEARS = power_cut_tears(0)
INTERRUPTIONS = [fault for fault in Fault if fault.interrupts]


def test_four_faults_interrupt_and_each_leads_to_a_boot_with_its_cause() -> None:
    causes = {fault.value: fault.cause for fault in INTERRUPTIONS}
    assert causes == {
        "power-loss": ResetCause.POWER_ON,
        "watchdog-bite": ResetCause.WATCHDOG,
        "reset": ResetCause.PIN,
        "brown-out": ResetCause.BROWN_OUT,
    }
    assert len({fault.title for fault in Fault}) == len(Fault) == 8


@pytest.mark.parametrize("flash", FlashName)
def test_garbled_takes_a_brown_out(flash: FlashName) -> None:
    assert tears_of(Fault.POWER_LOSS, flash, 3).each == power_cut_tears(3)
    found = tears_of(Fault.BROWN_OUT, flash, 3).each
    assert found[: len(TEARS)] == power_cut_tears(3)
    assert {tear.shape for tear in found[len(TEARS) :]} == {TornShape.GARBLED}
    assert len(set(found)) == len(found)


def strike(machine: Machine, fault: Fault) -> None:
    match fault:
        case Fault.POWER_LOSS:
            machine.cut_power(TornShape.NOTHING)
        case Fault.BROWN_OUT:
            machine.brown_out()
        case _:
            assert fault.cause is not None
            machine.reset(fault.cause)


@pytest.mark.parametrize("flash", FlashName)
@pytest.mark.parametrize("fault", INTERRUPTIONS)
def test_the_board_tears_an_operation_just_where_it_is_said_to(
    fault: Fault, flash: FlashName
) -> None:
    with Board() as board:
        board.run(0.1)
        models = board.machine.models
        memory = (models.nor if flash is FlashName.NOR else models.internal_flash).memory
        sector = memory.geometry.sectors[-1]
        memory.begin_program(sector.address, bytes(256), 100_000)
        board.machine.clock.advance_to(memory.busy_until_ns)
        memory.begin_erase(sector.address, sector.size, 1_000_000)
        board.machine.clock.advance_to(memory.busy_until_ns - 500_000)
        strike(board.machine, fault)
        board.power_on()
        board.run(0.1)
        is_whole = memory.read(sector.address, sector.size) == b"\xff" * sector.size
        assert is_whole == (not tears_of(fault, flash, 0).each)
        assert board.trace.of_kind("reset")[-1].details["cause"] == ResetCause(fault.cause).value


# -- campaigns of each ----------------------------------------------------------------------------

IDLE = Scenario("idle", "A board is switched on", (steady("on", Boot(ResetCause.POWER_ON), OLD),))
KNOWN = {IDLE.name: IDLE, **seeded.KNOWN}
FLIPS = (2, 16)
"""Of the bits that may flip only a part, for their number."""


def explore(loader: LoaderFactory, name: str, fault: Fault, check_every: int = 0) -> Result:
    settings = Settings(check_every=check_every, fault=fault)
    shard = FLIPS if fault is Fault.BIT_FLIP else (1, 1)
    return Explorer(expand.Plan(KNOWN[name], loader, settings), shard=shard).run()


@pytest.mark.parametrize("fault", Fault)
def test_no_single_fault_does_harm_and_the_boards_models_agree(fault: Fault) -> None:
    name = "idle" if fault is Fault.BIT_FLIP else "update-watchdog"
    result = explore(MosLoader, name, fault, check_every=60)
    assert not result.findings
    assert result.checked >= 1
    assert result.fault is fault
    if fault.interrupts:
        assert not result.tally.hopeless
    elif fault is not Fault.STAYS_BUSY:
        assert result.tally.hopeless  # the one image that there was


def image_not_checked() -> Buggy:
    """The CRC of an image is not looked at."""
    return Buggy((slot_access, "check_crc", lambda _slot, _crc32: None))


def copy_not_checked() -> Buggy:
    """A copy counts as made, whatever has become of it."""
    copy_image = SlotAccess.copy_image

    def copy(access: SlotAccess, source: Slot, target: Slot) -> None:
        with suppress(CopyError):
            copy_image(access, source, target)

    return Buggy((SlotAccess, "copy_image", copy))


def record_refused_is_the_end() -> Buggy:
    """Where no record can be written nothing is started: the shipped loader as it was."""
    return Buggy((loader._BootRun, "_start_as_it_is", lambda _run: None))


def watchdog_drops_an_update() -> Buggy:
    """After a bite of the watchdog an update that was never started counts as started."""
    decide = decision.decide

    def change(evidence: Evidence, *, strict_original: bool = False) -> Plan | CheckImage:
        if evidence.state is not None and BootFlag.FIRST_BOOT_B in evidence.state.flags:
            evidence = replace(evidence, state=evidence.state.begin_first_boot())
        return decide(evidence, strict_original=strict_original)

    class Bitten(Buggy):
        def boot(self, hardware: LoaderHardware) -> BootTarget:
            if hardware.reset_cause is ResetCause.WATCHDOG:
                return super().boot(hardware)
            return MosLoader().boot(hardware)

    return Bitten((loader, "decide", change))


def firm_records_written_again() -> Buggy:
    """The newest record is programmed once more before each change of area, as it was done."""
    load = Journal.load
    return Buggy((Journal, "load", lambda journal, **_: load(journal)))


BUGS: tuple[tuple[LoaderFactory, str, Fault, Kind], ...] = (
    (image_not_checked, "idle", Fault.BIT_FLIP, Kind.WRONG_IMAGE),
    (copy_not_checked, "update-watchdog", Fault.STUCK_BIT, Kind.WRONG_IMAGE),
    (copy_not_checked, "update-watchdog", Fault.WORN_SECTOR, Kind.WRONG_IMAGE),
    (record_refused_is_the_end, "full-area", Fault.STUCK_BIT, Kind.BRICK),
    (watchdog_drops_an_update, "update-commit", Fault.WATCHDOG_BITE, Kind.UPDATE_LOST),
    (firm_records_written_again, "full-area", Fault.BROWN_OUT, Kind.UPDATE_LOST),
)


@pytest.mark.parametrize(("bug", "name", "fault", "kind"), BUGS)
def test_a_bug_that_no_power_cut_shows_is_caught(
    bug: LoaderFactory, name: str, fault: Fault, kind: Kind
) -> None:
    if (bug, fault) != (firm_records_written_again, Fault.BROWN_OUT):
        assert not explore(bug, "idle", Fault.POWER_LOSS).findings
    found = {each.problem.kind: each for each in explore(bug, name, fault).findings}
    assert kind in found
    story = found[kind].story
    assert Story.parse(story.identifier) == story
    life = Life(expand.Plan(KNOWN[name], bug, Settings(fault=fault)))
    assert story.cut is not None
    point = life.point(story.cut)
    judged = [(life.survivors, point.boot)]
    judged += [(life.expectation(state), boot) for state, _, boot in states_of(life, story)]
    expectation, boot = [each for each in judged if each[1] is not None][-1]
    assert boot is not None
    problem = life.judge(expectation, boot).problem
    assert problem is not None
    assert problem.kind is kind
