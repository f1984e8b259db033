"""Which fault can end an operation of which memory in which way, against the board's own models."""

import pytest

from bootloader_model.layout import FlashName
from campaign.faults import Fault, possible_cuts, possible_tears
from campaign.flash import tears
from campaign.story import Cut
from otasim import Board, ResetCause, TornShape
from platforms.machine import Machine

TEARS = tears(0)
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
    assert possible_tears(Fault.POWER_LOSS, flash, TEARS) == TEARS
    found = possible_tears(Fault.BROWN_OUT, flash, TEARS)
    assert found[: len(TEARS)] == TEARS
    added = found[len(TEARS) :]
    assert {tear.shape for tear in added} == {TornShape.GARBLED}
    assert {tear.seed for tear in added} == {tear.seed for tear in TEARS}
    assert len(set(found)) == len(found)


def test_cuts_are_before_torn_and_after() -> None:
    assert possible_cuts(Fault.RESET, FlashName.NOR, 7, TEARS) == (Cut(7), Cut(7, is_after=True))
    cuts = possible_cuts(Fault.WATCHDOG_BITE, FlashName.INTERNAL, 7, TEARS)
    assert cuts == (Cut(7), *(Cut(7, tear) for tear in TEARS), Cut(7, is_after=True))


@pytest.mark.parametrize("fault", [fault for fault in Fault if not fault.interrupts])
def test_damage_is_no_cut(fault: Fault) -> None:
    assert possible_cuts(fault, FlashName.INTERNAL, 0, TEARS) == ()
    assert possible_tears(fault, FlashName.INTERNAL, TEARS) == ()


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
        assert is_whole == (not possible_tears(fault, flash, TEARS))
        assert board.trace.of_kind("reset")[-1].details["cause"] == ResetCause(fault.cause).value
