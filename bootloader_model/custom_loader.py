"""Loaders of users' own, by name."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from bootloader_model.protocol import Loader
from platforms.errors import OtasimError


class LoaderNameError(OtasimError):
    """A loader cannot be made from its name.

    Attributes:
        name: what was asked for.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"loader {name!r}: {problem}")
        self.name = name
        self._problem = problem

    def __reduce__(self) -> tuple[type["LoaderNameError"], tuple[str, str]]:
        """How it comes back from another process."""
        return LoaderNameError, (self.name, self._problem)


def load_loader(name: str, *, directory: Path | None = None) -> Loader:
    """Make the loader called `package.module:Class`.

    Args:
        name: the module's name, a colon, and the name of a class or function in it that makes a
            loader and needs no arguments.
        directory: where modules are looked for before anywhere else; it stays on `sys.path`, since
            a loader may import more modules later. None = nowhere else than usual.

    Raises LoaderNameError when there is none, and whatever the user's own module raises.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise LoaderNameError(name, "expected package.module:Class, with a colon between them")
    if directory is not None and str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            problem = (
                f"there is no module {error.name!r}: check the spelling, and that the directory"
                " it is in is on PYTHONPATH"
            )
        else:
            problem = f"its module needs {error.name!r}, which is not installed"
        raise LoaderNameError(name, problem) from error
    factory = getattr(module, attribute, None)
    if factory is None:
        raise LoaderNameError(
            name, f"module {module_name!r} has no {attribute!r}: check the spelling"
        )
    if not callable(factory):
        raise LoaderNameError(
            name, f"{attribute!r} is {type(factory).__name__}, expected a class or a function"
        )
    return _make(name, factory)


def _make(name: str, factory: Callable[[], object]) -> Loader:
    # `typing.is_protocol` says the same, from Python 3.13 on.
    if getattr(factory, "_is_protocol", False) or inspect.isabstract(factory):
        raise LoaderNameError(
            name, "it says what a loader is and is none itself: name a class that has a `boot`"
        )
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise LoaderNameError(name, f"it cannot be made without arguments: {error}") from error
    loader = factory()
    boot = getattr(loader, "boot", None)
    if not callable(boot):
        raise LoaderNameError(
            name, f"{type(loader).__name__} has no method boot(hardware): see the loader protocol"
        )
    try:
        inspect.signature(boot).bind(None)
    except TypeError as error:
        raise LoaderNameError(
            name, f"its method boot must take the hardware as its one argument: {error}"
        ) from error
    return cast("Loader", loader)
