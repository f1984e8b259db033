"""`otasim campaign` as a user runs it."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from campaign.expand import Expander, Harvest, State
from campaign.explore import Explorer
from campaign.real import MismatchError
from campaign.saved import cache_directory
from otasim.commands.campaign import campaign

OWN = "tests.campaign.own_loader"
BUG = "tests.campaign.bugs:marginal_record_trusted"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(campaign, arguments)


def test_a_proven_scenario_exits_with_0_and_says_how_far_it_was_looked(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    result = run("snapshot", "revert", "--check-every", "100", "--json-lines", str(file))
    assert result.exit_code == 0, result.output
    assert "proven for 1 cut" in result.output
    assert "cuts/s" in result.output
    assert "never taken: " in result.output
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in told] == ["scenario"] * 2
    assert told[0]["proven"]
    assert told[0]["checked"] > 0


def test_a_counter_example_exits_with_1_and_its_command_replays_it(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    result = run("update-commit", "--loader", BUG, "--json-lines", str(file))
    assert result.exit_code == 1
    findings = [json.loads(line) for line in file.read_text().splitlines()][:-1]
    lost = next(finding for finding in findings if finding["kind"] == "commit-lost")
    assert lost["replay"] in result.output
    assert lost["step"] == "commit"
    replayed = run("--replay", lost["story"], "--loader", BUG)
    assert replayed.exit_code == 0
    assert "commit-lost: image old runs, only new may" in replayed.output
    assert "boot state before: seq" in replayed.output
    assert "| boot: reset cause power-on" in replayed.output
    assert "decision: boot-active (slot 0)" in replayed.output
    good = run("--replay", lost["story"])
    assert "commit-lost" not in good.output


def test_a_loader_and_a_scenario_of_ones_own() -> None:
    assert run(f"{OWN}:IDLE", "--loader", f"{OWN}:FirstSlot").exit_code == 0
    result = run("update-commit", "--loader", f"{OWN}:FirstSlot")
    assert result.exit_code == 1
    assert "update-lost" in result.output
    assert "with no cut at all" in result.output
    assert "decisions: this loader put none on record" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-scenario"],
        [f"{OWN}:NO_SCENARIO"],
        ["no.such.module:X"],
        ["snapshot", "--loader", "no.such.module:X"],
        ["snapshot", "--depth", "0"],
        ["snapshot", "--depth", "deep"],
        ["--replay", "snapshot/nonsense"],
    ],
)
def test_wrong_use_exits_with_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_campaign_that_cannot_be_trusted_exits_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_explorer: Explorer, _golden: object) -> None:
        raise MismatchError("snapshot/0:before", "nor differs")

    monkeypatch.setattr(Explorer, "_search", fail)
    result = run("snapshot")
    assert result.exit_code == 3
    assert "cannot be trusted" in result.output


def test_ctrl_c_tells_what_is_known_and_the_same_command_goes_on(tmp_path: Path) -> None:
    told = [tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"]
    arguments = ["snapshot", "update-commit"]
    whole = run(*arguments, "--json-lines", str(told[0]))
    assert whole.exit_code == 0
    expand = Expander.expand
    calls = 0

    def interrupted(expander: Expander, states: Sequence[State], *, is_last: bool) -> Harvest:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        return expand(expander, states, is_last=is_last)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Expander, "expand", interrupted)
        result = run(*arguments)
    assert result.exit_code == 130
    assert "interrupted: nothing found so far" in result.output
    assert "--resume" in result.output
    assert "not shown: anything of update-commit [power-loss]: not begun" in result.output
    with pytest.MonkeyPatch.context() as patch:
        calls = 0
        patch.setattr(Expander, "expand", interrupted)
        assert run(*arguments, "--resume").exit_code == 130  # further on, and kept again
    assert run(*arguments, "--resume", "--json-lines", str(told[1])).exit_code == 0
    first, second = ([_timeless(line) for line in each.read_text().splitlines()] for each in told)
    assert first == second
    assert not list(cache_directory().iterdir())


def _timeless(line: str) -> dict[str, object]:
    told: dict[str, object] = json.loads(line)
    return {name: value for name, value in told.items() if name != "seconds"}


def test_the_scenarios_are_listed() -> None:
    result = run("--list")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) >= 8
