"""The command line as a shell runs it."""

import subprocess
import sys
from pathlib import Path


def otasim(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `otasim` to its end, which no error of the user's may make a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "otasim", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done
