"""`otasim campaign` as a user runs it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest
from click.testing import CliRunner, Result

from campaign.expand import Expander, Harvest, State
from campaign.explore import Explorer
from campaign.real import MismatchError
from campaign.saved import cache_directory
from otasim.commands.campaign import campaign, pace

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
    assert replayed.exit_code == 1
    assert "this story ends in a failure: commit-lost" in replayed.output
    assert "commit-lost: image old runs, only new may" in replayed.output
    assert "boot state before: seq" in replayed.output
    assert "| boot: reset cause power-on" in replayed.output
    assert "decision: boot-active (slot 0)" in replayed.output
    good = run("--replay", lost["story"])
    assert good.exit_code == 0
    assert "nothing is wrong at the end of this story" in good.output


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


@contextmanager
def interrupted() -> Iterator[None]:
    """Ctrl-C is pressed when some of the work is done."""
    expand = Expander.expand
    calls = 0

    def interrupt(expander: Expander, states: Sequence[State], *, is_last: bool) -> Harvest:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        return expand(expander, states, is_last=is_last)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Expander, "expand", interrupt)
        yield


def test_ctrl_c_tells_what_is_known_and_the_same_command_goes_on(tmp_path: Path) -> None:
    told = [tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"]
    arguments = ["snapshot", "update-commit"]
    whole = run(*arguments, "--json-lines", str(told[0]))
    assert whole.exit_code == 0
    with interrupted():
        result = run(*arguments)
    assert result.exit_code == 130
    assert "interrupted: nothing found so far" in result.output
    assert "--resume" in result.output
    assert "not shown: anything of update-commit [power-loss]: not begun" in result.output
    with interrupted():
        assert run(*arguments, "--resume").exit_code == 130  # further on, and kept again
    assert run(*arguments, "--resume", "--json-lines", str(told[1])).exit_code == 0
    first, second = ([_timeless(line) for line in each.read_text().splitlines()] for each in told)
    assert first == second
    assert not list(cache_directory().iterdir())


def _timeless(line: str) -> dict[str, object]:
    told: dict[str, object] = json.loads(line)
    return {name: value for name, value in told.items() if name != "seconds"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of a user's, whose modules are forgotten afterwards."""
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(directory)
    yield directory
    forget(directory)


def forget(directory: Path) -> None:
    """Let the modules of a directory be loaded anew, as by another process."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(directory)):
            del sys.modules[name]


NOTHING_SAVED = "to go on from: it begins anew"


def test_work_is_not_taken_up_when_a_module_of_the_loaders_has_changed(project: Path) -> None:
    (project / "userloader.py").write_text(
        dedent(
            """
            from bootloader_model.loader import MosLoader

            class Loader(MosLoader):
                def boot(self, hardware):
                    import userhelper
                    return super().boot(hardware)
            """
        )
    )
    (project / "userhelper.py").write_text("WAIT = 1\n")
    arguments = ["update-commit", "--loader", "userloader:Loader"]
    with interrupted():
        assert run(*arguments).exit_code == 130
    forget(project)
    with interrupted():
        assert NOTHING_SAVED not in run(*arguments, "--resume").output
    forget(project)
    (project / "userhelper.py").write_text("WAIT = 1000\n")
    with interrupted():
        assert NOTHING_SAVED in run(*arguments, "--resume").output


def test_without_anything_saved_the_campaign_begins_anew() -> None:
    result = run("snapshot", "--resume")
    assert result.exit_code == 0
    assert result.stderr.count(NOTHING_SAVED) == 1
    assert NOTHING_SAVED not in run("snapshot").output


def test_a_cache_that_cannot_be_written_keeps_nothing_from_being_proven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nope")
    result = run("snapshot")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("warning: the work on snapshot is not saved") == 1
    with interrupted():
        broken_off = run("snapshot", "--resume")
    assert broken_off.exit_code == 130
    assert NOTHING_SAVED in broken_off.stderr
    assert "goes on from here" not in broken_off.stderr


def test_the_same_campaign_made_twice_at_a_time_is_kept_once() -> None:
    expand = Expander.expand
    others: list[Result] = []

    def begin_another(expander: Expander, states: Sequence[State], *, is_last: bool) -> Harvest:
        if not others:
            patch.undo()
            others.append(run("snapshot"))
        return expand(expander, states, is_last=is_last)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Expander, "expand", begin_another)
        result = run("snapshot")
    assert result.exit_code == others[0].exit_code == 0
    assert "runs elsewhere" in others[0].stderr
    assert "warning" not in result.stderr


FAILING_CODE = {
    "SyntaxError": "x = = 1",
    "ValueError": "raise ValueError('two\\nlines')",
    "SystemExit": "import sys; sys.exit(0)",
}


@pytest.mark.parametrize("error", FAILING_CODE)
@pytest.mark.parametrize("option", [["--loader"], ["--executor"], []])
def test_code_that_fails_when_it_is_loaded_is_told_in_one_line(
    project: Path, option: list[str], error: str
) -> None:
    (project / "userfails.py").write_text(f"{FAILING_CODE[error]}\n")
    names = ["snapshot"] if option else []
    result = run(*names, *option, "userfails:Thing")
    assert result.exit_code == 2
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "'userfails:Thing'" in line
    assert error in line


@pytest.mark.parametrize("option", ["--loader", "--executor"])
def test_code_that_fails_when_it_is_called_is_told_as_well(project: Path, option: str) -> None:
    code = "import sys\n\nclass Thing:\n    def __init__(self):\n        sys.exit(0)\n"
    (project / "userexits.py").write_text(code)
    result = run("snapshot", option, "userexits:Thing")
    assert result.exit_code == 2
    assert "'userexits:Thing': SystemExit: 0" in result.stderr


LATER = """
    import sys
    from concurrent.futures import Executor

    import click

    from bootloader_model.loader import MosLoader

    MADE = []

    def make():
        MADE.append(1)
        if len(MADE) > 40:
            {how}
        return MosLoader()

    class Pool(Executor):
        def submit(self, *arguments, **names):
            {how}
    """


@pytest.mark.parametrize("how", ["sys.exit(0)", "click.get_current_context().exit(0)"])
def test_the_code_under_test_cannot_choose_the_exit_code(project: Path, how: str) -> None:
    (project / "userlater.py").write_text(dedent(LATER.format(how=how)))
    done = command("snapshot", "--executor", "userlater:Pool")
    assert done.returncode == 4, done.stderr
    assert "Error: the code under test has ended the program" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("how", ["sys.exit(0)", "raise ValueError(5)"])
def test_a_loader_that_cannot_be_made_any_more_is_told(project: Path, how: str, jobs: str) -> None:
    (project / "userlater.py").write_text(dedent(LATER.format(how=how)))
    done = command("snapshot", "--jobs", jobs, "--loader", "userlater:make")
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert "Error: loader 'userlater:make': " in line
    assert "Traceback" not in done.stderr


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    words = [sys.executable, "-m", "otasim", "campaign", "--no-processor", "--board", "none"]
    return subprocess.run(
        [*words, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
    )


@pytest.mark.parametrize(
    "wrong",
    [
        ["--executor", "nomod:f"],
        ["--loader", "nomod:F"],
        ["--board", "nonsense"],
        ["--executor", f"{OWN}:FirstSlot"],
    ],
)
def test_wrong_use_leaves_old_reports_alone(tmp_path: Path, wrong: list[str]) -> None:
    old = tmp_path / "keep.txt"
    old.write_text("mine")
    assert run("snapshot", *wrong, "--json-lines", str(old)).exit_code == 2
    assert old.read_text() == "mine"


@pytest.mark.parametrize(
    "given",
    [
        ["snapshot"],
        ["--depth", "1"],
        ["--shard", "1/1"],
        ["--jobs", "1"],
        ["-j", "2"],
        ["--resume"],
        ["--executor", "mine:pool"],
        ["--fault", "power-loss"],
    ],
)
def test_a_replay_refuses_what_is_for_campaigns(given: list[str]) -> None:
    result = run("--replay", "snapshot/0:before/stored>run", *given)
    assert result.exit_code == 2
    assert "--replay is none" in result.stderr


def test_what_is_named_twice_is_done_once(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    names = [f"{OWN}:IDLE", f"{OWN}:IDLE", "--fault", "reset", "--fault", "reset"]
    assert run(*names, "--json-lines", str(file)).exit_code == 0
    assert len(file.read_text().splitlines()) == 1


def test_the_pace_is_that_of_the_whole_time() -> None:
    assert pace(0, 100, 5.0) == ""
    assert pace(100, 0, 0.0) == ""
    assert pace(3000, 1500, 2.0) == "1,500/s, 0:00:01 left"
    assert pace(10, 7200, 10.0) == "1/s, 2:00:00 left"


def test_sigterm_does_what_ctrl_c_does() -> None:
    expand = Expander.expand

    def terminated(expander: Expander, states: Sequence[State], *, is_last: bool) -> Harvest:
        os.kill(os.getpid(), signal.SIGTERM)
        return expand(expander, states, is_last=is_last)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Expander, "expand", terminated)
        result = run("snapshot")
    assert result.exit_code == 130
    assert "--resume" in result.output
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_first_counter_example_may_be_enough() -> None:
    whole = run("update-commit", "snapshot", "--loader", BUG)
    first = run("update-commit", "snapshot", "--loader", BUG, "--fail-fast")
    assert whole.exit_code == first.exit_code == 1
    assert "snapshot [" in whole.output
    assert "there may be more" in first.output
    assert "snapshot [power-loss]  " not in first.output


def test_the_scenarios_are_listed() -> None:
    result = run("--list")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) >= 8
