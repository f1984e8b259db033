"""Files in campaigns: what must be found is found, and each seeded bug of files is caught."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from unittest.mock import patch

import pytest

from bootloader_model.boot_state import APP_FLAG_FS_CREATED, BootState, Slot
from bootloader_model.layout import APP0_ADDRESS, DEFAULT_LAYOUT
from bootloader_model.loader import MosLoader
from bootloader_model.partition import OpenPartition
from bootloader_model.slot_access import SlotAccess
from campaign import files
from campaign.boot import LoaderFactory
from campaign.cells import Contents, Reading
from campaign.check import states_of
from campaign.expand import Life, Plan, Settings
from campaign.explore import Explorer, Result
from campaign.files import Found, describe_difference, files_found
from campaign.flash import FlashPair
from campaign.golden import point_of, run_golden
from campaign.images import OLD
from campaign.judge import Kind
from campaign.normal_form import NormalForms
from campaign.scenario import (
    Boot,
    Call,
    Scenario,
    Stages,
    change,
    configure,
    keeps,
    put,
    remove,
    rename,
    steady,
    with_files,
)
from campaign.story import Cut, Story
from otasim.campaigns import find_scenario
from platforms.devices.reset_cause import ResetCause
from rpc_shim import boot_files, filesystem
from rpc_shim.boot_files import BootFiles
from rpc_shim.dispatch import Call as RpcCall
from rpc_shim.filesystem import FileSystem, Merged, RootFileSystem
from rpc_shim.services import fs
from tests.campaign.bugs import Buggy

Patch = tuple[object, str, object]

FIRST, SECOND = b"first " * 20, b"second " * 30
POWER_ON = steady("power-on", Boot(ResetCause.POWER_ON), OLD)


def changes(*made: tuple[Call, Stages]) -> Scenario:
    """A board on which nothing happens but these changes of files."""
    steps = with_files(POWER_ON, *(change(each, keeps(OLD)) for each in made))
    return Scenario("changes", "Files change", steps, has_file_system=True)


CREATE = changes(put("a", FIRST))
REPLACE = changes(put("a", FIRST), put("a", SECOND))
RENAME = changes(put("a", FIRST), rename("a", "b"))
CONFIGURE = changes(configure("lab-7"))
ALL = changes(
    put("a", FIRST),
    put("a", SECOND, append=True),
    rename("a", "b"),
    configure("lab-7"),
    remove("b"),
)
ROLLBACK, SNAPSHOT = find_scenario("files-rollback"), find_scenario("files-snapshot")


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    """What was found with a seeded bug in place says nothing about the code without it."""
    files._files_of.cache_clear()
    files._files_in.cache_clear()
    yield
    files._files_of.cache_clear()
    files._files_in.cache_clear()


def explore(
    scenario: Scenario, *patches: Patch, loader: LoaderFactory = MosLoader, check_every: int = 0
) -> Result:
    with ExitStack() as undo:
        for owner, name, value in patches:
            undo.enter_context(patch.object(owner, name, value))
        return Explorer(Plan(scenario, loader, Settings(check_every=check_every))).run()


def kinds(result: Result) -> set[Kind]:
    return {finding.problem.kind for finding in result.findings}


# -- the shipped code -----------------------------------------------------------------------------


def test_no_single_cut_harms_a_file() -> None:
    result = explore(ALL, check_every=60)
    assert not result.findings
    assert result.checked >= 3


def test_the_scenario_changes_files_in_every_part_of_an_updates_life() -> None:
    steps = find_scenario("files").steps
    names = [step.name for step in steps]
    for place in ("OTA.Begin", "OTA.Write", "OTA.End", "first start", "boot after commit"):
        assert names[names.index(place) + 1].startswith(("FS.", "Config."))
    for step in steps:
        for expectation in (step.before, step.during, step.after):
            assert all(expectation.files_of(image) for image, _ in expectation.runs)
            assert hash(expectation) == hash(replace(expectation))


def test_a_board_without_files_pays_nothing_for_them() -> None:
    write = steady("write", Call("OTA.SetBootState", {"commit_timeout": 60}), OLD)
    plain = Scenario("plain", "One record is written", (POWER_ON, write))

    def refused(*_: object) -> None:
        raise AssertionError("looked for files")

    never = ((BootFiles, "prepare", refused), (FileSystem, "entries", refused))
    assert not explore(plain, *never).findings


# -- seeded bugs of the application ----------------------------------------------------------------


def acknowledged_before_it_is_written() -> tuple[Patch, ...]:
    """FS.Put answers at once and writes at the next call: a write-back cache without a sync."""
    put_now = fs._FsService.put
    waiting: list[Callable[[], object]] = []

    def put_later(service: fs._FsService, call: RpcCall) -> None:
        while waiting:
            waiting.pop(0)()
        waiting.append(lambda: put_now(service, call))

    return ((fs._FsService, "put", put_later),)


def file_not_replaced_at_once() -> tuple[Patch, ...]:
    """A file is emptied first and then filled: two changes where there must be one."""
    write = FileSystem.write

    def in_two_steps(file_system: FileSystem, name: str, data: bytes) -> None:
        write(file_system, name, b"")
        write(file_system, name, data)

    return ((FileSystem, "write", in_two_steps),)


def renamed_by_removing_first() -> tuple[Patch, ...]:
    """The old name goes before the new one is there."""

    def moved(file_system: FileSystem, source: str, destination: str) -> None:
        data = file_system.read(source)
        file_system.remove(source)
        file_system.write_atomically(destination, data)

    return ((FileSystem, "rename", moved),)


def configuration_not_atomic() -> tuple[Patch, ...]:
    """The configuration is written like any file: a new one may be left empty."""
    return ((FileSystem, "write_atomically", FileSystem.write),)


def merge_that_moves() -> tuple[Patch, ...]:
    """Files are brought over by moving them: the way back loses its own."""
    merge = filesystem.merge_file_systems

    def move(old: FileSystem, new: FileSystem) -> Merged:
        merged = merge(old, new)
        for name in merged.copied:
            old.remove(name)
        return merged

    return ((boot_files, "merge_file_systems", move),)


def merge_that_removes_before_it_writes() -> tuple[Patch, ...]:
    """To save room each file is removed from the old file system before it is in the new one."""
    merge_file = filesystem._merge_file

    def move(old: FileSystem, new: FileSystem, name: str, merged: Merged) -> None:
        data = old.read(name)
        old.remove(name)
        new.write(name, data)
        merge_file(old, new, name, merged)

    return ((filesystem, "_merge_file", move),)


def stale_file_system_taken() -> tuple[Patch, ...]:
    """What lies in the partition of a fresh update is taken for its file system."""

    def make(prepared: BootFiles, root: RootFileSystem, state: BootState) -> None:
        if state.slots[state.active_slot].state.app_flags & APP_FLAG_FS_CREATED:
            return
        if root.mounted is None:
            root.format()
        prepared._boot.write(state.file_system_created())

    return ((BootFiles, "_make_if_missing", make),)


def snapshot_without_files() -> tuple[Patch, ...]:
    """A snapshot copies the image and not its file system."""

    def nothing(_files: BootFiles, _source: int, _target: int) -> None:
        return

    return ((BootFiles, "copy", nothing),)


def appended_behind_a_marginal_commit() -> tuple[Patch, ...]:
    """The file system as it was: it went on behind a commit that may be good only for once."""

    def prog(
        device: filesystem._BlockDevice, _config: object, block: int, offset: int, data: bytes
    ) -> int:
        return device._change(lambda: device._partition.program(block * 4096 + offset, data))

    return ((filesystem._BlockDevice, "prog", prog),)


APPLICATION_BUGS: tuple[tuple[Callable[[], tuple[Patch, ...]], Scenario, Kind], ...] = (
    (acknowledged_before_it_is_written, REPLACE, Kind.FILE_LOST),
    (file_not_replaced_at_once, REPLACE, Kind.FILE_LOST),
    (renamed_by_removing_first, RENAME, Kind.FILE_LOST),
    (configuration_not_atomic, CONFIGURE, Kind.FILE_LOST),
    (merge_that_moves, ROLLBACK, Kind.FILE_LOST),
    (merge_that_removes_before_it_writes, ROLLBACK, Kind.FILE_LOST),
    (stale_file_system_taken, ROLLBACK, Kind.FILE_LOST),
    (snapshot_without_files, SNAPSHOT, Kind.FILE_SYSTEM_DAMAGED),
    (appended_behind_a_marginal_commit, CREATE, Kind.FILE_SYSTEM_DAMAGED),
)


@pytest.mark.parametrize(
    ("bug", "scenario", "kind"),
    APPLICATION_BUGS,
    ids=[bug.__name__ for bug, *_ in APPLICATION_BUGS],
)
def test_a_bug_of_the_application_is_caught(
    bug: Callable[[], tuple[Patch, ...]], scenario: Scenario, kind: Kind
) -> None:
    assert kind in kinds(explore(scenario, *bug()))


# -- seeded bugs of loaders -----------------------------------------------------------------------


def file_systems_not_exchanged() -> tuple[Patch, ...]:
    """Images are exchanged, and file systems stay where they are: each version has the other's."""

    def images_only(state: BootState, source: int, target: int) -> tuple[Slot, ...]:
        return state._with_image_of(source, target).slots

    return ((BootState, "_slots_after_copy", images_only),)


def file_system_erased_with_its_image() -> tuple[Patch, ...]:
    """When an image has been copied, its old place is erased, the file system included."""
    copy_image = SlotAccess.copy_image

    def moved(access: SlotAccess, source: Slot, target: Slot) -> None:
        copy_image(access, source, target)
        if source.configuration.fs_dev:
            access._partitions.open(source.configuration.fs_dev).erase(0, 0x1_0000)

    return ((SlotAccess, "copy_image", moved),)


def boot_state_made_anew() -> tuple[Patch, ...]:
    """A rollback writes the state that the factory writes: the files of the update stay."""

    def rolled_back_state(state: BootState, slot: int) -> BootState:
        made = fall_back_to(state, slot)
        first = made.slots[slot]
        given = replace(first.configuration, fs_dev_field=state.slots[0].configuration.fs_dev_field)
        slots = list(made.slots)
        slots[slot] = replace(first, configuration=given)
        return replace(made, slots=tuple(slots))

    fall_back_to = BootState.fall_back_to
    return ((BootState, "fall_back_to", rolled_back_state),)


LOADER_BUGS = (
    (file_systems_not_exchanged, Kind.FILE_LOST),
    (file_system_erased_with_its_image, Kind.FILE_SYSTEM_DAMAGED),
    (boot_state_made_anew, Kind.FILE_LOST),
)


@pytest.mark.parametrize(("bug", "kind"), LOADER_BUGS, ids=[bug.__name__ for bug, _ in LOADER_BUGS])
def test_a_bug_of_a_loader_is_caught(bug: Callable[[], tuple[Patch, ...]], kind: Kind) -> None:
    # The application goes on with the code as it is.
    assert kind in kinds(explore(ROLLBACK, loader=lambda: Buggy(*bug())))


def test_every_bug_has_a_docstring_that_says_what_it_is() -> None:
    assert all(bug.__doc__ for bug, *_ in (*APPLICATION_BUGS, *LOADER_BUGS))


# -- what was found, and what is allowed -----------------------------------------------------------


def judged(story: str) -> list[Kind | None]:
    """What each boot of a story of `CREATE` comes to."""
    told = []
    life = Life(Plan(CREATE, MosLoader, Settings()))
    for state, recovery, boot in states_of(life, Story.parse(story)):
        if recovery is None or boot is None:
            continue
        assert recovery.cut is None
        problem = life.judge(life.expectation(state), boot).problem
        told.append(None if problem is None else problem.kind)
    return told


def test_a_file_written_behind_a_marginal_commit_stays() -> None:
    """Found by the first campaign with files: the commit before it read as good once."""
    story = "changes/1:weak-bits@0~0/stored>run"
    ((owner, name, value),) = appended_behind_a_marginal_commit()
    with patch.object(owner, name, value):
        assert judged(story) == [Kind.FILE_SYSTEM_DAMAGED]
    assert judged(story) == [None]


def test_a_new_file_may_be_left_empty_and_nothing_else_may() -> None:
    (new, existing) = (put("a", SECOND)[1](frozenset(before)) for before in ((), (("a", FIRST),)))
    empty, done = frozenset({("a", b"")}), frozenset({("a", SECOND)})
    assert new == (empty, done)
    assert existing == (done,)
    # The allowance is no blind spot: a cut does leave it so.
    golden = run_golden(CREATE, MosLoader)
    step = golden.steps[1]
    cut = Cut(step.first_operation + len(step.trace) - 1)
    found = files_found(point_of(step, cut).contents, APP0_ADDRESS, Reading.STORED)
    assert found == Found(empty)


def test_the_normal_form_knows_what_files_there_are_and_not_how_they_came() -> None:
    def board(*writes: tuple[str, bytes]) -> Contents:
        flash = FlashPair(Contents.erased())
        file_system = FileSystem.format(OpenPartition(DEFAULT_LAYOUT.partition("fs0"), flash.nor))
        for name, data in writes:
            file_system.write(name, data)
        return flash.contents

    def form(contents: Contents) -> object:
        return NormalForms((OLD,)).of(contents)

    once, twice = board(("a", FIRST)), board(("a", SECOND), ("a", FIRST))
    assert once.key != twice.key
    assert form(once) == form(twice)
    others = [Contents.erased(), board(), board(("a", SECOND)), board(("b", FIRST))]
    assert len({form(once), *map(form, others)}) == 5


def test_a_difference_is_told_file_by_file() -> None:
    found = frozenset({("a", b"12"), ("c", b"3")})
    told = describe_difference(found, frozenset({("a", b"123"), ("b", b"")}))
    assert told == (
        "a has 2 bytes that are not the 3 that were acknowledged, b is missing,"
        " c should not be there"
    )
