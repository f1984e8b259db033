"""The power goes at every flash operation of a change, in every torn shape, on the real chip model.

After it comes back the file system mounts, every file has its old or its new content, and the same
change can be made again.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from platforms.devices.torn import TornShape
from platforms.machine import ResetAsserted
from rpc_shim.filesystem import FileSystem, merge_file_systems
from tests.filesystem.nor_rig import Contents, NorRig, contents, without_unfinished

BASE: Contents = {
    "/a": b"old" * 500,
    "/b": b"other" * 20,
    "/d": None,
    "/d/c": b"inner" * 300,
}
PROGRESS = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Change:
    """A change, and what may be found when it was cut short, besides the old and the new."""

    carry_out: Callable[[FileSystem], object]
    between: tuple[Contents, ...] = ()


CHANGES = {
    "replace": Change(lambda files: files.write("a", b"new" * 900)),
    "replace by little": Change(lambda files: files.write("a", b"new")),
    "append": Change(lambda files: files.append("a", b"more" * 200)),
    "put at": Change(lambda files: files.write_at("a", 1000, b"else" * 500)),
    "create": Change(lambda files: files.write("n", b"new" * 900), (BASE | {"/n": b""},)),
    "create atomically": Change(lambda files: files.write_atomically("n", b"new" * 900)),
    "replace atomically": Change(lambda files: files.write_atomically("d/c", b"new" * 900)),
    "remove": Change(lambda files: files.remove("a")),
    "make directory": Change(lambda files: files.make_directory("e")),
    "rename": Change(lambda files: files.rename("a", "n"), (BASE | {"/n": BASE["/a"]},)),
    "rename over": Change(lambda files: files.rename("a", "d/c"), (BASE | {"/d/c": BASE["/a"]},)),
}


def fill(files: FileSystem, wanted: Contents) -> None:
    for name, data in wanted.items():
        if data is None:
            files.make_directory(name)
        else:
            files.write(name, data)


# A brown-out that garbles the first change after a start can cost what the block held: see
# `rpc_shim.filesystem`.
POWER_CUTS = [shape for shape in TornShape if shape is not TornShape.GARBLED]


def based() -> NorRig:
    rig = NorRig()
    fill(rig.format(), BASE)
    return rig


@pytest.mark.parametrize("shape", POWER_CUTS)
@pytest.mark.parametrize("name", CHANGES)
def test_a_cut_leaves_the_old_or_the_new(name: str, shape: TornShape) -> None:
    change = CHANGES[name]
    rig = based()
    cells = rig.cells()
    rig.operations.clear()
    files = rig.mount()
    change.carry_out(files)
    operations, new = len(rig.operations), contents(files)
    assert operations > 0
    assert new != BASE
    seen = []
    for number in range(operations):
        for seed, progress in enumerate(PROGRESS):
            rig.restore(cells)
            files = rig.mount()
            rig.cut_at(number, progress, shape, seed)
            with pytest.raises(ResetAsserted):
                change.carry_out(files)
            rig.power_on()
            files = rig.mount()
            found = without_unfinished(contents(files))
            assert found in (BASE, new, *change.between), (number, progress)
            seen.append(found)
            if found == BASE:
                change.carry_out(files)
                assert without_unfinished(contents(rig.mount())) == new, (number, progress)
    assert BASE in seen or shape is TornShape.COMPLETE


def test_a_cut_at_any_operation_of_a_format_leaves_none_or_an_empty_one() -> None:
    rig = NorRig()
    rig.format().write("a", b"1")
    cells = rig.cells()
    rig.operations.clear()
    rig.format()
    for number in range(len(rig.operations)):
        for shape in POWER_CUTS:
            rig.restore(cells)
            rig.cut_at(number, 0.5, shape, number)
            with pytest.raises(ResetAsserted):
                rig.format()
            rig.power_on()
            assert rig.format().names() == []


OLD_FILES: Contents = {
    "/a": b"old" * 100,
    "/conf9.json": b"{}" * 400,
    "/d": None,
    "/d/x": b"x" * 100,
    "/d/y": b"y" * 5000,
    "/z": b"z",
}
NEW_FILES: Contents = {"/a": b"new" * 100, "/index.html": b"<p>" * 700}
MERGED = OLD_FILES | NEW_FILES


@pytest.mark.parametrize("shape", POWER_CUTS)
def test_a_merge_that_was_cut_short_is_finished_by_the_next(shape: TornShape) -> None:
    rig = NorRig()
    fill(rig.format("fs1"), OLD_FILES)
    fill(rig.format("fs0"), NEW_FILES)
    cells, old_cells = rig.cells(), rig.cells("fs1")
    rig.operations.clear()
    assert len(merge_file_systems(rig.mount("fs1"), rig.mount()).copied) == 4
    operations = len(rig.operations)
    assert operations > 20
    for number in range(operations):
        rig.restore(cells)
        old, new = rig.mount("fs1"), rig.mount()
        rig.cut_at(number, PROGRESS[number % 3], shape, number)
        with pytest.raises(ResetAsserted):
            merge_file_systems(old, new)
        rig.power_on()
        new = rig.mount()
        found = without_unfinished(contents(new))
        assert NEW_FILES.items() <= found.items() <= MERGED.items(), number
        merge_file_systems(rig.mount("fs1"), new)
        assert without_unfinished(contents(rig.mount())) == MERGED, number
        assert rig.cells("fs1") == old_cells
