"""A board's thread that serves network links, and a device with a few methods."""

import base64
import json
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from rpc_shim.dispatch import (
    Call,
    Channel,
    Dispatcher,
    Guard,
    PendingReply,
    RpcError,
    allow_everything,
)
from rpc_shim.frame import JsonValue
from rpc_shim.links.network import LinkSettings, Network
from rpc_shim.services.rpc import register_rpc_service

WAIT_S = 60.0
MAX_FRAME_SIZE = 4096
ResultT = TypeVar("ResultT")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that is sure to come; only its absence takes the whole time."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.002)


@dataclass
class FakeOta:
    """What the OTA methods were called with."""

    begun: list[dict[str, JsonValue]] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    chunk_sizes: list[int] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    fail: dict[str, RpcError] = field(default_factory=dict)
    running: bool = False
    session: JsonValue = None

    def handle(self, call: Call) -> JsonValue:
        name = call.method.removeprefix("OTA.")
        self.calls.append(name)
        params = call.request.params
        assert params is None or isinstance(params, dict)
        params = dict(params or {})
        session = params.pop("session", None)
        if error := self.fail.get(name):
            raise error
        if name == "Begin":
            if self.running:
                raise RpcError(-1, "Update already in progress")
            self.running, self.session = True, session
            self.begun.append(params)
            self.data.clear()
        elif self.running and session not in (None, self.session):
            raise RpcError(-1, "another update")
        elif name == "Write":
            chunk = base64.b64decode(str(params["data"]), validate=True)
            assert params["offset"] == len(self.data)
            self.data += chunk
            self.chunk_sizes.append(len(chunk))
        elif name in {"End", "Abort"}:
            if not self.running:
                raise RpcError(-1, "no update")
            self.running = False
        return None


@dataclass
class Device:
    """One boot of the application: what it was asked, and what waits for its answer."""

    ota: FakeOta
    log: list[str]
    guard: Guard = allow_everything
    channels: list[Channel] = field(default_factory=list)
    waiting: list[PendingReply] = field(default_factory=list)
    done: list[JsonValue] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher("dev", self.log.append, self.guard)
        register_rpc_service(self.dispatcher)
        self.dispatcher.register("Echo", self._echo)
        self.dispatcher.register("Later", lambda call: self.waiting.append(call.defer()))
        self.dispatcher.register("Zero", self._fail(0, "done"))
        for code in (400, 403, 404, 500, -1):
            self.dispatcher.register(f"Fail{code}", self._fail(code, f"error {code}"))
        self.dispatcher.register("Big", lambda call: "x" * int(str(self._params(call)["size"])))
        for name in ("Begin", "Write", "End", "Abort", "Commit", "Revert"):
            self.dispatcher.register(f"OTA.{name}", self.ota.handle)

    def _params(self, call: Call) -> dict[str, JsonValue]:
        params = call.request.params
        return dict(params) if isinstance(params, dict) else {}

    def _echo(self, call: Call) -> JsonValue:
        self.done.append(call.request.params)
        return call.request.params

    def _fail(self, code: int, message: str) -> Callable[[Call], JsonValue]:
        def fail(_call: Call) -> JsonValue:
            raise RpcError(code, message)

        return fail


class FakeBoard:
    """The thread that owns the network; `do` has things done in it."""

    def __init__(self, *settings: LinkSettings, guard: Guard = allow_everything) -> None:
        self._guard = guard
        self._settings = settings
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe()
        self._stopping = False
        self.hangs = False
        self.log: list[str] = []
        self.ota = FakeOta()
        self.device: Device | None = None
        self._opened: Future[Network] = Future()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        try:
            self.network = self._opened.result()
        except BaseException:
            self._join()
            raise

    def do(self, work: Callable[[], ResultT]) -> ResultT:
        """Have something done between two turns, and wait for it."""
        result: Future[ResultT] = Future()

        def order() -> None:
            try:
                result.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                result.set_exception(error)

        self._orders.put(order)
        os.write(self._wake_write, b"!")
        return result.result(WAIT_S)

    def start(self) -> Device:
        """The application starts."""

        def start() -> Device:
            self.device = Device(self.ota, self.log, self._guard)
            self.network.application_started("dev", MAX_FRAME_SIZE)
            return self.device

        return self.do(start)

    def reset(self) -> None:
        """The application's RAM goes."""

        def end() -> None:
            self.network.application_ended()
            self.device = None

        self.do(end)

    def hang(self) -> None:
        """The main loop makes no more turns."""
        self.do(lambda: setattr(self, "hangs", True))

    def go_on(self) -> None:
        """The main loop makes turns again."""
        self.do(lambda: setattr(self, "hangs", False))

    def answer_all(self) -> None:
        """Answer the calls of `Later`."""

        def answer() -> None:
            assert self.device is not None
            for pending in self.device.waiting:
                pending.result("at last")
            self.device.waiting.clear()

        self.do(answer)

    def wait_for_call(self, number: int = 1) -> None:
        """Wait until this many calls of `Later` wait for their answers."""
        wait_until(
            lambda: self.device is not None and len(self.device.waiting) == number,
            f"call number {number}",
        )

    def answer_and_reset(self) -> None:
        """Answer a call of `Later`, and let the application end right behind that."""

        def answer() -> None:
            assert self.device is not None
            self.device.waiting[0].result("at last")
            self.network.application_ended()

        self.do(answer)

    @property
    def pending(self) -> int:
        """How many requests wait for a turn of the main loop."""
        return self.do(lambda: len(self.network._mailbox._entries))

    def url(self, transport: str) -> str:
        """What `mos --port` takes."""
        return self.do(lambda: self.network.urls[transport])

    def address(self, transport: str) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url(transport).split("/")[2].rpartition(":")
        return host, int(port)

    def port(self, transport: str) -> int:
        """The port."""
        return self.address(transport)[1]

    def close(self) -> None:
        """End everything."""

        def close() -> None:
            self.device = None
            self.network.close()

        self.do(close)
        self._join()

    def _join(self) -> None:
        self._stopping = True
        os.write(self._wake_write, b"!")
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        try:
            network = Network(self._settings)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self._opened.set_exception(error)
            return
        self._opened.set_result(network)
        while not self._stopping:
            watched = [self._wake_read]
            if self.device is not None and not self.hangs:
                watched.append(network.fileno())
            for ready in select.select(watched, [], [])[0]:
                if ready == self._wake_read:
                    os.read(self._wake_read, 1)
                    while not self._orders.empty():
                        self._orders.get()()
                elif self.device is not None and not self.hangs:
                    self._turn(network, self.device)

    def _turn(self, network: Network, device: Device) -> None:
        self.log.extend(network.take_lines())
        for request in network.take():
            device.channels.append(request.channel)
            device.dispatcher.handle(request.frame, request.reply, request.channel)

    def logged(self, part: str) -> bool:
        """Whether a log line holds `part`."""
        self.do(lambda: self.log.extend(self.network.take_lines()))
        return any(part in line for line in self.log)


@contextmanager
def running(*settings: LinkSettings, guard: Guard = allow_everything) -> Iterator[FakeBoard]:
    """A board whose application runs."""
    board = FakeBoard(*settings, guard=guard)
    try:
        board.start()
        yield board
    finally:
        board.close()


def frame(method: str, request_id: int = 1, **members: object) -> bytes:
    """The frame of a call."""
    return json.dumps({"id": request_id, "src": "test", "method": method, **members}).encode()
