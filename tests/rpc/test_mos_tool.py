"""The real host tool, unmodified and with its default settings, against the RPC service."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rpc.mos import needs_mos, run_mos
from tests.rpc.serving import ServedDevice, serve

pytestmark = needs_mos

Mos = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[ServedDevice]:
    with serve(tmp_path / "port") as device:
        yield device


@pytest.fixture
def mos(device: ServedDevice, tmp_path: Path) -> Mos:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_mos(tmp_path, device.port, "call", *arguments)

    return run


def test_calls_among_log_text(mos: Mos, device: ServedDevice) -> None:
    assert "Echo" in json.loads(mos("RPC.List").stdout)
    arguments = {"text": 'quotes """ and {braces}', "data": "x" * 600}
    assert json.loads(mos("Echo", json.dumps(arguments)).stdout) == arguments
    assert not device.console


def test_success_without_a_result_and_an_error(mos: Mos) -> None:
    later = mos("Later")
    assert (later.returncode, later.stdout.strip()) == (0, "null")
    missing = mos("No.Such")
    assert missing.returncode != 0
    assert "remote error 404: No handler for No.Such" in missing.stderr
