"""What follows from a state: its boots, their verdicts, and the states that they and cuts leave.

A state is what the flash holds together with what is expected of the board. Nothing here depends on
which other states have been seen, so states can be expanded in any process; the search
(`campaign.explore`) puts together what comes of it, always in the same order.

From a state the board boots. When the boot comes to its end it is judged, and what it leaves is the
next state, of the same number of cuts: the power is cycled, and the board boots again, now with
what is expected after the image that ran. And at each of the boot's flash operations the power may
go once more, which makes states of one more cut.

Marginal bits read in three ways in each boot (`Reading`), so a state that has some is booted three
times.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from campaign.boot import BootRun, Ending, LoaderFactory, run_boot
from campaign.cells import EXTREMES, Contents, Reading, Tear, Tears, hash_of
from campaign.damage import damaged_point, damages, number_of_damages
from campaign.faults import Fault, tears_of
from campaign.flash import Traced, erased_sectors
from campaign.golden import (
    CutPoint,
    Golden,
    GoldenStep,
    cuts_of,
    is_noted,
    noting_operation,
    point_of,
    run_golden,
)
from campaign.images import PROBE, Image
from campaign.judge import Kind, Problem, Verdict, has_way_out, judge, update_problem
from campaign.normal_form import NormalForms
from campaign.processor import Processor, WholeBoard, answer_problem
from campaign.scenario import Expectation, Scenario, expectations_of
from campaign.story import Cut, Recovery, Story
from platforms.devices.reset_cause import ResetCause
from platforms.errors import OtasimError

MOST_BITES = 4
"""Watchdog resets in a row, with no application started, that make a brick."""
_EXACT_CUTS = 1
"""Up to so many cuts states are the same only when every byte is."""
LASTING = (Fault.STUCK_BIT, Fault.WORN_SECTOR)
"""Broken cells stay broken: no loader can promise that such a board takes updates."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a campaign is made.

    Attributes:
        depth: how often the power may go in one story; None = until no new state appears.
        seed: chooses among the outcomes of torn operations.
        check_every: one in so many states is made for real as well; 0 = none.
        fault: what goes wrong first. What damages storage does so once, then the power may go.
    """

    depth: int | None = 1
    seed: int = 0
    check_every: int = 1000
    fault: Fault = Fault.POWER_LOSS

    @property
    def cuts_by(self) -> Fault:
        """What interrupts boots."""
        return self.fault if self.fault.interrupts else Fault.POWER_LOSS


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign of one scenario: all that another process needs to take part.

    Attributes:
        scenario: the scenario.
        loader: makes a boot loader.
        settings: how far to go.
        processor: makes what runs the application's code; None: what starts is taken to run.
        board: makes what samples are compared with; None: the flash models alone.
    """

    scenario: Scenario
    loader: LoaderFactory
    settings: Settings
    processor: Callable[[], Processor] | None = None
    board: Callable[[], WholeBoard] | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What the flash holds, and what is expected of the board.

    Attributes:
        contents: what the flash holds.
        expectation: what may run, by its number in the scenario.
        cuts: how often the power has gone.
        bites: how many watchdog resets have just led here in a row.
        has_run: whether a complete boot has led here.
    """

    contents: Contents
    expectation: int
    cuts: int
    bites: int = 0
    has_run: bool = False

    @property
    def readings(self) -> tuple[Reading, ...]:
        """How marginal bits may read in a boot; where there are none, there is one way.

        Behind the first cut the two extremes stand for all: a state is known by them
        (`normal_form`).
        """
        if self.contents.is_weak and self.cuts <= _EXACT_CUTS:
            return tuple(Reading)
        return self.contents.extreme_readings


class Life:
    """The states of a plan's boards, one after the other.

    Attributes:
        plan: the campaign.
        golden: the scenario without a cut.
        images: all images that there are.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.golden: Golden = run_golden(plan.scenario, plan.loader)
        self.images: tuple[Image, ...] = (*plan.scenario.images, PROBE)
        self.survivors = Expectation(tuple((image, None) for image in plan.scenario.images))
        self._expectations = (*expectations_of(plan.scenario), self.survivors)
        first: dict[Expectation, int] = {}
        self._numbers = {
            id(each): first.setdefault(each, number)
            for number, each in enumerate(self._expectations)
        }

    def story(self, cut: Cut | None, recoveries: Sequence[Recovery] = ()) -> Story:
        """A story of this plan."""
        fault = self.plan.settings.fault
        return Story(self.plan.scenario.name, cut, tuple(recoveries), fault)

    def cause(self, state: State) -> ResetCause:
        """What resets the board in a state."""
        if state.bites:
            return ResetCause.WATCHDOG
        return self.plan.settings.fault.cause or ResetCause.POWER_ON

    def cuts(self, trace: Sequence[Traced], end: Contents) -> Iterator[tuple[Cut, Contents]]:
        """Every way in which a trace can be cut, and what the flash then holds."""
        settings = self.plan.settings
        return cuts_of(trace, end, settings.cuts_by, settings.seed)

    def points(self) -> Iterator[CutPoint]:
        """Everything that the fault can do in the scenario, in order."""
        settings = self.plan.settings
        if settings.fault.interrupts:
            for step in self.golden.steps:
                for cut, contents in self.cuts(step.trace, step.end):
                    number = step.first_operation + cut.operation
                    yield point_of(step, replace(cut, operation=number), contents)
        else:
            for cut in damages(self.golden, settings.fault, settings.seed):
                yield self.point(cut)

    def number_of_points(self) -> Counter[int]:
        """How many there are, by the number of the operation that they are at."""
        settings = self.plan.settings
        if not settings.fault.interrupts:
            return number_of_damages(self.golden, settings.fault, settings.seed)
        found: Counter[int] = Counter()
        for step in self.golden.steps:
            for number, traced in enumerate(step.trace, step.first_operation):
                found[number] = 1 + len(self._tears(traced).each)
            if step.trace:
                found[step.first_operation + len(step.trace) - 1] += 1  # the cut behind it
        return found

    def _tears(self, traced: Traced) -> Tears:
        settings = self.plan.settings
        return tears_of(settings.cuts_by, traced.operation.flash, settings.seed)

    def point(self, cut: Cut) -> CutPoint:
        """What one cut in the scenario does; OtasimError when there is no such operation."""
        step = self.golden.find(cut)
        if step is None:
            raise OtasimError(
                f"{self.story(cut).identifier}: there is no such operation, the scenario has"
                f" {self.golden.operations}; is it the same loader and the same version of otasim?"
            )
        fault = self.plan.settings.fault
        if fault.interrupts:
            return point_of(step, cut)
        return damaged_point(self.golden, step, cut, fault, self.plan.loader, self.survivors)

    def expectation(self, state: State) -> Expectation:
        """What may run in a state."""
        return self._expectations[state.expectation]

    def first(self, point: CutPoint) -> State:
        """The state that a cut in the scenario leaves."""
        return State(point.contents, self._number(point.expectation), 1)

    def boot(
        self, state: State, reading: Reading, cut: tuple[int, Tear | None] | None = None
    ) -> BootRun:
        """The boot that follows a state; `cut` as in `run_boot`."""
        return run_boot(
            self.plan.loader(),
            state.contents,
            cause=self.cause(state),
            reading=reading,
            seed=self.plan.settings.seed,
            cut=cut,
        )

    def judge(self, expectation: Expectation, boot: BootRun) -> Verdict:
        """What is to be said of a complete boot."""
        return judge(boot, expectation, self.images)

    @cached_property
    def _processor(self) -> Processor | None:
        """Made when it is first needed, in the process that needs it."""
        return None if self.plan.processor is None else self.plan.processor()

    def answer_problem(self, boot: BootRun, image: Image) -> Problem | None:
        """What is wrong with the answer of the application that a boot has started; None: nothing.

        Without a processor there is nothing to be said.
        """
        if self._processor is None:
            return None
        return answer_problem(self._processor, boot, image)

    def update_problem(self, boot: BootRun) -> Problem | None:
        """What keeps the board from taking an update after a boot; None when nothing does."""
        has_file_system = self.plan.scenario.has_file_system
        return update_problem(self.plan.loader, boot, has_file_system=has_file_system)

    def after_boot(self, state: State, boot: BootRun, image: Image | None) -> State:
        """The state that a complete boot leaves, which started `image`, or nothing."""
        then = None if image is None else self.expectation(state).after(image)
        return State(
            boot.contents,
            state.expectation if then is None else self._number(then),
            state.cuts,
            state.bites + 1 if boot.ending is Ending.WATCHDOG else 0,
            has_run=True,
        )

    def after_cut(self, state: State, noting: int, cut: Cut, contents: Contents) -> State:
        """The state that a cut in a boot leaves.

        Args:
            state: what the boot began with.
            noting: the boot's `noting_operation`.
            cut: where it is cut.
            contents: what the flash then holds.
        """
        expectation = state.expectation
        noted = self.expectation(state).once_noted
        if noted is not None and is_noted(noting, cut):
            expectation = self._number(noted)
        return State(contents, expectation, state.cuts + 1)

    def _number(self, expectation: Expectation) -> int:
        return self._numbers[id(expectation)]


@dataclass(frozen=True, slots=True)
class Follower:
    """A state that follows.

    Attributes:
        key: equal for states that count as the same.
        recovery: the boot that leads to it.
        state: the state.
        is_sample: whether it is to be looked at more closely (`Settings.check_every`).
    """

    key: bytes
    recovery: Recovery
    state: State
    is_sample: bool


@dataclass(frozen=True, slots=True)
class Expansion:
    """What follows from one state.

    Attributes:
        outcome: equal for states that boot alike, in the extreme readings.
        problems: what is wrong, and the boot in which it showed.
        booted: states that complete boots leave.
        cut: states that one more cut leaves.
    """

    outcome: bytes
    problems: tuple[tuple[Recovery, Problem], ...]
    booted: tuple[Follower, ...]
    cut: tuple[Follower, ...]


@dataclass(slots=True)
class Tally:
    """What has been counted.

    Attributes:
        boots: boots of the loader.
        cuts: cuts that were computed, equal states included.
        reasons: how often the loader took each decision.
        erases: how often each sector was erased, by name of the memory and address.
        hopeless: states in which the fault had left nothing that a loader could start.
    """

    boots: int = 0
    cuts: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    erases: Counter[tuple[str, int]] = field(default_factory=Counter)
    hopeless: int = 0

    def count(self, boot: BootRun) -> None:
        """One more boot."""
        self.boots += 1
        self.reasons.update(boot.reasons)
        self.erases.update(erased_sectors(boot.trace))

    def add(self, other: "Tally") -> None:
        """All that another one has counted."""
        self.boots += other.boots
        self.cuts += other.cuts
        self.reasons.update(other.reasons)
        self.erases.update(other.erases)
        self.hopeless += other.hopeless


@dataclass(frozen=True, slots=True)
class Harvest:
    """What came of some states.

    Attributes:
        tally: what was counted.
        expansions: what follows, state by state.
    """

    tally: Tally
    expansions: tuple[Expansion, ...]


class Expander:
    """Expands the states of one plan.

    It may keep to itself what it has told before: whoever takes part in a search from its beginning
    then sends each state once.

    Args:
        plan: the campaign.
        is_telling_once: leave out states that an earlier call has told.
    """

    def __init__(self, plan: Plan, *, is_telling_once: bool) -> None:
        self.life = Life(plan)
        self._plan = plan
        self._forms = NormalForms(self.life.images)
        self._is_telling_once = is_telling_once
        self._told: set[Hashable] = set()
        self._updatable: dict[Hashable, Problem | None] = {}
        self._answers: dict[Hashable, Problem | None] = {}

    @cached_property
    def board(self) -> WholeBoard | None:
        """The whole board that samples are compared with."""
        return None if self._plan.board is None else self._plan.board()

    def golden_answers(self) -> Iterator[tuple[GoldenStep, Problem]]:
        """The boots of the scenario after which nothing answers."""
        for step in self.life.golden.steps:
            if step.boot is not None:
                image = self.life.judge(step.step.before, step.boot).image
                assert image is not None  # noqa: S101 - or the scenario had gone wrong
                problem = self.life.answer_problem(step.boot, image)
                if problem is not None:
                    yield step, problem

    def first(self) -> Iterator[tuple[CutPoint, Follower]]:
        """The states that the fault leaves in the scenario."""
        for point in self.life.points():
            state = self.life.first(point)
            yield point, self._follower(self._key(state), Recovery(Reading.STORED), state)

    def problem_of(self, point: CutPoint) -> Problem | None:
        """What is wrong with the boot that went on, with damage, to its end."""
        boot = point.boot
        if boot is None or boot.ending is Ending.WATCHDOG:
            return None
        # A flash that hangs keeps an update from being started, until the power is cycled.
        return self.life.judge(self.life.survivors, boot).problem

    def expand(self, states: Sequence[State], *, is_last: bool) -> Harvest:
        """What follows from some states; without further cuts when `is_last`."""
        tally = Tally()
        if not self._is_telling_once:
            self._told.clear()
        expansions = tuple(self._expand(state, tally, is_last=is_last) for state in states)
        return Harvest(tally, expansions)

    def outcome(self, state: State) -> bytes:
        """What states that count as the same have in common: how they boot."""
        readings = state.contents.extreme_readings
        return _outcome([self.life.boot(state, reading) for reading in readings])

    def _expand(self, state: State, tally: Tally, *, is_last: bool) -> Expansion:
        boots: list[BootRun] = []
        problems: list[tuple[Recovery, Problem]] = []
        booted: list[Follower] = []
        cut: list[Follower] = []
        for reading in state.readings:
            boot = self.life.boot(state, reading)
            tally.count(boot)
            if reading in EXTREMES:
                boots.append(boot)
            recovery = Recovery(reading)
            following = self._judge(state, boot, tally)
            if isinstance(following, Problem):
                problems.append((recovery, following))
            if not isinstance(following, State):
                continue
            booted += self._told_now(recovery, following)
            if not is_last:
                for where, after in self._cut_states(state, boot):
                    tally.cuts += 1
                    cut += self._told_now(Recovery(reading, where), after)
        return Expansion(_outcome(boots), tuple(problems), tuple(booted), tuple(cut))

    def _judge(self, state: State, boot: BootRun, tally: Tally) -> State | Problem | None:
        """The state behind a complete boot, or what is wrong with it; None when nothing is left."""
        if boot.ending is Ending.WATCHDOG and state.bites + 1 < MOST_BITES:
            return self.life.after_boot(state, boot, None)
        verdict = self.life.judge(self.life.expectation(state), boot)
        problem = verdict.problem
        if verdict.image is not None:
            problem = problem or self._answer_problem(state, boot, verdict.image)
        problem = problem or self._update_problem(state, boot)
        if problem is None:
            return self.life.after_boot(state, boot, verdict.image)
        if self._is_excused(problem, boot):
            tally.hopeless += 1
            return None
        return problem

    def _is_excused(self, problem: Problem, boot: BootRun) -> bool:
        """Whether a board is dead because the damage has left nothing that could be started."""
        is_damaged = not self._plan.settings.fault.interrupts
        is_dead = is_damaged and problem.kind is Kind.BRICK
        return is_dead and not has_way_out(boot.contents, self._plan.scenario.images)

    def _update_problem(self, state: State, boot: BootRun) -> Problem | None:
        if self._plan.settings.fault in LASTING:
            return None
        key = self._tested(state, boot)
        if key not in self._updatable:
            self._updatable[key] = self.life.update_problem(boot)
        return self._updatable[key]

    def _answer_problem(self, state: State, boot: BootRun, image: Image) -> Problem | None:
        key = self._tested(state, boot), image.name
        if key not in self._answers:
            self._answers[key] = self.life.answer_problem(boot, image)
        return self._answers[key]

    def _cut_states(self, state: State, boot: BootRun) -> Iterator[tuple[Cut, State]]:
        noting = noting_operation(boot.trace)
        for cut, contents in self.life.cuts(boot.trace, boot.contents):
            # Before the first operation the state is the one that was booted.
            if cut.operation or cut.tear is not None or cut.is_after:
                yield cut, self.life.after_cut(state, noting, cut, contents)

    # -- telling states apart ---------------------------------------------------------------------

    def _told_now(self, recovery: Recovery, state: State) -> Iterator[Follower]:
        """The state as a follower, unless it has been told."""
        key = self._key(state)
        known = (key, state.contents.key) if self._is_sample(state) else key
        if known not in self._told:
            self._told.add(known)
            yield self._follower(key, recovery, state)

    def _follower(self, key: Hashable, recovery: Recovery, state: State) -> Follower:
        return Follower(hash_of(key), recovery, state, self._is_sample(state))

    def _key(self, state: State) -> Hashable:
        contents = state.contents
        is_exact = state.cuts <= _EXACT_CUTS or self._plan.settings.depth is not None
        # A complete boot may write a record each time it is made: such states end nowhere.
        same = contents.key if is_exact and not state.has_run else self._forms.of(contents)
        return same, state.expectation, state.bites

    def _tested(self, state: State, boot: BootRun) -> Hashable:
        """Equal for boots behind which the same is tried: what the application sees and does."""
        contents = boot.contents
        return contents.key if state.cuts <= _EXACT_CUTS else self._forms.of(contents)

    def _is_sample(self, state: State) -> bool:
        every = self._plan.settings.check_every
        return every > 0 and sum(state.contents.key) % every == 0


def _outcome(boots: Sequence[BootRun]) -> bytes:
    """What the boots of like states have in common; how many like readings there are is nothing."""
    told = {repr((boot.ending.value, boot.target, boot.reasons)) for boot in boots}
    return hash_of(sorted(told))
