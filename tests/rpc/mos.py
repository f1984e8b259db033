"""The real host tool, with its own files kept out of the user's home."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MOS = shutil.which("mos")
needs_mos = pytest.mark.skipif(MOS is None, reason="the Mongoose OS tool `mos` is not installed")


def mos_environment(home: Path) -> dict[str, str]:
    """What `mos` runs in; `home` is a directory for its files."""
    (home / ".mos").mkdir(exist_ok=True)
    (home / ".mos" / "state.json").write_text("{}")
    return os.environ | {"HOME": str(home)}


def run_mos(home: Path, port: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `mos` on the device at `port`; `home` is a directory for its files."""
    return subprocess.run(
        [MOS or "mos", "--port", port, *arguments],
        env=mos_environment(home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
