"""Finding and loading Renode: what is missing, half there or too old is said in one line."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otasim.engines import RENODE, missing_engine
from platforms.engines.renode import library

HAS_PACKAGES = not library.missing_packages()
needs_packages = pytest.mark.skipif(
    not HAS_PACKAGES, reason="pyrenode3 and pythonnet are not installed"
)
PATIENCE_S = 120
TRUE = shutil.which("true") or "/bin/true"


@pytest.mark.skipif(HAS_PACKAGES, reason="pyrenode3 and pythonnet are installed")
def test_without_the_packages_it_says_which_and_how() -> None:
    with pytest.raises(library.RenodeNotFoundError, match=r"pyrenode3.*pip install"):
        library.find({})


@needs_packages
@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PYRENODE_BUILD_DIR": "/nowhere"}, "/nowhere, which does not exist"),
        ({"PYRENODE_PKG": "/nowhere.tar.xz"}, "/nowhere.tar.xz, which does not exist"),
        ({"PYRENODE_BUILD_DIR": "/", "PYRENODE_PKG": "/"}, "keep one of them"),
        ({"PYRENODE_BUILD_DIR": "/"}, "Renode.exe"),
        ({"PYRENODE_BUILD_DIR": "/", "PYRENODE_RUNTIME": "coreclr"}, "Renode.dll"),
        ({"PYRENODE_BIN": "/"}, "PYRENODE_RUNTIME=coreclr"),
        ({"PYRENODE_BIN": "/", "PYRENODE_RUNTIME": "coreclr"}, "which is no program"),
        ({"PYRENODE_PKG": "/"}, "which is no archive"),
        ({"PYRENODE_PKG": __file__}, "which is no archive"),
        ({"PYRENODE_RUNTIME": "java"}, "expected one of mono, coreclr"),
    ],
)
def test_what_is_wrong_with_the_environment_is_said(environment: dict[str, str], said: str) -> None:
    with pytest.raises(library.RenodeNotFoundError) as caught:
        library.find(environment)
    assert said in str(caught.value)


@pytest.mark.parametrize("version", ["1.15.3.0", "1.9.0", "unknown", ""])
def test_an_old_renode_is_refused(version: str) -> None:
    with pytest.raises(library.RenodeTooOldError, match=r"expected 1\.16\.0 or newer") as caught:
        library.check_version(version)
    assert caught.value.version == version


@pytest.mark.parametrize("version", ["1.16.0.0", "1.16.1.8561", "2.0.0"])
def test_a_new_renode_is_taken(version: str) -> None:
    library.check_version(version)


def half_a_renode(folder: Path) -> dict[str, str]:
    """A build directory in which Renode is no program."""
    output = folder / "output" / "bin" / "Release"
    output.mkdir(parents=True)
    (output / "Renode.exe").write_bytes(b"not a program")
    return {"PYRENODE_BUILD_DIR": str(folder), "PYRENODE_RUNTIME": "mono"}


def run_demo(
    environment: dict[str, str], engine: str = "renode"
) -> subprocess.CompletedProcess[str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYRENODE")}
    return subprocess.run(
        [sys.executable, "-m", "otasim", "demo", "--engine", engine],
        env={**others, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_renode_that_is_missing_is_one_line_and_code_3() -> None:
    done = run_demo({"PYRENODE_BUILD_DIR": "/nowhere"})
    assert done.returncode == 3
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


@needs_packages
def test_renode_that_is_half_there_is_one_line_and_code_3(tmp_path: Path) -> None:
    done = run_demo(half_a_renode(tmp_path))
    assert done.returncode == 3, done.stderr
    assert "does not load" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


@needs_packages
def test_auto_goes_on_without_a_renode_that_is_half_there_and_says_why(tmp_path: Path) -> None:
    done = run_demo(half_a_renode(tmp_path), engine="auto")
    assert done.returncode == 0, done.stderr
    assert "engine: embedded" in done.stdout
    (warning,) = done.stderr.strip().splitlines()
    assert "embedded engine is used" in warning
    assert "does not load" in warning


def load_error(environment: dict[str, str]) -> str:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYRENODE")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD],
        env={**others, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.stdout.strip()


LOAD = """
from platforms.engines.renode import library
try:
    print(library.load())
except library.RenodeError as error:
    print(error)
"""


@needs_packages
def test_a_program_that_is_not_renode_is_called_so() -> None:
    said = load_error({"PYRENODE_BIN": TRUE, "PYRENODE_RUNTIME": "coreclr"})
    assert "it is not the portable Renode of .NET" in said


@needs_packages
@pytest.mark.skipif(shutil.which("dotnet") is not None, reason=".NET is installed")
def test_a_runtime_that_is_missing_is_said_to_the_end(tmp_path: Path) -> None:
    environment = half_a_renode(tmp_path)
    output = tmp_path / "output" / "bin" / "Release"
    for name in ("Renode.dll", "Renode.runtimeconfig.json"):
        (output / name).write_text("{}")
    said = load_error({**environment, "PYRENODE_RUNTIME": "coreclr"})
    assert "runtime coreclr" in said
    assert "Failed to create a .NET runtime" in said
    assert "dotnet" in said.partition("does not load: ")[2]
    assert len(said.splitlines()) == 1


INTERRUPTED = """
import os, signal, sys, threading
from platforms.engines.renode import library

interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)
try:
    threading.Timer(int(sys.argv[1]) / 1000, interrupt).start()
    library.load()
    threading.Event().wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
os._exit(0)
"""


def test_an_interrupt_waits_for_what_must_not_be_interrupted() -> None:
    done: list[str] = []

    def work() -> None:
        with library.uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(bool(missing_engine(RENODE)), reason="Renode is not there")
@pytest.mark.parametrize("delay_ms", [0, 20, 50, 80, 120, 200])
def test_ctrl_c_while_renode_loads_is_an_interrupt(delay_ms: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERRUPTED, str(delay_ms)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stdout.strip() == "interrupted", done.stderr
