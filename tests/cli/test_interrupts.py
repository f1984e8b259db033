"""Ctrl-C at any moment: exit code 130, and not a word."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from tests.host.running_board import PATIENCE_S

INTERRUPTED_WHEN_LOADING = """
import signal, sys
from importlib.abc import MetaPathFinder

class Interrupter(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
module = sys.argv[1]
from otasim.__main__ import main
sys.argv[1] = "demo"
main()
"""


@pytest.mark.parametrize("module", ["click", "otasim.commands.demo", "otasim.board", "unicorn"])
def test_while_modules_are_loaded(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHEN_LOADING, module],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_in_the_middle_of_the_demo() -> None:
    reading, writing = os.pipe()
    # The demo cannot end before it is interrupted: only the beginning of it fits into the pipe.
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, os.sysconf("SC_PAGESIZE"))
    filler = b"." * (size - 600)
    os.write(writing, filler)
    with subprocess.Popen(
        [sys.executable, "-m", "otasim", "demo", "--engine", "embedded"],
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        os.close(writing)
        deadline = time.monotonic() + PATIENCE_S
        while waiting_in(reading) < len(filler) + 300:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        with open(reading, "rb") as output:  # noqa: PTH123 - a pipe
            said = output.read()
        told = process.stderr.read()
    assert process.returncode == 130
    assert told.strip() == b""
    assert b"An update arrives" in said
    assert b"stories ended" not in said


def waiting_in(pipe: int) -> int:
    count: int = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]
    return count
