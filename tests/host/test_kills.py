"""kill -9 in the middle of all that an update does: the flash is as a power cut leaves it."""

import os
from pathlib import Path

import pytest

from otasim import Board
from otasim.bundle_server import BundleServer, bundle_of
from tests.host.running_board import PATIENCE_S, RunningBoard

MOMENTS = (
    "ota: receiving",
    "ota: writing slot 1",
    "ota: 48 %",
    "is in slot 1, rebooting",
    "copying slot 0 (app",
    "copying slot 1 (app",
    "starting slot 0: sample 2.0",
    "ota: first boot of this firmware",
)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_update_leaves_a_board_that_runs_and_takes_the_next(
    moment: str, tmp_path: Path, server: BundleServer
) -> None:
    """Whatever the process was at when the kill came: a little later than `moment`, or much."""
    state = tmp_path / "state"
    bundle = bundle_of("sample-2.0", padded_to=0x8000)
    url = server.publish("fw.zip", bundle)
    with RunningBoard("embedded", tmp_path, "--state", str(state), "--speed", "1") as running:
        port = os.open(running.link, os.O_RDWR | os.O_NOCTTY)
        with running.expecting(moment):
            request = f'{{"id":1,"method":"OTA.Update","params":{{"url":"{url}",'
            os.write(port, f'{request}"commit_timeout":3000}}}}\n'.encode())
        running.kill()
        os.close(port)
    with Board(state_directory=state) as board:
        board.run_until(lambda: board.running)
        # Nobody has committed: it is the old firmware, or the new one started for the first time.
        assert board.version in ("1.0", "2.0"), board.console
        assert board.boot_state is not None
        assert board.boot_state.active_slot == board.slot
        assert board.boot_state.is_committed is (board.version == "1.0")
        assert "falling back" not in board.console
        if board.version == "2.0":
            board.call("OTA.Commit")
        board.call("OTA.Update", {"url": server.publish_sample("sample-3.0")})
        board.run_until(lambda: board.version == "3.0")


def test_every_moment_is_one_that_an_update_has(server: BundleServer) -> None:
    with Board() as board:
        board.run(0.5)
        url = server.publish("fw.zip", bundle_of("sample-2.0", padded_to=0x8000))
        board.call("OTA.Update", {"url": url, "commit_timeout": 3000})
        board.run(PATIENCE_S)
        places = [board.console.find(moment) for moment in MOMENTS]
        assert -1 not in places
        assert places == sorted(places)
