"""Host tools on a board kept by `otasim run`, through its pty: our own client, and the real mos."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from otasim.bundle_server import BundleServer
from rpc_shim.client import Framing, RpcClientError
from rpc_shim.frame import JsonValue
from tests.cli.command import otasim
from tests.host.running_board import Caller, RunningBoard, client_caller
from tests.host.tools import Mos
from tests.rpc.mos import needs_mos


@pytest.fixture
def running(engine: str, tmp_path: Path) -> Iterator[RunningBoard]:
    with RunningBoard(engine, tmp_path) as board:
        yield board


def drive(board: RunningBoard, call: Caller, server: BundleServer) -> None:
    """Update, commit, snapshot, revert, set, and an automatic rollback, twice in a row.

    It is the board's console that says when a reboot is over: a request would be lost in it.
    """

    def state(key: str) -> JsonValue:
        answer = call("OTA.GetBootState")
        assert isinstance(answer, dict)
        value: JsonValue = answer[key]
        return value

    def version() -> JsonValue:
        answer = call("Sys.GetInfo")
        assert isinstance(answer, dict)
        value: JsonValue = answer["fw_version"]
        return value

    for new in ("2.0", "3.0"):
        url = server.publish_sample(f"sample-{new}")
        with board.expecting(f"starting slot 0: sample {new}", "ready"):
            assert call("OTA.Update", {"url": url, "commit_timeout": "3000"}) is None
        assert (version(), state("is_committed")) == (new, False)
        assert call("OTA.Commit") is None
        assert (state("is_committed"), state("revert_slot")) == (True, -1)

        slot = call("OTA.CreateSnapshot", {"set_as_revert": True, "commit_timeout": 3000})
        assert isinstance(slot, dict)
        assert state("revert_slot") == slot["slot"]
        assert call("OTA.SetBootState", {"commit_timeout": 2000}) is None
        assert state("commit_timeout") == 2000
        with board.expecting("reset cause software", f"starting slot 0: sample {new}", "ready"):
            assert call("OTA.Revert") is None
        assert state("is_committed") is True

        hanging = server.publish_sample("hang-2.1")
        with board.expecting(
            "starting slot 0: hang 2.1",
            "hanging",
            "reset cause watchdog",
            "no commit before this reset: rolling back to slot",
            f"starting slot 0: sample {new}",
            "ready",
        ):
            assert call("OTA.Update", {"url": hanging, "commit_timeout": "3000"}) is None
        assert (version(), state("is_committed")) == (new, True)


@pytest.mark.parametrize("framing", list(Framing), ids=lambda framing: framing.name.lower())
def test_our_client_drives_a_board(
    framing: Framing, running: RunningBoard, server: BundleServer
) -> None:
    drive(running, client_caller(running.link, framing), server)


@needs_mos
def test_the_real_mos_drives_a_board(running: RunningBoard, server: BundleServer) -> None:
    drive(running, Mos(str(running.link)).call, server)


def test_the_ready_file_names_what_is_there_and_ctrl_c_ends_cleanly(
    engine: str, running: RunningBoard
) -> None:
    assert running.ready == {
        "pid": running.process.pid,
        "engine": engine,
        "serial": str(running.link),
    }
    output = running.stop()
    assert running.process.returncode == 0
    assert "Traceback" not in output
    assert "stopped" in output
    assert not running.link.is_symlink()
    assert not running.ready_file.exists()


def test_a_killed_board_has_lost_nothing_it_acknowledged(engine: str, tmp_path: Path) -> None:
    options = ("--state", str(tmp_path / "state"))
    with RunningBoard(engine, tmp_path, *options) as board:
        call = client_caller(board.link, Framing.LINES)
        call("OTA.CreateSnapshot", {"set_as_revert": True})
        board.kill()
    with RunningBoard(engine, tmp_path, *options) as board:
        # The snapshot was never committed, so the loader has gone back to it.
        answer = client_caller(board.link, Framing.LINES)("OTA.GetBootState")
        assert isinstance(answer, dict)
        assert (answer["active_slot"], answer["is_committed"]) == (0, True)
        assert "rolling back" in board.stop(signal.SIGTERM)


def test_noise_on_the_line_does_no_harm(running: RunningBoard) -> None:
    with open(running.link, "wb", buffering=0) as port:  # noqa: PTH123 - a device, unbuffered
        port.writelines((bytes(range(256)) * 8, b'{"id":1', b"{" * 5000, b'"""' * 100, b"\n\n\n"))
    call = client_caller(running.link, Framing.LINES)
    assert isinstance(call("OTA.GetBootState"), dict)
    with pytest.raises(RpcClientError, match=r"No handler for No\.Such"):
        call("No.Such")


def test_otasim_call_prints_results_and_errors(running: RunningBoard) -> None:
    def otasim_call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return otasim("call", *arguments, "--port", running.link)

    good = otasim_call("OTA.GetBootState")
    assert (good.returncode, json.loads(good.stdout)["active_slot"]) == (0, 0)
    assert otasim_call("RPC.Ping", '{"a": "\u00e9\U0001f600"}').returncode == 0
    unknown = otasim_call("No.Such")
    assert (unknown.returncode, unknown.stderr) == (1, "error 404: No handler for No.Such\n")
    wrong = otasim_call("OTA.Update", "{not json")
    assert wrong.returncode == 2


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--image", "/nowhere/fw.hex"], 1),
        (["--speed", "fast"], 2),
        (["--loader", "no.such:Loader"], 1),
        (["--state", "/proc/otasim"], 1),
    ],
)
def test_wrong_use_of_run_is_one_line_and_a_code(options: list[str], code: int) -> None:
    done = otasim("run", *options)
    assert done.returncode == code, done.stderr
    assert "rror" in done.stderr
