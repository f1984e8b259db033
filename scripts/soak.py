#!/usr/bin/env python3
"""Soak test: thousands of updates, commits and rollbacks over all transports of one board.

    python scripts/soak.py --cycles 1000
    python scripts/soak.py --minutes 5 --seed 7

One `otasim run --speed max --state DIR` is the board. In each cycle one client on one transport
changes the board, and a model of it here says what must come of that; clients on all the other
transports call, flood, send garbage and vanish meanwhile. Which cycle does what comes from the seed
alone. Every so many cycles, and at the end, everything that must hold is looked at. The exit code
is 0 only when all of it held.
"""

import argparse
import asyncio
import base64
import json
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from otasim import Board
from otasim.bundle_server import BundleServer, bundle_of
from platforms.devices.flash_memory import WEAR_COUNT_SIZE
from platforms.storage import INTERNAL_WEAR_FILE, NOR_WEAR_FILE
from rpc_shim.dispatch import RpcError
from rpc_shim.frame import JsonValue
from scripts.processes import BoardProcess, ProcessError, Resources, broker
from scripts.transport_clients import (
    TRANSPORTS,
    Connection,
    LostError,
    Params,
    address,
    call,
    connected,
    send_and_vanish,
)

PATIENCE_S = 60.0
"""Real seconds for what is sure to come; only its absence takes all of them."""
FIRST_LIMIT_S, LOST_LIMIT_S = 0.05, 1.0
"""Real seconds for an answer that may be lost because the board restarts: at first, and at most."""
LONG_S = 1_000_000
"""Virtual seconds that never pass: at full speed an hour of them takes many real seconds."""
SHORT_S = 30

WARM_UP_CYCLES = 700
FILLING_KB, BOUND_KB = 72 * 1024, 8 * 1024
"""How much the board may grow until the warm-up is over, and from then on. Until then its trace
fills, which keeps the newest 100,000 events, a few hundred of them from each cycle."""

SAMPLES = ("sample-1.0", "sample-2.0", "sample-3.0")
SIZES = (0, 4096, 16_384)
BAD_SAMPLES = ("hang-2.1", "hardfault-2.2", "no-main-loop-2.3")
FILE_NAMES = tuple(f"file{number}.txt" for number in range(6))
LONGEST_FILE = 1500
CHUNK_SIZES = (256, 512, 1024, 2048)
TAIL = 40

# What the console says when clients send what they should not: the noise here does.
PROVOKED = re.compile(
    r"^(rpc: (\S+ failed with code|\S+ refused:|frame .*dropped|\d+ requests dropped)|"
    r"(tcp|udp): .* dropped|mqtt: (message|answer) .*dropped|"
    r"tcp: \S+ does not read its answers|ws: a client does not read its answers|"
    r"ota: update failed:)"
)
TROUBLE = re.compile(
    r"error|fail|dropped|traceback|exception|cannot|falling back|no rollback|disconnected|refuse",
    re.IGNORECASE,
)


Action = Callable[[random.Random], Awaitable[None]]
ConnectTo = Callable[[str], AbstractAsyncContextManager[Connection]]
Urls = Mapping[str, str]


class InvariantError(Exception):
    """Something does not hold."""


def expect(actual: object, expected: object, what: str) -> None:
    """InvariantError unless both are equal."""
    if actual != expected:
        raise InvariantError(f"{what}: expected {expected!r}, found {actual!r}")


# --- the model -----------------------------------------------------------------------------------


@dataclass
class Firmware:
    """A version, and the files that belong to it."""

    version: str
    files: dict[str, bytes]

    def copy(self) -> "Firmware":
        """The same, to be changed without this one."""
        return Firmware(self.version, dict(self.files))


@dataclass
class Model:
    """What the board must be like.

    Attributes:
        running: the firmware that runs.
        way_back: what a rollback brings; None when the firmware is committed.
        failed_updates: how often the console must have told of one.
        watchdog_resets: how often it must have told of one.
    """

    running: Firmware = field(default_factory=lambda: Firmware("1.0", {}))
    way_back: Firmware | None = None
    failed_updates: int = 0
    watchdog_resets: int = 0

    def update(self, version: str) -> None:
        """Another firmware runs, with the same files, and is not committed."""
        self.way_back = self.running
        self.running = Firmware(version, dict(self.running.files))

    def snapshot(self) -> None:
        """What runs is the way back."""
        self.way_back = self.running.copy()

    def commit(self) -> None:
        """There is no way back any more."""
        self.way_back = None

    def roll_back(self) -> None:
        """The way back has been taken."""
        if self.way_back is not None:
            self.running, self.way_back = self.way_back, None


# --- what is counted -----------------------------------------------------------------------------


@dataclass
class Statistics:
    """What has been done so far."""

    cycles: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    noise: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    uptime_s: int = 0
    virtual_s: int = 0

    def saw_uptime(self, uptime_s: int) -> None:
        """An application has told how long it has been running: less than before is a new one."""
        if uptime_s >= self.uptime_s:
            self.virtual_s += uptime_s - self.uptime_s
        else:
            self.virtual_s += uptime_s
        self.uptime_s = uptime_s


# --- the driver ----------------------------------------------------------------------------------


class Driver:
    """Changes the board, over one transport at a time, and the model with it.

    Args:
        urls: where the board is.
        connect: a connection on a transport.
        server: where bundles can be had.
        statistics: counts.
        log: takes one line about each step.
    """

    def __init__(
        self,
        urls: Urls,
        connect: ConnectTo,
        server: BundleServer,
        statistics: Statistics,
        log: Callable[[str], None],
    ) -> None:
        self.model = Model()
        self.transport = ""
        self._urls = urls
        self._connect = connect
        self._statistics = statistics
        self._log = log
        self._bundles = {
            (sample, size): bundle_of(sample, padded_to=size)
            for sample in SAMPLES
            for size in SIZES
        } | {(sample, 0): bundle_of(sample) for sample in BAD_SAMPLES}
        self._published = {
            key: server.publish(f"{key[0]}-{key[1]}.zip", bundle)
            for key, bundle in self._bundles.items()
        }
        whole = self._bundles["sample-3.0", 0]
        middle = len(whole) // 2
        self._broken = {
            "short": whole[:-900],
            "altered": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        }
        self._published_broken = {
            name: server.publish(f"{name}.zip", bundle) for name, bundle in self._broken.items()
        }
        self._actions: dict[str, tuple[int, Action]] = {
            "pull": (6, self._pull),
            "push": (5, self._push),
            "upload": (3, self._upload),
            "snapshot": (2, self._snapshot),
            "bad image": (1, self._bad_image),
            "broken bundle": (2, self._broken_bundle),
            "abandoned push": (1, self._abandoned_push),
            "abandoned upload": (1, self._abandoned_upload),
            "files": (4, self._files),
        }

    # -- looking ----------------------------------------------------------------------------------

    async def until_as_predicted(self) -> None:
        """Wait until the board is what the model says; InvariantError when it never is."""
        deadline_s = time.monotonic() + PATIENCE_S
        found: object = "no answer"
        limit_s = FIRST_LIMIT_S
        while True:
            try:
                async with self._connect(self.transport) as connection:
                    found = await self._look(connection, limit_s)
            except LostError as error:
                found = str(error)
                limit_s = min(2 * limit_s, LOST_LIMIT_S)
            if found == self._predicted():
                return
            if time.monotonic() > deadline_s:
                expect(found, self._predicted(), f"the board over {self.transport}")
            await asyncio.sleep(0.002)

    async def check_files(self) -> None:
        """InvariantError when the files are not the model's."""
        async with self._connect(self.transport) as connection:
            expect(await self._read_files(connection), self.model.running.files, "files")

    async def adopt(self) -> None:
        """Make the model what the board is, after the two have parted, and the board committed."""
        async with self._connect(self.transport) as connection:
            if member(await self._call(connection, "OTA.Status"), "state") == 1:
                await self._call(connection, "OTA.Abort")
            state = await self._call(connection, "OTA.GetBootState")
            if not member(state, "is_committed"):
                await self._call(connection, "OTA.Commit")
            info = await self._call(connection, "Sys.GetInfo")
            self.model = Model(
                Firmware(str(member(info, "fw_version")), await self._read_files(connection))
            )

    def _predicted(self) -> tuple[JsonValue, ...]:
        is_committed = self.model.way_back is None
        return self.model.running.version, 0, is_committed, not is_committed

    async def _read_files(self, connection: Connection) -> dict[str, bytes]:
        names = await self._call(connection, "FS.List")
        found: dict[str, bytes] = {}
        for name in names if isinstance(names, list) else ():
            answer = await self._call(connection, "FS.Get", {"filename": name})
            found[str(name)] = base64.b64decode(str(member(answer, "data")))
        return found

    async def _look(self, connection: Connection, limit_s: float) -> tuple[JsonValue, ...]:
        info = await self._call(connection, "Sys.GetInfo", timeout_s=limit_s)
        state = await self._call(connection, "OTA.GetBootState", timeout_s=limit_s)
        uptime = member(info, "uptime")
        self._statistics.saw_uptime(uptime if isinstance(uptime, int) else 0)
        return (
            member(info, "fw_version"),
            member(state, "active_slot"),
            member(state, "is_committed"),
            member(state, "revert_slot") != -1,
        )

    # -- calling ----------------------------------------------------------------------------------

    async def _call(
        self,
        connection: Connection,
        method: str,
        params: Params | None = None,
        *,
        timeout_s: float = PATIENCE_S,
    ) -> JsonValue:
        self._statistics.calls[self.transport] += 1
        return await call(connection, method, params, timeout_s=timeout_s)

    async def _do(self, method: str, params: Params | None = None) -> JsonValue:
        async with self._connect(self.transport) as connection:
            return await self._call(connection, method, params)

    async def _refused(self, method: str, params: Params | None = None) -> None:
        try:
            result = await self._do(method, params)
        except RpcError:
            return
        raise InvariantError(f"{method} should have been refused, and answers {result!r}")

    async def _reboot_by(self, method: str, params: Params | None = None) -> None:
        """A call after which the board reboots: at full speed that may overtake the answer."""
        try:
            async with self._connect(self.transport) as connection:
                await self._call(connection, method, params, timeout_s=5)
        except LostError:
            self._statistics.lost[f"{self.transport} {method}"] += 1

    # -- actions ----------------------------------------------------------------------------------

    def choose(self, rng: random.Random, transports: Sequence[str]) -> Action:
        """What to do next; `transport` is what it goes over."""
        names = list(self._actions)
        name = rng.choices(names, [weight for weight, _ in self._actions.values()])[0]
        self.transport = "http" if "upload" in name else rng.choice(transports)
        self._statistics.actions[name] += 1
        self._log(f"{name} over {self.transport}")
        return self._actions[name][1]

    async def _pull(self, rng: random.Random) -> None:
        sample, size = self._choose_update(rng)
        ending = self._choose_ending(rng)
        url = self._published[sample, size]
        await self._reboot_by("OTA.Update", {"url": url, "commit_timeout": ending.commit_timeout})
        await self._end_update(rng, sample, ending)

    async def _push(self, rng: random.Random) -> None:
        sample, size = self._choose_update(rng)
        ending = self._choose_ending(rng)
        bundle = self._bundles[sample, size]
        async with self._connect(self.transport) as connection:
            await self._begin(connection, len(bundle), ending.commit_timeout)
            await self._write(connection, bundle, rng)
            try:
                await self._call(connection, "OTA.End", timeout_s=5)
            except LostError:
                self._statistics.lost[f"{self.transport} OTA.End"] += 1
        await self._end_update(rng, sample, ending)

    async def _upload(self, rng: random.Random) -> None:
        sample, size = self._choose_update(rng)
        ending = self._choose_ending(rng)
        form = aiohttp.FormData()
        form.add_field("commit_timeout", str(ending.commit_timeout))
        form.add_field("timeout", "86400")
        form.add_field("file", self._bundles[sample, size], filename="fw.zip")
        self._statistics.calls[self.transport] += 1
        url = self._urls["http"].removesuffix("/rpc") + "/update"
        try:
            async with aiohttp.ClientSession() as session, session.post(url, data=form) as answer:
                expect((answer.status, await answer.text())[0], 200, "status of an upload")
        except (aiohttp.ClientError, OSError):
            self._statistics.lost["http /update"] += 1
        await self._end_update(rng, sample, ending)

    async def _snapshot(self, rng: random.Random) -> None:
        is_way_back = rng.random() < 0.7
        params: Params = {"set_as_revert": is_way_back, "commit_timeout": LONG_S}
        answer = await self._do("OTA.CreateSnapshot", params)
        self._log(f"  slot {member(answer, 'slot')}")
        if is_way_back:
            self.model.snapshot()
            await self._finish(rng, rng.choice(("commit", "revert", "reboot")))

    async def _bad_image(self, rng: random.Random) -> None:
        sample = rng.choice(BAD_SAMPLES)
        self._log(f"  {sample}")
        params: Params = {"url": self._published[sample, 0], "commit_timeout": LONG_S}
        await self._reboot_by("OTA.Update", params)
        self.model.watchdog_resets += 1

    async def _broken_bundle(self, rng: random.Random) -> None:
        name = rng.choice(list(self._broken))
        self.model.failed_updates += 1
        if rng.random() < 0.5:
            await self._refused("OTA.Update", {"url": self._published_broken[name]})
            return
        bundle = self._broken[name]
        async with self._connect(self.transport) as connection:
            await self._begin(connection, len(bundle), LONG_S)
            try:
                await self._write(connection, bundle, rng)
                await self._call(connection, "OTA.End")
            except RpcError as refusal:
                self._log(f"  {refusal}")
                return
        raise InvariantError(f"the bundle that is {name} has been accepted")

    async def _abandoned_push(self, rng: random.Random) -> None:
        bundle = self._bundles["sample-2.0", SIZES[-1]]
        async with self._connect(self.transport) as connection:
            await self._begin(connection, len(bundle), LONG_S)
            await self._write(connection, bundle[: rng.randrange(len(bundle))], rng)
        expect(member(await self._do("OTA.Status"), "state"), 1, "state of an abandoned update")
        await self._refused("OTA.Update", {"url": self._published["sample-2.0", 0]})
        await self._do("OTA.Abort")
        self.model.failed_updates += 1

    async def _abandoned_upload(self, rng: random.Random) -> None:
        bundle = self._bundles["sample-2.0", SIZES[-1]]
        sent = bundle[: rng.randrange(2048, len(bundle) - 1)]
        head = (
            "POST /update?timeout=86400 HTTP/1.1\r\nHost: board\r\n"
            f"Content-Length: {len(bundle)}\r\n\r\n"
        )
        _, writer = await asyncio.open_connection(*address(self._urls["http"]))
        writer.write(head.encode() + sent)
        await self._until_update_is(1)
        writer.transport.abort()
        await self._until_update_is(2)
        self.model.failed_updates += 1

    async def _files(self, rng: random.Random) -> None:
        files = self.model.running.files
        async with self._connect(self.transport) as connection:
            for _ in range(rng.randint(1, 6)):
                name = rng.choice(FILE_NAMES)
                data = rng.randbytes(rng.randint(0, LONGEST_FILE))
                what = rng.choice(("put", "put", "append", "remove", "rename"))
                if what in {"remove", "rename"} and name not in files:
                    what = "put"
                params: Params = {"filename": name}
                if what == "remove":
                    await self._call(connection, "FS.Remove", params)
                    del files[name]
                elif what == "rename":
                    other = rng.choice(FILE_NAMES)
                    await self._call(connection, "FS.Rename", {"src": name, "dst": other})
                    files[other] = files.pop(name)
                else:
                    is_more = what == "append" and len(files.get(name, b"")) <= LONGEST_FILE
                    params |= {"data": base64.b64encode(data).decode(), "append": is_more}
                    await self._call(connection, "FS.Put", params)
                    files[name] = files.get(name, b"") + data if is_more else data
        await self.check_files()

    # -- parts of actions -------------------------------------------------------------------------

    def _choose_update(self, rng: random.Random) -> tuple[str, int]:
        others = [name for name in SAMPLES if not name.endswith(self.model.running.version)]
        return rng.choice(others), rng.choice(SIZES)

    def _choose_ending(self, rng: random.Random) -> "Ending":
        return rng.choices(ENDINGS, [ending.weight for ending in ENDINGS])[0]

    async def _begin(self, connection: Connection, size: int, commit_timeout: int) -> None:
        params: Params = {"timeout": 86_400, "commit_timeout": commit_timeout, "size": size}
        await self._call(connection, "OTA.Begin", params)

    async def _write(self, connection: Connection, bundle: bytes, rng: random.Random) -> None:
        size = rng.choice(CHUNK_SIZES)
        for offset in range(0, len(bundle), size):
            data = base64.b64encode(bundle[offset : offset + size]).decode()
            for _ in range(2 if rng.random() < 0.05 else 1):
                await self._call(connection, "OTA.Write", {"offset": offset, "data": data})

    async def _end_update(self, rng: random.Random, sample: str, ending: "Ending") -> None:
        self._log(f"  {sample}, then {ending.name}")
        self.model.update(sample.rpartition("-")[2])
        await self._finish(rng, ending.name)

    async def _finish(self, rng: random.Random, ending: str) -> None:
        if ending == "automatic":
            self.model.commit()
            return
        if ending == "timeout":
            self.model.roll_back()
            return
        await self.until_as_predicted()
        if rng.random() < 0.3:
            await self._files(rng)
        if ending == "commit":
            await self._do("OTA.Commit")
            self.model.commit()
            await self._refused("OTA.Commit")
        else:
            await self._reboot_by("OTA.Revert" if ending == "revert" else "Sys.Reboot")
            self.model.roll_back()

    async def _until_update_is(self, state: int) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while (found := member(await self._do("OTA.Status"), "state")) != state:
            if time.monotonic() > deadline_s:
                expect(found, state, "state of the update")
            await asyncio.sleep(0.002)


@dataclass(frozen=True)
class Ending:
    """How an update ends: its name, the commit timeout for it, and how often it is chosen."""

    name: str
    commit_timeout: int
    weight: int


ENDINGS = (
    Ending("commit", LONG_S, 5),
    Ending("revert", LONG_S, 3),
    Ending("reboot", LONG_S, 2),
    Ending("timeout", SHORT_S, 1),
    Ending("automatic", 0, 2),
)


def member(value: JsonValue, key: str) -> JsonValue:
    """A member of an answer; InvariantError when it is not there."""
    if not isinstance(value, dict) or key not in value:
        raise InvariantError(f"an answer without {key}: {value!r}")
    found: JsonValue = value[key]
    return found


# --- the others ----------------------------------------------------------------------------------

READ_ONLY: tuple[tuple[str, Params | None], ...] = (
    ("RPC.Ping", None),
    ("RPC.List", None),
    ("RPC.Describe", {"name": "OTA.Update"}),
    ("Sys.GetInfo", None),
    ("OTA.Status", None),
    ("OTA.GetBootState", None),
    ("Config.Get", None),
    ("FS.List", None),
    ("FS.ListExt", None),
)
WRONG: tuple[tuple[str, Params | None], ...] = (
    ("No.Such", None),
    ("OTA.Update", {"url": 5}),
    ("OTA.Write", {"offset": -1, "data": "?"}),
    ("FS.Get", {"filename": "no such file"}),
    ("Config.Set", {"config": {"no": {"such": 1}}}),
)
BURST, CROWD = 40, 20


class Noise:
    """Clients that change nothing, on all transports but the driver's.

    Args:
        urls: where the board is.
        connect: a connection on a transport.
        counts: what they have done, by name.
    """

    def __init__(self, urls: Urls, connect: ConnectTo, counts: Counter[str]) -> None:
        self._urls = urls
        self._connect = connect
        self._counts = counts
        self._problems: list[str] = []

    @asynccontextmanager
    async def on(self, transports: Sequence[str], seed: str) -> AsyncIterator[None]:
        """Make noise as long as this lasts, then vanish; InvariantError for a wrong answer."""
        tasks = [
            asyncio.create_task(self._disturb(name, random.Random(f"{seed}/{name}")))  # noqa: S311
            for name in transports
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if not isinstance(outcome, asyncio.CancelledError) and outcome is not None:
                raise outcome

    async def _disturb(self, transport: str, rng: random.Random) -> None:
        deeds = {"calls": 8, "wrong calls": 2, "bursts": 1, "garbage": 1, "vanishing": 2}
        if transport in {"tcp", "http", "ws"}:
            deeds["crowds"] = 1
        task = asyncio.current_task()
        # Asked, because libraries that wait with a time limit may swallow the cancellation.
        while task is None or not task.cancelling():
            deed = rng.choices(list(deeds), list(deeds.values()))[0]
            try:
                await self._do(deed, transport, rng)
                self._counts[f"{deed} over {transport}"] += 1
            except LostError:
                # The board restarts again and again: there is nothing to learn from that.
                self._counts["lost"] += 1
            await asyncio.sleep(rng.uniform(0, 0.02))

    async def _do(self, deed: str, transport: str, rng: random.Random) -> None:
        if deed == "crowds":
            await asyncio.gather(*(self._vanish(transport, rng) for _ in range(CROWD)))
        elif deed == "vanishing":
            await self._vanish(transport, rng)
        else:
            async with self._connect(transport) as connection:
                await self._talk(deed, connection, rng)

    async def _talk(self, deed: str, connection: Connection, rng: random.Random) -> None:
        if deed == "calls":
            method, params = rng.choice(READ_ONLY)
            await call(connection, method, params, timeout_s=LOST_LIMIT_S)
        elif deed == "wrong calls":
            method, params = rng.choice(WRONG)
            try:
                result = await call(connection, method, params, timeout_s=LOST_LIMIT_S)
            except RpcError:
                return
            raise InvariantError(f"{method} {params} is answered {result!r}")
        elif deed == "bursts":
            for _ in range(BURST):
                await connection.send(b'{"id":0,"method":"RPC.List"}')
            await call(connection, "RPC.Ping", timeout_s=LOST_LIMIT_S)
        else:
            await connection.send(self._garbage(rng))

    async def _vanish(self, transport: str, rng: random.Random) -> None:
        if transport in {"tcp", "http", "ws"}:
            requests = (
                b"",
                b"GET /rpc HTTP/1.1\r\nHost:",
                b'{"id":1,"method":"RPC.List"}\n' * rng.randint(1, BURST),
                b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
                self._garbage(rng),
            )
            url = self._urls[transport]
            await send_and_vanish(url, rng.choice(requests))
        else:
            async with self._connect(transport) as connection:
                await connection.send(b'{"id":0,"method":"RPC.List"}')

    def _garbage(self, rng: random.Random) -> bytes:
        return rng.choice(
            (
                rng.randbytes(rng.randint(0, 3000)),
                b'{"id":0,"method":"' + b"x" * 6000 + b'"}',
                b"[" * 2000,
                b'{"id":0,"method":"RPC.Ping"}}{]',
            )
        )


# --- the whole -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """How long to go on, and how often to look at everything.

    Attributes:
        cycles: how many; None for as many as fit into `seconds`.
        seconds: real time.
        check_every: cycles between two checks of everything.
        keep_going: whether to go on after a failure.
    """

    cycles: int | None
    seconds: float | None
    check_every: int
    keep_going: bool


class Soak:
    """One soak test.

    Args:
        folder: for the board's files.
        board: the board.
        seed: what the order of actions comes from.
        connect: a connection on a transport.
        server: for bundles.
    """

    def __init__(
        self, folder: Path, board: BoardProcess, seed: int, connect: ConnectTo, server: BundleServer
    ) -> None:
        self.statistics = Statistics()
        self.failures: list[str] = []
        self.actions: deque[str] = deque(maxlen=TAIL)
        self.first: Resources | None = None
        self.warm: Resources | None = None
        self.last: Resources | None = None
        self.memory_kb: list[int] = []
        self._state = folder / "state"
        self._board = board
        self._seed = seed
        self._transports = list(board.urls)
        self.driver = Driver(board.urls, connect, server, self.statistics, self.actions.append)
        self._noise = Noise(board.urls, connect, self.statistics.noise)
        self._console_read = 0
        self._console_counts: Counter[str] = Counter()

    async def run(self, limits: Limits) -> None:
        """Go on until the limits are reached, or until something does not hold."""
        started_s = time.monotonic()
        number = 0
        while limits.cycles is None or number < limits.cycles:
            if limits.seconds is not None and time.monotonic() - started_s >= limits.seconds:
                break
            number += 1
            failed = len(self.failures)
            await self._noting_failures(self._cycle(number))
            if number % limits.check_every == 0:
                await self._noting_failures(self.check())
            if len(self.failures) > failed:
                if not limits.keep_going or not self._board.is_alive:
                    return
                await self._noting_failures(self._start_over())
        await self._noting_failures(self.check())

    async def check(self) -> None:
        """InvariantError unless everything holds."""
        for transport in self._transports:
            self.driver.transport = transport
            await self.driver.until_as_predicted()
        await self.driver.check_files()
        self._check_console()
        self._check_state_directory()
        await self._check_resources()

    def stop(self) -> None:
        """End the board; another one with the same flash must be what this one was."""
        expect(self._board.stop(), 0, "exit code of otasim run")
        self._check_console()
        model = self.driver.model
        with Board(state_directory=self._state) as board:
            if model.way_back is not None:
                model.roll_back()  # its restart is a reset without a commit
            board.run_until(lambda: board.running and board.version == model.running.version)
            expect(board.boot_state is not None and board.boot_state.is_committed, True, "commit")

    def wear(self) -> str:
        """How evenly the sectors have been erased."""
        told = []
        for name, file in (("NOR", NOR_WEAR_FILE), ("internal", INTERNAL_WEAR_FILE)):
            content = (self._state / file).read_bytes()
            counts = [count for (count,) in struct.iter_unpack("<I", content) if count]
            assert WEAR_COUNT_SIZE == 4  # noqa: S101 - what "<I" reads
            told.append(
                f"{name} flash: {len(counts)} sectors erased, "
                f"{min(counts, default=0)} to {max(counts, default=0)} times each"
            )
        return "; ".join(told)

    def console_tail(self) -> list[str]:
        """The last lines of the console."""
        text = self._board.console.read_text(errors="backslashreplace")
        return text.splitlines()[-TAIL:]

    # -- internals --------------------------------------------------------------------------------

    async def _cycle(self, number: int) -> None:
        seed = f"{self._seed}/{number}"
        rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.actions.append(f"cycle {number}")
        act = self.driver.choose(rng, self._transports)
        others = [name for name in self._transports if name != self.driver.transport]
        async with self._noise.on(others, seed):
            # It may have restarted a moment ago, and have its broker still to find.
            await self.driver.until_as_predicted()
            await act(rng)
            await self.driver.until_as_predicted()
        self.statistics.cycles += 1

    async def _start_over(self) -> None:
        """After a failure: what it has left behind must not count as the next one."""
        await asyncio.sleep(1)  # an update may be about to reboot
        self.driver.transport = "tcp"
        await self.driver.adopt()
        self._console_read = self._board.console.stat().st_size
        self._console_counts = Counter({"reset cause power-on": 1})

    async def _noting_failures(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (InvariantError, LostError, RpcError, ProcessError) as error:
            self.failures.append(
                f"after {self.statistics.cycles} cycles: {type(error).__name__}: {error}"
            )
            print(f"FAILED after {self.statistics.cycles} cycles: {error}", flush=True)

    def _check_console(self) -> None:
        with self._board.console.open("rb") as console:
            console.seek(self._console_read)
            new = console.read()
        end = new.rfind(b"\n") + 1
        self._console_read += end
        counted = ("ota: update failed", "reset cause watchdog", "reset cause power-on")
        for line in new[:end].decode(errors="backslashreplace").splitlines():
            self._console_counts.update(text for text in counted if text in line)
            if TROUBLE.search(line) and not PROVOKED.search(line):
                raise InvariantError(f"nobody has provoked this on the console: {line}")
        model = self.driver.model
        expect(
            [self._console_counts[text] for text in counted],
            [model.failed_updates, model.watchdog_resets, 1],
            "failed updates, watchdog resets and power-ons on the console",
        )

    def _check_state_directory(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "otasim", "state", str(self._state), "--json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        expect(done.returncode, 0, f"exit code of otasim state ({done.stderr.strip()})")
        told = json.loads(done.stdout)
        winner = told["winner"]
        expect(
            (winner["active_slot"], winner["is_committed"], winner["revert_slot"] == -1),
            (0, self.driver.model.way_back is None, self.driver.model.way_back is None),
            "active slot, committed, no revert slot in the newest record",
        )
        records = [record for area in told["areas"] for record in area["records"]]
        expect(winner["seq"], max(record["seq"] for record in records), "the newest record")
        bad = [record for record in records if record["status"] not in {"valid", "stale seq"}]
        expect(bad, [], "records that are not good")

    async def _check_resources(self) -> None:
        """Once the noise has gone, nothing of it is left."""
        now = await self._settled(self.first)
        self.last = now
        self.memory_kb.append(now.memory_kb)
        if self.first is None:
            self.first = now
            return
        expect(
            (now.descriptors, now.threads),
            (self.first.descriptors, self.first.threads),
            "file descriptors and threads",
        )
        start, bound_kb = self.first, FILLING_KB
        if self.warm is not None:
            start, bound_kb = self.warm, BOUND_KB
        elif self.statistics.cycles >= WARM_UP_CYCLES:
            self.warm = now
        grown_kb = now.memory_kb - start.memory_kb
        if grown_kb > bound_kb:
            raise InvariantError(
                f"the board has grown by {grown_kb:,} KB, the bound is {bound_kb:,} KB"
            )

    async def _settled(self, wanted: Resources | None) -> Resources:
        """What the board uses when it has had time to clean up."""
        deadline_s = time.monotonic() + 10
        before = self._board.resources()
        while True:
            await asyncio.sleep(0.2)
            now = self._board.resources()
            same = before if wanted is None else wanted
            if (now.descriptors, now.threads) == (same.descriptors, same.threads):
                return now
            if time.monotonic() > deadline_s:
                return now
            before = now


async def soak(seed: int, limits: Limits, kept_folder: Path | None) -> int:
    """Run it, print how it went, and return the exit code."""
    async with AsyncExitStack() as stack:
        if kept_folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        else:
            folder = kept_folder
            folder.mkdir(parents=True)
        mqtt_url = stack.enter_context(broker(folder))
        options = ["--speed", "max", "--state", str(folder / "state"), "--serial-link"]
        options += [str(folder / "board"), "--tcp", "0", "--http", "0", "--udp", "0"]
        if mqtt_url is None:
            print("mosquitto is not installed (apt install mosquitto): without MQTT")
        else:
            options += ["--mqtt", mqtt_url]
        board = BoardProcess(folder, *options)
        stack.callback(board.stop)
        server = stack.enter_context(BundleServer())
        mqtt: Connection | None = None
        if mqtt_url is not None:
            # One client of the broker for all: the board does not see it come and go anyway.
            mqtt = await stack.enter_async_context(
                connected(TRANSPORTS["mqtt"], board.urls["mqtt"])
            )

        def connect(transport: str) -> AbstractAsyncContextManager[Connection]:
            if transport == "mqtt" and mqtt is not None:
                return nullcontext(mqtt)
            return connected(TRANSPORTS[transport], board.urls[transport])

        test = Soak(folder, board, seed, connect, server)
        started_s = time.monotonic()
        await test.run(limits)
        if not test.failures:
            try:
                test.stop()
            except (InvariantError, ProcessError) as error:
                test.failures.append(f"at the end: {error}")
        report(test, time.monotonic() - started_s)
        return 1 if test.failures else 0


def report(test: Soak, seconds: float) -> None:
    """Print a summary."""
    done = test.statistics
    print(
        f"{done.cycles} cycles in {seconds:.0f} s ({done.cycles / seconds:.1f} a second), "
        f"at least {done.virtual_s:,} s of virtual time"
    )
    print(f"actions: {_told(done.actions)}")
    print(f"calls that changed and checked: {_told(done.calls)}")
    print(f"meanwhile: {_told(done.noise)}")
    print(f"answers overtaken by the reboot that they announce: {_told(done.lost)}")
    print(f"wear: {test.wear()}")
    print(f"the board at the first check:    {test.first}")
    print(f"the board after the warm-up:     {test.warm or f'(takes {WARM_UP_CYCLES} cycles)'}")
    print(f"the board at the end:            {test.last}")
    print(f"its memory at each check in MB:  {' '.join(str(kb // 1024) for kb in test.memory_kb)}")
    if not test.failures:
        print("every invariant held")
        return
    print("\n".join(["", "the last actions:", *test.actions]))
    print("\n".join(["", "the end of the console:", *test.console_tail()]))
    print("\n".join(["", "FAILED:", *test.failures]))


def _told(counts: Counter[str]) -> str:
    told = ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items()))
    return told or "none"


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--cycles", type=int, help="how many cycles (default 1000)")
    length.add_argument("--minutes", type=float, help="go on for so long instead")
    parser.add_argument("--seed", type=int, help="of an earlier run, to repeat it")
    parser.add_argument(
        "--check-every", type=int, default=50, metavar="N", help="cycles between two full checks"
    )
    parser.add_argument("--keep-going", action="store_true", help="also after a failure")
    parser.add_argument(
        "--folder", type=Path, help="make this one for the board's files and keep them"
    )
    given = parser.parse_args()
    seed = random.randrange(1_000_000) if given.seed is None else given.seed  # noqa: S311
    seconds = None if given.minutes is None else 60 * given.minutes
    cycles = 1000 if given.cycles is None and seconds is None else given.cycles
    print(f"seed {seed}", flush=True)
    limits = Limits(cycles, seconds, given.check_every, keep_going=given.keep_going)
    try:
        code = asyncio.run(soak(seed, limits, given.folder))
    except ProcessError as error:
        print(error)
        code = 1
    print(f"seed {seed}: {'failed' if code else 'passed'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
