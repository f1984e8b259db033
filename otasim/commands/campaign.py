"""`otasim campaign`: proves that no power cut bricks a boot loader, or shows the one that does."""

import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, redirect_stdout
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from bootloader_model.custom_loader import LoaderNameError
from campaign.boot import LONGEST_BOOT_S, LoaderFactory, limit_boots
from campaign.expand import Life, Plan, Settings
from campaign.explore import Explorer, LikenessError, Result
from campaign.faults import Fault
from campaign.real import MismatchError
from campaign.reports.replay import problem_of_story, replay_lines
from campaign.reports.report import EXIT_CODES, Verdict, make_report
from campaign.reports.state_directory import keep_failing_state
from campaign.reports.terminal import exit_line, scenario_line, summary_lines
from campaign.scenario import SCENARIOS, Scenario
from campaign.story import Story, StoryIdError
from campaign.work import UnsendableError, Workers, packed
from otasim.campaign_values import parse_depth, parse_shard
from otasim.campaigns import (
    NO_BOARD,
    CampaignNameError,
    Labour,
    board_factory,
    find_loader,
    find_scenario,
    labour,
    saved_work,
    shared_processor,
)
from otasim.engines import EMBEDDED, ENGINES
from otasim.interrupts import HeldInterrupt, terminated_like_interrupted
from otasim.report_options import (
    EXIT_UNDONE,
    remove_old_reports,
    report_options,
    reports,
    tell,
    write_reports,
)
from platforms.errors import OtasimError

T = TypeVar("T")

ALL = "all"
_NOT_OF_REPLAYS = {"fault_names", "depth", "jobs", "shard", "executor_name", "is_resumed"}
"""Parameters that say something of a campaign which a story has in it, or has no use for."""


class _Parsed(click.ParamType[T]):
    """A value that a function reads from text, with an error of its own."""

    def __init__(self, parse: Callable[[str], T], name: str) -> None:
        self._parse = parse
        self.name = name

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> T:
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _UndoneError(click.ClickException):
    """There is nothing that a report could say."""

    exit_code = EXIT_UNDONE


class _Command(click.Command):
    """Leaves with the exit codes of a campaign only, never with one of the code under test."""

    def invoke(self, ctx: click.Context) -> None:
        try:
            code: int = super().invoke(ctx)
        except (LoaderNameError, CampaignNameError, UnsendableError) as error:
            raise click.UsageError(str(error), ctx) from error
        except OtasimError as error:
            raise _UndoneError(str(error)) from error
        except (SystemExit, click.exceptions.Exit) as error:
            message = f"the code under test has ended the program ({error!r}): nothing is shown"
            raise _UndoneError(message) from error
        ctx.exit(code)


@click.command(cls=_Command)
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option("--loader", "loader_name", metavar="MODULE:CLASS", help="Your own boot loader.")
@click.option(
    "--depth", type=_Parsed(parse_depth, "N|closure"), default="1", show_default=True,
    metavar="N|closure",
    help="How often the power may go in one story; closure: until no new state appears.",
)  # fmt: skip
@click.option(
    "--fault", "fault_names", multiple=True, default=(Fault.POWER_LOSS.value,), show_default=True,
    type=click.Choice([*(fault.value for fault in Fault), ALL]),
    help="What goes wrong; may be given more than once.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Chooses among the outcomes of torn operations.")  # fmt: skip
@click.option(
    "--check-every", type=click.IntRange(min=0), default=1000, show_default=True, metavar="N",
    help="Make every Nth state on the board's flash models as well, and compare; 0: none.",
)  # fmt: skip
@click.option(
    "--board", "engine", type=click.Choice([*ENGINES, NO_BOARD]), default=EMBEDDED,
    show_default=True,
    help="Make those states on a whole board as well, with its processor on this engine.",
)  # fmt: skip
@click.option(
    "--processor/--no-processor", "has_processor", default=True, show_default=True,
    help="Run what is started on the processor, until it answers an RPC call.",
)  # fmt: skip
@click.option(
    "--jobs", "-j", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
    help="Work in N processes.",
)  # fmt: skip
@click.option("--shard", type=_Parsed(parse_shard, "K/N"), default="1/1", metavar="K/N",
              help="Only the K-th of N parts of the first cuts, for N machines.")  # fmt: skip
@click.option("--executor", "executor_name", metavar="MODULE:FUNCTION",
              help="Who works: a function that makes a concurrent.futures executor.")  # fmt: skip
@click.option("--fail-fast", "is_first_enough", is_flag=True,
              help="Stop at the first counter-example.")  # fmt: skip
@click.option("--resume", "is_resumed", is_flag=True,
              help="Go on where the same campaign was broken off.")  # fmt: skip
@report_options
@click.option("--replay", metavar="ID", help="Tell one story again, as a campaign printed it.")
@click.option("--state", "state_directory", type=click.Path(path_type=Path, file_okay=False),
              metavar="DIR", help="With --replay: keep the flash from before the last boot here, "
              "for `otasim run --state DIR`.")  # fmt: skip
@click.option("--list", "is_list", is_flag=True, help="List the scenarios and the faults.")
def campaign(  # noqa: PLR0913, PLR0917 - one parameter for each option
    names: tuple[str, ...],
    loader_name: str | None,
    depth: int | None,
    fault_names: tuple[str, ...],
    seed: int,
    check_every: int,
    engine: str,
    has_processor: bool,
    jobs: int,
    shard: tuple[int, int],
    executor_name: str | None,
    is_first_enough: bool,
    is_resumed: bool,
    replay: str | None,
    state_directory: Path | None,
    is_list: bool,
) -> int:
    """Cut the power at every flash operation of the SCENARIOs, in every way, and judge what boots.

    Without names: all scenarios. A scenario of your own is module:NAME.

    Exit codes: 0 proven, 1 counter-example found, 2 wrong use, 3 the campaign's own checks fail:
    trust nothing it says, 4 it could not be carried out, or a report not be written, 130
    interrupted.
    """
    if is_list:
        for scenario in SCENARIOS:
            click.echo(f"{scenario.name:<18} {scenario.title}")
        click.echo("\nfaults:")
        for fault in Fault:
            click.echo(f"{fault.value:<18} {fault.title}")
        return 0
    if replay is None and state_directory is not None:
        raise click.UsageError("--state keeps the state of one story: say which with --replay")
    if replay is not None:
        _refuse_with_replay()
    limit_boots(LONGEST_BOOT_S)
    faults = list(Fault) if ALL in fault_names else list(map(Fault, dict.fromkeys(fault_names)))
    results: list[Result] = []
    is_undone = False
    loader = find_loader(loader_name)
    if replay is not None:
        return _replay(replay, loader, seed, state_directory, has_processor=has_processor)
    plans = [
        Plan(
            scenario,
            loader,
            Settings(depth, seed, check_every, fault),
            shared_processor if has_processor else None,
            board_factory(engine),
        )
        for scenario in _scenarios(names)
        for fault in faults
    ]
    try:
        with labour(jobs, executor_name) as workers:
            if workers.executor is not None:
                for plan in plans:
                    packed(plan)
            remove_old_reports()  # from here on all is as it should be
            _run(
                plans,
                loader_name,
                workers,
                shard,
                results,
                is_resumed=is_resumed,
                is_first_enough=is_first_enough,
            )
    except (LoaderNameError, CampaignNameError, UnsendableError):
        raise
    except OtasimError as error:
        click.echo(f"error: {error}", err=True)
        is_undone = not isinstance(error, (MismatchError, LikenessError))
    report = make_report(plans, results, loader_name=loader_name)
    for line in summary_lines(report):
        tell(line)
    errors = write_reports(report)
    for unwritten in errors:
        click.echo(f"error: {unwritten}", err=True)
    if errors or is_undone:
        return EXIT_UNDONE
    tell(exit_line(report))
    return EXIT_CODES[report.verdict]


def _refuse_with_replay() -> None:
    """UsageError when anything is given that a replay has no use for."""
    context = click.get_current_context()
    given = [f"--{name}" for name in reports()]
    for parameter in context.command.params:
        assert parameter.name is not None  # noqa: S101 - click gives each one a name
        is_given = context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
        if is_given and parameter.name in _NOT_OF_REPLAYS:
            given.append(parameter.opts[0])
    if context.params["names"]:
        given.append("SCENARIO")
    if given:
        raise click.UsageError(f"{', '.join(given)}: for campaigns only, --replay is none")


def _scenarios(names: tuple[str, ...]) -> list[Scenario]:
    return [find_scenario(name) for name in dict.fromkeys(names)] or list(SCENARIOS)


def _warn(line: str) -> None:
    click.echo(f"warning: {line}", err=True)


def _run(
    plans: list[Plan],
    loader_name: str | None,
    workers: Labour,
    shard: tuple[int, int],
    results: list[Result],
    *,
    is_resumed: bool,
    is_first_enough: bool,
) -> None:
    """Carry out the plans; each result is in `results` from its beginning on."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("states {task.fields[pace]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with ExitStack() as cleanup:
        cleanup.enter_context(progress)
        interrupt = cleanup.enter_context(HeldInterrupt())
        cleanup.enter_context(terminated_like_interrupted())
        for plan in plans:
            task_id = progress.add_task(plan.scenario.name, pace="", total=None)
            show = partial(_show, progress, task_id, interrupt, is_first_enough)
            team = Workers(
                plan,
                workers.executor,
                workers=workers.workers,
                is_in_order=workers.is_in_order,
            )
            saved = saved_work(plan, loader_name, shard, is_resumed=is_resumed, warn=_warn)
            if is_resumed and (saved is None or saved.count == 0):
                _warn(f"nothing is saved of {plan.scenario.name} to go on from: it begins anew")
            with saved or nullcontext():
                team.saved = saved
                explorer = Explorer(plan, team, shard=shard, on_progress=show)
                results.append(explorer.result)
                with redirect_stdout(sys.stderr):  # a report may go to standard output
                    result = explorer.run()
                if saved is not None and not result.is_interrupted:
                    saved.remove()
            progress.remove_task(task_id)
            tell(scenario_line(result))
            if result.findings and is_first_enough:
                break
            if result.is_interrupted:
                if saved is not None:
                    click.echo(
                        "broken off: the same command with --resume goes on from here", err=True
                    )
                break


def _show(
    progress: Progress,
    task_id: TaskID,
    interrupt: HeldInterrupt,
    is_first_enough: bool,
    result: Result,
    waiting: int,
) -> None:
    interrupt.check()
    if is_first_enough and result.findings:
        raise KeyboardInterrupt
    elapsed = next(task.elapsed for task in progress.tasks if task.id == task_id)
    # What waits is all that is left of this depth; deeper states may still appear.
    progress.update(
        task_id,
        completed=result.states,
        total=result.states + waiting,
        pace=pace(result.states, waiting, elapsed or 0),
    )


def pace(states: int, waiting: int, elapsed_s: float) -> str:
    """How fast states are done, and how long the others take at that speed.

    Both over the whole time: rich's own begin anew whenever the number of states changes.
    """
    if not (states and elapsed_s):
        return ""
    left = timedelta(seconds=round(waiting * elapsed_s / states))
    return f"{states / elapsed_s:,.0f}/s, {left} left"


def _replay(
    identifier: str,
    loader: LoaderFactory,
    seed: int,
    state_directory: Path | None,
    *,
    has_processor: bool,
) -> int:
    """Tell a story again; the exit code says whether it ends well."""
    try:
        story = Story.parse(identifier)
    except StoryIdError as error:
        raise click.UsageError(str(error)) from error
    settings = Settings(seed=seed, fault=story.fault)
    processor = shared_processor if has_processor else None
    try:
        life = Life(Plan(find_scenario(story.scenario), loader, settings, processor))
        for line in replay_lines(life, story):
            click.echo(line)
        if state_directory is not None:
            for line in keep_failing_state(state_directory, life, story):
                click.echo(line)
        problem = problem_of_story(life, story)
    except OtasimError as error:
        raise click.UsageError(str(error)) from error
    if problem is None:
        click.echo("nothing is wrong at the end of this story")
        return EXIT_CODES[Verdict.PROVEN]
    click.echo(f"this story ends in a failure: {problem.kind.value}")
    return EXIT_CODES[Verdict.FAILS]
