"""Whoever does the work, and however often it is broken off: the campaign comes to the same end."""

import multiprocessing
import resource
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from bootloader_model.loader import MosLoader
from campaign.expand import Plan, Settings
from campaign.explore import Explorer, Result
from campaign.real import MismatchError
from campaign.saved import SavedWork, fingerprint
from campaign.scenario import SCENARIOS
from campaign.work import Check, UnsendableError, Workers, WorkersLostError, processes
from otasim.campaigns import SharedBoard, find_scenario, shared_processor
from otasim.engines import EMBEDDED
from tests.campaign.bugs import no_backup
from tests.campaign.own_loader import IDLE

SNAPSHOT = find_scenario("snapshot")
PLAN = Plan(SNAPSHOT, MosLoader, Settings(depth=2, check_every=2000))
BUGGY = Plan(SCENARIOS[0], no_backup, Settings(depth=1, check_every=0))


def explored(plan: Plan, workers: Workers | None = None, shard: tuple[int, int] = (1, 1)) -> Result:
    result = Explorer(plan, workers, shard=shard).run()
    result.seconds = 0
    return result


@pytest.fixture(scope="module")
def alone() -> Result:
    return explored(PLAN)


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with processes(2) as executor:
        yield executor


def test_two_processes_come_to_the_same_result(alone: Result, pool: Executor) -> None:
    assert explored(PLAN, Workers(PLAN, pool, workers=2)) == alone
    assert alone.deepest == 2
    assert alone.checked > 1


def test_they_find_the_same_stories(pool: Executor) -> None:
    found = explored(BUGGY, Workers(BUGGY, pool, workers=2))
    assert found == explored(BUGGY)
    assert found.findings


def test_what_another_process_finds_wrong_comes_back(pool: Executor) -> None:
    with pytest.raises(MismatchError, match=r"snapshot/0:before: nor differs\..* this line$"):
        pool.submit(_fail).result()


def _fail() -> None:
    raise MismatchError("snapshot/0:before", "nor differs")


def test_an_executor_that_takes_tasks_in_any_order_does_as_well(alone: Result) -> None:
    with ThreadPoolExecutor(1) as executor:
        assert explored(PLAN, Workers(PLAN, executor, workers=3, is_in_order=False)) == alone


def test_threads_do_not_disturb_each_others_boots() -> None:
    settings = Settings(check_every=50)
    plan = Plan(SNAPSHOT, MosLoader, settings, shared_processor, SharedBoard(EMBEDDED))
    alone = explored(plan)
    with ThreadPoolExecutor(4) as executor:
        assert explored(plan, Workers(plan, executor, workers=4, is_in_order=False)) == alone
    assert not alone.findings
    assert alone.checked > 1


@pytest.mark.filterwarnings("ignore")  # of Dask's own, about this machine
def test_a_dask_cluster_does_the_work() -> None:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        executor = cast("Executor", client.get_executor())
        workers = Workers(BUGGY, executor, workers=2, is_in_order=False)
        assert explored(BUGGY, workers) == explored(BUGGY)


def test_shards_together_are_the_whole() -> None:
    plan = Plan(SNAPSHOT, MosLoader, Settings(check_every=0))
    whole = explored(plan)
    parts = [explored(plan, shard=(number, 3)) for number in (1, 2, 3)]
    assert sum(part.cuts for part in parts) == whole.cuts
    # States that boots leave may be met in more than one part.
    assert sum(part.states for part in parts) >= whole.states
    assert all(0 < part.cuts < whole.cuts for part in parts)


def test_what_cannot_be_sent_is_told(pool: Executor) -> None:
    plan = Plan(IDLE, lambda: MosLoader(), Settings())  # noqa: PLW0108 - it has no name
    with pytest.raises(UnsendableError, match="by name"):
        Workers(plan, pool)


def test_a_failed_check_in_another_process_is_told(pool: Executor) -> None:
    from campaign.story import Story  # noqa: PLC0415
    from platforms.errors import OtasimError  # noqa: PLC0415

    with pytest.raises(OtasimError, match="no such operation"):
        list(Workers(PLAN, pool).results([Check(Story.parse("snapshot/9999:before"))]))


def test_a_worker_that_is_gone_is_told_and_nothing_is_proven() -> None:
    others = set(multiprocessing.active_children())

    def kill(_result: Result, _waiting: int) -> None:
        for child in set(multiprocessing.active_children()) - others:
            child.kill()

    with processes(1) as executor:
        explorer = Explorer(PLAN, Workers(PLAN, executor), on_progress=kill)
        with pytest.raises(WorkersLostError, match="--resume"):
            explorer.run()
    assert explorer.result.is_interrupted
    assert not explorer.result.is_closed


# -- work that is kept ----------------------------------------------------------------------------


@given(results=st.lists(st.binary(max_size=50), min_size=1, max_size=6), data=st.data())
def test_a_file_cut_anywhere_holds_the_results_before(
    results: list[bytes], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("saved") / "work"
    with SavedWork(path, is_resumed=False) as saved:
        ends = [0]
        for number, result in enumerate(results):
            saved.keep(number, f"task {number}", result)
            ends.append(path.stat().st_size)
    length = data.draw(st.integers(0, ends[-1]))
    with path.open("r+b") as file:
        file.truncate(length)
        if data.draw(st.booleans()):
            file.seek(length)
            file.write(b"\x07nonsense")
    whole = sum(end <= length for end in ends) - 1
    with SavedWork(path, is_resumed=True) as saved:
        assert [saved.load(number) for number in range(saved.count)] == results[:whole]
        saved.keep(whole, "the next", "more")
    with SavedWork(path, is_resumed=True) as saved:
        assert saved.load(saved.count - 1) == "more"
        assert saved.count == whole + 1


def test_work_that_is_not_resumed_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "work"
    with SavedWork(path, is_resumed=False) as saved:
        saved.keep(0, "task", 1)
    with SavedWork(path, is_resumed=False) as saved:
        assert saved.count == 0


def test_kept_work_is_taken_up_by_other_workers(
    alone: Result, pool: Executor, tmp_path: Path
) -> None:
    path = tmp_path / "work"
    calls = iter(range(12))

    def interrupt(_result: Result, _waiting: int) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    with SavedWork(path, is_resumed=False) as saved:
        first = Explorer(PLAN, Workers(PLAN, saved=saved), on_progress=interrupt).run()
        assert first.is_interrupted
        assert 0 < first.states < alone.states
    with SavedWork(path, is_resumed=True) as saved:
        assert saved.count > 1
        resumed = partial(Workers, PLAN, pool, workers=2, saved=saved)
        assert explored(PLAN, resumed()) == alone


def test_results_of_other_tasks_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    paths = tmp_path / "work", tmp_path / "fresh"
    with SavedWork(paths[0], is_resumed=False) as saved:
        explored(PLAN, Workers(PLAN, saved=saved))
    with SavedWork(paths[1], is_resumed=False) as fresh:
        alone = explored(BUGGY, Workers(BUGGY, saved=fresh))
    with SavedWork(paths[0], is_resumed=True) as saved:
        assert explored(BUGGY, Workers(BUGGY, saved=saved)) == alone
    assert paths[0].read_bytes() == paths[1].read_bytes()  # the others' are cut off


def test_work_in_use_is_not_for_another(tmp_path: Path) -> None:
    path = tmp_path / "work"
    with SavedWork(path, is_resumed=False) as saved:
        saved.keep(0, "task", 1)
        for is_resumed in (False, True):
            with pytest.raises(BlockingIOError):
                SavedWork(path, is_resumed=is_resumed)
        saved.keep(1, "task", 2)
    with SavedWork(path, is_resumed=True) as saved:
        assert [saved.load(number) for number in range(saved.count)] == [1, 2]


def test_a_full_disk_ends_the_keeping_and_not_the_campaign(tmp_path: Path) -> None:
    path = tmp_path / "work"
    problems: list[OSError] = []
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with SavedWork(path, is_resumed=False, on_problem=problems.append) as saved:
        saved.keep(0, "task", "kept")
        limits = (path.stat().st_size + 30, hard)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            saved.keep(1, "task", "too long" * 10)
            saved.keep(2, "task", "not tried")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert not saved.is_keeping
        assert saved.load(0) == "kept"
    assert len(problems) == 1
    with SavedWork(path, is_resumed=True) as saved:
        assert saved.count == 1


def test_other_code_is_another_campaign(tmp_path: Path) -> None:
    source = tmp_path / "loader.py"
    source.write_text("a = 1\n")
    first = fingerprint(["snapshot", 1], [source])
    assert fingerprint(["snapshot", 1], [source]) == first
    assert fingerprint(["snapshot", 2], [source]) != first
    source.write_text("a = 2\n")
    assert fingerprint(["snapshot", 1], [source]) != first
