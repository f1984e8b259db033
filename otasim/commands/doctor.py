"""`otasim doctor`: what is there, and how to get what is not."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass

import click

from otasim.board import Board
from otasim.engines import EMBEDDED
from platforms.engines.embedded import instruction_counter
from platforms.engines.renode import library
from platforms.errors import OtasimError

EXIT_ENVIRONMENT = 3
_PATIENCE_S = 20
_RENODE_PATIENCE_S = 120
_COUNTS_SLOWLY = (
    "; this build of it does not show how many instructions it has executed, so that they are "
    "counted one by one: right, but slow. Unicorn 2.1.4 is known to be quick"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: what.
        ok: whether it is there and works.
        needed: whether the board cannot run without it.
        text: its version, or how to get it.
    """

    name: str
    ok: bool
    needed: bool
    text: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> None:
    """Say what is there (engines, mos, cross compiler) and how to get what is not."""
    findings = [_python(), _embedded_engine(), *_renode(), _mos(), _cross_compiler()]
    ok = all(finding.ok for finding in findings if finding.needed)
    if as_json:
        click.echo(json.dumps({"ok": ok, "findings": [asdict(item) for item in findings]}))
    else:
        for finding in findings:
            mark = "ok" if finding.ok else "MISSING" if finding.needed else "not there"
            click.echo(f"{mark:>9}  {finding.name}: {finding.text}")
    if not ok:
        raise SystemExit(EXIT_ENVIRONMENT)


def _python() -> Finding:
    version = sys.version.split()[0]
    return Finding("Python", ok=True, needed=True, text=f"{version} at {sys.executable}")


def _embedded_engine() -> Finding:
    try:
        with Board(engine=EMBEDDED) as board:
            board.run(1)
            works = "ready" in board.console
    except OtasimError as error:
        return Finding("engine embedded", ok=False, needed=True, text=str(error))
    version = importlib.metadata.version("unicorn")
    counts = "" if instruction_counter.native_offset() is not None else _COUNTS_SLOWLY
    text = (
        f"Unicorn {version}, the sample firmware runs on it{counts}"
        if works
        else "the sample firmware does not start; in a checkout: pip install --force-reinstall ."
    )
    return Finding("engine embedded", ok=works, needed=True, text=text)


def _renode() -> list[Finding]:
    """Each step in turn; the first that fails says how to mend it."""
    try:
        location = library.find()
    except library.RenodeNotFoundError as error:
        return [Finding("engine renode", ok=False, needed=False, text=str(error))]
    found = Finding(
        "Renode",
        ok=True,
        needed=False,
        text=f"{location.path} ({location.found_by}, runtime {location.runtime})",
    )
    try:
        # In a process of its own: what goes wrong in there may take the process with it.
        done = subprocess.run(
            [sys.executable, "-m", "otasim.renode_check"],
            capture_output=True,
            text=True,
            timeout=_RENODE_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        text = f"it does not start within {_RENODE_PATIENCE_S} s; check that Renode itself runs"
        return [found, Finding("engine renode", ok=False, needed=False, text=text)]
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0:
        return [found, Finding("engine renode", ok=True, needed=False, text=", ".join(lines))]
    reason = lines[-1] if lines else done.stderr.strip().splitlines()[-1:]
    text = f"{reason or 'it dies without a word'} (exit code {done.returncode})"
    return [found, Finding("engine renode", ok=False, needed=False, text=text)]


def _mos() -> Finding:
    environment = {**os.environ, "MOS_MIGRATE": "false"}
    version = _first_line("mos", ["version"], environment)
    return Finding(
        "host tool mos",
        ok=version is not None,
        needed=False,
        text=version
        or "not on PATH; `otasim call` does without, Mongoose OS's documentation "
        "says how to install it",
    )


def _cross_compiler() -> Finding:
    version = _first_line("arm-none-eabi-gcc", ["--version"], dict(os.environ))
    return Finding(
        "cross compiler",
        ok=version is not None,
        needed=False,
        text=version
        or "arm-none-eabi-gcc is not on PATH; only changing the sample firmware "
        "needs it (Debian: apt install gcc-arm-none-eabi)",
    )


def _first_line(program: str, arguments: list[str], environment: dict[str, str]) -> str | None:
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - a program of the user's own PATH
            [path, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} does not answer: {error}"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return f"{lines[0] if lines else '(says nothing)'} at {path}"
