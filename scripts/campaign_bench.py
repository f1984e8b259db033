"""What power-cut campaigns cost: `scripts/bench.py --campaign` prints it, references beside it.

A run is one cut and the boot that follows, judged. The references do the same work the simple way:
the scenario is lived again on a new board's chip models, cut there, and booted from there. What one
core does is measured in its own time, whatever else the machine is at.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from bootloader_model.loader import MosLoader
from campaign.boot import run_boot
from campaign.cells import Reading
from campaign.expand import Life, Plan, Settings
from campaign.explore import Explorer
from campaign.faults import Fault
from campaign.files import with_file_systems
from campaign.golden import CutPoint, Golden
from campaign.images import NEW, OLD, PROBE, make_image
from campaign.judge import judge
from campaign.processor import Processor, answer_problem
from campaign.real import RealBoot, run_scenario_cut
from campaign.scenario import SCENARIOS, Boot, Call, Scenario, commit, steady, take_update
from campaign.work import Workers, processes
from otasim.campaign_board import CampaignBoard
from otasim.campaign_check import whole_device
from otasim.campaign_processor import BoardProcessor
from otasim.engines import EMBEDDED
from platforms.devices.reset_cause import ResetCause

ROUNDS = 3
FACTORS = (1, 2, 4, 8)
RECORDS = 7  # the least; times the largest factor they fill one area and most of the other
SAMPLE = 15  # of the cuts, for the references
AIM_LOADER, AIM_PROCESSOR = 3_000, 500

_SCENARIO = SCENARIOS[0]
_LONGER = next(scenario for scenario in SCENARIOS if scenario.name == "snapshot")
_IMAGES = (*_SCENARIO.images, PROBE)


def measure_campaigns() -> None:
    """Measure and print, a line each."""
    life = Life(Plan(_SCENARIO, MosLoader, Settings()))
    golden, points = life.golden, list(life.points())
    sample = points[::SAMPLE]
    loader = _rate(lambda: _recover(points), len(points))
    naive_loader = _rate(lambda: _recover_naively(golden, sample), len(sample))
    processor = BoardProcessor()
    on_processor = _rate(lambda: _recover(points, processor), len(points))
    naive_processor = _rate(lambda: _answer_naively(golden, sample), len(sample))
    print(f"{_SCENARIO.name}: {golden.operations} flash operations, {len(points)} cuts; one core")
    print(f"runs, loader only:                      {loader:8,.0f} a second (aim {AIM_LOADER:,})")
    print(f"  on new flash models for each cut:     {naive_loader:8,.0f} a second")
    answered = f"{on_processor:8,.0f} a second (aim {AIM_PROCESSOR})"
    print(f"runs, until the application answers:    {answered}")
    print(f"  on a new board for each cut:          {naive_processor:8,.0f} a second")
    cuts, seconds = _campaign(_SCENARIO)
    print(f"the whole campaign, updates tried too:  {cuts / seconds:8,.0f} cuts a second")
    _measure_cores()
    _measure_growth("image size", "KB", _with_images, len(OLD.data) / 1024)
    _measure_growth("records", "", _with_records, RECORDS)


def _rate(work: Callable[[], None], runs: int) -> float:
    return runs / min(_seconds(work) for _ in range(ROUNDS))


def _seconds(work: Callable[[], None], clock: Callable[[], float] = time.process_time) -> float:
    started = clock()
    work()
    return clock() - started


def _recover(points: Sequence[CutPoint], processor: Processor | None = None) -> None:
    """Boot each state, judge it, and have the processor run what was started."""
    for point in points:
        boot = run_boot(MosLoader(), point.contents)
        verdict = judge(boot, point.expectation, _IMAGES)
        _expect(verdict.problem is None)
        if processor is not None and verdict.image is not None:
            _expect(answer_problem(processor, boot, verdict.image) is None)


def _recover_naively(golden: Golden, points: Sequence[CutPoint]) -> None:
    for point in points:
        flash = run_scenario_cut(golden, point.golden, point.cut, Fault.POWER_LOSS, MosLoader)
        _expect(flash.difference(point.contents) is None)
        RealBoot(point.contents, ResetCause.POWER_ON, Reading.STORED, 0).run(MosLoader)


def _answer_naively(golden: Golden, points: Sequence[CutPoint]) -> None:
    for point in points:
        run_scenario_cut(golden, point.golden, point.cut, Fault.POWER_LOSS, MosLoader)
        board = CampaignBoard(EMBEDDED, whole_device)
        contents = with_file_systems(point.contents)
        state = RealBoot(contents, ResetCause.POWER_ON, Reading.STORED, 0)
        _expect(isinstance(board.boot(state, MosLoader()).answer, str))
        board.close()


def _campaign(scenario: Scenario) -> tuple[int, float]:
    """Cuts of a campaign of depth 1, and its seconds."""
    explorer = Explorer(Plan(scenario, MosLoader, Settings(depth=1, check_every=0)))
    seconds = _seconds(lambda: _prove(explorer))
    return explorer.result.cuts, seconds


def _prove(explorer: Explorer) -> None:
    _expect(not explorer.run().findings)


def _expect(is_right: bool) -> None:
    """What is measured must be right, too."""
    if not is_right:
        raise AssertionError("a campaign of the shipped loader goes wrong: run the tests")


def _measure_cores() -> None:
    """A campaign that is long enough, in one process and in as many as there are cores."""
    cores = os.cpu_count() or 1
    plan = Plan(_LONGER, MosLoader, Settings(depth=2, check_every=0))
    rates = []
    for number in (1, cores):
        with processes(number) as pool:
            _share_out(Plan(_SCENARIO, MosLoader, Settings(check_every=0)), pool, number)  # awake
            started = time.perf_counter()
            states = _share_out(plan, pool, number)
            rates.append(states / (time.perf_counter() - started))
    print(f"{_LONGER.name}, two cuts, in 1 process:         {rates[0]:8,.0f} states a second")
    scaling = f"{rates[1] / rates[0]:8.2f}      (aim {cores})"
    print(f"  in {cores} processes, of that:              {scaling}")


def _share_out(plan: Plan, pool: Executor, number: int) -> int:
    result = Explorer(plan, Workers(plan, pool, workers=number)).run()
    _expect(not result.findings)
    return result.states


def _with_images(factor: int) -> Scenario:
    """An update whose images are so many times as large."""
    old = make_image(OLD.name, factor * len(OLD.data))
    new = make_image(NEW.name, factor * len(NEW.data))
    power_on = steady("power-on", Boot(ResetCause.POWER_ON), old)
    steps = (power_on, *take_update(new, old), *commit(new, old))
    return Scenario("sized", "An update", steps, first=old)


def _with_records(factor: int) -> Scenario:
    """An update after so many times as many records."""
    power_on = steady("power-on", Boot(ResetCause.POWER_ON), OLD)
    fill = Call("OTA.SetBootState", {"commit_timeout": 60}, RECORDS * factor)
    steps = (power_on, steady("fill", fill, OLD), *take_update(NEW, OLD), *commit(NEW, OLD))
    return Scenario("filled", "An update", steps)


def _measure_growth(
    what: str, unit: str, scenario: Callable[[int], Scenario], smallest: float
) -> None:
    costs = [_campaign(scenario(factor)) for factor in FACTORS]
    for factor, (cuts, seconds) in zip(FACTORS, costs, strict=True):
        size = f"{what}, {smallest * factor:.3g} {unit}".rstrip() + ":"
        print(f"{size:40}{seconds:8.2f} s, {cuts:6,} cuts, {1000 * seconds / cuts:.2f} ms for each")
    first, last = costs[0], costs[-1]
    growth = math.log(FACTORS[-1] / FACTORS[0])
    whole = math.log(last[1] / first[1]) / growth
    each = math.log(last[1] / last[0] * first[0] / first[1]) / growth
    print(f"  a cut grows with the power of:        {each:8.2f}      (aim 1: linear)")
    print(f"  the whole campaign:                   {whole:8.2f}")
