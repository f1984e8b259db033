"""The README's Python examples, run as they stand there."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from bootloader_model.loader import MosLoader
from campaign.expand import Plan, Settings
from campaign.explore import Explorer
from campaign.judge import Kind
from otasim.bundle_server import BundleServer
from otasim.campaigns import find_scenario
from tests.host.test_tools import CELLS

if TYPE_CHECKING:
    from campaign.boot import LoaderFactory
    from campaign.scenario import Scenario

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
TEXT = README.read_text(encoding="utf-8")
EXAMPLES = BLOCK.findall(TEXT)
TESTS = {
    name: code
    for code in EXAMPLES
    for name in re.findall(r"^def (test_\w+)\(bundle_url\)", code, re.MULTILINE)
}
PLUGIN = re.compile(r"```python\n([^`]*mark.board[^`]*)```[^`]*```\n([^`]*)```").search(TEXT)
NUMBER = re.compile(r"0x[0-9a-f]+|\d+")


def test_the_table_of_tools_says_what_the_tests_do() -> None:
    """The tests of tests/host/test_tools.py fill the cells; a row more or less is not true."""
    rows = re.findall(r"^\| ([\w ]+) \|((?: (?:yes)? ?\|){6})$", README.read_text(), re.MULTILINE)
    operations = ("call", "update", "push", "files", "config", "console")
    table = {
        tool: {
            operation
            for operation, cell in zip(operations, cells.split("|"), strict=False)
            if cell.strip() == "yes"
        }
        for tool, cells in rows
    }
    assert table == {tool: set(cells) for tool, cells in CELLS.items()}


def test_the_readme_has_examples() -> None:
    assert len(TESTS) >= 2


@pytest.mark.parametrize("name", TESTS)
def test_an_example_does_what_it_says(name: str) -> None:
    namespace: dict[str, object] = {}
    exec(compile(TESTS[name], str(README), "exec"), namespace)  # noqa: S102 - our own README
    example = namespace[name]
    assert callable(example)
    with BundleServer() as server:
        example(server.publish_sample("sample-2.0"))


def test_the_tests_of_the_readme_end_as_it_says(pytester: pytest.Pytester) -> None:
    assert PLUGIN is not None
    code, output = PLUGIN.groups()
    loader = next(code for code in EXAMPLES if "class MyLoader" in code)
    pytester.makepyfile(mine=loader, test_mine=code)
    pytester.syspathinsert()
    result = pytester.runpytest_inprocess("-p", "otasim.pytest_plugin")
    result.assert_outcomes(passed=1, failed=1)
    assert NUMBER.sub("N", output) in NUMBER.sub("N", f"{result.stdout}\n")


def test_the_boot_loader_of_the_readme_is_caught_as_it_says() -> None:
    code = next(code for code in EXAMPLES if "class MyLoader" in code)
    namespace: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), namespace)  # noqa: S102 - our own README
    loader = cast("LoaderFactory", namespace["MyLoader"])
    scenario = find_scenario("update-commit")
    result = Explorer(Plan(scenario, loader, Settings(depth=1))).run()
    assert Kind.WAY_BACK_LOST in result.failures


def test_the_scenario_of_the_readme_is_one_that_the_shipped_loader_survives() -> None:
    code = next(code for code in EXAMPLES if "NIGHT = Scenario" in code)
    namespace: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), namespace)  # noqa: S102 - our own README
    scenario = cast("Scenario", namespace["NIGHT"])
    result = Explorer(Plan(scenario, MosLoader, Settings(check_every=0))).run()
    assert not result.findings
    assert result.states > 100
