"""`otasim campaign`: proves that no power cut bricks a boot loader, or shows the one that does."""

import json
import sys
from contextlib import ExitStack
from functools import partial
from typing import TextIO

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bootloader_model.custom_loader import LoaderNameError
from campaign.boot import LoaderFactory
from campaign.expand import Life, Plan, Settings
from campaign.explore import Explorer, LikenessError, Result
from campaign.faults import Fault
from campaign.real import MismatchError
from campaign.report import (
    finding_lines,
    finding_to_json,
    replay_lines,
    result_to_json,
    scenario_line,
    summary_lines,
)
from campaign.scenario import SCENARIOS, Scenario
from campaign.story import Story, StoryIdError
from campaign.work import UnsendableError, Workers
from otasim.campaigns import (
    NO_BOARD,
    CampaignNameError,
    Labour,
    board_factory,
    find_loader,
    find_scenario,
    labour,
    replay_command,
    saved_work,
    shared_processor,
)
from otasim.cli import EXIT_FAILED
from otasim.engines import EMBEDDED, ENGINES
from otasim.interrupts import EXIT_INTERRUPTED, HeldInterrupt

EXIT_DISTRUSTED = 3
CLOSURE = "closure"
ALL = "all"


class _Depth(click.ParamType[int | None]):
    """A number of cuts, or `closure`, which is None."""

    name = "N|closure"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        if value == CLOSURE or value is None:
            return None
        try:
            depth = int(str(value))
        except ValueError:
            depth = 0
        if depth < 1:
            self.fail(f"expected a number of cuts from 1 on, or closure, got {value!r}", param, ctx)
        return depth


class _Shard(click.ParamType[tuple[int, int]]):
    """K/N: the K-th of N parts."""

    name = "K/N"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        number, _, shards = str(value).partition("/")
        if not (number.isdecimal() and shards.isdecimal() and 1 <= int(number) <= int(shards)):
            self.fail(f"expected K/N with K from 1 to N, such as 1/4, got {value!r}", param, ctx)
        return int(number), int(shards)


@click.command()
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option("--loader", "loader_name", metavar="MODULE:CLASS", help="Your own boot loader.")
@click.option(
    "--depth", type=_Depth(), default="1", show_default=True, metavar="N|closure",
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
@click.option("--shard", type=_Shard(), default="1/1", metavar="K/N",
              help="Only the K-th of N parts of the first cuts, for N machines.")  # fmt: skip
@click.option("--executor", "executor_name", metavar="MODULE:FUNCTION",
              help="Who works: a function that makes a concurrent.futures executor.")  # fmt: skip
@click.option("--resume", "is_resumed", is_flag=True,
              help="Go on where the same campaign was broken off.")  # fmt: skip
@click.option("--json-lines", type=click.File("w"), metavar="FILE",
              help="Write findings and results, one JSON object a line.")  # fmt: skip
@click.option("--replay", metavar="ID", help="Tell one story again, as a campaign printed it.")
@click.option("--list", "is_list", is_flag=True, help="List the scenarios.")
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
    is_resumed: bool,
    json_lines: TextIO | None,
    replay: str | None,
    is_list: bool,
) -> None:
    """Cut the power at every flash operation of the SCENARIOs, in every way, and judge what boots.

    Without names: all scenarios. A scenario of your own is module:NAME.

    Exit codes: 0 proven, 1 counter-example found, 2 wrong use, 3 the campaign's own checks fail:
    trust nothing it says, 130 interrupted.
    """
    if is_list:
        for scenario in SCENARIOS:
            click.echo(f"{scenario.name:<18} {scenario.title}")
        click.echo("\nfaults:")
        for fault in Fault:
            click.echo(f"{fault.value:<18} {fault.title}")
        return
    faults = list(Fault) if ALL in fault_names else [Fault(name) for name in fault_names]
    try:
        loader = find_loader(loader_name)
        if replay is not None:
            _replay(replay, loader, seed)
            return
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
        with labour(jobs, executor_name) as workers:
            results = _run(plans, loader_name, workers, shard, is_resumed=is_resumed)
    except (LoaderNameError, CampaignNameError, UnsendableError) as error:
        raise click.UsageError(str(error)) from error
    except (MismatchError, LikenessError) as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(EXIT_DISTRUSTED) from error
    _tell(results, loader_name, seed, json_lines)
    if any(result.findings for result in results):
        raise SystemExit(EXIT_FAILED)
    if any(result.is_interrupted for result in results):
        raise SystemExit(EXIT_INTERRUPTED)


def _scenarios(names: tuple[str, ...]) -> list[Scenario]:
    return [find_scenario(name) for name in names] or list(SCENARIOS)


def _run(
    plans: list[Plan],
    loader_name: str | None,
    workers: Labour,
    shard: tuple[int, int],
    *,
    is_resumed: bool,
) -> list[Result]:
    results = []
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("states {task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with ExitStack() as cleanup:
        cleanup.enter_context(progress)
        interrupt = cleanup.enter_context(HeldInterrupt())
        for plan in plans:
            saved = saved_work(plan, loader_name, shard, is_resumed=is_resumed)
            task_id = progress.add_task(plan.scenario.name, rate="", total=None)
            show = partial(_show, progress, task_id, interrupt)
            with saved:
                team = Workers(
                    plan,
                    workers.executor,
                    workers=workers.workers,
                    is_in_order=workers.is_in_order,
                    saved=saved,
                )
                result = Explorer(plan, team, shard=shard, on_progress=show).run()
            progress.remove_task(task_id)
            results.append(result)
            click.echo(scenario_line(result))
            if result.is_interrupted:
                click.echo("broken off: the same command with --resume goes on from here", err=True)
                break
            saved.remove()
    return results


def _show(
    progress: Progress, task_id: TaskID, interrupt: HeldInterrupt, result: Result, waiting: int
) -> None:
    interrupt.check()
    speed = next(task.speed for task in progress.tasks if task.id == task_id)
    # What waits is all that is left of this depth; deeper states may still appear.
    progress.update(
        task_id,
        completed=result.states,
        total=result.states + waiting,
        rate="" if speed is None else f"{speed:,.0f}/s",
    )


def _tell(
    results: list[Result], loader_name: str | None, seed: int, json_lines: TextIO | None
) -> None:
    for line in summary_lines(results):
        click.echo(line)
    for result in results:
        for finding in result.findings:
            click.echo()
            for line in finding_lines(finding, replay_command(finding.story, loader_name, seed)):
                click.echo(line)
    if json_lines is not None:
        for result in results:
            for finding in result.findings:
                told = finding_to_json(finding)
                told["replay"] = replay_command(finding.story, loader_name, seed)
                json_lines.write(json.dumps(told) + "\n")
            json_lines.write(json.dumps(result_to_json(result)) + "\n")


def _replay(identifier: str, loader: LoaderFactory, seed: int) -> None:
    try:
        story = Story.parse(identifier)
    except StoryIdError as error:
        raise click.UsageError(str(error)) from error
    settings = Settings(seed=seed, fault=story.fault)
    life = Life(Plan(find_scenario(story.scenario), loader, settings))
    for line in replay_lines(life, story):
        click.echo(line)
