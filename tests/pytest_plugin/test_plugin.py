"""The plugin where nobody uses it, and its options."""

import pytest

from otasim.engines import AUTO, ENGINES
from otasim.pytest_plugin.options import ENGINE_NAMES

HEAVY = (
    "aiohttp", "bootloader_model", "campaign", "click", "construct", "cryptography", "firmware",
    "otasim.board", "platforms", "rich", "rpc_shim", "unicorn",
)  # fmt: skip


def test_it_costs_a_suite_that_does_not_use_it_nothing(installed: pytest.Pytester) -> None:
    installed.makepyfile(
        f"""
        import sys

        def test_nothing(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("otasim.pytest_plugin")
            assert not set({HEAVY}) & set(sys.modules)
        """
    )
    # Named although it is installed: that is the same plugin, not a second one.
    result = installed.runpytest_subprocess("-p", "otasim.pytest_plugin", "-W", "error")
    result.assert_outcomes(passed=1)


def test_the_engines_are_those_that_there_are() -> None:
    assert set(ENGINE_NAMES) == {AUTO, *ENGINES}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "otasim: engine embedded, seed 0, depth 1, shard 1/1"),
        (
            ["--otasim-engine=auto", "--otasim-seed=7", "--otasim-depth=closure",
             "--otasim-shard=2/3"],
            "otasim: engine auto, seed 7, depth closure, shard 2/3",
        ),
        (["-o", "otasim_seed=5", "-o", "otasim_depth=2", "-o", "otasim_engine=renode"],
         "otasim: engine renode, seed 5, depth 2, shard 1/1"),
        (["-o", "otasim_seed=5", "--otasim-seed=0"],
         "otasim: engine embedded, seed 0, depth 1, shard 1/1"),
    ],
)  # fmt: skip
def test_the_header_says_what_was_chosen(
    project: pytest.Pytester, arguments: list[str], told: str
) -> None:
    result = project.runpytest_inprocess(*arguments)
    result.stdout.fnmatch_lines([told])


@pytest.mark.parametrize(
    "argument",
    [
        "--otasim-engine=qemu",
        "--otasim-seed=-1",
        "--otasim-depth=0",
        "--otasim-depth=deep",
        "--otasim-shard=3/2",
        "--otasim-shard=1",
        "-ootasim_seed=x",
        "-ootasim_depth=0",
    ],
)
def test_what_cannot_be_is_wrong_use(project: pytest.Pytester, argument: str) -> None:
    result = project.runpytest_inprocess(argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*expected *"])


def test_the_fixtures_and_the_marker_are_documented(project: pytest.Pytester) -> None:
    project.runpytest_inprocess("--markers").stdout.fnmatch_lines(["@pytest.mark.board(*"])
    listed = project.runpytest_inprocess("--fixtures").stdout
    for name in ("board", "board_options", "boot_loader", "campaign", "make_board"):
        listed.fnmatch_lines([f"{name} -- *", "    [!n]*"])
