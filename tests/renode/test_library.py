"""Finding and loading Renode: what is missing, half there or too old is said in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from platforms.engines.renode import library

HAS_PACKAGES = not library.missing_packages()
needs_packages = pytest.mark.skipif(
    not HAS_PACKAGES, reason="pyrenode3 and pythonnet are not installed"
)
PATIENCE_S = 120


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


def run_demo(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYRENODE")}
    return subprocess.run(
        [sys.executable, "-m", "otasim", "demo", "--engine", "renode"],
        env={**others, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_renode_that_is_missing_is_one_line_and_code_3() -> None:
    done = run_demo({"PYRENODE_BUILD_DIR": "/nowhere"})
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@needs_packages
def test_renode_that_is_half_there_is_one_line_and_code_3(tmp_path: Path) -> None:
    output = tmp_path / "output" / "bin" / "Release"
    output.mkdir(parents=True)
    (output / "Renode.exe").write_bytes(b"not a program")
    done = run_demo({"PYRENODE_BUILD_DIR": str(tmp_path), "PYRENODE_RUNTIME": "mono"})
    assert done.returncode == 3, done.stderr
    assert "does not load" in done.stderr
    assert "Traceback" not in done.stderr
