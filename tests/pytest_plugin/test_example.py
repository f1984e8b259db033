"""The example project, as its owner works with it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "example_project"


@pytest.fixture
def example(installed: pytest.Pytester) -> pytest.Pytester:
    leave_out = shutil.ignore_patterns("__pycache__", ".pytest_cache")
    shutil.copytree(EXAMPLE, installed.path, ignore=leave_out, dirs_exist_ok=True)
    return installed


def test_its_tests_pass_in_two_processes(example: pytest.Pytester) -> None:
    result = example.runpytest_subprocess("-n", "2")
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(
        ["otasim: engine embedded, seed 3, depth 1, shard 1/1", "plugins:*otasim-*"]
    )


def test_a_bug_in_its_loader_is_shown_and_can_be_replayed(example: pytest.Pytester) -> None:
    loader = example.path / "doorbell_loader.py"
    code = loader.read_text()
    assert code.count("if state.revert_slot == 0:") == 1
    loader.write_text(code.replace("if state.revert_slot == 0:", "if not state.slots:"))
    result = example.runpytest_subprocess("-k", "hangs or bricks or night")
    result.assert_outcomes(failed=3, deselected=4)
    result.stdout.fnmatch_lines(
        [
            '>       campaign("update-commit")',
            "E       Failed: update-commit FAILS: way-back-lost",
            "E       way-back-lost: image new runs, only old may",
            "E         in update-commit, step 'commit', power-loss at program nor *; 1 cut in all",
            "*- campaign update-commit: way-back-lost -*",
            "boot 1, reset cause power-on, *",
            "  | doorbell: roll-back, slot 0",
            "  decision: roll-back (slot 0)",
        ]
    )
    result.stdout.fnmatch_lines(
        [
            "E       Failed: test_power_cuts:NIGHT FAILS: way-back-lost",
            "E         in test_power_cuts:NIGHT, step 'rollback', with no cut at all",
            "*- campaign test_power_cuts:NIGHT: way-back-lost -*",
            "  decision: roll-back (slot 0)",
        ]
    )
    result.stdout.fnmatch_lines(
        [
            "*- board: UART transcript -*",
            '    1.000 s > OTA.Update {"url": "http://*.zip", "commit_timeout": 30}',
            "* s | ota: hang 2.1 * is in slot 1, rebooting",
            "* s < null",
            "* s | doorbell: copy, slot 1",
            "*- board: what happened -*",
            "* s  loader decides: roll-back (slot 0)",
            "*- board: at the end -*",
            "version 2.1, slot 0, after * virtual seconds",
            "boot state: seq *, active 0, revert none, committed",
            "again: pytest test_update.py::test_an_update_that_hangs_is_rolled_back"
            " --otasim-engine embedded --otasim-seed 3",
        ]
    )
    one_cut, no_cut = re.findall(
        r"^E +((?:PYTHONPATH=\S+ )?otasim .*)$", str(result.stdout), re.MULTILINE
    )
    replayed = subprocess.run(one_cut, shell=True, check=False, capture_output=True, text=True)  # noqa: S602
    assert replayed.returncode == 1
    assert "way-back-lost: image new runs, only old may" in replayed.stdout
    again = subprocess.run(no_cut, shell=True, check=False, capture_output=True, text=True)  # noqa: S602
    assert again.returncode == 1
    assert "way-back-lost" in again.stdout
