"""Flash memories that break, hang or are interrupted, under a whole board."""

from collections.abc import Callable
from pathlib import Path

import pytest

from otasim import Board, ResetCause, TornShape
from otasim.bundle_server import BundleServer
from platforms.devices.damage import worn_bits
from platforms.devices.flash_memory import FlashMemory, FlashOperation, OperationKind
from rpc_shim.client import RpcClientError, RpcTimeoutError

SLOT_0 = 0x1_0000


def during(
    board: Board, memory: FlashMemory, kind: OperationKind, act: Callable[[], None]
) -> list[FlashOperation]:
    """Do `act` in the middle of the next operation of this kind; the list will hold it."""
    met: list[FlashOperation] = []

    def begin(operation: FlashOperation) -> None:
        if operation.kind is kind and not met:
            met.append(operation)
            board.machine.clock.call_at(operation.start_ns + operation.duration_ns // 2, act)

    memory.on_operation.append(begin)
    return met


def begin_snapshot(board: Board) -> None:
    """Copy the application to a slot in the NOR flash: an erase first, then page by page."""
    board.send(b'{"id":1,"method":"OTA.CreateSnapshot"}\n')


def causes(board: Board) -> list[object]:
    return [event.details["cause"] for event in board.trace.of_kind("reset")]


def test_a_nor_flash_that_hangs_is_cured_by_a_power_cycle_only(board: Board) -> None:
    board.machine.models.nor.memory.hang()
    with pytest.raises(RpcTimeoutError):
        board.call("FS.List", timeout_s=5)
    board.run(26)
    # The loader waits for the chip until the watchdog bites, again and again.
    assert causes(board) == ["power-on", *["watchdog"] * 3]
    board.reset()
    board.run(5)
    assert not board.running
    board.power_cycle()
    board.run(1)
    assert board.version == "1.0"
    assert board.call("FS.List") == []


@pytest.mark.parametrize("kind", [OperationKind.PROGRAM, OperationKind.ERASE])
def test_a_nor_operation_that_hangs_fails_the_call(board: Board, kind: OperationKind) -> None:
    memory = board.machine.models.nor.memory
    during(board, memory, kind, memory.hang)
    with pytest.raises(RpcClientError, match="still busy"):
        board.call("OTA.CreateSnapshot")
    board.power_cycle()
    board.run(1)
    assert board.call("OTA.CreateSnapshot")


def test_an_internal_flash_that_hangs_stops_the_processor_until_the_watchdog_bites(
    board: Board,
) -> None:
    board.machine.models.internal_flash.memory.hang()
    board.run(9)
    assert causes(board) == ["power-on"]
    bite_ns = board.machine.models.watchdog.deadline_ns
    board.run(2)
    assert causes(board) == ["power-on", "watchdog"]
    assert board.trace.of_kind("reset")[-1].at_ns == bite_ns
    assert board.call("RPC.Ping")


@pytest.mark.parametrize("cause", [ResetCause.PIN, ResetCause.WATCHDOG])
@pytest.mark.parametrize("kind", [OperationKind.PROGRAM, OperationKind.ERASE])
def test_a_reset_leaves_a_nor_operation_to_its_end_and_the_loader_waits(
    board: Board, kind: OperationKind, cause: ResetCause
) -> None:
    memory = board.machine.models.nor.memory
    met = during(board, memory, kind, lambda: board.reset(cause))
    begin_snapshot(board)
    board.run_until(lambda: causes(board)[1:] == [cause.value])
    board.run_until(lambda: board.running)
    operation = met[0]
    reset_ns = board.trace.of_kind("reset")[-1].at_ns
    assert operation.start_ns < reset_ns < operation.end_ns
    assert board.trace.of_kind("application-started")[-1].at_ns > operation.end_ns
    wanted = operation.data or b"\xff" * operation.length
    assert memory.read(operation.address, operation.length) == wanted


def test_a_brown_out_garbles_what_is_under_way_and_the_board_boots_again(board: Board) -> None:
    nor = board.machine.models.nor.memory
    met = during(board, nor, OperationKind.PROGRAM, lambda: board.machine.brown_out(seed=5))
    begin_snapshot(board)
    board.run_until(lambda: causes(board)[1:] == ["brown-out"])
    page = nor.read(met[0].address, met[0].length)
    wanted = int.from_bytes(met[0].data, "little")
    assert wanted & ~int.from_bytes(page, "little"), "zeros that nobody asked for"
    assert nor.weak_bits
    board.run(1)
    assert not nor.busy
    assert board.version == "1.0"
    assert board.call("OTA.CreateSnapshot")


def test_a_brown_out_in_a_swap_garbles_the_internal_flash(
    board: Board, server: BundleServer
) -> None:
    memory = board.machine.models.internal_flash.memory
    weak: set[int] = set()

    def brown_out() -> None:
        board.machine.brown_out(seed=5)
        weak.update(memory.weak_bits)

    met = during(board, memory, OperationKind.ERASE, brown_out)
    board.send(
        b'{"id":1,"method":"OTA.Update","params":{"url":"%s"}}\n'
        % server.publish_sample("sample-2.0").encode()
    )
    board.run_until(lambda: board.version == "2.0")
    assert causes(board)[-1] == "brown-out"
    assert {met[0].address <= bit // 8 < met[0].address + met[0].length for bit in weak} == {True}
    assert not memory.weak_bits, "erased again"


def test_a_brown_out_without_power_is_nothing(board: Board) -> None:
    board.cut_power(TornShape.NOTHING)
    board.machine.brown_out()
    board.run(0.1)
    assert not board.powered
    assert not board.trace.of_kind("brown-out")


def test_the_processor_sees_bits_that_flip_or_stick(board: Board) -> None:
    address = SLOT_0 + 0x8000  # behind the sample's code: erased
    memory = board.machine.models.internal_flash.memory
    memory.flip(8 * address + 2)
    memory.stick({8 * (address + 1): 0})
    assert board.machine.engine.read_memory(0x0800_0000 + address, 3) == b"\xfb\xfe\xff"
    assert board.call("RPC.Ping")


def test_a_snapshot_into_a_worn_out_sector_fails_and_harms_nothing(board: Board) -> None:
    memory = board.machine.models.nor.memory
    met = during(board, memory, OperationKind.ERASE, lambda: None)
    board.call("OTA.CreateSnapshot")
    memory.stick(dict.fromkeys(worn_bits(met[0].address, 0x1000, seed=1), 0))
    board.power_cycle()
    board.run(0.5)
    with pytest.raises(RpcClientError):
        board.call("OTA.CreateSnapshot")
    board.power_cycle()
    board.run(0.5)
    assert (board.version, board.slot) == ("1.0", 0)


def test_a_state_directory_keeps_what_damage_did_to_the_cells(engine: str, tmp_path: Path) -> None:
    address = SLOT_0 + 0x8000
    with Board(engine=engine, state_directory=tmp_path) as board:
        memory = board.machine.models.internal_flash.memory
        memory.flip(8 * address)
        memory.stick({8 * address + 1: 0})
        memory.hang()
    with Board(engine=engine, state_directory=tmp_path) as board:
        memory = board.machine.models.internal_flash.memory
        assert memory.read(address, 1) == b"\xfc"
        assert not memory.hangs
        board.run(0.5)
        assert board.version == "1.0"
