"""Campaigns by name: the loader, the scenario and the workers that a command line speaks of."""

import importlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import bootloader_model
import campaign
import firmware
import otasim
import platforms
import rpc_shim
from bootloader_model.custom_loader import LoaderNameError, load_loader
from bootloader_model.loader import MosLoader
from bootloader_model.protocol import Loader
from campaign.boot import LoaderFactory
from campaign.expand import Plan
from campaign.processor import WholeBoard
from campaign.saved import SavedWork, cache_directory, fingerprint
from campaign.scenario import SCENARIOS, Scenario
from campaign.work import processes
from otasim.campaign_check import BoardCheck
from otasim.campaign_processor import BoardProcessor
from otasim.engines import missing_engine
from platforms.errors import OtasimError

NO_BOARD = "none"
_PACKAGES = (bootloader_model, campaign, firmware, otasim, platforms, rpc_shim)
_LIBRARIES = ("unicorn", "littlefs-python")
"""Others' code that results depend on."""


class CampaignNameError(OtasimError):
    """Something cannot be had by its name: there is none, or its own code fails.

    Attributes:
        name: what was asked for.
    """

    def __init__(self, what: str, name: str, problem: str) -> None:
        super().__init__(f"{what} {name!r}: {problem}")
        self.name = name
        self._told = what, name, problem

    def __reduce__(self) -> tuple[type["CampaignNameError"], tuple[str, str, str]]:
        """How it comes back from another process."""
        return CampaignNameError, self._told


@contextmanager
def _code_of(what: str, name: str) -> Iterator[None]:
    """Whatever a user's own code raises is told in one line: CampaignNameError."""
    try:
        yield
    except (LoaderNameError, CampaignNameError):
        raise
    except (Exception, SystemExit) as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise CampaignNameError(what, name, problem) from error


@dataclass(frozen=True, slots=True)
class NamedLoader:
    """Makes a boot loader by name, in whichever process.

    Attributes:
        name: `package.module:Class`.
        directory: where its module is looked for first.
    """

    name: str
    directory: Path

    def __call__(self) -> Loader:
        """A new loader.

        Raises LoaderNameError when there is none, CampaignNameError when its code fails.
        """
        with _code_of("loader", self.name):
            return load_loader(self.name, directory=self.directory)


def find_loader(name: str | None) -> LoaderFactory:
    """The loader of that name, the shipped one without.

    Raises LoaderNameError when there is none, CampaignNameError when its code fails.
    """
    if name is None:
        return MosLoader
    factory = NamedLoader(name, Path.cwd())
    factory()
    return factory


def find_scenario(name: str) -> Scenario:
    """A scenario, or the user's own as `module:NAME`; CampaignNameError when there is none.

    The user's own is called by that name from then on, so that its stories can be replayed.
    """
    for scenario in SCENARIOS:
        if scenario.name == name:
            return scenario
    if ":" not in name:
        known = ", ".join(scenario.name for scenario in SCENARIOS)
        raise CampaignNameError("scenario", name, f"expected module:NAME or one of {known}")
    found = _attribute("scenario", name)
    if not isinstance(found, Scenario):
        raise CampaignNameError("scenario", name, "it is no campaign.scenario.Scenario")
    return replace(found, name=name)


def _attribute(what: str, name: str) -> object:
    """Something in a module of the user's, which may lie in the working directory."""
    module_name, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with _code_of(what, name):
        module = importlib.import_module(module_name)
    if not hasattr(module, attribute):
        raise CampaignNameError(what, name, f"module {module_name!r} has no {attribute!r}")
    found: object = getattr(module, attribute)
    return found


@dataclass(frozen=True, slots=True)
class SharedBoard:
    """Gives the whole board of a process; on Renode there can be only one.

    Attributes:
        engine: what runs its processor.
    """

    engine: str

    def __call__(self) -> WholeBoard:
        """The board, made at the first call."""
        return _board(self.engine)


@cache
def _board(engine: str) -> BoardCheck:
    return BoardCheck(engine)


@cache
def shared_processor() -> BoardProcessor:
    """The processor of a process, made at the first call."""
    return BoardProcessor()


def board_factory(engine: str) -> Callable[[], WholeBoard] | None:
    """What makes the board that samples are compared with, on the engine of that name.

    `none` is no board; CampaignNameError when the engine is not on this machine.
    """
    if engine == NO_BOARD:
        return None
    if missing := missing_engine(engine):
        raise CampaignNameError("engine", engine, missing)
    return SharedBoard(engine)


@dataclass(frozen=True, slots=True)
class Labour:
    """Who does the work.

    Attributes:
        executor: None: this process.
        workers: how many there are, more or less.
        is_in_order: whether each takes its tasks in the order in which they are handed out.
    """

    executor: Executor | None = None
    workers: int = 1
    is_in_order: bool = True


@contextmanager
def labour(jobs: int, executor_name: str | None) -> Iterator[Labour]:
    """The workers that are asked for, let go at the end.

    Args:
        jobs: how many processes; with an executor how many tasks it does at a time.
        executor_name: `module:function` that makes an executor; None = processes here.
    """
    if executor_name is not None:
        with _own_executor(executor_name) as executor:
            yield Labour(executor, max(jobs, 2), is_in_order=False)
    elif jobs > 1:
        with processes(jobs) as executor:
            try:
                yield Labour(executor, jobs)
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                raise
    else:
        yield Labour()


def _own_executor(name: str) -> AbstractContextManager[Executor]:
    factory = _attribute("executor", name) if ":" in name else None
    if not callable(factory):
        raise CampaignNameError("executor", name, "expected module:function that makes an executor")
    with _code_of("executor", name):
        executor: object = factory()
    if not callable(getattr(executor, "submit", None)):
        kind = type(executor).__name__
        raise CampaignNameError("executor", name, f"a {kind} has no submit(), executors have")
    if isinstance(executor, Executor):
        return executor
    return nullcontext(executor)  # type: ignore[arg-type] # anything with submit() will do


def saved_work(
    plan: Plan,
    loader_name: str | None,
    shard: tuple[int, int],
    *,
    is_resumed: bool,
    warn: Callable[[str], None],
) -> SavedWork | None:
    """Where the work of a campaign is kept until it is done; None: nowhere, after a warning.

    To be called when the scenario has been lived once: a loader may import more while it boots.
    """

    def tell(error: OSError) -> None:
        warn(f"no more of {plan.scenario.name} can be saved: {error.strerror or error}")

    runs = plan.processor is not None
    versions = (sys.version, *map(version, _LIBRARIES))
    told = (plan.scenario, loader_name, plan.settings, runs, plan.board, shard, versions)
    name = f"{plan.scenario.name}-{fingerprint(told, sorted(_sources(plan)))}"
    try:
        path = cache_directory() / name
        return SavedWork(path, is_resumed=is_resumed, on_problem=tell)
    except BlockingIOError:
        problem = "the same campaign runs elsewhere"
    except OSError as error:
        problem = str(error)
    except RuntimeError as error:  # there is no home directory
        problem = str(error)
    warn(f"the work on {plan.scenario.name} is not saved: {problem}")
    return None


def _sources(plan: Plan) -> set[Path]:
    """All code that a campaign's results depend on, but libraries'."""
    own = {
        path
        for package in _PACKAGES
        for folder in package.__path__
        for path in Path(folder).rglob("*.py")
    }
    module = inspect.getmodule(type(plan.loader()))
    if module is not None and module.__file__ is not None:
        own.add(Path(module.__file__))
    return own | set(_loaded_outside_libraries())


def _loaded_outside_libraries() -> Iterator[Path]:
    """The files of modules that may be the user's own; which of them matter cannot be told."""
    places = ("stdlib", "platstdlib", "purelib", "platlib")
    libraries = {Path(sysconfig.get_path(place)) for place in places}
    for name, module in list(sys.modules.items()):
        # The command itself has another file when it is called as a module.
        if name == "__main__" or not isinstance(module, ModuleType):
            continue
        file = vars(module).get("__file__")  # without waking up modules that load themselves late
        if file is None or not Path(file).is_file():
            continue
        if libraries.isdisjoint(Path(file).parents):
            yield Path(file)
