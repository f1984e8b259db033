"""The service on the whole board, when the slot that runs is not the one that the state names."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bootloader_model.boot_record import RECORD_SIZE, build_record
from bootloader_model.boot_state import NO_SLOT, BootFlag, BootState
from bootloader_model.journal import Journal
from bootloader_model.layout import DEFAULT_LAYOUT
from otasim import Board
from otasim.bundle_server import BundleServer
from otasim.device import partitions_of
from otasim.settings import DeviceSettings
from rpc_shim.client import RpcClientError


def rewrite(board: Board, change: Callable[[BootState], BootState]) -> None:
    """Append a record behind the application's back, as a programmer could."""
    newest = Journal(partitions_of(board.machine).journal_areas).load().winner
    assert newest is not None
    area = DEFAULT_LAYOUT.partition(newest.area_name)
    place = area.offset + newest.offset + RECORD_SIZE
    record = build_record(replace(change(newest.state), seq=newest.state.seq + 1))
    board.machine.models.nor.memory.storage[place : place + RECORD_SIZE] = record


def protect_the_journal(board: Board) -> None:
    """Set the volatile block protection bits of the NOR flash (50h, then 01h)."""
    nor = board.machine.models.nor
    for command in (b"\x50", b"\x01\x1c"):
        nor.chip_select(active=True)
        nor.exchange(command)
        nor.chip_select(active=False)


def test_the_slot_that_runs_is_never_written(board: Board, server: BundleServer) -> None:
    board.call("OTA.CreateSnapshot")
    board.call("OTA.SetBootState", {"active_slot": 1})
    url = server.publish_sample("sample-2.0")
    for method, params in (
        ("OTA.Update", {"url": url}),
        ("OTA.Begin", {}),
        ("OTA.CreateSnapshot", {}),
        ("OTA.Commit", {}),
    ):
        with pytest.raises(RpcClientError, match=r"slot 1 is to be booted.*Sys\.Reboot"):
            board.call(method, params)
    board.call("Sys.Reboot")
    board.run(3)
    board.call("OTA.Update", {"url": url})
    board.run_until(lambda: board.version == "2.0")


def test_nothing_is_decided_between_a_revert_and_its_reboot(
    board: Board, server: BundleServer
) -> None:
    url = server.publish_sample("sample-2.0")
    board.call("OTA.Update", {"url": url, "commit_timeout": 60})
    with pytest.raises(RpcClientError, match="is to be booted"):
        board.call("OTA.Commit")
    board.run_until(lambda: board.version == "2.0")
    board.run(0.5)
    board.call("OTA.Revert")
    with pytest.raises(RpcClientError, match="is to be booted"):
        board.call("OTA.Update", {"url": url})
    board.run(3)
    assert board.version == "1.0"


def test_without_a_way_back_the_commit_timeout_says_so_and_the_board_goes_on(board: Board) -> None:
    rewrite(
        board,
        lambda state: replace(
            state, flags=BootFlag.FIRST_BOOT_A, revert_slot=NO_SLOT, commit_timeout=3
        ),
    )
    board.reset()
    board.run(10)
    assert "ota: no rollback: no revert slot is set" in board.console
    assert board.call("RPC.Ping")


def test_a_rollback_that_cannot_be_written_is_the_boot_loaders(board: Board) -> None:
    board.call("OTA.CreateSnapshot", {"set_as_revert": True, "commit_timeout": 3})
    protect_the_journal(board)
    board.run(5)
    assert "the boot loader has to roll back" in board.console
    assert "reset cause software" in board.console


def test_a_commit_that_cannot_be_written_leaves_the_way_back_open(board: Board) -> None:
    board.call("OTA.CreateSnapshot")
    rewrite(
        board,
        lambda state: replace(
            state, flags=BootFlag.FIRST_BOOT_A, revert_slot=1, commit_timeout=None
        ),
    )
    board.reset()
    # The loader would roll back: have it start the application as if it were the first boot.
    rewrite(
        board, lambda state: replace(state, flags=BootFlag.FIRST_BOOT_A | BootFlag.FIRST_BOOT_B)
    )
    started = len(board.trace.of_kind("application-started"))
    board.trace.listeners.append(
        lambda event: protect_the_journal(board) if event.kind == "application-started" else None
    )
    board.run(2)
    assert len(board.trace.of_kind("application-started")) == started + 1
    assert "this firmware cannot be committed" in board.console
    assert board.boot_state is not None
    assert not board.boot_state.is_committed


@pytest.mark.parametrize("strict", [False, True], ids=["better", "as the original"])
def test_what_runs_is_told_by_where_it_was_started(engine: str, strict: bool) -> None:
    settings = DeviceSettings(strict_original=strict)
    with Board("sample-1.0", engine=engine, settings=settings) as board:
        board.run(0.5)
        board.call("OTA.CreateSnapshot")
        # The newest record becomes unreadable for the original once an earlier one is damaged.
        rewrite(board, lambda state: replace(state, active_slot=1))
        board.machine.models.nor.memory.storage[RECORD_SIZE + 20] ^= 1
        board.reset()
        board.run(3)
        assert (board.slot, board.version) == (0, "1.0")
        assert board.boot_state is not None
        assert board.boot_state.seq == (1 if strict else 6)


def test_a_loader_that_knows_no_boot_state_is_believed(engine: str) -> None:
    loader = "tests.board.own_loader:FirstSlotLoader"
    with Board("sample-1.0", engine=engine, loader=loader) as board:
        board.run(0.5)
        rewrite(board, lambda state: replace(state, active_slot=1))
        board.reset()
        board.run(1)
        assert (board.slot, board.version) == (0, "1.0")
        with pytest.raises(RpcClientError, match="slot 1 is to be booted"):
            board.call("OTA.Commit")
