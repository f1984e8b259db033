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
from typing import Self

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

_START_LIMIT_S = 120.0
_BROKER_START_LIMIT_S = 60.0
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


class Mosquitto:
    """A broker of our own that can be stopped and started again at the same place.

    Args:
        folder: where its files go.
        access: the lines of its configuration that say who may connect.

    Attributes:
        port: where it listens on the loopback once it is started.
    """

    def __init__(self, folder: Path, access: str = "allow_anonymous true") -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = int(taken.getsockname()[1])
        self._output = folder / "mosquitto.txt"
        self._configuration = folder / "mosquitto.conf"
        # Without a user it gives up being root, and the files it is given with it; without the last
        # line acknowledgements wait 40 ms.
        self._configuration.write_text(
            f"user {getpass.getuser()}\nlistener {self.port} 127.0.0.1\n{access}\n"
            "set_tcp_nodelay true\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What `--mqtt` takes."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            ProcessError: it ends before, or takes too long.
        """
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [MOSQUITTO or "mosquitto", "-c", str(self._configuration)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline_s = time.monotonic() + _BROKER_START_LIMIT_S
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise ProcessError(f"no broker:\n{self._output.read_text()}")
            time.sleep(_STEP_S)

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()


@contextmanager
def broker(folder: Path) -> Iterator[str | None]:
    """The URL of a mosquitto of our own; None where it is not installed."""
    if MOSQUITTO is None:
        yield None
        return
    with Mosquitto(folder) as mosquitto:
        mosquitto.start()
        yield mosquitto.url


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
