"""Power-cut campaigns in tests: a loader is proven, or the test fails with the shortest stories."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest

from campaign.boot import LoaderFactory
from campaign.expand import Life, Plan, Settings
from campaign.explore import Explorer, Finding, LikenessError, Result
from campaign.faults import Fault
from campaign.real import MismatchError
from campaign.reports.replay import replay_lines
from campaign.reports.terminal import finding_lines
from campaign.scenario import Scenario
from campaign.story import Story
from otasim.campaign_values import CLOSURE
from otasim.campaigns import SharedBoard, find_loader, find_scenario, shared_processor
from otasim.engines import EMBEDDED
from otasim.pytest_plugin.names import Named, command_for, name_of_loader, name_of_scenario
from otasim.pytest_plugin.options import Options
from platforms.errors import InvalidArgumentError, OtasimError

LoaderSource = LoaderFactory | str | None
"""A class or function that makes a boot loader, or `module:Class`; None = the shipped one."""

Depth = int | Literal["closure"]
"""How often the power may go in one story; closure: until no new state appears."""

_NO_COMMAND = (
    "no command replays this: give a loader and a scenario that stand at the top of a module,"
    " or module:NAME"
)


class LoaderSourceError(OtasimError):
    """A loader where something is expected that makes loaders.

    Attributes:
        loader: what was given.
    """

    def __init__(self, loader: object) -> None:
        super().__init__(
            "expected a class or function that makes a boot loader, or module:Class, found"
            f" {loader!r}: every boot of a campaign gets a new one, so that it remembers nothing"
        )
        self.loader = loader


@dataclass(frozen=True, slots=True)
class _Asked:
    """A campaign that a test asks for.

    Attributes:
        plan: the campaign.
        loader: what a command line calls its loader; None when it cannot.
        scenario: likewise.
    """

    plan: Plan
    loader: Named | None
    scenario: Named | None


class Campaign:
    """Makes campaigns for one test.

    Args:
        options: what was chosen for all of them.
        loader: what makes the boot loader, where a test does not say.
        test_module: where scenarios of the user's own have their names.
        directory: where replay commands are typed.
    """

    def __init__(
        self, options: Options, loader: LoaderSource, test_module: ModuleType, directory: Path
    ) -> None:
        self._options = options
        self._loader = loader
        self._test_module = test_module
        self._directory = directory
        self._told: list[tuple[str, str]] = []

    def __call__(
        self,
        scenario: str | Scenario,
        *,
        loader: LoaderSource = None,
        depth: Depth | None = None,
        seed: int | None = None,
        fault: Fault | str = Fault.POWER_LOSS,
    ) -> Result:
        """Prove a boot loader: the test fails when there is a counter-example.

        Args:
            scenario: a name from `otasim campaign --list`, `module:NAME`, or the scenario itself.
            loader: what makes the boot loader; None = what the fixture `boot_loader` says.
            depth: how often the power may go in one story; None = what the command line says.
            seed: chooses among the outcomes of torn operations; None = likewise.
            fault: what goes wrong, itself or by its name from `otasim campaign --list`.

        Returns what is known then: whether it `is_closed`, the decisions (`reasons`), ...
        Raises OtasimError when loader or scenario cannot be found.
        """
        __tracebackhide__ = True
        asked = self._plan(scenario, loader, depth, seed, fault)
        result = self._run(asked.plan)
        if result.findings:
            self._told += _boots(asked.plan, result)
            pytest.fail("\n".join(self._failure(asked, result)))
        return result

    def search(
        self,
        scenario: str | Scenario,
        *,
        loader: LoaderSource = None,
        depth: Depth | None = None,
        seed: int | None = None,
        fault: Fault | str = Fault.POWER_LOSS,
    ) -> Result:
        """The same, but counter-examples are the test's to look at: `failures`, `findings`."""
        __tracebackhide__ = True
        return self._run(self._plan(scenario, loader, depth, seed, fault).plan)

    def sections(self) -> Iterator[tuple[str, str]]:
        """What a failed test shows: title and text of each story."""
        yield from self._told

    def _plan(
        self,
        scenario: str | Scenario,
        loader: LoaderSource,
        depth: Depth | None,
        seed: int | None,
        fault: Fault | str,
    ) -> _Asked:
        __tracebackhide__ = True
        source = self._loader if loader is None else loader
        factory = find_loader(source) if source is None or isinstance(source, str) else source
        if not callable(factory):
            raise LoaderSourceError(factory)
        settings = Settings(
            self._options.depth if depth is None else _cuts(depth),
            self._options.seed if seed is None else seed,
            fault=_fault(fault),
        )
        found = find_scenario(scenario) if isinstance(scenario, str) else scenario
        name = name_of_scenario(found, self._test_module)
        if name is not None and name.name is not None:
            found = replace(found, name=name.name)  # stories are replayed by it
        plan = Plan(found, factory, settings, shared_processor, SharedBoard(EMBEDDED))
        return _Asked(plan, name_of_loader(factory), name)

    def _run(self, plan: Plan) -> Result:
        __tracebackhide__ = True
        try:
            result = Explorer(plan, shard=self._options.shard).run()
        except (MismatchError, LikenessError) as error:
            pytest.fail(f"the campaign distrusts itself, and says nothing of the loader: {error}")
        if result.is_interrupted:
            raise KeyboardInterrupt  # nothing is proven: it ends the tests as it always does
        return result

    def _failure(self, asked: _Asked, result: Result) -> Iterator[str]:
        kinds = ", ".join(kind.value for kind in result.failures)
        yield f"{result.scenario} FAILS: {kinds}"
        for finding in result.findings:
            yield ""
            yield from finding_lines(finding, self._command(asked, finding.story))

    def _command(self, asked: _Asked, story: Story) -> str:
        if asked.loader is None or asked.scenario is None:
            return f"{story.identifier} ({_NO_COMMAND})"
        seed = asked.plan.settings.seed
        return command_for(
            story, asked.loader, asked.scenario, seed=seed, directory=self._directory
        )


def _cuts(depth: Depth) -> int | None:
    """A depth as campaigns take it."""
    __tracebackhide__ = True
    if depth == CLOSURE:
        return None
    if not isinstance(depth, int) or depth < 1:
        raise InvalidArgumentError(f"depth {depth!r}: expected cuts from 1 on, or {CLOSURE!r}")
    return depth


def _fault(fault: Fault | str) -> Fault:
    """A fault, by its name as well."""
    __tracebackhide__ = True
    try:
        return Fault(fault)
    except ValueError as error:
        known = ", ".join(known.value for known in Fault)
        raise InvalidArgumentError(f"fault {fault!r}: expected one of {known}") from error


def _boots(plan: Plan, result: Result) -> Iterator[tuple[str, str]]:
    """The boots of each story: log, decisions, and the boot state before and after."""
    life = Life(plan)
    for finding in result.findings:
        lines: list[str] = []
        try:
            lines.extend(_lived(life, finding))
        except OtasimError as error:  # a loader that does not do the same twice
            lines.append(str(error))
        yield f"campaign {result.scenario}: {finding.problem.kind.value}", "\n".join(lines)


def _lived(life: Life, finding: Finding) -> Iterator[str]:
    if finding.story.cut is not None:
        yield from replay_lines(life, finding.story)
    elif (boot := life.golden.failed_boot) is not None:
        yield from (f"  | {line}" for line in boot.log.splitlines())
        yield from (f"  decision: {decision}" for decision in boot.decisions)
