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
from tests.cli.command import otasim

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

    def tell_monitor(self, command: str, until: bytes) -> bytes:
        heard = b""
        with socket.create_connection(("127.0.0.1", self.monitor), PATIENCE_S) as connection:
            connection.sendall(command.encode() + b"\n")
            while until not in heard:
                data = connection.recv(4096)
                assert data, heard
                heard += data
        return heard

    def end(self) -> str:
        """Interrupt the board, which has been going on until now, and return what it has said."""
        assert self.process.poll() is None
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, output
        return output


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    board = Running(tmp_path)
    yield board
    if board.process.poll() is None:
        board.process.kill()
    board.process.communicate()


def test_the_monitor_knows_the_board(running: Running) -> None:
    running.tell_monitor("sysbus.cpu PC", until=b"0x801")


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
def test_a_debugger_may_look_and_write_anywhere(running: Running) -> None:
    # RCC_PLLCFGR holds its reset value; behind RCC_CSR there is no register; nowhere is no memory.
    look = ("x/wx 0x40023804", "x/2wx 0x40023874", "x/wx 0x60000000", "x/wx 0x30000000")
    told = running.debug(
        *look,
        "break *(*(unsigned *)(0x08010000 + 60) & ~1)",
        "continue",
        *look,
        "set {unsigned}0x40023804 = 0x24001234",
        "set {unsigned}0x30000000 = 1",
        "x/wx 0x40023804",
        "delete",
        "detach",
    )
    assert told.count("0x40023804:\t0x24003010") == 2, told
    assert told.count("0x40023804:\t0x24001234") == 1, told
    assert told.count("0x40023874:\t0x") == 2, told
    assert told.count("Cannot access memory at address 0x60000000") == 2, told
    assert "sample 1.0" in running.end()
    assert "read of RCC+0x78, a register it does not have" in running.log.read_text()


def test_the_monitor_may_look_anywhere_and_pause_the_board(running: Running) -> None:
    heard = running.tell_monitor("sysbus ReadDoubleWord 0x40023804", until=b"0x24003010")
    assert b"0x24003010" in heard
    running.tell_monitor("sysbus ReadDoubleWord 0x40023878", until=b"0x00000000")
    running.tell_monitor("sysbus ReadDoubleWord 0x30000000", until=b"0x00000000")
    running.tell_monitor("pause", until=b"pause")
    # One command after the other: the board is paused when this is answered.
    running.tell_monitor("sysbus ReadDoubleWord 0x40023804", until=b"0x24003010")
    assert "fault" not in running.end()


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
        done = otasim("run", "--engine", "renode", option, str(taken.getsockname()[1]))
    assert done.returncode == 1, done.stderr
    assert "cannot listen on port" in done.stderr
    assert "Traceback" not in done.stderr
