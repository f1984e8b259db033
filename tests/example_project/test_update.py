"""Updates of the doorbell, on a virtual board."""

from collections.abc import Callable

import pytest

from otasim import Board, DeviceSettings, TornShape
from otasim.pytest_plugin.boards import MakeBoard

Publish = Callable[[str], str]


def test_an_update_is_taken_and_committed(board: Board, publish: Publish) -> None:
    board.run(1)
    board.call("OTA.Update", {"url": publish("sample-2.0"), "commit_timeout": 30})
    board.run_until(lambda: board.version == "2.0")
    board.call("OTA.Commit")
    board.power_cycle()
    board.run(5)
    assert board.version == "2.0"


def test_an_update_that_hangs_is_rolled_back(board: Board, publish: Publish) -> None:
    board.run(1)
    board.call("OTA.Update", {"url": publish("hang-2.1"), "commit_timeout": 30})
    board.run_until(lambda: board.version == "2.1")
    board.run(60)
    assert "doorbell: roll-back, slot 2" in board.console
    assert board.version == "1.0"


def test_a_power_cut_in_the_swap_is_survived(board: Board, publish: Publish) -> None:
    board.run(1)
    board.call("OTA.Update", {"url": publish("sample-2.0"), "commit_timeout": 30})
    board.cut_power(TornShape.RANDOM_BITS, after_s=0.3)
    board.run_until(lambda: not board.powered)
    board.power_on()
    board.run_until(lambda: board.version == "2.0")


@pytest.mark.board(image="sample-2.0", settings=DeviceSettings(device_id="doorbell-7"))
def test_it_has_a_name(board: Board) -> None:
    board.run(1)
    information = board.call("Sys.GetInfo")
    assert isinstance(information, dict)
    assert information["id"] == "doorbell-7"
    assert board.version == "2.0"


def test_two_doorbells_know_nothing_of_each_other(make_board: MakeBoard) -> None:
    front, back = make_board(), make_board()
    front.run(5)
    back.run(1)
    front.cut_power()
    assert back.powered
    assert back.version == "1.0"
