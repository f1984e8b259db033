"""The programs that load tests and measurements run: a board, and a broker where there is one."""

import getpass
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

_START_LIMIT_S = 120.0
_STEP_S = 0.01


class ProcessError(Exception):
    """A program does not run as it should; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process uses.

    Attributes:
        memory_kb: resident memory.
        descriptors: open file descriptors.
        threads: threads.
    """

    memory_kb: int
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.memory_kb / 1024:.1f} MB, {self.descriptors} file descriptors, "
            f"{self.threads} threads"
        )


class BoardProcess:
    """`otasim run` on the embedded engine.

    Args:
        folder: where its files go.
        options: of `otasim run`.

    Attributes:
        console: the file with all that it has printed.
        urls: where it can be reached, by the names of the ready file; `serial` is one of them.

    Raises:
        ProcessError: it ends before it is ready.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.console = folder / "console.txt"
        ready = folder / "ready.json"
        command = [sys.executable, "-m", "otasim", "run", "--engine", "embedded"]
        with self.console.open("wb") as console:
            self._process = subprocess.Popen(
                [*command, "--ready-file", str(ready), *options],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_for(ready, self)
        except ProcessError:
            self._process.kill()
            raise
        content = json.loads(ready.read_text())
        self.urls: Mapping[str, str] = {
            name: value for name, value in content.items() if name not in {"pid", "engine"}
        }

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def resources(self) -> Resources:
        """What it uses at this moment, as Linux counts it."""
        process = Path("/proc") / str(self._process.pid)
        lines = (process / "status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        return Resources(
            memory_kb=int(status["VmRSS"].split()[0]),
            descriptors=len(list((process / "fd").iterdir())),
            threads=int(status["Threads"]),
        )

    def stop(self) -> int:
        """End it as Ctrl-C does; returns its exit code."""
        if self.is_alive:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(timeout=_START_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise ProcessError("otasim run does not end at Ctrl-C") from None


def _wait_for(ready: Path, board: BoardProcess) -> None:
    deadline_s = time.monotonic() + _START_LIMIT_S
    while not ready.exists():
        if not board.is_alive or time.monotonic() > deadline_s:
            raise ProcessError(f"the board is not ready:\n{board.console.read_text()}")
        time.sleep(_STEP_S)


@contextmanager
def broker(folder: Path) -> Iterator[str | None]:
    """The URL of a mosquitto of our own; None where it is not installed."""
    if MOSQUITTO is None:
        yield None
        return
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
    configuration = folder / "mosquitto.conf"
    # Without a user it gives up being root, and without the last line acknowledgements wait 40 ms.
    configuration.write_text(
        f"user {getpass.getuser()}\nlistener {port} 127.0.0.1\nallow_anonymous true\n"
        "set_tcp_nodelay true\n"
    )
    with (folder / "mosquitto.txt").open("wb") as output:
        process = subprocess.Popen(
            [MOSQUITTO, "-c", str(configuration)], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline_s = time.monotonic() + _START_LIMIT_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise ProcessError(f"no broker:\n{(folder / 'mosquitto.txt').read_text()}")
            time.sleep(_STEP_S)
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
