"""Resets and power cuts take effect at their very moment, however the board is paced."""

import gc

import pytest

from otasim import Board, ResetCause, TornShape
from otasim.application import ServiceApplication
from otasim.bundle_server import BundleServer
from platforms.clock import NS_PER_MS, NS_PER_US
from platforms.devices.flash_memory import FlashOperation, OperationKind
from platforms.trace import TraceEvent


def swap_that_is_reset(engine: str, url: str, *, paced: bool) -> tuple[list[TraceEvent], bytes]:
    """Reset the board in the middle of the erase that a swap begins with."""
    with Board(engine=engine) as board:
        board.run(0.5)
        if paced:
            board.machine.outside_world = lambda: None
        board.call("OTA.Update", {"url": url, "commit_timeout": 60})
        memory = board.machine.models.internal_flash.memory
        asked_ns: list[int] = []

        def ask(operation: FlashOperation) -> None:
            if operation.kind is OperationKind.ERASE and not asked_ns:
                asked_ns.append(operation.start_ns + operation.duration_ns // 3)
                board.machine.clock.call_at(asked_ns[0], lambda: board.reset(ResetCause.PIN))

        memory.on_operation.append(ask)
        board.run_until(lambda: bool(board.trace.of_kind("reset")[-1].details["cause"] == "pin"))
        reset = board.trace.of_kind("reset")[-1]
        assert reset.at_ns == asked_ns[0]
        contents = bytes(memory.storage)
        board.run_until(lambda: board.version == "2.0")
        return list(board.trace.events), contents


def test_a_reset_in_an_erase_tears_it_at_that_moment_paced_or_not(engine: str) -> None:
    with BundleServer() as server:
        url = server.publish_sample("sample-2.0")
        free, free_contents = swap_that_is_reset(engine, url, paced=False)
        paced, paced_contents = swap_that_is_reset(engine, url, paced=True)
    assert free_contents == paced_contents
    assert free == paced
    torn = free_contents[0x1_0000:0x2_0000]
    assert torn != b"\xff" * len(torn), "the erase was under way, not done"


def test_the_watchdog_bites_in_the_middle_of_a_flash_operation(board: Board) -> None:
    machine = board.machine
    bite_ns = machine.clock.now_ns + 40 * NS_PER_MS
    machine.clock.call_at(bite_ns, lambda: board.reset(ResetCause.WATCHDOG))
    board.send(b'{"id":1,"method":"OTA.CreateSnapshot"}\n')
    board.run(0.2)
    reset = board.trace.of_kind("reset")[-1]
    assert reset.details["cause"] == "watchdog"
    # The processor stands in the access that fed the watchdog, and leaves it first.
    assert 0 <= reset.at_ns - bite_ns <= 2 * NS_PER_US


def test_ram_holds_noise_at_the_first_power_on_and_other_noise_at_the_next(engine: str) -> None:
    address, length = 0x2001_8000, 256
    contents = []
    with Board(engine=engine) as board:
        board.run(0.5)
        for _ in range(2):
            contents.append(board.machine.engine.read_memory(address, length))
            board.cut_power(TornShape.NOTHING)
            board.power_on()
            board.run(0.5)
    assert len({bytes(content) for content in [*contents, bytes(length)]}) == 3
    with Board(engine=engine) as board:
        board.run(0.5)
        assert board.machine.engine.read_memory(address, length) == contents[0]


@pytest.mark.parametrize("stored", [False, True])
def test_the_hardware_watchdog_option_starts_it_at_reset(engine: str, stored: bool) -> None:
    loader = "tests.board.own_loader:NoWatchdogLoader"
    with Board("no-feed-2.4", engine=engine, loader=loader) as board:
        if stored:
            options = board.machine.models.internal_flash.memory.status_cells
            options[0] &= ~0x20
        board.run(5)
        causes = [event.details["cause"] for event in board.trace.of_kind("reset")]
        assert ("watchdog" in causes) is stored


def test_a_reset_leaves_nothing_of_the_application_behind(board: Board) -> None:
    def applications() -> int:
        gc.collect()
        return sum(isinstance(thing, ServiceApplication) for thing in gc.get_objects())

    before = applications()
    for _ in range(5):
        board.call("FS.List")
        board.reset()
        board.run(0.5)
    assert applications() == before
