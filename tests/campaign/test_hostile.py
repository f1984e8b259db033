"""Loaders that do what no loader should: they are findings, and never the end of a campaign."""

import sys
from contextlib import suppress
from typing import ClassVar, NoReturn

import pytest

from bootloader_model.loader import LoaderSettings, MosLoader
from bootloader_model.protocol import BootTarget, Loader, LoaderHardware
from campaign import boot
from campaign.boot import Ending, LoaderFactory, limit_boots, run_boot
from campaign.cells import Contents
from campaign.expand import Plan, Settings
from campaign.explore import Explorer
from campaign.flash import FlashPair
from campaign.images import OLD
from campaign.judge import Kind
from campaign.normal_form import NormalForms
from campaign.real import UnrepeatableError
from campaign.scenario import Boot as BootAct
from campaign.scenario import Scenario, steady
from otasim.campaigns import find_scenario
from platforms.devices.reset_cause import ResetCause
from platforms.errors import InvalidArgumentError
from platforms.machine import ResetAsserted

OWN_PLACE = 0x3FF000
RESETS = Scenario(
    "resets",
    "A board is switched on twice",
    tuple(steady(f"power-on {n}", BootAct(ResetCause.POWER_ON), OLD) for n in range(2)),
)


class Exits:
    def boot(self, _hardware: LoaderHardware) -> NoReturn:
        sys.exit(0)


class IgnoresTheWatchdog:
    """Whatever takes control from it, it goes on."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        hardware.start_watchdog(1)
        with suppress(ResetAsserted):
            hardware.wait(20_000_000_000)
        return BootTarget(0x0801_0000, 0x2002_0000, 0x0801_0055)


class ChangesItself(MosLoader):
    def boot(self, hardware: LoaderHardware) -> BootTarget:
        target = super().boot(hardware)
        hardware.internal_flash.program(0x100, b"\0")
        return target


class ReadsByteByByte(MosLoader):
    def boot(self, hardware: LoaderHardware) -> BootTarget:
        for address in range(30_000):
            hardware.internal_flash.read(address, 1)
        return super().boot(hardware)


class Spins:
    def boot(self, _hardware: LoaderHardware) -> BootTarget:
        while True:
            pass


def impatient() -> Loader:
    """Its watchdog has no time for a copy: each erase takes longer."""
    return MosLoader(LoaderSettings(watchdog_timeout_s=0.2))


def never_fed() -> Loader:
    """No watchdog of this chip can be as slow as that."""
    return MosLoader(LoaderSettings(watchdog_timeout_s=1e6))


@pytest.mark.parametrize(
    ("loader", "scenario", "kind"),
    [
        (Exits, "snapshot", Kind.RAISED),
        (IgnoresTheWatchdog, "snapshot", Kind.BRICK),
        (ChangesItself, "snapshot", Kind.FORBIDDEN_WRITE),
        (impatient, "update-commit", Kind.BRICK),
        (never_fed, "snapshot", Kind.RAISED),
    ],
)
def test_it_is_a_finding(loader: LoaderFactory, scenario: str, kind: Kind) -> None:
    plan = Plan(find_scenario(scenario), loader, Settings(check_every=0))
    assert kind in Explorer(plan).run().failures


@pytest.mark.parametrize("address", [OWN_PLACE, 0x5000, 0x01_0000 + 0x8000])
def test_what_a_loader_keeps_in_a_place_of_its_own_makes_another_state(address: int) -> None:
    flash = FlashPair(Contents.erased())
    forms = NormalForms((OLD,))
    before = forms.of(flash.contents)
    flash.nor.program(address, b"\0")
    assert forms.of(flash.contents) != before


def test_many_small_reads_are_no_hang() -> None:
    plan = Plan(RESETS, ReadsByteByByte, Settings(check_every=0))
    assert not Explorer(plan).run().findings


def test_a_loader_that_spins_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot._Spins, "limit_s", 0)
    limit_boots(1)
    run = run_boot(Spins(), Contents.erased())
    assert run.ending is Ending.HUNG
    assert "1 s of computing" in run.problem


def test_where_it_raised_is_told() -> None:
    class Raises:
        places: ClassVar[list[int]] = []

        def boot(self, _hardware: LoaderHardware) -> BootTarget:
            raise ValueError(self.places)

    run = run_boot(Raises(), Contents.erased())
    assert run.ending is Ending.RAISED
    assert "test_hostile.py, line " in run.problem


def test_a_scenario_without_a_boot_is_none() -> None:
    with pytest.raises(InvalidArgumentError, match="expected a Boot"):
        Scenario("empty", "Nothing happens", ())


class Counts(MosLoader):
    """Every seventh boot of the process is another one."""

    boots = 0

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        Counts.boots += 1
        if Counts.boots % 7 == 0:
            hardware.log("again?\n")
            hardware.nor.program(0x3FE000, bytes(16))
        return super().boot(hardware)


def test_a_loader_that_does_not_do_the_same_twice_is_told_so() -> None:
    plan = Plan(RESETS, Counts, Settings(check_every=1))
    with pytest.raises(UnrepeatableError, match="does not do the same twice"):
        Explorer(plan).run()
