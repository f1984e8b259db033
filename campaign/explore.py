"""The search: every cut of a scenario, every cut of the boots that follow, to any depth.

A state is what the flash holds together with what is expected of the board. States are taken
breadth first, by the number of cuts that lead to them and in the order of the operations, so the
first story of a failure is a shortest one. A state that has been seen is not booted again.

From a state the board boots. When the boot comes to its end it is judged, and what it leaves is the
next state, of the same number of cuts: the power is cycled, and the board boots again, now with
what is expected after the image that ran. And at each of the boot's flash operations the power may
go once more, which makes states of one more cut.

Marginal bits read in three ways in each boot (`Reading`), so a state that has some is booted three
times.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from campaign.boot import BootRun, Ending, LoaderFactory, run_boot
from campaign.flash import EXTREMES, Contents, Reading, tears
from campaign.golden import (
    CutPoint,
    Golden,
    contents_after,
    cut_points,
    point_of,
    run_golden,
)
from campaign.images import PROBE, Image
from campaign.judge import Kind, Problem, judge, update_problem
from campaign.normal_form import normal_form
from campaign.real import MismatchError, RealBoot, run_scenario_cut
from campaign.scenario import Expectation, Scenario
from campaign.story import Cut, Recovery, Story
from campaign.wear import erased_sectors
from platforms.devices.reset_cause import ResetCause
from platforms.errors import OtasimError

MOST_BITES = 4
"""Watchdog resets in a row, with no application started, that make a brick."""
POWER_LOSS = "power-loss"
"""Name of the fault that a cut is."""
_PROGRESS_STEP = 64
_EXACT_CUTS = 1
"""Up to so many cuts states are the same only when every byte is."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a campaign is made.

    Attributes:
        depth: how often the power may go in one story; None = until no new state appears.
        seed: chooses among the outcomes of torn operations.
        check_every: every so many states are made for real as well; 0 = none.
    """

    depth: int | None = 1
    seed: int = 0
    check_every: int = 1000


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
        operations: flash operations of the golden run.
        cuts: cuts that were computed and judged, equal states included.
        states: distinct states.
        boots: boots of the loader.
        checked: states that were made for real as well.
        likenesses: states that count as seen and were booted nevertheless.
        seconds: how long it took.
        deepest: the most cuts in one story.
        is_closed: no new state appears, however many more cuts there are.
        is_interrupted: not all that was asked for has been done.
        reasons: how often the loader took each decision.
        failures: how many states ended in each kind of failure.
        findings: the first story of each kind.
        fault: name of the fault that was made.
        erases: how often each sector was erased in these boots, by memory and address.
    """

    scenario: str
    operations: int = 0
    cuts: int = 0
    states: int = 0
    boots: int = 0
    checked: int = 0
    likenesses: int = 0
    seconds: float = 0.0
    deepest: int = 0
    is_closed: bool = False
    is_interrupted: bool = False
    reasons: Counter[str] = field(default_factory=Counter)
    failures: Counter[Kind] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    fault: str = POWER_LOSS
    erases: Counter[tuple[str, int]] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Node:
    """A state, and how it came about.

    Attributes:
        contents: what the flash holds.
        expectation: what may run.
        cuts: how often the power has gone.
        bites: how many watchdog resets have just led here in a row.
        point: the cut in the scenario, in the first node of a story.
        parent: the state before, in the others.
        recovery: the boot that led here from it.
    """

    contents: Contents
    expectation: Expectation
    cuts: int
    bites: int = 0
    point: CutPoint | None = None
    parent: "Node | None" = None
    recovery: Recovery | None = None

    @property
    def cause(self) -> ResetCause:
        """What resets the board here."""
        return ResetCause.WATCHDOG if self.bites else ResetCause.POWER_ON

    def story(self, scenario: str, *last: Recovery) -> tuple[Story, CutPoint]:
        """The story up to here and the boots `last`, and the cut that it begins with."""
        recoveries: list[Recovery] = []
        node = self
        while node.parent is not None and node.recovery is not None:
            recoveries.insert(0, node.recovery)
            node = node.parent
        assert node.point is not None  # noqa: S101 - where every story begins
        return Story(scenario, node.point.cut, (*recoveries, *last)), node.point


def readings_of(node: Node) -> tuple[Reading, ...]:
    """How marginal bits may read in a boot; where there are none, there is one way.

    Behind the first cut the two extremes stand for all: a state is known by them (`normal_form`).
    """
    if node.contents.is_weak and node.cuts <= _EXACT_CUTS:
        return tuple(Reading)
    return node.contents.extreme_readings


def after_cut(node: Node, boot: BootRun, cut: Cut, recovery: Recovery) -> Node:
    """The state that a cut in a boot leaves."""
    expectation = node.expectation
    is_last = cut.operation == len(boot.trace) - 1
    if is_last and (cut.is_after or cut.tear is not None):
        expectation = expectation.once_noted or expectation
    return Node(
        contents_after(boot.trace, cut.operation, cut, boot.contents),
        expectation,
        node.cuts + 1,
        parent=node,
        recovery=recovery,
    )


def after_boot(node: Node, boot: BootRun, image: Image | None, recovery: Recovery) -> Node:
    """The state that a complete boot leaves, which started `image`, or nothing."""
    expectation = None if image is None else node.expectation.after(image)
    return Node(
        boot.contents,
        expectation or node.expectation,
        node.cuts,
        node.bites + 1 if boot.ending is Ending.WATCHDOG else 0,
        parent=node,
        recovery=recovery,
    )


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
        scenario: the scenario.
        loader: makes a boot loader.
        settings: how far to go.
        on_progress: called now and then with what is known, and how many states wait.
    """

    def __init__(
        self,
        scenario: Scenario,
        loader: LoaderFactory,
        settings: Settings,
        on_progress: Callable[[Result, int], None] = lambda _result, _waiting: None,
    ) -> None:
        self._scenario = scenario
        self._loader = loader
        self._settings = settings
        self._on_progress = on_progress
        self._images: tuple[Image, ...] = (*scenario.images, PROBE)
        self._tears = tears(settings.seed)
        self._seen: dict[Hashable, frozenset[object] | None] = {}
        self._updatable: dict[Hashable, Problem | None] = {}
        self._expectations: dict[Expectation, int] = {}
        self._numbers: dict[int, tuple[int, Expectation]] = {}
        self._forms: dict[Hashable, Hashable] = {}
        self._same_forms: dict[Hashable, Hashable] = {}
        self._computed = 0
        self.result = Result(scenario.name)

    def run(self) -> Result:
        """Search. KeyboardInterrupt ends it with what is known.

        Raises MismatchError and LikenessError when the campaign cannot be trusted.
        """
        started = time.perf_counter()
        try:
            self._search()
        except KeyboardInterrupt:
            self.result.is_interrupted = True
        finally:
            self.result.seconds = time.perf_counter() - started
        return self.result

    def _search(self) -> None:
        golden = run_golden(self._scenario, self._loader)
        self.result.operations = golden.operations
        if golden.problem is not None:
            story = Story(self._scenario.name, None)
            self._note(Finding(golden.problem, story, golden.failed_step, ""))
            return
        for step in golden.steps:
            if step.boot is not None:
                self._count(step.boot)
        layer = self._new_nodes(self._first_nodes(golden), golden)
        cuts = 1
        while layer:
            self.result.deepest = cuts
            limit = self._settings.depth
            deeper = self._search_layer(layer, golden, is_last=limit is not None and cuts >= limit)
            layer, cuts = deeper, cuts + 1
        self.result.is_closed = self._settings.depth is None and not self.result.findings

    def _first_nodes(self, golden: Golden) -> Iterator[Node]:
        for point in cut_points(golden, self._tears):
            yield Node(point.contents, point.expectation, 1, point=point)

    def _new_nodes(self, nodes: Iterator[Node], golden: Golden) -> list[Node]:
        """Those of some states after a cut that have not been seen."""
        new = []
        for node in nodes:
            self.result.cuts += 1
            if self._is_new(node, golden):
                new.append(node)
        return new

    def _search_layer(self, layer: list[Node], golden: Golden, *, is_last: bool) -> list[Node]:
        deeper: list[Node] = []
        queue = deque(layer)
        while queue:
            node = queue.popleft()
            if self.result.states % _PROGRESS_STEP == 0:
                self._on_progress(self.result, len(queue) + len(deeper))
            self.result.states += 1
            outcomes: set[object] = set()
            for reading in readings_of(node):
                boot = self._boot(node, reading)
                if reading in EXTREMES:
                    outcomes.add(_outcome(boot))
                following = self._judge(node, reading, boot)
                if following is not None and self._is_new(following, golden):
                    queue.append(following)
                if following is not None and not is_last:
                    deeper += self._new_nodes(self._cut_nodes(node, reading, boot), golden)
            self._seen[self._key(node)] = frozenset(outcomes)
        return deeper

    def _boot(self, node: Node, reading: Reading) -> BootRun:
        boot = run_boot(
            self._loader(),
            node.contents,
            cause=node.cause,
            reading=reading,
            seed=self._settings.seed,
        )
        self._count(boot)
        return boot

    def _count(self, boot: BootRun) -> None:
        self.result.boots += 1
        self.result.reasons.update(decision.reason for decision in boot.decisions)
        self.result.erases.update(erased_sectors(traced.operation for traced in boot.trace))

    def _judge(self, node: Node, reading: Reading, boot: BootRun) -> Node | None:
        """The state behind a complete boot; None when it is a failure."""
        recovery = Recovery(reading)
        if boot.ending is Ending.WATCHDOG and node.bites + 1 < MOST_BITES:
            return after_boot(node, boot, None, recovery)
        verdict = judge(boot, node.expectation, self._images)
        problem = verdict.problem or self._update_problem(boot)
        if problem is not None or verdict.image is None:
            story, point = node.story(self._scenario.name, recovery)
            if problem is not None:
                index = point.cut.operation - point.golden.first_operation
                operation = str(point.golden.trace[index].operation)
                self._note(Finding(problem, story, point.golden.step.name, operation))
            return None
        assert node.expectation.after(verdict.image) is not None  # noqa: S101 - no problem
        return after_boot(node, boot, verdict.image, recovery)

    def _update_problem(self, boot: BootRun) -> Problem | None:
        key = self._form(boot.contents)
        if key not in self._updatable:
            self._updatable[key] = update_problem(self._loader, boot)
        return self._updatable[key]

    def _cut_nodes(self, node: Node, reading: Reading, boot: BootRun) -> Iterator[Node]:
        last = len(boot.trace) - 1
        for index in range(len(boot.trace)):
            cuts = [Cut(index, tear) for tear in self._tears]
            if index:  # before the first one the state is the one that was booted
                cuts.insert(0, Cut(index))
            if index == last:
                cuts.append(Cut(index, is_after=True))
            for cut in cuts:
                yield after_cut(node, boot, cut, Recovery(reading, cut))

    # -- what has been seen -----------------------------------------------------------------------

    def _is_new(self, node: Node, golden: Golden) -> bool:
        self._computed += 1
        every = self._settings.check_every
        is_checked = every > 0 and self._computed % every == 0
        if is_checked:
            self._check_for_real(node, golden)
        key = self._key(node)
        if key not in self._seen:
            self._seen[key] = None
            return True
        outcomes = self._seen[key]
        if is_checked and outcomes is not None:
            self._check_likeness(node, outcomes)
        return False

    def _key(self, node: Node) -> Hashable:
        is_exact = node.cuts <= _EXACT_CUTS or self._settings.depth is not None
        # A complete boot may write a record each time it is made: such states end nowhere.
        has_run = node.recovery is not None and node.recovery.cut is None
        contents = node.contents
        key = contents.key if is_exact and not has_run else self._form(contents)
        return key, self._number(node.expectation), node.bites

    def _form(self, contents: Contents) -> Hashable:
        """The normal form of contents, found once for equal ones."""
        key = contents.key
        form = self._forms.get(key)
        if form is None:
            form = normal_form(contents, self._images)
            form = self._forms[key] = self._same_forms.setdefault(form, form)
        return form

    def _number(self, expectation: Expectation) -> int:
        """A number for each expectation, as equal ones are often the same object."""
        known = self._numbers.get(id(expectation))
        if known is None:
            number = self._expectations.setdefault(expectation, len(self._expectations))
            # Kept alive, so that no other gets its id.
            known = self._numbers[id(expectation)] = number, expectation
        return known[0]

    def _note(self, finding: Finding) -> None:
        self.result.failures[finding.problem.kind] += 1
        if all(known.problem.kind is not finding.problem.kind for known in self.result.findings):
            self.result.findings.append(finding)

    # -- trust ------------------------------------------------------------------------------------

    def _check_for_real(self, node: Node, golden: Golden) -> None:
        """Make the state and its boots on the board's own models; MismatchError if they differ."""
        self.result.checked += 1
        story, _ = node.story(self._scenario.name)
        seed = self._settings.seed
        if node.point is not None:
            flash = run_scenario_cut(golden, node.point.golden, node.point.cut, self._loader)
        else:
            parent, recovery = node.parent, node.recovery
            assert parent is not None  # noqa: S101 - a node is first or has a parent
            assert recovery is not None  # noqa: S101
            real = RealBoot(parent.contents, parent.cause, recovery.reading, seed)
            flash = real.run(self._loader, recovery.cut)[0]
        _expect_same(story, flash.difference(node.contents))
        for reading in readings_of(node):
            boot = run_boot(
                self._loader(), node.contents, cause=node.cause, reading=reading, seed=seed
            )
            real = RealBoot(node.contents, node.cause, reading, seed)
            flash, ending, target = real.run(self._loader)
            whole = Story(story.scenario, story.cut, (*story.recoveries, Recovery(reading)))
            _expect_same(whole, flash.difference(boot.contents))
            if (ending, target) != (boot.ending, boot.target):
                _expect_same(whole, f"the board {ending.value}, computed: {boot.ending.value}")

    def _check_likeness(self, node: Node, outcomes: frozenset[object]) -> None:
        """Boot a state that counts as seen; LikenessError when it goes another way."""
        self.result.likenesses += 1
        readings = node.contents.extreme_readings
        found = frozenset(_outcome(self._boot(node, reading)) for reading in readings)
        if found != outcomes:
            raise LikenessError(node.story(self._scenario.name)[0].identifier)


def _expect_same(story: Story, difference: str | None) -> None:
    if difference is not None:
        raise MismatchError(story.identifier, difference)


def _outcome(boot: BootRun) -> object:
    """What two boots of like states have in common."""
    reasons = tuple(decision.reason for decision in boot.decisions)
    return boot.ending, boot.target, reasons


def story_nodes(
    scenario: Scenario, loader: LoaderFactory, story: Story, seed: int
) -> Iterator[tuple[Node, Recovery, BootRun]]:
    """Live a story again: each state, and the boot from it.

    Raises OtasimError when the story does not fit to this scenario and loader.
    """
    golden = run_golden(scenario, loader)
    step = None if story.cut is None else golden.find(story.cut)
    if step is None or story.cut is None:
        raise OtasimError(
            f"{story.identifier}: there is no such operation, the scenario has"
            f" {golden.operations}; is it the same loader and the same version of otasim?"
        )
    point = point_of(step, story.cut)
    node = Node(point.contents, point.expectation, 1, point=point)
    images = (*scenario.images, PROBE)
    for recovery in story.recoveries:
        boot = run_boot(
            loader(), node.contents, cause=node.cause, reading=recovery.reading, seed=seed
        )
        if recovery.cut is None:
            yield node, recovery, boot
            image = judge(boot, node.expectation, images).image
            node = after_boot(node, boot, image, recovery)
            continue
        cut = recovery.cut
        if cut.operation >= len(boot.trace):
            raise OtasimError(f"{story.identifier}: a boot has only {len(boot.trace)} operations")
        yield (
            node,
            recovery,
            run_boot(
                loader(),
                node.contents,
                cause=node.cause,
                reading=recovery.reading,
                seed=seed,
                cut=(cut.operation + cut.is_after, cut.tear),
            ),
        )
        node = after_cut(node, boot, cut, recovery)
