"""Finds Renode as pyrenode3 documents it, and loads it into this process.

Nothing of Renode is imported before `load`; the modules beside this one that name .NET types may
be imported only after it.
"""

import importlib
import importlib.util
import logging
import os
import re
import shutil
import signal
import sys
import tarfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from platforms.engines.protocol import EngineError

PACKAGE, BUILD_DIRECTORY, BINARY = "PYRENODE_PKG", "PYRENODE_BUILD_DIR", "PYRENODE_BIN"
BUILD_OUTPUT, RUNTIME = "PYRENODE_BUILD_OUTPUT", "PYRENODE_RUNTIME"
INSTALLED = Path("/opt/renode/bin")
"""Where Renode's own packages install it, and the only place where pyrenode3 looks for one."""
RUNTIMES = ("mono", "coreclr")
OLDEST_VERSION = (1, 16, 0)

_PYTHON_PACKAGES = ("pyrenode3", "pythonnet")
_DEFAULT_OUTPUT = Path("output/bin/Release")
_ADVICE = (
    f"install Renode, or set {PACKAGE}, {BUILD_DIRECTORY} or {BINARY} to one "
    "(see pyrenode3's README), or use --engine embedded"
)


class RenodeError(EngineError):
    """Renode cannot be used."""


class RenodeNotFoundError(RenodeError):
    """There is no Renode here, or a piece of it is missing."""


class RenodeLoadError(RenodeError):
    """Renode is there but does not load."""


class RenodeTooOldError(RenodeError):
    """Renode is there but too old.

    Attributes:
        version: what it says it is.
    """

    def __init__(self, version: str) -> None:
        oldest = ".".join(map(str, OLDEST_VERSION))
        super().__init__(
            f"this Renode is too old: found {version!r}, expected {oldest} or newer; "
            "install a newer one, or use --engine embedded"
        )
        self.version = version


@dataclass(frozen=True, slots=True)
class Location:
    """Where a Renode is.

    Attributes:
        path: the package, build directory, binary or installation.
        found_by: the environment variable that names it, or "installed".
        runtime: what runs it, `mono` or `coreclr`.
    """

    path: Path
    found_by: str
    runtime: str


def missing_packages() -> list[str]:
    """The Python packages that Renode needs and that are not installed."""
    return [name for name in _PYTHON_PACKAGES if importlib.util.find_spec(name) is None]


def find(environment: Mapping[str, str] = os.environ) -> Location:
    """Where Renode is; RenodeNotFoundError says what is missing. Loads nothing."""
    if (
        importlib.util.find_spec("pyrenode3") is None
        or importlib.util.find_spec("pythonnet") is None
    ):
        raise RenodeNotFoundError(
            "Renode needs the Python packages pyrenode3 and pythonnet, which are not installed: "
            "pip install 'otasim[renode]'"
        )
    runtime = environment.get(RUNTIME, "mono")
    if runtime not in RUNTIMES:
        raise RenodeNotFoundError(
            f"{RUNTIME} is {runtime!r}: expected one of {', '.join(RUNTIMES)}"
        )
    named = [name for name in (PACKAGE, BUILD_DIRECTORY, BINARY) if environment.get(name)]
    if len(named) > 1:
        raise RenodeNotFoundError(f"{' and '.join(named)} are set: keep one of them")
    if not named:
        if shutil.which("renode") is None or not INSTALLED.is_dir():
            raise RenodeNotFoundError(f"Renode is not found: {_ADVICE}")
        return Location(INSTALLED, "installed", "mono")
    variable = named[0]
    path = Path(environment[variable])
    if not path.exists():
        raise RenodeNotFoundError(f"{variable} names {path}, which does not exist: {_ADVICE}")
    if variable == BUILD_DIRECTORY:
        output = path / environment.get(BUILD_OUTPUT, str(_DEFAULT_OUTPUT))
        program = output / ("Renode.exe" if runtime == "mono" else "Renode.dll")
        if not program.is_file():
            raise RenodeNotFoundError(
                f"{variable} names {path}, but there is no {program}: build Renode there, or set "
                f"{BUILD_OUTPUT} to the folder of its binaries and {RUNTIME} to what runs them"
            )
    elif variable == PACKAGE and not (path.is_file() and tarfile.is_tarfile(path)):
        raise RenodeNotFoundError(
            f"{PACKAGE} names {path}, which is no archive: expected a package of Renode (.tar.*)"
        )
    elif variable == BINARY and runtime == "mono":
        raise RenodeNotFoundError(
            f"{BINARY} needs {RUNTIME}=coreclr: the portable Renode is .NET's"
        )
    elif variable == BINARY and not (path.is_file() and os.access(path, os.X_OK)):
        raise RenodeNotFoundError(
            f"{BINARY} names {path}, which is no program: expected the portable Renode of .NET"
        )
    return Location(path, variable, runtime)


@cache
def load() -> str:
    """Load Renode into this process, once, and return its version.

    Raises:
        RenodeNotFoundError: it is not there.
        RenodeLoadError: it is there but does not load.
        RenodeTooOldError: it is older than what this project was written for.
    """
    location = find()
    try:
        with _quiet(), uninterrupted():
            importlib.import_module("pyrenode3")
        system = importlib.import_module("System")
    except SystemExit as error:  # pyrenode3 leaves like this when a folder is not what it expects
        raise RenodeLoadError(_does_not_load(location, "pyrenode3 gave up")) from error
    except Exception as error:
        raise RenodeLoadError(_does_not_load(location, _reason(location, error))) from error
    names = [assembly.GetName() for assembly in system.AppDomain.CurrentDomain.GetAssemblies()]
    version = next((str(name.Version) for name in names if name.Name == "Renode"), "unknown")
    check_version(version)
    return version


def is_loaded() -> bool:
    """Whether Renode is in this process already."""
    return "pyrenode3" in sys.modules


def check_version(text: str) -> None:
    """RenodeTooOldError when the version that stands in `text` is older than `OLDEST_VERSION`."""
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    if match is None or tuple(map(int, match.groups())) < OLDEST_VERSION:
        raise RenodeTooOldError(text)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of this.

    Raised in Python code that .NET has called, KeyboardInterrupt would come out as some error of
    .NET's, or end the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    interrupted = False

    def note(_signal: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if interrupted:
            signal.raise_signal(signal.SIGINT)


def _reason(location: Location, error: Exception) -> str:
    """All that is known about a failure, in one line."""
    if location.found_by == BINARY and isinstance(error, AttributeError):
        # pyrenode3 looks for a path in what the program says, and expects to find one.
        return "it is not the portable Renode of .NET, which says where it unpacks its libraries"
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = " ".join(str(cause).split()) or type(cause).__name__
        if not any(text in part for part in parts):
            parts.append(text)
        cause = cause.__cause__ or cause.__context__
    return ": ".join(parts)


def _does_not_load(location: Location, reason: str) -> str:
    return (
        f"Renode at {location.path} ({location.found_by}, runtime {location.runtime}) does not "
        f"load: {reason}; `otasim doctor` checks each step, --engine embedded does without it"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that a Renode or a Mono of one's own might not work."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
