"""`otasim campaign`: proves that no power cut bricks a boot loader, or shows the one that does."""

import importlib
import sys
from functools import partial
from pathlib import Path

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

from bootloader_model.custom_loader import LoaderNameError, load_loader
from bootloader_model.loader import MosLoader
from bootloader_model.protocol import Loader
from campaign.boot import LoaderFactory
from campaign.explore import Explorer, LikenessError, Result, Settings
from campaign.real import MismatchError
from campaign.reports.replay import replay_lines
from campaign.reports.report import EXIT_CODES, make_report
from campaign.reports.state_directory import keep_failing_state
from campaign.reports.terminal import scenario_line, summary_lines
from campaign.scenario import SCENARIOS, Scenario
from campaign.story import Story, StoryIdError
from otasim.report_options import remove_old_reports, report_options, write_reports

CLOSURE = "closure"


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


@click.command()
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option("--loader", "loader_name", metavar="MODULE:CLASS", help="Your own boot loader.")
@click.option(
    "--depth", type=_Depth(), default="1", show_default=True, metavar="N|closure",
    help="How often the power may go in one story; closure: until no new state appears.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Chooses among the outcomes of torn operations.")  # fmt: skip
@click.option(
    "--check-every", type=click.IntRange(min=0), default=1000, show_default=True, metavar="N",
    help="Make every Nth state on the board's flash models as well, and compare; 0: none.",
)  # fmt: skip
@report_options
@click.option("--replay", metavar="ID", help="Tell one story again, as a campaign printed it.")
@click.option("--state", "state_directory", type=click.Path(path_type=Path, file_okay=False),
              metavar="DIR", help="With --replay: keep the flash from before the last boot here, "
              "for `otasim run --state DIR`.")  # fmt: skip
@click.option("--list", "is_list", is_flag=True, help="List the scenarios.")
def campaign(
    names: tuple[str, ...],
    loader_name: str | None,
    depth: int | None,
    seed: int,
    check_every: int,
    replay: str | None,
    state_directory: Path | None,
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
        return
    if state_directory is not None and replay is None:
        raise click.UsageError("--state keeps the state of one story: say which with --replay")
    loader = _loader_factory(loader_name)
    if replay is not None:
        _replay(replay, loader, seed, state_directory)
        return
    scenarios = [_find_scenario(name) for name in names] or list(SCENARIOS)
    remove_old_reports()
    results: list[Result] = []
    distrust = ""
    try:
        _run(scenarios, loader, Settings(depth, seed, check_every), results)
    except (MismatchError, LikenessError) as error:
        distrust = str(error)
        click.echo(f"error: {error}", err=True)
    report = make_report(
        list(zip(scenarios, results, strict=False)),
        loader,
        loader_name=loader_name,
        seed=seed,
        not_run=[scenario.name for scenario in scenarios[len(results) :]],
        distrust=distrust,
    )
    for line in summary_lines(report):
        click.echo(line)
    write_reports(report)
    raise SystemExit(EXIT_CODES[report.verdict])


def _loader_factory(name: str | None) -> LoaderFactory:
    if name is None:
        return MosLoader

    def make() -> Loader:
        return load_loader(name, directory=Path.cwd())

    try:
        make()
    except LoaderNameError as error:
        raise click.UsageError(str(error)) from error
    return make


def _find_scenario(name: str) -> Scenario:
    for scenario in SCENARIOS:
        if scenario.name == name:
            return scenario
    module_name, _, attribute = name.partition(":")
    if not attribute:
        known = ", ".join(scenario.name for scenario in SCENARIOS)
        raise click.UsageError(f"no scenario {name!r}: expected module:NAME or one of {known}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: object = getattr(importlib.import_module(module_name), attribute, None)
    except ImportError as error:
        raise click.UsageError(f"scenario {name!r}: {error}") from error
    if not isinstance(found, Scenario):
        raise click.UsageError(f"{name!r} is no campaign.scenario.Scenario")
    return found


def _run(
    scenarios: list[Scenario], loader: LoaderFactory, settings: Settings, results: list[Result]
) -> None:
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
    with progress:
        for scenario in scenarios:
            task_id = progress.add_task(scenario.name, rate="", total=None)
            show = partial(_show, progress, task_id)
            results.append(Explorer(scenario, loader, settings, show).run())
            progress.remove_task(task_id)
            click.echo(scenario_line(results[-1]))
            if results[-1].is_interrupted:
                break


def _show(progress: Progress, task_id: TaskID, result: Result, waiting: int) -> None:
    speed = next(task.speed for task in progress.tasks if task.id == task_id)
    # What waits is all that is left of this depth; deeper states may still appear.
    progress.update(
        task_id,
        completed=result.states,
        total=result.states + waiting,
        rate="" if speed is None else f"{speed:,.0f}/s",
    )


def _replay(
    identifier: str, loader: LoaderFactory, seed: int, state_directory: Path | None
) -> None:
    try:
        story = Story.parse(identifier)
    except StoryIdError as error:
        raise click.UsageError(str(error)) from error
    scenario = _find_scenario(story.scenario)
    for line in replay_lines(scenario, loader, story, seed):
        click.echo(line)
    if state_directory is not None:
        for line in keep_failing_state(state_directory, scenario, loader, story, seed):
            click.echo(line)
