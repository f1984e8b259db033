"""The golden run: a scenario once, with no cut, and the trace of its flash operations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bootloader_model.layout import DEFAULT_LAYOUT
from bootloader_model.partition import Partitions
from bootloader_model.provisioning import provision
from campaign.application import Application
from campaign.boot import BootRun, LoaderFactory, run_boot
from campaign.flash import Contents, FlashPair, Tear, Traced
from campaign.judge import Kind, Problem, judge
from campaign.scenario import Act, Boot, Call, Expectation, Scenario, Start, Step, Update, Wait
from campaign.story import Cut
from platforms.clock import Clock
from platforms.errors import OtasimError
from rpc_shim.filesystem import FileSystem


@dataclass(frozen=True, slots=True)
class GoldenStep:
    """A step as it went.

    Attributes:
        number: which step of the scenario, from 0.
        step: what was to happen.
        first_operation: number of its first flash operation in the scenario.
        start: what the flash held before.
        trace: the operations.
        end: what the flash held afterwards.
        boot: what the loader did, in a Boot.
    """

    number: int
    step: Step
    first_operation: int
    start: Contents
    trace: tuple[Traced, ...]
    end: Contents
    boot: BootRun | None


@dataclass(frozen=True, slots=True)
class Golden:
    """A golden run.

    Attributes:
        scenario: the scenario.
        steps: what happened, up to the first problem.
        problem: what went wrong without any cut, and in which step; None when all is well.
        failed_step: the name of that step.
        failed_boot: what the loader did in it, if it was a boot.
    """

    scenario: Scenario
    steps: tuple[GoldenStep, ...]
    problem: Problem | None = None
    failed_step: str = ""
    failed_boot: BootRun | None = None

    @property
    def operations(self) -> int:
        """How many flash operations there are."""
        return sum(len(step.trace) for step in self.steps)

    def find(self, cut: Cut) -> GoldenStep | None:
        """The step that a cut is in; None when there is no such operation."""
        for step in self.steps:
            # A cut behind the last operation of a step is in that step, not before the next.
            if step.first_operation <= cut.operation < step.first_operation + len(step.trace):
                return step
        return None


@dataclass(frozen=True, slots=True)
class CutPoint:
    """A cut in a scenario: where it is, what it leaves, and what is expected then."""

    golden: GoldenStep
    cut: Cut
    contents: Contents
    expectation: Expectation


def contents_after(trace: tuple[Traced, ...], index: int, cut: Cut, end: Contents) -> Contents:
    """What the flash holds when power goes at operation `index` of a trace."""
    traced = trace[index]
    if cut.tear is not None:
        return traced.contents.torn(traced.operation, cut.tear)
    if not cut.is_after:
        return traced.contents
    return trace[index + 1].contents if index + 1 < len(trace) else end


def point_of(golden: GoldenStep, cut: Cut) -> CutPoint:
    """A cut in a step, computed from its trace."""
    index = cut.operation - golden.first_operation
    step, is_last = golden.step, index == len(golden.trace) - 1
    expectation = step.before
    if is_last and cut.is_after:
        expectation = step.after
    elif is_last and cut.tear is not None:
        expectation = step.during
    contents = contents_after(golden.trace, index, cut, golden.end)
    return CutPoint(golden, cut, contents, expectation)


def run_golden(scenario: Scenario, loader: LoaderFactory) -> Golden:
    """Let the device live the scenario, with the loader and the application's real code."""
    flash = FlashPair(Contents.erased())
    state = provision(
        flash.nor,
        flash.internal,
        scenario.first.data,
        factory_image=None if scenario.factory is None else scenario.factory.data,
        has_file_system=True,
    )
    if scenario.has_file_system:
        partitions = Partitions(DEFAULT_LAYOUT, nor=flash.nor, internal_flash=flash.internal)
        FileSystem.format(partitions.open(state.slots[state.active_slot].configuration.fs_dev))
    contents = flash.contents
    steps: list[GoldenStep] = []
    operations, boot, live = 0, None, None
    for number, step in enumerate(scenario.steps):
        start, failed_boot, problem = contents, None, None
        if isinstance(step.act, Boot):
            boot = run_boot(loader(), contents, cause=step.act.cause)
            trace, contents, failed_boot = boot.trace, boot.contents, boot
            problem = _boot_problem(boot, step, scenario)
            flash, live = FlashPair(contents), None
        else:
            flash.trace.clear()
            try:
                live = live or _start_application(flash, boot)
                perform(live, step.act)
            except OtasimError as error:
                problem = Problem(Kind.CANNOT_UPDATE, str(error))
            trace, contents = tuple(flash.trace), flash.contents
        if problem is not None:
            return Golden(scenario, tuple(steps), problem, step.name, failed_boot)
        steps.append(GoldenStep(number, step, operations, start, trace, contents, failed_boot))
        operations += len(trace)
    return Golden(scenario, tuple(steps))


def _boot_problem(boot: BootRun, step: Step, scenario: Scenario) -> Problem | None:
    # Where the power goes after a boot more may be allowed than what a boot without a cut starts.
    verdict = judge(boot, step.before, scenario.images)
    if verdict.problem is None and step.runs not in (None, verdict.image):
        text = f"image {verdict.image} runs, expected {step.runs}"
        return Problem(Kind.WRONG_VERSION, text)
    return verdict.problem


def _start_application(flash: FlashPair, boot: BootRun | None) -> Application:
    if boot is None or boot.target is None:
        raise OtasimError("a scenario must begin with a Boot: no application runs yet")
    application = Application(flash.nor, flash.internal, Clock(), boot.target.vector_table)
    application.start()
    return application


def perform(application: Application, act: Act) -> None:
    """Carry out what is not a boot; an OtasimError when the application cannot."""
    match act:
        case Update(image, commit_timeout_s):
            application.update(image, commit_timeout_s)
        case Call(method, params, times):
            for _ in range(times):
                application.call(method, dict(params))
        case Wait(seconds):
            application.wait(seconds)
        case Start() | Boot():
            pass


def cut_points(golden: Golden, tears: Sequence[Tear]) -> Iterator[CutPoint]:
    """Every cut of a golden run, in order: before each operation, torn, and behind the last."""
    for step in golden.steps:
        for index in range(len(step.trace)):
            number = step.first_operation + index
            yield point_of(step, Cut(number))
            for tear in tears:
                yield point_of(step, Cut(number, tear))
        if step.trace:
            last = step.first_operation + len(step.trace) - 1
            yield point_of(step, Cut(last, is_after=True))
