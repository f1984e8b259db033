"""The Renode script, in Renode's own monitor."""

import shutil
import subprocess
from pathlib import Path

import pytest

import platforms

RENODE = shutil.which("renode")
SCRIPT = Path(platforms.__file__).parent / "stm32f405.resc"


@pytest.mark.skipif(RENODE is None, reason="renode is not on PATH")
def test_the_firmware_starts_in_renodes_own_monitor() -> None:
    assert RENODE is not None
    commands = f'include @{SCRIPT}; emulation RunFor "0.1"; quit'
    done = subprocess.run(
        [RENODE, "--disable-xwt", "--console", "--plain", "-e", commands],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "sample 1.0" in done.stdout, done.stdout + done.stderr
    assert "] ready" in done.stdout
