"""`otasim demo`: four stories of a device's life, told as they happen."""

import json
import sys
import time
from dataclasses import dataclass, field

import click
from rich.console import Console

from otasim.board import Board
from otasim.bundle_server import BundleServer
from otasim.engines import AUTO, ENGINES, choose_engine, engine_factory
from otasim.stories import STORIES, Story, describe_event, play
from platforms.clock import NS_PER_S
from platforms.trace import Detail, TraceEvent

_STYLES = {
    "reset": "yellow",
    "boot-decision": "cyan",
    "application-started": "green",
    "fault": "red",
}


@dataclass(slots=True)
class _Told:
    """A story that has been told, as `--json` prints it."""

    name: str
    ok: bool
    problem: str
    virtual_s: float
    wall_s: float
    events: list[dict[str, Detail | float]] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        told: dict[str, object] = {
            "name": self.name,
            "ok": self.ok,
            "virtual_s": round(self.virtual_s, 6),
            "wall_s": round(self.wall_s, 3),
            "events": self.events,
        }
        return told if self.ok else {**told, "problem": self.problem}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the story.")
@click.option(
    "--engine", type=click.Choice((AUTO, *ENGINES)), default=AUTO, show_default=True,
    help="What runs the processor.",
)  # fmt: skip
def demo(as_json: bool, engine: str) -> None:
    """Watch a virtual STM32 take updates, commit one, and roll back the bad ones.

    Every story starts with a fresh board that runs the sample firmware 1.0. Exits with 0 only if
    all stories ended as they are told.
    """
    console = Console(file=sys.stderr if as_json else sys.stdout, quiet=as_json, highlight=False)
    engine = choose_engine(engine)
    engine_factory(engine)  # what is missing is said before the first story begins
    console.print(f"engine: {engine}", markup=False)
    with BundleServer() as server:
        told = [_tell(story, server, engine, console) for story in STORIES]
    ok = all(story.ok for story in told)
    if as_json:
        stories = [story.to_json() for story in told]
        click.echo(json.dumps({"ok": ok, "engine": engine, "stories": stories}))
    else:
        good = sum(story.ok for story in told)
        console.print(f"\n{good} of {len(told)} stories ended as told.")
    if not ok:
        raise SystemExit(1)


def _tell(story: Story, server: BundleServer, engine: str, console: Console) -> _Told:
    console.print(f"\n[bold]{story.title}[/bold]")
    started_s = time.perf_counter()
    with Board(engine=engine) as board:
        events: list[dict[str, Detail | float]] = []

        def note(event: TraceEvent) -> None:
            text = describe_event(event)
            if text is None:
                return
            at_s = event.at_ns / NS_PER_S
            events.append({"at_s": at_s, "event": event.kind, **event.details})
            style = _STYLES.get(event.kind, "default")
            console.print(f"  {at_s:9.3f} s  ", end="")
            console.print(text, style=style, markup=False, soft_wrap=True)

        board.trace.listeners.append(note)
        outcome = play(story, board, server.publish_sample)
        virtual_s = board.now_s
    wall_s = time.perf_counter() - started_s
    if outcome.ok:
        console.print(
            f"  as told: {virtual_s:.1f} virtual seconds in {wall_s:.2f} s", style="green"
        )
    else:
        console.print(f"  NOT as told: {outcome.problem}", style="bold red", markup=False)
    return _Told(story.name, outcome.ok, outcome.problem, virtual_s, wall_s, events)
