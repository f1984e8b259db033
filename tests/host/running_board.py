"""An `otasim run` process for tests, and a caller of its methods."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from rpc_shim.client import Framing, RpcClient
from rpc_shim.frame import JsonValue
from scripts.processes import broker

Caller = Callable[..., JsonValue]
PATIENCE_S = 120
CALL_S = 60


class RunningBoard:
    """An `otasim run` process, which is killed at the latest at the end of its `with`."""

    def __init__(self, engine: str, folder: Path, *options: str) -> None:
        self.link = folder / "board"
        self.ready_file = folder / "ready.json"
        self.output = folder / "output.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "otasim", "run", "--engine", engine, "--speed", "4",
                    "--serial-link", str(self.link), "--ready-file", str(self.ready_file), *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            self.ready = self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()

    def _wait_until_ready(self) -> dict[str, JsonValue]:
        deadline = time.monotonic() + PATIENCE_S
        # A killed board may have left its own ready file.
        while (ready := self._read_ready_file()).get("pid") != self.process.pid:
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, "the board never became ready"
            time.sleep(0.02)
        return ready

    def _read_ready_file(self) -> dict[str, JsonValue]:
        try:
            content: dict[str, JsonValue] = json.loads(self.ready_file.read_text())
        except FileNotFoundError:
            return {}
        return content

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGINT) -> str:
        self.process.send_signal(number)
        self.process.wait(timeout=PATIENCE_S)
        return self.output.read_text()

    @contextmanager
    def expecting(self, *texts: str) -> Iterator[None]:
        """What is done inside makes these texts appear on the console, one behind the other."""
        place = len(self.output.read_text())
        yield
        deadline = time.monotonic() + PATIENCE_S
        for text in texts:
            while (found := self.output.read_text().find(text, place)) < 0:
                assert time.monotonic() < deadline, (
                    f"no {text!r} in {self.output.read_text()[place:]}"
                )
                time.sleep(0.02)
            place = found + len(text)


@contextmanager
def on_all_transports(folder: Path, *options: str) -> Iterator[RunningBoard]:
    """A board on all transports at once; without a broker on this machine, on all but MQTT."""
    with broker(folder) as url, RunningBoard(
        "embedded", folder, "--tcp", "0", "--http", "0", "--udp", "0",
        *(("--mqtt", url) if url else ()), *options,
    ) as board:  # fmt: skip
        yield board
        board.stop()


def client_caller(link: Path, framing: Framing) -> Caller:
    first_id = 1

    def call(method: str, params: dict[str, JsonValue] | None = None) -> JsonValue:
        nonlocal first_id
        first_id += 1000
        with RpcClient.open(str(link), framing=framing, first_id=first_id) as client:
            return client.call(method, params, timeout_s=CALL_S)

    return call
