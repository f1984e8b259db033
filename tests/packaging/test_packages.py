"""What is installed: whole packages, typed, and nothing else at the top level."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]


@pytest.mark.parametrize("package", WHEEL["packages"])
def test_every_package_is_one_and_typed(package: str) -> None:
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert folders
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]
    assert (ROOT / package / "py.typed").is_file()


def test_what_belongs_to_the_project_alone_is_not_installed() -> None:
    assert not {"scripts", "tests"} & set(WHEEL["packages"])


def test_the_command_is_there() -> None:
    module, _, function = PROJECT["project"]["scripts"]["otasim"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_pytest_plugin_is_there_under_its_own_name() -> None:
    for name, module in PROJECT["project"]["entry-points"]["pytest11"].items():
        assert name == module
        assert importlib.util.find_spec(module) is not None
