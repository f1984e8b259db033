"""The search: every cut of a scenario, every cut of the boots that follow, to any depth.

States are taken breadth first, by the number of cuts that lead to them and in the order of the
operations, so the first story of a failure is a shortest one. A state that has been seen is not
booted again. What follows from a state is found by `campaign.expand`, by whoever does the work
(`campaign.work`); the search itself only compares states, and gives the same result whoever that
is.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from campaign.expand import Follower, Harvest, Plan, State, Tally
from campaign.faults import Fault
from campaign.golden import CutPoint, Golden
from campaign.judge import Kind, Problem
from campaign.real import MismatchError
from campaign.story import Recovery, Story
from campaign.work import Check, Expand, Outcome, Workers
from platforms.errors import OtasimError

_BATCH = 32
"""States in one task; the same whoever works, since the order of the search follows from it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A failure, with a shortest story that leads to it.

    Attributes:
        problem: what is wrong.
        story: how to get there.
        step: name of the scenario's step in which the power goes first.
        operation: the flash operation that is cut first, for people; empty without a cut.
    """

    problem: Problem
    story: Story
    step: str
    operation: str


@dataclass(slots=True)
class Result:
    """What is known of a scenario.

    Attributes:
        scenario: its name.
        fault: what went wrong first.
        shard: of the first cuts only those of part K of N were taken, as (K, N).
        operations: flash operations of the golden run.
        tally: cuts that were computed and judged (equal states included), boots, decisions, erases.
        states: distinct states.
        checked: states that were made for real as well.
        likenesses: states that count as seen and were booted nevertheless.
        seconds: how long it took.
        deepest: the most cuts in one story.
        is_closed: no new state appears, however many more cuts there are.
        is_interrupted: not all that was asked for has been done.
        failures: how many states ended in each kind of failure.
        findings: the first story of each kind.
        distrust: what the campaign's own checks found wrong with it; empty when nothing is.
    """

    scenario: str
    fault: Fault = Fault.POWER_LOSS
    shard: tuple[int, int] = (1, 1)
    operations: int = 0
    tally: Tally = field(default_factory=Tally)
    states: int = 0
    checked: int = 0
    likenesses: int = 0
    seconds: float = 0.0
    deepest: int = 0
    is_closed: bool = False
    is_interrupted: bool = False
    failures: Counter[Kind] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    distrust: str = ""

    @property
    def cuts(self) -> int:
        """Cuts that were computed and judged, equal states included."""
        return self.tally.cuts

    @property
    def boots(self) -> int:
        """Boots of the loader."""
        return self.tally.boots

    @property
    def reasons(self) -> Counter[str]:
        """How often the loader took each decision."""
        return self.tally.reasons


@dataclass(frozen=True, slots=True)
class _Trail:
    """How a state came about: the cut in the scenario, or the boot that led from another."""

    point: CutPoint
    parent: "_Trail | None" = None
    recovery: Recovery | None = None

    def recoveries(self, *last: Recovery) -> tuple[Recovery, ...]:
        """The boots up to here and the boots `last`."""
        found: list[Recovery] = []
        trail = self
        while trail.parent is not None and trail.recovery is not None:
            found.append(trail.recovery)
            trail = trail.parent
        return (*reversed(found), *last)


@dataclass(frozen=True, slots=True)
class _Node:
    """A state that is to be expanded, and how it came about."""

    key: bytes
    state: State
    trail: _Trail


class LikenessError(OtasimError):
    """Two states that count as the same are not: trust nothing of this campaign.

    Attributes:
        story: identifier of the story of the second one.
    """

    def __init__(self, story: str) -> None:
        super().__init__(
            f"{story}: this state was taken for one that had been seen, but boots in another way:"
            " the loader depends on something that the normal form leaves out, such as sequence"
            " numbers or the content of bad records. Closure proves nothing for it: use --depth N"
        )
        self.story = story


class Explorer:
    """The campaign of one scenario.

    Args:
        plan: the campaign.
        workers: who does the work; None: this process.
        shard: of the first cuts take only those of shard K of N, as (K, N) with K from 1.
        on_progress: called now and then with what is known, and how many states wait. Raising
            KeyboardInterrupt there ends the search with all counts in good order.
    """

    def __init__(
        self,
        plan: Plan,
        workers: Workers | None = None,
        *,
        shard: tuple[int, int] = (1, 1),
        on_progress: Callable[[Result, int], None] = lambda _result, _waiting: None,
    ) -> None:
        self._plan = plan
        self._workers = workers or Workers(plan)
        self._on_progress = on_progress
        self._seen: dict[bytes, bytes | None] = {}
        self._sampled: set[Hashable] = set()
        self._checks: list[Story] = []
        self._likenesses: list[tuple[bytes, State, Story]] = []
        self._waiting = 0
        self.result = Result(plan.scenario.name, plan.settings.fault, shard)

    def run(self) -> Result:
        """Search. KeyboardInterrupt ends it with what is known.

        Raises MismatchError and LikenessError when the campaign cannot be trusted.
        """
        started = time.perf_counter()
        try:
            self._search(self._workers.expander.life.golden)
        except KeyboardInterrupt:
            self.result.is_interrupted = True
        except (MismatchError, LikenessError) as error:
            self.result.distrust = str(error)
            raise
        except OtasimError:
            self.result.is_interrupted = True
            raise
        finally:
            self.result.seconds = time.perf_counter() - started
        return self.result

    def _search(self, golden: Golden) -> None:
        self.result.operations = golden.operations
        uncut = self._workers.expander.life.story(None)
        if golden.problem is not None:
            self._note(Finding(golden.problem, uncut, golden.failed_step, ""))
            return
        for step in golden.steps:
            if step.boot is not None:
                self.result.tally.count(step.boot)
        for step, problem in self._workers.expander.golden_answers():
            self._note(Finding(problem, uncut, step.step.name, ""))
        if self.result.findings:
            return
        self._waiting = self._workers.expander.life.number_of_points().total()
        # Taken as they are needed: flipped bits are many. Where more cuts follow, which states are
        # new must not depend on how far ahead that is.
        first = self._first_layer()
        layer = first if self._plan.settings.depth == 1 else list(first)
        while True:
            self.result.deepest += 1
            layer = self._search_layer(layer)
            self._check()
            if not layer:
                break
        self.result.is_closed = self._plan.settings.depth is None and not self.result.findings

    def _first_layer(self) -> Iterator[_Node]:
        number, shards = self.result.shard
        is_first = self._plan.settings.check_every > 0
        for point, follower in self._workers.expander.first():
            self._waiting -= 1
            if int.from_bytes(follower.key, "little") % shards != number - 1:
                continue
            self.result.tally.cuts += 1
            trail = _Trail(point)
            problem = self._workers.expander.problem_of(point)
            if problem is not None:
                self._note(self._finding(problem, trail))
            # At least one state is made for real.
            yield from self._new(replace(follower, is_sample=follower.is_sample or is_first), trail)
            is_first = False

    def _search_layer(self, layer: Iterable[_Node]) -> list[_Node]:
        """Expand states, and those that their boots leave; returns those of one more cut."""
        is_last = self.result.deepest == self._plan.settings.depth
        deeper: list[_Node] = []
        booted: Iterable[_Node] = layer
        while booted:
            begun: deque[list[_Node]] = deque()
            layer, booted = booted, []
            for harvest in self._workers.results(_tasks(layer, begun, is_last=is_last)):
                batch = begun.popleft()
                booted += self._add(harvest, batch, deeper)
                self._waiting -= len(batch)
                self._on_progress(self.result, self._waiting)
        return deeper

    def _add(self, harvest: Harvest, batch: list[_Node], deeper: list[_Node]) -> Iterator[_Node]:
        """What came of some states; yields the new ones that boots leave, adds those of cuts."""
        self.result.tally.add(harvest.tally)
        for node, expansion in zip(batch, harvest.expansions, strict=True):
            self.result.states += 1
            self._seen[node.key] = expansion.outcome
            for recovery, problem in expansion.problems:
                self._note(self._finding(problem, node.trail, recovery))
            yield from self._new_behind(node, expansion.booted)
            deeper += self._new_behind(node, expansion.cut)

    def _new_behind(self, node: _Node, followers: Sequence[Follower]) -> Iterator[_Node]:
        for follower in followers:
            trail = _Trail(node.trail.point, node.trail, follower.recovery)
            yield from self._new(follower, trail)

    def _new(self, follower: Follower, trail: _Trail) -> Iterator[_Node]:
        """The state as a node, unless it has been seen."""
        is_new = follower.key not in self._seen
        if is_new:
            self._seen[follower.key] = None
        # Processes that do not know of each other may both tell of the very same state.
        sample = follower.key, follower.state.contents.key
        if follower.is_sample and sample not in self._sampled:
            self._sampled.add(sample)
            story = self._story(trail)
            if is_new:
                self._checks.append(story)
            else:
                self._likenesses.append((follower.key, follower.state, story))
        if is_new:
            self._waiting += 1
            yield _Node(follower.key, follower.state, trail)

    def _story(self, trail: _Trail, *last: Recovery) -> Story:
        return self._workers.expander.life.story(trail.point.cut, trail.recoveries(*last))

    def _finding(self, problem: Problem, trail: _Trail, *last: Recovery) -> Finding:
        point = trail.point
        return Finding(
            problem,
            self._story(trail, *last),
            point.golden.step.name,
            str(point.operation),
        )

    def _note(self, finding: Finding) -> None:
        self.result.failures[finding.problem.kind] += 1
        if all(known.problem.kind is not finding.problem.kind for known in self.result.findings):
            self.result.findings.append(finding)

    def _check(self) -> None:
        """Look at the samples: the board has to agree, and states that count as the same."""
        checks, self._checks = self._checks, []
        for _ in self._workers.results([Check(story) for story in checks]):
            self.result.checked += 1
        likenesses, self._likenesses = self._likenesses, []
        tasks = [Outcome(state) for _, state, _ in likenesses]
        outcomes = self._workers.results(tasks)
        for (key, _, story), outcome in zip(likenesses, outcomes, strict=True):
            self.result.likenesses += 1
            if self._seen[key] not in (None, outcome):
                raise LikenessError(story.identifier)


def _tasks(nodes: Iterable[_Node], begun: deque[list[_Node]], *, is_last: bool) -> Iterator[Expand]:
    """The work on some nodes; each batch of them is put into `begun` when it is handed out."""
    remaining = iter(nodes)
    while batch := list(islice(remaining, _BATCH)):
        begun.append(batch)
        yield Expand(tuple(node.state for node in batch), is_last=is_last)
