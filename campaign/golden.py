"""The golden run: a scenario once, with no cut, and the trace of its flash operations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bootloader_model.layout import DEFAULT_LAYOUT
from bootloader_model.partition import Partitions
from bootloader_model.provisioning import provision
from campaign.application import Application
from campaign.boot import BootRun, LoaderFactory, run_boot
from campaign.cells import Contents, Operation, is_record
from campaign.faults import Fault, tears_of
from campaign.flash import FlashPair, Traced
from campaign.judge import Kind, Problem, judge
from campaign.scenario import Act, Boot, Call, Expectation, Scenario, Start, Step, Update, Wait
from campaign.story import Cut
from platforms.clock import Clock
from platforms.devices.reset_cause import ResetCause
from platforms.errors import OtasimError
from platforms.flash import FlashDevice
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
        start: what the flash holds before the first step.
        steps: what happened, up to the first problem.
        problem: what went wrong without any cut, and in which step; None when all is well.
        failed_step: the name of that step.
        failed_boot: what the loader did in it, if it was a boot.
    """

    scenario: Scenario
    start: Contents
    steps: tuple[GoldenStep, ...]
    problem: Problem | None = None
    failed_step: str = ""
    failed_boot: BootRun | None = None

    @property
    def operations(self) -> int:
        """How many flash operations there are."""
        return sum(len(step.trace) for step in self.steps)

    @property
    def end(self) -> Contents:
        """What the flash holds behind the last step that went well."""
        return self.steps[-1].end if self.steps else self.start

    def booted_before(self, step: GoldenStep) -> GoldenStep:
        """The boot that started the application of a step."""
        return next(each for each in reversed(self.steps[: step.number]) if each.boot is not None)

    def find(self, cut: Cut) -> GoldenStep | None:
        """The step that a cut is in; None when there is no such operation."""
        for step in self.steps:
            # A cut behind the last operation of a step is in that step, not before the next.
            if step.first_operation <= cut.operation < step.first_operation + len(step.trace):
                return step
        return None


@dataclass(frozen=True, slots=True)
class CutPoint:
    """A cut in a scenario.

    Attributes:
        golden: the step that it is in.
        cut: where it is.
        contents: what the flash holds then.
        expectation: what is to be expected then.
        boot: the boot that went on, with damage, to its end; None in all other cases.
    """

    golden: GoldenStep
    cut: Cut
    contents: Contents
    expectation: Expectation
    boot: BootRun | None = None

    @property
    def index(self) -> int:
        """The number of the operation in its step."""
        return self.cut.operation - self.golden.first_operation

    @property
    def operation(self) -> Operation:
        """The operation."""
        return self.golden.trace[self.index].operation


def cuts_of(
    trace: Sequence[Traced], end: Contents, fault: Fault, seed: int
) -> Iterator[tuple[Cut, Contents]]:
    """Every cut of a trace, in order: before each operation, torn, and behind the last.

    Args:
        trace: the operations.
        end: what the flash holds after the last one.
        fault: what cuts.
        seed: chooses among the outcomes of torn operations.
    """
    for index, traced in enumerate(trace):
        yield Cut(index), traced.contents
        tears = tears_of(fault, traced.operation.flash, seed)
        torn = traced.contents.all_torn(traced.operation, tears)
        for tear, contents in zip(tears.each, torn, strict=True):
            yield Cut(index, tear), contents
    if trace:
        yield Cut(len(trace) - 1, is_after=True), end


def contents_after(trace: Sequence[Traced], cut: Cut, end: Contents) -> Contents:
    """What the flash holds after one cut of a trace."""
    traced = trace[cut.operation]
    if cut.tear is not None:
        return traced.contents.torn(traced.operation, cut.tear)
    if not cut.is_after:
        return traced.contents
    following = cut.operation + 1
    return trace[following].contents if following < len(trace) else end


def noting_operation(trace: Sequence[Traced]) -> int:
    """The operation that notes what a trace is for; -1 in an empty trace.

    That is its last record: whatever is written behind that is the loader's own affair. A trace
    without records says what it does in its last operation.
    """
    last = len(trace) - 1
    records = (index for index in range(last, -1, -1) if is_record(trace[index].operation))
    return next(records, last)


def is_noted(noting: int, cut: Cut) -> bool:
    """Whether what a trace is for may be on record after a cut in it.

    Args:
        noting: its `noting_operation`.
        cut: where it is cut.
    """
    return cut.operation > noting or (
        cut.operation == noting and (cut.is_after or cut.tear is not None)
    )


def point_of(golden: GoldenStep, cut: Cut, contents: Contents | None = None) -> CutPoint:
    """A cut in a step, by its number in the scenario; the contents are found when not given."""
    in_step = Cut(cut.operation - golden.first_operation, cut.tear, is_after=cut.is_after)
    step, is_last = golden.step, in_step.operation == len(golden.trace) - 1
    expectation = step.before
    if is_last and cut.is_after:
        expectation = step.after
    elif is_noted(noting_operation(golden.trace), in_step):
        expectation = step.during
    if contents is None:
        contents = contents_after(golden.trace, in_step, golden.end)
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
    begin = contents = flash.contents
    steps: list[GoldenStep] = []
    operations, boot, live = 0, None, None
    for number, step in enumerate(scenario.steps):
        start, failed_boot, problem = contents, None, None
        if isinstance(step.act, Boot):
            cause = step.act.cause
            if cause is ResetCause.SOFTWARE and live is not None and live.reset_after_ms is None:
                problem = Problem(Kind.NOT_RESET, "the application runs on, and asks for no reset")
                return Golden(scenario, begin, tuple(steps), problem, step.name)
            boot = run_boot(loader(), contents, cause=cause)
            trace, contents, failed_boot = boot.trace, boot.contents, boot
            problem = _boot_problem(boot, step, scenario)
            flash, live = FlashPair(contents), None
        else:
            flash.trace.clear()
            try:
                live = live or _start_application(
                    flash.nor, flash.internal, Clock(), boot, scenario
                )
                perform(live, step.act)
            except OtasimError as error:
                problem = Problem(Kind.CANNOT_UPDATE, str(error))
            trace, contents = tuple(flash.trace), flash.contents
        if problem is not None:
            return Golden(scenario, begin, tuple(steps), problem, step.name, failed_boot)
        steps.append(GoldenStep(number, step, operations, start, trace, contents, failed_boot))
        operations += len(trace)
    return Golden(scenario, begin, tuple(steps))


def _boot_problem(boot: BootRun, step: Step, scenario: Scenario) -> Problem | None:
    # Where the power goes after a boot more may be allowed than what a boot without a cut starts.
    verdict = judge(boot, step.before, scenario.images)
    if verdict.problem is None and step.runs not in (None, verdict.image):
        text = f"image {verdict.image} runs, expected {step.runs}"
        return Problem(Kind.WRONG_VERSION, text)
    return verdict.problem


def _start_application(
    nor: FlashDevice, internal: FlashDevice, clock: Clock, boot: BootRun | None, scenario: Scenario
) -> Application:
    """The application that a boot of the scenario has started."""
    assert boot is not None  # noqa: S101 - every scenario begins with one
    assert boot.target is not None  # noqa: S101 - a golden boot starts something
    application = Application(
        nor,
        internal,
        clock,
        boot.target.vector_table,
        has_file_system=scenario.has_file_system,
    )
    application.start()
    return application


def relive(
    golden: Golden, step: GoldenStep, nor: FlashDevice, internal: FlashDevice, clock: Clock
) -> None:
    """Let the application live again, from its start to the end of a step that is no boot.

    Raises what the application raises.
    """
    booted = golden.booted_before(step)
    application = _start_application(nor, internal, clock, booted.boot, golden.scenario)
    for lived in golden.steps[booted.number + 1 : step.number + 1]:
        perform(application, lived.step.act)


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
