#!/usr/bin/env python3
"""Measures what the README's benchmark section says, and prints it: `python scripts/bench.py`."""

import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from unicorn import arm_const, unicorn_const
from unicorn.unicorn_py3.unicorn import Uc

from otasim import Board
from otasim.bundle_server import BundleServer, bundle_of
from platforms.clock import NS_PER_S

ROUNDS = 5
IMAGE_SIZE = 64 * 1024
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


def main() -> None:
    """Measure and print, a line each."""
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
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
