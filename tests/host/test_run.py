"""`otasim run` as a process: terminal, job control, ready file, serial link, state directory."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpc_shim.client import Framing, RpcClientError
from tests.cli.command import otasim
from tests.host.running_board import PATIENCE_S, RunningBoard, client_caller

BASH = shutil.which("bash")
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def board(tmp_path: Path) -> Iterator[RunningBoard]:
    with RunningBoard("embedded", tmp_path) as made:
        yield made


def run_command(*options: str | Path) -> list[str]:
    return [sys.executable, "-m", "otasim", "run", "--engine", "embedded", *map(str, options)]


def run_to_its_end(*options: str | Path) -> subprocess.CompletedProcess[str]:
    """For boards that cannot start."""
    return otasim("run", "--engine", "embedded", *options)


# --- the terminal ---------------------------------------------------------------------------


def test_the_terminal_shows_the_console_text_and_no_frames(board: RunningBoard) -> None:
    call = client_caller(board.link, Framing.QUOTES)
    with (
        board.expecting("{braces} and {", "refused; is the server running?"),
        pytest.raises(RpcClientError),
    ):
        call("OTA.Update", {"url": "http://127.0.0.1:1/{braces} and {"})
    for _ in range(3):
        call("RPC.Ping")
    output = board.stop()
    assert '"id":' not in output
    assert '"""' not in output
    assert "\n\n" not in output.split("serial port", 1)[1].rpartition("\notasim: stopped")[0]


class Shell:
    """An interactive bash on a terminal of its own."""

    def __init__(self) -> None:
        self.terminal, far_end = os.openpty()
        assert BASH is not None
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, BASH, "--norc", "--noprofile", "-i"],
            stdin=far_end,
            stdout=far_end,
            stderr=far_end,
            start_new_session=True,
            env={**os.environ, "PS1": "shell> ", "TERM": "dumb"},
        )
        os.close(far_end)
        self.text = ""

    def type(self, text: str) -> None:
        self.text = ""
        os.write(self.terminal, text.encode())

    def expect(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.text:
            ready, _, _ = select.select([self.terminal], [], [], deadline - time.monotonic())
            assert ready, f"no {text!r} in {self.text!r}"
            self.text += os.read(self.terminal, 4096).decode("utf-8", "replace")

    def wait_for_foreground(self, *, of_shell: bool) -> None:
        """Wait until the terminal belongs to the shell, or to what it has started."""
        deadline = time.monotonic() + PATIENCE_S
        while (os.tcgetpgrp(self.terminal) == self.process.pid) is not of_shell:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def shell() -> Iterator[Shell]:
    made = Shell()
    yield made
    made.process.kill()
    made.process.wait()
    os.close(made.terminal)


@pytest.mark.skipif(BASH is None, reason="bash is not on PATH")
def test_a_board_in_the_background_leaves_the_keyboard_alone(shell: Shell, tmp_path: Path) -> None:
    link, ready = tmp_path / "board", tmp_path / "ready.json"
    shell.expect("shell> ")
    command = run_command("--serial-link", link, "--ready-file", ready, "--speed", "4")
    shell.type(" ".join(command) + " &\n")
    deadline = time.monotonic() + PATIENCE_S
    while not ready.exists():
        assert time.monotonic() < deadline, "the board never became ready"
        time.sleep(0.02)
    # What is typed now waits in the terminal: the program in the foreground does not read.
    shell.type("sleep 1000\n")
    shell.wait_for_foreground(of_shell=False)
    shell.type("version\n")
    call = client_caller(link, Framing.LINES)
    for _ in range(3):
        call("RPC.Ping")
    shell.type("\x03")
    shell.wait_for_foreground(of_shell=True)
    shell.type("fg\n")
    shell.wait_for_foreground(of_shell=False)
    shell.type("version\n")
    shell.expect("sample 1.0 (build")
    shell.type("\x03")
    shell.expect("otasim: stopped")
    shell.wait_for_foreground(of_shell=True)
    assert not link.is_symlink()


@pytest.mark.skipif(BASH is None, reason="bash is not on PATH")
def test_the_keyboard_is_ours_in_the_foreground_alone(shell: Shell) -> None:
    code = "from otasim.terminal import Keyboard; print('ours:', Keyboard(0, print).is_ours)"
    shell.expect("shell> ")
    shell.type(f'{sys.executable} -c "{code}"\n')
    shell.expect("ours: True")
    shell.type(f'{sys.executable} -c "{code}" &\n')
    shell.expect("ours: False")


def test_a_terminal_that_controls_nobody_is_read(tmp_path: Path) -> None:
    terminal, far_end = os.openpty()
    ready = tmp_path / "ready.json"
    with subprocess.Popen(
        run_command("--ready-file", ready, "--speed", "4"),
        stdin=far_end,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        os.write(terminal, b"version\n")
        for line in process.stdout:
            if line.startswith(b"sample 1.0 (build"):
                break
        else:
            pytest.fail("the board never answered")
        process.terminate()
    os.close(terminal)
    os.close(far_end)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_slow_board_ends_as_soon_as_it_is_asked_to(tmp_path: Path, number: int) -> None:
    # At this speed the next event of the board is hours away.
    with RunningBoard("embedded", tmp_path, "--speed", "0.000001") as board:
        time.sleep(0.5)  # let it fall asleep: a shorter nap makes this test weaker, never wrong
        assert "stopped" in board.stop(number)
        assert board.process.returncode == 0


def pipe_nobody_reads() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize(
    ("open_output", "words"),
    [
        (pipe_nobody_reads, ""),
        (lambda: os.open("/dev/full", os.O_WRONLY), "error: output cannot be written: No space"),
    ],
    ids=["closed pipe", "full disk"],
)
@pytest.mark.parametrize("arguments", [["run"], ["demo"], ["demo", "--json"], ["--help"]])
def test_output_that_cannot_be_written_ends_without_a_traceback(
    arguments: list[str], open_output: object, words: str
) -> None:
    assert callable(open_output)
    output = open_output()
    engine = ["--engine", "embedded"] if arguments[0] in {"run", "demo"} else []
    done = subprocess.run(
        [sys.executable, "-m", "otasim", *arguments, *engine],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    os.close(output)
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if not line.startswith("otasim: ")]
    assert "".join(told).startswith(words)
    assert len(told) == (1 if words else 0)


# --- the ready file -------------------------------------------------------------------------


def test_a_stale_ready_file_goes_before_the_board_is_made(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    ready.write_text('{"pid": 1}')
    done = run_to_its_end("--image", tmp_path / "missing.hex", "--ready-file", ready)
    assert done.returncode == 1
    assert not ready.exists()


def test_a_ready_file_of_another_board_stays(board: RunningBoard) -> None:
    other = json.dumps({"pid": 1})
    board.ready_file.write_text(other)
    board.stop()
    assert board.ready_file.read_text() == other


def test_a_ready_file_replaces_no_device(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    done = run_to_its_end("--ready-file", fifo)
    assert (done.returncode, "is no regular file" in done.stderr) == (1, True)
    assert fifo.is_fifo()


# --- the serial link ------------------------------------------------------------------------


def test_a_link_in_use_is_refused_and_one_of_a_killed_board_is_replaced(
    board: RunningBoard, tmp_path: Path
) -> None:
    second = run_to_its_end("--serial-link", board.link)
    assert second.returncode == 1
    assert f"{board.link} is in use by another otasim" in second.stderr
    call = client_caller(board.link, Framing.LINES)
    call("RPC.Ping")
    before = set(tmp_path.iterdir())
    board.kill()
    with RunningBoard("embedded", tmp_path) as again:
        client_caller(again.link, Framing.LINES)("RPC.Ping")
        again.stop()
    assert {path.name for path in tmp_path.iterdir()} == {"output.txt"}
    assert len(before) > 1


# --- the state directory --------------------------------------------------------------------


def test_an_image_that_is_not_used_is_told_about(tmp_path: Path) -> None:
    options = ("--state", str(tmp_path / "state"))
    unused = "holds a board already, --image is not used"
    first = RunningBoard("embedded", tmp_path, *options, "--image", "sample-2.0").stop()
    assert unused not in first
    second = RunningBoard("embedded", tmp_path, *options).stop()
    assert unused not in second
    third = RunningBoard("embedded", tmp_path, *options, "--image", "sample-1.0").stop()
    assert f"{tmp_path / 'state'} {unused}" in third
    assert "sample 2.0" in third


@pytest.mark.parametrize("speed", ["1e-300", "nan", "inf", "-1", "0"])
def test_a_speed_that_is_none_is_wrong_use(speed: str) -> None:
    done = run_to_its_end("--speed", speed)
    assert (done.returncode, "expected a number from 0.000001 to 1000" in done.stderr) == (2, True)
