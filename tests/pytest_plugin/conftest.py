"""A user's project in a folder of its own, where otasim is installed and its plugin found."""

import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def installed(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A folder for a project; what runs in it as a process of its own has otasim installed.

    It is installed as far as pytest can tell: what pip would write of it can be imported, and so
    can the code. The command `otasim` is there as well.
    """
    packages, commands = tmp_path / "packages", tmp_path / "bin"
    metadata = packages / f"otasim-{PROJECT['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Name: otasim\nVersion: {PROJECT['version']}\n")
    plugins = "".join(f"{k} = {v}\n" for k, v in PROJECT["entry-points"]["pytest11"].items())
    (metadata / "entry_points.txt").write_text(f"[pytest11]\n{plugins}")
    files = [path.relative_to(ROOT) for path in (ROOT / "otasim").rglob("*.py")]
    (metadata / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    commands.mkdir()
    (commands / "otasim").write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m otasim "$@"\n')
    (commands / "otasim").chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", f"{packages}:{ROOT}")
    monkeypatch.setenv("PATH", str(commands), prepend=":")
    return pytester


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder for a project whose tests run in this process."""
    pytester.makepyprojecttoml(
        """
        [tool.pytest.ini_options]
        addopts = "--strict-config --strict-markers -p otasim.pytest_plugin -p no:cacheprovider"
        filterwarnings = ["error"]
        """
    )
    return pytester
