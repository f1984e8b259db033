"""What a command line calls the loaders and scenarios of tests."""

import sys
import sysconfig
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from bootloader_model.loader import MosLoader
from campaign.boot import LoaderFactory
from campaign.scenario import SCENARIOS
from campaign.story import Story
from otasim.campaigns import find_loader
from otasim.pytest_plugin.names import Named, command_for, name_of_loader, name_of_scenario
from tests.campaign import own_loader
from tests.campaign.own_loader import IDLE, FirstSlot

ROOT = Path(__file__).parents[2]
STORY = Story("idle", None)


class Outer:
    class Inner(FirstSlot):
        pass


NAMESAKE = type("FirstSlot", (FirstSlot,), {"__module__": own_loader.__name__})


def make_loader() -> FirstSlot:
    return FirstSlot()


@pytest.mark.parametrize(
    ("loader", "name"),
    [
        (FirstSlot, "tests.campaign.own_loader:FirstSlot"),
        (make_loader, f"{__name__}:make_loader"),
        (find_loader("tests.campaign.own_loader:FirstSlot"), "tests.campaign.own_loader:FirstSlot"),
    ],
)
def test_what_stands_at_the_top_of_a_module_has_a_name(loader: LoaderFactory, name: str) -> None:
    assert name_of_loader(loader) == Named(name, ROOT)


def test_the_shipped_loader_is_what_is_meant_without_a_name() -> None:
    assert name_of_loader(MosLoader) == Named()
    assert name_of_loader(find_loader(None)) == Named()


@pytest.mark.parametrize("loader", [Outer.Inner, NAMESAKE, partial(FirstSlot)])
def test_what_cannot_be_imported_has_none(loader: LoaderFactory) -> None:
    assert name_of_loader(loader) is None


def test_a_module_that_is_not_where_its_name_says_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("loaded_by_hand")
    module.__file__ = str(tmp_path / "other.py")
    monkeypatch.setitem(sys.modules, "loaded_by_hand", module)
    kind = type("Own", (FirstSlot,), {"__module__": "loaded_by_hand"})
    monkeypatch.setattr(module, "Own", kind, raising=False)
    assert name_of_loader(kind) is None
    module.__file__ = str(tmp_path / "loaded_by_hand" / "__init__.py")
    assert name_of_loader(kind) == Named("loaded_by_hand:Own", tmp_path)


def test_scenarios_have_the_names_that_otasim_or_the_test_gives_them() -> None:
    here = sys.modules[__name__]
    assert name_of_scenario(SCENARIOS[0], here) == Named("update-commit")
    assert name_of_scenario(IDLE, here) == Named(f"{__name__}:IDLE", ROOT)
    assert name_of_scenario(IDLE, ModuleType("other")) is None
    assert name_of_scenario(IDLE, own_loader) == Named("tests.campaign.own_loader:IDLE", ROOT)


@pytest.mark.parametrize(
    ("roots", "pythonpath", "told"),
    [
        ([None, None], "", ""),
        (["/project", None], "", ""),
        (["/project/src", "/project/tests"], "", "PYTHONPATH=src:tests "),
        (["/project/src", "/project/src"], "/libraries", "PYTHONPATH=src:/libraries "),
        (["/libraries", "/project/src"], "/libraries:src", ""),
        ([sysconfig.get_path("purelib"), "/a b"], "", "PYTHONPATH='/a b' "),
    ],
)
def test_a_command_says_where_modules_are(
    monkeypatch: pytest.MonkeyPatch, roots: list[str | None], pythonpath: str, told: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", pythonpath)
    loader, scenario = (Named("m:X", Path(root) if root else None) for root in roots)
    command = command_for(STORY, loader, scenario, seed=4, directory=Path("/project"))
    assert command == f"{told}otasim campaign --replay idle --loader m:X --seed 4"
