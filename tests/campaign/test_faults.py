"""Which fault can end an operation of which memory in which way, against the board's own models."""

import pytest

from bootloader_model.layout import FlashName
from campaign.faults import Fault, power_cut_tears, tears_of
from otasim import Board, ResetCause, TornShape
from platforms.machine import Machine

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
