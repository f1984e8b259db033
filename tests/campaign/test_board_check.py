"""The whole board, on each engine, does what a campaign has computed; a difference is found."""

from collections.abc import Callable, Iterator

import pytest

from bootloader_model.decision import Reason
from bootloader_model.loader import MosLoader
from bootloader_model.protocol import BootTarget, Loader, LoaderHardware
from campaign.boot import Ending, LoaderFactory, run_boot
from campaign.cells import Contents, Reading
from campaign.expand import Life, Plan, Settings
from campaign.faults import power_cut_tears
from campaign.files import with_file_systems
from campaign.golden import CutPoint
from campaign.images import NEW, OLD, PROBE, Image
from campaign.judge import Kind, Problem, judge
from campaign.real import MismatchError, RealBoot
from campaign.story import Cut, Recovery, Story
from otasim.campaign_check import BoardCheck
from otasim.campaigns import find_scenario
from otasim.engines import EMBEDDED
from platforms.clock import NS_PER_S
from platforms.devices.reset_cause import ResetCause
from tests.campaign import bugs

TEARS = power_cut_tears(0)
EVERY = 13  # no divisor of the number of cuts of an operation: all kinds of them come


@pytest.fixture(scope="module")
def checks() -> Iterator[dict[str, BoardCheck]]:
    made: dict[str, BoardCheck] = {}
    yield made
    for check in made.values():
        check.close()


@pytest.fixture
def check(engine: str, checks: dict[str, BoardCheck]) -> BoardCheck:
    """One board on each engine for all tests here; Renode has room for one."""
    if engine not in checks:
        checks[engine] = BoardCheck(engine)
    return checks[engine]


def points(name: str, loader: LoaderFactory = MosLoader) -> list[CutPoint]:
    return list(Life(Plan(find_scenario(name), loader, Settings())).points())


def repeat(
    check: BoardCheck, name: str, point: CutPoint, reading: Reading, loader: LoaderFactory
) -> str | Problem:
    """The boot after a cut, computed and judged, and then made on a board."""
    state = RealBoot(point.contents, ResetCause.POWER_ON, reading, 5)
    boot = run_boot(loader(), state.contents, cause=state.cause, reading=reading, seed=state.seed)
    image = judge(boot, point.expectation, (*find_scenario(name).images, PROBE)).image
    story = Story(name, point.cut, (Recovery(reading),))
    return check.compare(story.identifier, state, loader, image)


@pytest.mark.parametrize("name", ["update-commit", "update-watchdog"])
def test_a_sample_of_cuts_agrees(check: BoardCheck, name: str) -> None:
    answers = []
    for point in points(name)[::EVERY]:
        readings = list(Reading) if point.contents.is_weak else [Reading.STORED]
        answers += [repeat(check, name, point, reading, MosLoader) for reading in readings]
    assert len(answers) > 20
    assert set(answers) == {"old", "new"}


def test_cuts_in_recovery_agree(check: BoardCheck) -> None:
    """The copy of the update is torn in the boot that follows a cut, and the next boot is made."""
    made = 0
    for point in points("update-watchdog")[5::29]:
        first = run_boot(MosLoader(), point.contents)
        for index in range(0, len(first.trace), 3):
            tear = TEARS[(made + index) % len(TEARS)]
            torn = run_boot(MosLoader(), point.contents, cut=(index, tear)).contents
            boot = run_boot(MosLoader(), torn)
            image = judge(boot, point.expectation, (OLD, NEW)).image
            assert image is not None
            cut = Cut(index, tear)
            story = Story("update-watchdog", point.cut, (Recovery(Reading.STORED, cut),))
            state = RealBoot(torn, ResetCause.POWER_ON, Reading.STORED, 0)
            assert check.compare(story.identifier, state, MosLoader, image) == image.name
            made += 1
    assert made > 10


def test_boots_after_a_watchdog_reset_agree(check: BoardCheck) -> None:
    point = points("update-watchdog")[-1]
    state = RealBoot(point.contents, ResetCause.WATCHDOG, Reading.STORED, 0)
    assert check.compare("update-watchdog", state, MosLoader, OLD) == "old"


class _Waits:
    """Waits without feeding the watchdog."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        hardware.start_watchdog(1)
        hardware.wait(60 * NS_PER_S)
        raise AssertionError


def test_what_the_last_application_was_at_has_no_effect(check: BoardCheck) -> None:
    last = points("update-commit")[-1]
    assert repeat(check, "update-commit", last, Reading.STORED, MosLoader) == NEW.name
    models = check._board._machine.models
    for memory in (models.nor.memory, models.internal_flash.memory):
        sector = memory.geometry.sectors[4]
        memory.begin_erase(sector.address, sector.size, 3600 * NS_PER_S)
    models.nor.memory.status_cells[0] = 0x1C  # all blocks protected
    models.internal_flash.memory.status_cells[2:4] = bytes(2)  # nWRP: all sectors, too
    copying = max(  # the boot that has most to write
        points("update-commit"), key=lambda point: len(run_boot(MosLoader(), point.contents).trace)
    )
    assert isinstance(repeat(check, "update-commit", copying, Reading.STORED, MosLoader), str)


@pytest.mark.parametrize(
    ("loader", "ending"),
    [(_Waits, Ending.WATCHDOG), (bugs.ExpectsNoTornRecord, Ending.RAISED)],
    ids=["watchdog", "raised"],
)
def test_boots_that_start_nothing_agree(
    check: BoardCheck, loader: LoaderFactory, ending: Ending
) -> None:
    point = next(
        point
        for point in points("update-commit")
        if run_boot(loader(), point.contents).ending is ending
    )
    answer = repeat(check, "update-commit", point, Reading.STORED, loader)
    assert isinstance(answer, Problem)
    assert answer.kind is Kind.NO_ANSWER


def changing(*loaders: Callable[[], Loader]) -> LoaderFactory:
    """Makes one loader for the campaign and another for the board: what must be noticed."""
    order = iter(loaders)

    def make() -> Loader:
        return next(order)()

    return make


class _Blot:
    """The shipped loader, which leaves a mark behind."""

    def __init__(self, address: int) -> None:
        self._address = address

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        target = MosLoader().boot(hardware)
        hardware.nor.program(self._address, b"\0")
        return target


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (bugs.OldStart, "decides"),
        (bugs.never_rolls_back, "decides"),
        (bugs.WrongEntry, "starts"),
        (_Waits, "ends: reset by the watchdog, computed: started an application"),
        (lambda: _Blot(0x1234), "nor 0x001234 holds 0x00 on the board, computed 0xff"),
        (lambda: _Blot(0x2F0000), "nor 0x2f0000 holds 0x00 on the board, computed 0xff"),
    ],
    ids=["old-start", "no-rollback", "wrong-entry", "waits", "blot", "blot-in-files"],
)
def test_what_differs_is_no_verdict(
    check: BoardCheck, other: Callable[[], Loader], what: str
) -> None:
    point = next(  # an update that ran and was not committed
        point
        for point in points("update-watchdog")
        if any(
            decided.reason == Reason.ROLLBACK_UNCOMMITTED.value
            for decided in run_boot(MosLoader(), point.contents).decisions
        )
    )
    state = RealBoot(point.contents, ResetCause.POWER_ON, Reading.STORED, 0)
    with pytest.raises(MismatchError, match=what):
        check.compare("some-story", state, changing(MosLoader, other), None)


def test_another_image_than_judged_is_no_verdict(check: BoardCheck) -> None:
    state = RealBoot(points("update-commit")[-1].contents, ResetCause.PIN, Reading.STORED, 0)
    assert check.compare("update-commit", state, MosLoader, NEW) == "new"
    with pytest.raises(MismatchError, match="starts image old, but version new answers"):
        check.compare("update-commit", state, MosLoader, OLD)


def test_an_image_that_does_not_answer_is_no_verdict_when_the_campaign_says_it_runs() -> None:
    contents = points("update-commit")[0].contents

    class Nowhere:
        def boot(self, hardware: LoaderHardware) -> BootTarget:
            hardware.start_watchdog(1)
            return BootTarget(0x0801_0000, 0x2002_0000, 0x0804_0001)

    check = BoardCheck(EMBEDDED)
    state = RealBoot(contents, ResetCause.PIN, Reading.STORED, 0)
    with pytest.raises(MismatchError, match="starts image old, but it is reset before it answers"):
        check.compare("some-story", state, Nowhere, Image("old", OLD.data))
    check.close()


def test_a_boot_that_does_not_end_is_not_repeated(check: BoardCheck) -> None:
    point = points("update-commit")[-1]
    answer = repeat(check, "update-commit", point, Reading.STORED, bugs.WaitsForever)
    assert isinstance(answer, Problem)
    assert answer.kind is Kind.HANG


def test_file_systems_are_put_where_there_are_none_and_nowhere_else() -> None:
    contents = points("update-commit")[-1].contents
    filled = with_file_systems(contents)
    assert filled.internal is contents.internal
    assert filled.nor.stored(0, 0x2E0000) == contents.nor.stored(0, 0x2E0000)
    for start in (0x2E0000, 0x320000, 0x360000):
        assert b"littlefs" in filled.nor.stored(start, 0x100)
    assert with_file_systems(filled).key == filled.key
    assert with_file_systems(Contents.erased()).nor.stored(0x2E0000, 0x1000) == filled.nor.stored(
        0x2E0000, 0x1000
    )
