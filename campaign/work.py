"""Who does the work of a search: this process, others, or a cluster; and what has been done.

Tasks are numbered, and what comes of them is always taken in their order. So a campaign comes to
the same end with any number of workers, and work that has been kept is taken up by its number.
"""

import multiprocessing
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Protocol, TypeVar, cast

from campaign.boot import LONGEST_BOOT_S, limit_boots
from campaign.check import check_for_real
from campaign.expand import Expander, Harvest, Plan, State
from campaign.saved import SavedWork
from campaign.story import Story
from platforms.errors import OtasimError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_AHEAD = 4
"""Tasks handed out for each worker before the first of them has come back."""


class Task(Protocol[T_co]):
    """A piece of work."""

    @property
    def name(self) -> str:
        """Another one for every other task of a plan, in whichever process."""
        ...

    def run(self, expander: Expander) -> T_co:
        """Do it."""
        ...


@dataclass(frozen=True, slots=True)
class Expand:
    """Find what follows from some states."""

    states: tuple[State, ...]
    is_last: bool

    @property
    def name(self) -> str:
        """The states."""
        return f"expand {[_name_of(state) for state in self.states]} {self.is_last}"

    def run(self, expander: Expander) -> Harvest:
        """What follows, state by state."""
        return expander.expand(self.states, is_last=self.is_last)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Boot a state that counts as seen."""

    state: State

    @property
    def name(self) -> str:
        """The state."""
        return f"outcome {_name_of(self.state)}"

    def run(self, expander: Expander) -> bytes:
        """How it boots."""
        return expander.outcome(self.state)


@dataclass(frozen=True, slots=True)
class Check:
    """Make a state, and the boots from it, on the board's own flash models."""

    story: Story

    @property
    def name(self) -> str:
        """The story."""
        return f"check {self.story.identifier}"

    def run(self, expander: Expander) -> None:
        """MismatchError when they differ from what was computed."""
        check_for_real(expander.life, self.story, expander.board)


def _name_of(state: State) -> tuple[object, ...]:
    return state.contents.key, state.expectation, state.cuts, state.bites, state.has_run


class UnsendableError(OtasimError):
    """A plan cannot go to another process."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"this campaign cannot be sent to other processes ({problem}): give loader and scenario"
            " by name (module:Class), or do without workers"
        )


class WorkersLostError(OtasimError):
    """A worker is gone."""

    def __init__(self) -> None:
        super().__init__(
            "a worker process has ended before its work was done: it was killed (is there memory"
            " enough?), or what it ran has ended it. Go on with --resume, with fewer workers"
        )


class Workers:
    """Does the tasks of a plan.

    Args:
        plan: the campaign.
        executor: who works; anything with the interface of `concurrent.futures`. None: this
            process.
        workers: how many it has, more or less.
        is_in_order: whether each worker takes its tasks in the order in which they are submitted;
            it can then leave out what it has told before.
        saved: what has been done, and where to keep what will be.

    Attributes:
        expander: this process's own.
        saved: may be given later, before the first task.
    """

    def __init__(
        self,
        plan: Plan,
        executor: Executor | None = None,
        *,
        workers: int = 1,
        is_in_order: bool = True,
        saved: SavedWork | None = None,
    ) -> None:
        self.expander = Expander(plan, is_telling_once=True)
        self._executor = executor
        self._most = workers * _AHEAD
        self._is_telling_once = is_in_order
        self.saved = saved
        self._numbers = count()
        if executor is not None:
            self._plan = packed(plan)

    def results(self, tasks: Iterable[Task[T]]) -> Iterator[T]:
        """What comes of each task, in their order; some are begun ahead."""
        waiting: deque[tuple[int, Task[T], T | Future[T]]] = deque()
        for task in _one_at_a_time(tasks):
            number = next(self._numbers)
            waiting.append((number, task, self._begin(number, task)))
            if self._executor is None or len(waiting) >= self._most:
                yield self._end(*waiting.popleft())
        while waiting:
            yield self._end(*waiting.popleft())

    def _begin(self, number: int, task: Task[T]) -> T | Future[T]:
        if self.saved is not None and number < self.saved.count:
            if self.saved.is_of(number, task.name):
                return cast("T", self.saved.load(number))
            self.saved.cut_off(number)
        if self._executor is None:
            return task.run(self.expander)
        return self._executor.submit(_run, self._plan, task, is_telling_once=self._is_telling_once)

    def _end(self, number: int, task: Task[T], what: T | Future[T]) -> T:
        try:
            result: T = what.result() if isinstance(what, Future) else what
        except BrokenExecutor as error:
            raise WorkersLostError from error
        if self.saved is not None and number >= self.saved.count:
            self.saved.keep(number, task.name, result)
        return result


def packed(plan: Plan) -> bytes:
    """The plan as it is sent to other processes; UnsendableError when it cannot be."""
    try:
        return pickle.dumps(plan)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UnsendableError(str(error)) from error


def processes(number: int) -> ProcessPoolExecutor:
    """So many processes on this machine. Ctrl-C is for the one that gives them work."""
    return ProcessPoolExecutor(
        number,
        # Not forked: there are threads here, the progress bar's among them.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_work,
    )


def _begin_work() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_boots(LONGEST_BOOT_S)


_ALONE = threading.Lock()
"""Held by who works with what there is one of in a process: the expander, the processor, the board.

An executor may have threads, and tasks are made, from the states of the first cuts, by the thread
that hands them out. Threads gain nothing here, but they must not disturb each other's boots.
"""


def _one_at_a_time(tasks: Iterable[Task[T]]) -> Iterator[Task[T]]:
    remaining = iter(tasks)
    while True:
        with _ALONE:
            task = next(remaining, None)
        if task is None:
            return
        yield task


def _run(plan: bytes, task: Task[T], *, is_telling_once: bool) -> T:
    """A task, in another process, or in another thread."""
    with _ALONE:
        return task.run(_expander(plan, is_telling_once=is_telling_once))


@lru_cache(maxsize=1)
def _expander(plan: bytes, *, is_telling_once: bool) -> Expander:
    return Expander(pickle.loads(plan), is_telling_once=is_telling_once)  # noqa: S301 - our own
