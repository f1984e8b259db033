"""What another process calls a loader or a scenario of a test, so that a command can replay it."""

import os
import shlex
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from bootloader_model.loader import MosLoader
from campaign.boot import LoaderFactory
from campaign.reports.report import replay_command
from campaign.scenario import SCENARIOS, Scenario
from campaign.story import Story
from otasim.campaigns import NamedLoader


@dataclass(frozen=True, slots=True)
class Named:
    """Something that a command line can name.

    Attributes:
        name: how; None for what is meant when nothing is named.
        root: the directory that its module is imported from; None for what otasim brings.
    """

    name: str | None = None
    root: Path | None = None


def name_of_loader(loader: LoaderFactory) -> Named | None:
    """What a command line calls a loader; None when it has no name that can be imported."""
    if loader is MosLoader:
        return Named()
    if isinstance(loader, NamedLoader):
        return _named(*loader.name.split(":"))
    module_name, attribute = loader.__module__, getattr(loader, "__qualname__", "")
    if getattr(sys.modules.get(module_name), attribute, None) is not loader:
        return None
    return _named(module_name, attribute)


def name_of_scenario(scenario: Scenario, test_module: ModuleType) -> Named | None:
    """What a command line calls a scenario; None when it has no name that can be imported.

    Args:
        scenario: one of otasim's, one found by its name, or one that the test's module names.
        test_module: the module.
    """
    if scenario in SCENARIOS:
        return Named(scenario.name)
    if ":" in scenario.name:
        return _named(*scenario.name.split(":"))
    names = [name for name, value in vars(test_module).items() if value is scenario]
    return _named(test_module.__name__, names[0]) if names else None


def command_for(story: Story, loader: Named, scenario: Named, *, seed: int, directory: Path) -> str:
    """The line that replays a story, typed in `directory`.

    Modules that are found there only because pytest knows where they are get a PYTHONPATH.
    """
    command = replay_command(story, loader.name, seed)
    given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    known = {
        directory,
        *(directory / entry for entry in given),
        *(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")),
    }
    roots = dict.fromkeys(named.root for named in (loader, scenario) if named.root is not None)
    missing = [
        str(root.relative_to(directory) if root.is_relative_to(directory) else root)
        for root in roots
        if root not in known
    ]
    if not missing:
        return command
    return f"PYTHONPATH={shlex.quote(os.pathsep.join([*missing, *given]))} {command}"


def _named(module_name: str, attribute: str) -> Named | None:
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if file is None:
        return None
    path = Path(file).with_suffix("")
    parts = path.parent.parts if path.name == "__init__" else path.parts
    depth = module_name.count(".") + 1
    if ".".join(parts[-depth:]) != module_name:
        return None
    return Named(f"{module_name}:{attribute}", Path(*parts[:-depth]))
