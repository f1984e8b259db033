"""That the soak test runs, and that it fails when something does not hold."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.soak import Firmware, InvariantError, Model, Statistics, expect

ROOT = Path(__file__).resolve().parents[2]


def run_soak(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.soak", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def actions_of(done: subprocess.CompletedProcess[str]) -> str:
    return next(line for line in done.stdout.splitlines() if line.startswith("actions: "))


def test_ten_cycles_over_all_transports(tmp_path: Path) -> None:
    done = run_soak("--cycles", "10", "--seed", "1", "--check-every", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every invariant held" in done.stdout
    assert done.stdout.startswith("seed 1\n")
    assert done.stdout.endswith("seed 1: passed\n")
    again = run_soak("--cycles", "10", "--seed", "1", "--folder", str(tmp_path / "kept"))
    assert actions_of(again) == actions_of(done)
    assert "sample" in (tmp_path / "kept" / "console.txt").read_text()


def test_the_model_follows_updates_and_rollbacks() -> None:
    model = Model()
    model.running.files["a"] = b"1"
    model.update("2.0")
    model.running.files["a"] = b"2"
    model.roll_back()
    assert model == Model(Firmware("1.0", {"a": b"1"}))
    model.update("3.0")
    model.commit()
    model.roll_back()
    assert model == Model(Firmware("3.0", {"a": b"1"}))
    model.snapshot()
    model.running.files.clear()
    model.roll_back()
    assert model.running.files == {"a": b"1"}


def test_virtual_time_adds_up_over_restarts() -> None:
    statistics = Statistics()
    for uptime_s in (3, 5, 5, 2, 4):
        statistics.saw_uptime(uptime_s)
    assert statistics.virtual_s == 9


def test_what_does_not_hold_is_said() -> None:
    with pytest.raises(InvariantError, match="the answer: expected 42, found 41"):
        expect(41, 42, "the answer")
