#!/usr/bin/env python3
"""Measures what the README's benchmark section says, and prints it.

`python scripts/bench.py` for the embedded engine, `python scripts/bench.py --engine renode` for
Renode against bare Renode, `python scripts/bench.py --transports` for calls over the network and
for `mos`, `python scripts/bench.py --campaign` for power-cut campaigns. Memory over a long time is
`scripts/soak.py`'s affair.
"""

import argparse
import asyncio
import os
import platform
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from unicorn import arm_const, unicorn_const
from unicorn.unicorn_py3.unicorn import Uc

import firmware
from bootloader_model.layout import APP0_ADDRESS
from otasim import Board
from otasim.bundle_server import BundleServer, bundle_of
from otasim.engines import EMBEDDED, RENODE
from platforms.clock import NS_PER_S
from platforms.engines.renode import library
from rpc_shim.bundle.image_file import load_image
from rpc_shim.client import RpcClient, RpcClientError, RpcTimeoutError
from rpc_shim.frame import encode_result, parse_request
from rpc_shim.framing import (
    HANDSHAKE_ANSWER,
    FrameReceived,
    Handshake,
    LineDemultiplexer,
    encode_frame,
)
from rpc_shim.links.pty import PtyLink
from scripts.campaign_bench import measure_campaigns
from scripts.processes import BoardProcess, broker
from scripts.transport_clients import TRANSPORTS, Connect, call, connected

ROUNDS = 5
IDLE_ON_RENODE_S = 20
FIRST_INSTRUCTION, VIRTUAL_SECOND = "first-instruction", "virtual-second"
IMAGE_SIZE = 64 * 1024
PUSHED_SIZE = 16 * 1024
CALLING_S, MANY_CLIENTS = 2.0, 20
MOS_ROUNDS = 2
LOOP_INSTRUCTIONS = 20_000_000
# ldr r1, [r0]; adds r1, #1; str r1, [r0]; subs r2, #1; bne back
RAM_LOOP = bytes.fromhex("01680131 0160013a fad1")


def best(measure: Callable[[], float]) -> float:
    """The quickest of some rounds: what the code costs, without what else the machine does."""
    return min(measure() for _ in range(ROUNDS))


def update_reboot_commit(server: BundleServer) -> float:
    """An update of a 64 KB image until it is committed, in seconds of wall time."""
    url = server.publish("64k.zip", bundle_of("sample-2.0", padded_to=IMAGE_SIZE))
    with Board() as board:
        board.run(0.5)
        started = time.perf_counter()
        board.call("OTA.Update", {"url": url, "commit_timeout": 60})
        board.run_until(lambda: board.running and board.version == "2.0")
        board.call("OTA.Commit")
        return time.perf_counter() - started


def idle() -> float:
    """300 virtual seconds of the sample firmware's idle loop, in seconds of wall time."""
    with Board() as board:
        board.run(0.5)
        started = time.perf_counter()
        board.run(300)
        return time.perf_counter() - started


def bare_unicorn(*, counted: bool) -> float:
    """Instructions a second of a RAM loop on Unicorn alone, with or without its counter."""
    engine = Uc(
        unicorn_const.UC_ARCH_ARM, unicorn_const.UC_MODE_THUMB | unicorn_const.UC_MODE_MCLASS
    )
    engine.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M4)
    engine.mem_map(0x0800_0000, 0x1000)
    engine.mem_map(0x2000_0000, 0x1000)
    engine.mem_write(0x0800_0000, RAM_LOOP)
    engine.reg_write(arm_const.UC_ARM_REG_R0, 0x2000_0000)
    engine.reg_write(arm_const.UC_ARM_REG_R2, LOOP_INSTRUCTIONS // 5)
    started = time.perf_counter()
    count = LOOP_INSTRUCTIONS + 1 if counted else 0
    engine.emu_start(0x0800_0001, 0x0800_000A, 0, count)
    return LOOP_INSTRUCTIONS / (time.perf_counter() - started)


def board_instructions() -> float:
    """Instructions a second of the same loop on the whole board."""
    code = (0x2002_0000).to_bytes(4, "little") + (0x0801_0009).to_bytes(4, "little")
    # movs r0, #0x20; lsls r0, r0, #24; then the loop, without its end
    image = code + bytes.fromhex("20200006") + RAM_LOOP[:6] + bytes.fromhex("fbe7")
    with Board(image) as board:
        board.run(0.1)
        seconds = LOOP_INSTRUCTIONS / 16e6
        started, from_ns = time.perf_counter(), board.machine.clock.now_ns
        # Nobody feeds the watchdog here, so stay within its ten seconds.
        board.run(min(seconds, 9))
        executed = (board.machine.clock.now_ns - from_ns) * 16e6 / NS_PER_S
        return executed / (time.perf_counter() - started)


def run_to_ready() -> float:
    """`otasim run` from its start to its ready file, in seconds of wall time."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        started = time.perf_counter()
        command = [sys.executable, "-m", "otasim", "run", "--ready-file", str(ready)]
        command += ["--engine", "embedded"]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while not ready.exists():
                time.sleep(0.002)
            taken = time.perf_counter() - started
            process.send_signal(signal.SIGINT)
        return taken


def seconds_of(*arguments: str) -> float:
    """What this script prints when it is run with `arguments`: seconds."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def leave_renode(seconds: float) -> NoReturn:
    """Print a result and end the process without waiting for Renode."""
    print(seconds, flush=True)
    os._exit(0)


def board_on_renode(what: str) -> NoReturn:
    """Seconds to the first instruction, or for a virtual second, of the board on Renode."""
    started = time.perf_counter()
    board = Board(engine=RENODE)
    board.run_until(lambda: board.running)
    if what == FIRST_INSTRUCTION:
        board.run(0.001)
        leave_renode(time.perf_counter() - started)
    board.run(1)
    started = time.perf_counter()
    board.run(IDLE_ON_RENODE_S)
    leave_renode((time.perf_counter() - started) / IDLE_ON_RENODE_S)


def bare_renode(what: str) -> NoReturn:
    """The same of Renode alone: its own platform file and peripherals, the same firmware."""
    started = time.perf_counter()
    library.load()
    from Antmicro.Renode.Peripherals.CPU import RegisterValue  # noqa: PLC0415 - needs Renode
    from Antmicro.Renode.Time import TimeInterval  # noqa: PLC0415
    from Antmicro.Renode.UserInterface import MonitorTimeExtensions  # noqa: PLC0415
    from pyrenode3 import interface_to_class  # noqa: PLC0415
    from pyrenode3.wrappers import Emulation  # noqa: PLC0415

    emulation = Emulation()
    wrapper = emulation.add_mach("bare")
    wrapper.load_repl("platforms/cpus/stm32f4.repl")
    image = load_image(firmware.path("sample-1.0")).data
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(image)
        file.flush()
        wrapper.load_binary(file.name, APP0_ADDRESS)
    processor = interface_to_class(wrapper.internal["sysbus.cpu"])
    controller = interface_to_class(wrapper.internal["sysbus.nvic"])
    # The board's own speeds, so that a virtual second is the same work.
    processor.PerformanceInMips = 16
    controller.Frequency = 16_000_000
    processor.VectorTableOffset = APP0_ADDRESS
    processor.SP = RegisterValue.Create(int.from_bytes(image[:4], "little"), 32)
    processor.PC = RegisterValue.Create(int.from_bytes(image[4:8], "little"), 32)
    MonitorTimeExtensions.SetGlobalAdvanceImmediately(emulation.internal, True)
    step = TimeInterval.FromMilliseconds(10)
    emulation.internal.MasterTimeSource.Quantum = step
    if what == FIRST_INSTRUCTION:
        emulation.internal.RunFor(TimeInterval.FromMilliseconds(1))
        leave_renode(time.perf_counter() - started)
    for _ in range(100):
        emulation.internal.RunFor(step)
    started = time.perf_counter()
    for _ in range(100 * IDLE_ON_RENODE_S):
        emulation.internal.RunFor(step)
    leave_renode((time.perf_counter() - started) / IDLE_ON_RENODE_S)


def demo_on_renode() -> float:
    """The whole of `otasim demo --engine renode`, in seconds of wall time."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "otasim", "demo", "--engine", RENODE]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure_renode() -> None:
    """Renode with this board against Renode alone, in turns."""
    for what, words, aim in (
        (VIRTUAL_SECOND, "a virtual second of idle loop", 1.15),
        (FIRST_INSTRUCTION, "start to first instruction", 1.1),
    ):
        rounds = [
            (seconds_of("--board-on-renode", what), seconds_of("--bare-renode", what))
            for _ in range(ROUNDS)
        ]
        board, bare = (min(times) for times in zip(*rounds, strict=True))
        print(f"{words} on Renode: {board:.3f} s, on bare Renode: {bare:.3f} s")
        print(f"  of bare Renode:                       {board / bare:8.2f}      (aim {aim})")
    print(f"otasim demo on Renode:                  {demo_on_renode():8.1f} s    (aim 30 s)")


async def calls_a_second(connect: Connect, url: str, clients: int) -> float:
    """Answers to `RPC.Ping` a second that so many clients get, each with a connection of its own.

    The clients run in this process, on the board's machine, and cost about as much as the board.
    """
    answers = 0

    async def keep_calling(until_s: float) -> None:
        nonlocal answers
        async with connected(connect, url) as connection:
            while time.perf_counter() < until_s:
                await call(connection, "RPC.Ping", timeout_s=10)
                answers += 1

    started = time.perf_counter()
    await asyncio.gather(*(keep_calling(started + CALLING_S) for _ in range(clients)))
    return answers / (time.perf_counter() - started)


def measure_calls(folder: Path) -> None:
    """Calls a second over each transport of a board at full speed."""
    with ExitStack() as stack:
        mqtt_url = stack.enter_context(broker(folder))
        options = ["--speed", "max", "--tcp", "0", "--http", "0", "--udp", "0"]
        if mqtt_url is None:
            print("calls over MQTT: skipped, mosquitto is not installed")
        else:
            options += ["--mqtt", mqtt_url]
        board = BoardProcess(folder, *options)
        stack.callback(board.stop)
        time.sleep(0.5)  # until it has found its broker
        for name, url in board.urls.items():
            for clients in (1,) if name == "serial" else (1, MANY_CLIENTS):
                rate = asyncio.run(calls_a_second(TRANSPORTS[name], url, clients))
                many = "1 client" if clients == 1 else f"{clients} clients"
                print(f"calls over {name + ', ' + many + ':':28}{rate:9.0f} a second")


class AcknowledgingDevice:
    """A serial device that says yes to everything at once: what a transfer costs the tool."""

    def __init__(self) -> None:
        self._link = PtyLink()
        self.port = self._link.port
        self._end, self._ending = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        os.write(self._ending, b"!")
        self._thread.join()
        os.close(self._end)
        os.close(self._ending)
        self._link.close()

    def _serve(self) -> None:
        demultiplexer = LineDemultiplexer()
        while self._end not in select.select([self._link.fileno(), self._end], [], [])[0]:
            for event in demultiplexer.feed(self._link.read()):
                if isinstance(event, Handshake):
                    self._link.write(HANDSHAKE_ANSWER)
                elif isinstance(event, FrameReceived):
                    request = parse_request(event.json)
                    result = {"state": 0} if request.method == "OTA.Status" else None
                    answer = encode_result(request.address, "yes", result)
                    self._link.write(encode_frame(answer, event.style))


def mos_ota(mos: str, port: str, bundle: Path) -> float:
    """`mos ota` of a bundle with its default settings, in seconds of wall time."""
    started = time.perf_counter()
    subprocess.run(
        [mos, "--port", port, "ota", str(bundle)],
        env={**os.environ, "MOS_MIGRATE": "false"},
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - started


def commit_when_started(port: str) -> None:
    """Commit an update as soon as the board has restarted with it."""
    with RpcClient.open(port) as client:
        while True:
            try:
                client.call("OTA.Commit", timeout_s=1)
            except (RpcClientError, RpcTimeoutError):
                time.sleep(0.1)
            else:
                return


def measure_mos(folder: Path) -> None:
    """`mos ota` to a board at real time's pace against the same to a device that only says yes."""
    mos = shutil.which("mos")
    if mos is None:
        print("mos ota: skipped, mos is not on PATH")
        return
    bundle = folder / "16k.zip"
    bundle.write_bytes(bundle_of("sample-2.0", padded_to=PUSHED_SIZE))
    with ExitStack() as stack:
        acknowledging = AcknowledgingDevice()
        stack.callback(acknowledging.close)
        board = BoardProcess(folder)
        stack.callback(board.stop)
        rounds = []
        for _ in range(MOS_ROUNDS):
            own = mos_ota(mos, acknowledging.port, bundle)
            rounds.append((own, mos_ota(mos, board.urls["serial"], bundle)))
            commit_when_started(board.urls["serial"])
    own, real = (min(times) for times in zip(*rounds, strict=True))
    print(f"mos ota of 16 KB to the board:          {real:8.2f} s")
    print(f"the same to a device that only says yes:{own:8.2f} s")
    print(f"  of that:                              {real / own:8.2f}      (aim 1.1)")


def measure_transports() -> None:
    """Calls over all transports, and `mos`."""
    for measure in (measure_calls, measure_mos):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder))


def main() -> None:
    """Measure and print, a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=(EMBEDDED, RENODE), default=EMBEDDED)
    parser.add_argument("--board-on-renode", metavar="WHAT", help=argparse.SUPPRESS)
    parser.add_argument("--bare-renode", metavar="WHAT", help=argparse.SUPPRESS)
    parser.add_argument("--transports", action="store_true", help="measure calls and mos instead")
    parser.add_argument("--campaign", action="store_true", help="measure campaigns instead")
    arguments = parser.parse_args()
    if arguments.board_on_renode:
        board_on_renode(arguments.board_on_renode)
    if arguments.bare_renode:
        bare_renode(arguments.bare_renode)
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    if arguments.campaign:
        measure_campaigns()
    elif arguments.transports:
        measure_transports()
    elif arguments.engine == RENODE:
        measure_renode()
    else:
        measure_embedded()


def measure_embedded() -> None:
    """The board on the embedded engine."""
    with BundleServer() as server:
        update = best(lambda: update_reboot_commit(server))
    print(f"update of 64 KB, reboot, commit:        {update:8.3f} s    (aim 0.1 s)")
    print(f"300 virtual seconds of idle loop:       {best(idle):8.3f} s    (aim 1 s)")
    bare = 1 / best(lambda: 1 / bare_unicorn(counted=False))
    counted = 1 / best(lambda: 1 / bare_unicorn(counted=True))
    board = 1 / best(lambda: 1 / board_instructions())
    print(f"RAM loop on bare Unicorn:               {bare / 1e6:8.1f} million instructions/s")
    print(f"RAM loop on bare Unicorn, counted:      {counted / 1e6:8.1f} million instructions/s")
    print(f"RAM loop on the board:                  {board / 1e6:8.1f} million instructions/s")
    print(f"  of bare Unicorn:                      {board / bare:8.2f}      (aim 0.8)")
    print(f"  of bare Unicorn, counted:             {board / counted:8.2f}")
    print(f"otasim run, start to ready:             {best(run_to_ready):8.3f} s    (aim 0.7 s)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process:            {peak:8.0f} MB")


if __name__ == "__main__":
    main()
