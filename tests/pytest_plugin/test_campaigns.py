"""The fixture `campaign`."""

import shlex
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from campaign.expand import Life
from campaign.explore import Explorer, LikenessError
from campaign.golden import Golden
from campaign.real import MismatchError
from campaign.story import Story
from otasim.commands.campaign import campaign as command
from otasim.pytest_plugin import campaigns
from platforms.errors import OtasimError

OWN = '''
    import struct

    from bootloader_model.protocol import BootTarget
    from campaign.images import OLD
    from campaign.scenario import Boot, Scenario, steady
    from platforms.devices.reset_cause import ResetCause

    BOOT = steady("boot", Boot(ResetCause.POWER_ON), OLD)
    IDLE = Scenario("idle", "Nothing but a boot", (BOOT,))

    class FirstSlot:
        """Starts slot 0, whatever is there."""

        def boot(self, hardware):
            hardware.start_watchdog(10)
            head = hardware.internal_flash.read(0x10000, 8)
            return BootTarget(0x08010000, *struct.unpack("<II", head))

    class WritesFirst(FirstSlot):
        """Erases the vector table before it writes it anew."""

        def boot(self, hardware):
            hardware.start_watchdog(10)
            head = hardware.internal_flash.read(0x10000, 0x800)
            hardware.internal_flash.erase(0x10000, 0x10000)
            hardware.internal_flash.program(0x10000, head)
            return super().boot(hardware)
'''


@pytest.fixture
def own(project: pytest.Pytester) -> pytest.Pytester:
    project.makepyfile(own=OWN)
    project.syspathinsert()
    return project


def test_a_loader_is_proven_or_the_test_fails(own: pytest.Pytester) -> None:
    own.makepyfile(
        """
        import pytest
        from own import IDLE, FirstSlot, WritesFirst

        from bootloader_model.loader import MosLoader

        def test_object_and_name_are_the_same(campaign):
            result = campaign(IDLE, loader=FirstSlot)
            assert result.scenario == "test_a_loader_is_proven_or_the_test_fails:IDLE"
            assert not result.findings
            by_name = campaign("own:IDLE", loader="own:FirstSlot")
            assert (by_name.cuts, by_name.boots) == (result.cuts, result.boots)

        class TestDefaults:
            @pytest.fixture
            def boot_loader(self):
                return WritesFirst

            def test_it_fails(self, campaign):
                campaign(IDLE)

            def test_what_is_found_is_the_tests_to_look_at(self, campaign):
                result = campaign.search("own:IDLE")
                assert result.findings

            def test_what_the_test_says_comes_first(self, campaign):
                result = campaign(IDLE, loader=MosLoader)
                assert result.deepest == 2
                assert campaign(IDLE, loader=MosLoader, depth=1).deepest == 1

        def test_nameless(campaign):
            class Local(WritesFirst):
                pass
            campaign(IDLE, loader=Local, seed=5)

        def test_seed(campaign):
            campaign("own:IDLE", loader="own:WritesFirst", seed=5)

        def test_an_instance_is_refused(campaign):
            campaign(IDLE, loader=FirstSlot())

        def test_no_depth(campaign):
            campaign(IDLE, loader=FirstSlot, depth=0)
        """
    )
    result = own.runpytest_inprocess("--otasim-depth=2")
    result.assert_outcomes(passed=3, failed=5)
    name = "test_a_loader_is_proven_or_the_test_fails:IDLE"
    result.stdout.fnmatch_lines(
        [
            f"E       Failed: {name} FAILS: *wrong-image*",
            f"E         in {name}, step 'boot', power-loss at *; 1 cut in all",
            f"E         otasim campaign --replay '{name}/*>run' --loader own:WritesFirst",
            f"*- campaign {name}: wrong-image -*",
            "boot 1, reset cause power-on, marginal bits stored",
        ]
    )
    result.stdout.fnmatch_lines(
        [f"E         {name}/*>run (no command replays this: give a loader and a scenario that *"]
    )
    result.stdout.fnmatch_lines(
        ["E         otasim campaign --replay 'own:IDLE/*>run' --loader own:WritesFirst --seed 5"]
    )
    result.stdout.fnmatch_lines(["*LoaderSourceError: expected a class or function that makes *"])
    result.stdout.fnmatch_lines(["*InvalidArgumentError: depth 0: expected cuts from 1 on, *"])


def test_any_fault_can_be_what_goes_wrong(
    own: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.makepyfile(
        """
        from own import IDLE, FirstSlot, WritesFirst

        from campaign.faults import Fault

        def test_name_and_fault_are_the_same(campaign):
            results = [
                campaign.search("own:IDLE", loader=WritesFirst, fault=fault)
                for fault in ("reset", Fault.RESET, Fault.POWER_LOSS)
            ]
            assert [result.fault.value for result in results] == ["reset", "reset", "power-loss"]
            assert results[0].findings == results[1].findings != results[2].findings

        def test_it_fails(campaign):
            campaign("own:IDLE", loader="own:WritesFirst", fault="reset")

        def test_without_a_cut(campaign):
            campaign("update-commit", loader="own:FirstSlot", fault="reset")

        def test_no_fault(campaign):
            campaign(IDLE, loader=FirstSlot, fault="lightning")
        """
    )
    result = own.runpytest_inprocess()
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(
        [
            "E         in own:IDLE, step 'boot', reset at *; 1 cut in all",
            "E         otasim campaign --replay 'own:IDLE+reset/*>run' --loader own:WritesFirst",
        ]
    )
    result.stdout.fnmatch_lines(
        ["E         otasim campaign --replay update-commit+reset --loader own:FirstSlot"]
    )
    result.stdout.fnmatch_lines(
        ["*InvalidArgumentError: fault 'lightning': expected one of power-loss, *"]
    )
    line = next(line for line in result.outlines if "--replay" in line)
    monkeypatch.chdir(own.path)
    words = shlex.split(line.removeprefix("E").strip())
    replayed = CliRunner().invoke(command, words[2:])
    assert replayed.exit_code == 1
    assert "reset" in replayed.output
    assert "cannot-update: " in replayed.output


def test_a_story_that_cannot_be_lived_again_hides_no_finding(
    own: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_life: Life, story: Story) -> Iterator[str]:
        yield "boot 1"
        raise OtasimError(f"{story.identifier}: a boot has only 2 operations")

    monkeypatch.setattr(campaigns, "replay_lines", fail)
    own.makepyfile(
        """
        from own import IDLE, WritesFirst

        def test_campaign(campaign):
            campaign(IDLE, loader=WritesFirst)
        """
    )
    result = own.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E *FAILS: *wrong-image*", "boot 1", "*>run: a boot has only 2 operations"]
    )


def test_shards_do_their_part_of_each_campaign(own: pytest.Pytester) -> None:
    own.makepyfile(
        """
        from own import IDLE, WritesFirst

        def test_part(campaign):
            print("cuts:", campaign.search(IDLE, loader=WritesFirst).cuts)
        """
    )

    def cuts(shard: str) -> int:
        result = own.runpytest_inprocess("-s", f"--otasim-shard={shard}")
        line = next(line for line in result.outlines if "cuts: " in line)
        return int(line.rpartition("cuts: ")[2].rstrip("."))

    assert 0 < cuts("1/2") < cuts("1/1")
    assert cuts("1/2") + cuts("2/2") == cuts("1/1")


ONE = """
    from own import IDLE, FirstSlot

    def test_campaign(campaign):
        campaign(IDLE, loader=FirstSlot)
"""


@pytest.mark.parametrize(
    "error", [MismatchError("idle/0:before", "nor differs"), LikenessError("idle/0:before")]
)
def test_a_campaign_that_cannot_be_trusted_fails(
    own: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_explorer: Explorer, _golden: Golden) -> None:
        raise error

    monkeypatch.setattr(Explorer, "_search", fail)
    own.makepyfile(ONE)
    result = own.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E *the campaign distrusts itself, and says nothing of the loader: idle/0:before*"]
    )


def test_an_interrupted_campaign_is_no_pass(
    own: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_explorer: Explorer, _golden: Golden) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Explorer, "_search", interrupt)
    own.makepyfile(ONE)
    result = own.runpytest_inprocess(no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes()
