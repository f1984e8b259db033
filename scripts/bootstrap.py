#!/usr/bin/env python3
"""Makes the project's virtual environment and runs its demo or its tests in it.

Needs nothing but Python: `python3 scripts/bootstrap.py demo` or `... test`; further arguments go to
`otasim demo` or to pytest. What is installed already is not installed again, so the second time is
quick.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = Path(os.environ.get("OTASIM_VENV", ROOT / ".venv"))
OLDEST_PYTHON = (3, 11)


def main(arguments: list[str]) -> int:
    """Prepare the environment, run what is asked for, and return its exit code."""
    if sys.version_info < OLDEST_PYTHON:
        print("otasim needs Python 3.11 or newer; this is", sys.version.split()[0], file=sys.stderr)
        return 3
    match arguments:
        case ["demo", *rest]:
            python = prepare("")
            return run(python, "-m", "otasim", "demo", *rest)
        case ["test", *rest]:
            python = prepare("test")
            return run(python, "-m", "pytest", "-n", str(workers()), *rest)
        case ["check", *rest]:
            python = prepare("dev")
            return (
                run(python, "-m", "ruff", "check", *rest)
                or run(python, "-m", "ruff", "format", "--check", *rest)
                or run(python, "-m", "mypy", *rest)
            )
    print("usage: bootstrap.py demo | test | check [arguments]", file=sys.stderr)
    return 2


def workers() -> int:
    """Test processes: more than a small machine has cores, because tests of real tools wait."""
    return max(4, os.cpu_count() or 1)


def prepare(extra: str) -> Path:
    """An environment with otasim and the packages of `extra`; returns its Python."""
    scripts = "Scripts" if os.name == "nt" else "bin"
    python = ENVIRONMENT / scripts / "python"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = ENVIRONMENT / f"installed-{extra or 'run'}"
    if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
        print(f"preparing {ENVIRONMENT} ...", file=sys.stderr)
        if not python.exists():
            venv.create(ENVIRONMENT, with_pip=True)
        package = f"{ROOT}[{extra}]" if extra else str(ROOT)
        command = [str(python), "-m", "pip", "install", "--quiet", "--editable", package]
        subprocess.run(command, check=True)
        stamp.write_text(wanted)
    return python


def run(python: Path, *arguments: str) -> int:
    """Run a Python module in the project's folder and return its exit code."""
    return subprocess.run([str(python), *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
