"""Renode's own tools on a running board: monitor, GDB server, log; and how they are refused."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import firmware
from otasim.engines import RENODE, missing_engine

pytestmark = pytest.mark.skipif(
    bool(missing_engine(RENODE)), reason=missing_engine(RENODE) or "it is there"
)
GDB = shutil.which("gdb-multiarch") or shutil.which("arm-none-eabi-gdb")
PATIENCE_S = 120


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Running:
    """A board on Renode with monitor, GDB server and log."""

    def __init__(self, folder: Path) -> None:
        self.monitor, self.gdb = free_port(), free_port()
        self.log = folder / "renode.log"
        ready = folder / "ready.json"
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "otasim", "run", "--engine", "renode",
                "--monitor", str(self.monitor), "--gdb", str(self.gdb),
                "--renode-log", str(self.log), "--ready-file", str(ready),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while not ready.exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def debug(self, *commands: str) -> str:
        assert GDB is not None
        arguments = [part for command in commands for part in ("-ex", command)]
        done = subprocess.run(
            [GDB, "-batch", "-ex", f"target remote 127.0.0.1:{self.gdb}", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.stdout + done.stderr


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    board = Running(tmp_path)
    yield board
    if board.process.poll() is None:
        board.process.kill()
    board.process.communicate()


def test_the_monitor_knows_the_board(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.monitor), PATIENCE_S) as connection:
        connection.sendall(b"sysbus.cpu PC\n")
        heard = b""
        while b"0x801" not in heard:
            data = connection.recv(4096)
            assert data, heard
            heard += data


@pytest.mark.skipif(GDB is None, reason="neither gdb-multiarch nor arm-none-eabi-gdb is on PATH")
def test_a_debugger_attaches_breaks_and_steps(running: Running) -> None:
    # Wherever the sleeping board is stopped, its SysTick handler comes next; vector 15.
    image = firmware.path("sample-1.0")
    assert image.exists()
    told = running.debug(
        "set $handler = *(unsigned *)(0x08010000 + 60) & ~1",
        "break *$handler",
        "continue",
        'printf "at the handler: %d\\n", $pc == $handler',
        "stepi",
        'printf "stepped: %d\\n", $pc > $handler && $pc <= $handler + 4',
        "delete",
        "detach",
    )
    assert "at the handler: 1" in told, told
    assert "stepped: 1" in told, told
    # Detached, the board goes on.
    assert "Breakpoint 1" in told


@pytest.mark.skipif(GDB is None, reason="neither gdb-multiarch nor arm-none-eabi-gdb is on PATH")
def test_ctrl_c_ends_a_board_that_a_debugger_holds(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.gdb), PATIENCE_S) as debugger:
        debugger.sendall(b"+$?#3f")  # why has it stopped?
        heard = b""
        while b"$" not in heard:
            heard += debugger.recv(64)
        running.process.send_signal(signal.SIGINT)
        output, _ = running.process.communicate(timeout=PATIENCE_S)
    assert running.process.returncode == 0
    assert "stopped" in output


def test_the_log_is_written(running: Running) -> None:
    running.process.send_signal(signal.SIGINT)
    running.process.communicate(timeout=PATIENCE_S)
    assert running.log.exists()
    assert "Machine resumed" not in running.log.read_text()


@pytest.mark.parametrize("option", ["--monitor", "--gdb"])
def test_a_port_in_use_is_one_line(option: str) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:  # noqa: S104 - where Renode listens
        done = subprocess.run(
            [
                sys.executable, "-m", "otasim", "run", "--engine", "renode",
                option, str(taken.getsockname()[1]),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "cannot listen on port" in done.stderr
    assert "Traceback" not in done.stderr
