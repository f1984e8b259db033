import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootloader_model.custom_loader import LoaderNameError, load_loader
from bootloader_model.loader import MosLoader

SOURCE = """
import struct
from bootloader_model.protocol import BootTarget

class Mine:
    def boot(self, hardware):
        hardware.start_watchdog(10)
        return BootTarget(*struct.unpack("<II", hardware.internal_flash.read(0, 8)), 1)

class NeedsArguments:
    def __init__(self, what):
        pass

class NoBoot:
    pass

class BootIsNoMethod:
    boot = 3

class BootTakesNothing:
    def boot(self):
        pass

def make():
    return Mine()

number = 5
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "own_loaders.py").write_text(SOURCE)
    (tmp_path / "needs_more.py").write_text("import a_module_that_is_not_there\n")
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_the_shipped_loader_has_a_name_like_any_other() -> None:
    assert isinstance(load_loader("bootloader_model.loader:MosLoader"), MosLoader)


@pytest.mark.parametrize("name", ["own_loaders:Mine", "own_loaders:make"])
def test_a_users_own_loader_is_made(directory: Path, name: str) -> None:
    loader = load_loader(name, directory=directory)
    assert type(loader).__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "expected package.module:Class"),
        ("own_loaders", "expected package.module:Class"),
        ("own_loaders:", "expected package.module:Class"),
        (":Mine", "expected package.module:Class"),
        ("not_there:Mine", "there is no module 'not_there'"),
        ("not_there.at_all:Mine", "there is no module 'not_there'"),
        ("bootloader_model.not_there:Mine", "there is no module 'bootloader_model.not_there'"),
        ("needs_more:Mine", "needs 'a_module_that_is_not_there', which is not installed"),
        ("own_loaders:mine", "has no 'mine'"),
        ("own_loaders:number", "'number' is int, expected a class"),
        ("own_loaders:NeedsArguments", "cannot be made without arguments"),
        ("own_loaders:NoBoot", "has no method boot"),
        ("own_loaders:BootIsNoMethod", "has no method boot"),
        ("own_loaders:BootTakesNothing", "must take the hardware"),
    ],
)
def test_what_cannot_be_made_is_explained(directory: Path, name: str, message: str) -> None:
    with pytest.raises(LoaderNameError, match=message) as caught:
        load_loader(name, directory=directory)
    assert caught.value.name == name


@pytest.mark.parametrize("name", ["..:x", ".own_loaders:Mine"])
def test_relative_names_are_explained_too(directory: Path, name: str) -> None:
    with pytest.raises(LoaderNameError):
        load_loader(name, directory=directory)


def test_the_protocol_itself_is_no_loader() -> None:
    with pytest.raises(LoaderNameError, match="says what a loader is"):
        load_loader("bootloader_model.protocol:Loader")
