"""Settings for the whole suite, and the engines that its boards run on."""

from collections import Counter, defaultdict
from collections.abc import Callable

import pytest
from hypothesis import settings

from otasim.engines import ENGINES, missing_engine

# No test depends on timing: the machines are shared and slow at times.
settings.register_profile("otasim", deadline=None)
settings.load_profile("otasim")

collect_ignore = ["example_project"]
"""A project of its own, which tests/pytest_plugin runs as a user would."""

_ENGINE_PROPERTY = "engine"
CELL_PROPERTY = "cell"
"""A cell of the README's table of tools: (tool, operation, who drove it)."""


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> str:
    """The name of each engine in turn; one that is not there is skipped with the reason."""
    name = str(request.param)
    record_property(_ENGINE_PROPERTY, name)
    if reason := missing_engine(name):
        pytest.skip(reason)
    return name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests of host tools: real tools wait much, and others run meanwhile."""
    items.sort(key=lambda item: "host" not in item.path.parts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end which engines ran, and which tools did what."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.getreports(outcome):
            for key, name in report.user_properties:
                if key == _ENGINE_PROPERTY:
                    outcomes[str(name)][outcome] += 1
    for name, counts in outcomes.items():
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        reason = missing_engine(name)
        terminalreporter.write_line(f"engine {name}: {told}" + (f" ({reason})" if reason else ""))
    cells: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for report in terminalreporter.getreports("passed"):
        for key, value in report.user_properties:
            if key == CELL_PROPERTY and isinstance(value, list | tuple):
                tool, operation, who = map(str, value)
                cells[tool][who].append(operation)
    for tool, drivers in sorted(cells.items()):
        told = "; ".join(f"{who}: {', '.join(done)}" for who, done in sorted(drivers.items()))
        terminalreporter.write_line(f"tool {tool}: {told}")
