"""What is particular to Renode's processor: its moments, its faults, its end."""

from collections.abc import Iterator

import pytest

from otasim.engines import RENODE, missing_engine
from platforms.clock import NS_PER_MS
from platforms.devices.reset_cause import ResetCause
from platforms.engines.protocol import EngineError, FaultKind
from tests.engines.bench import RAM, MakeBench, benches
from tests.engines.registers import FLASH_CR, IWDG_KR, IWDG_RLR, UNLOCK
from tests.engines.thumb import SELF, add_one, jump, load_constant, store

pytestmark = pytest.mark.skipif(
    bool(missing_engine(RENODE)), reason=missing_engine(RENODE) or "it is there"
)
FEED = store(0xAAAA, IWDG_KR)


@pytest.fixture
def make_bench() -> Iterator[MakeBench]:
    with benches(RENODE) as make:
        yield make


def test_a_busy_flash_stalls_the_processor(make_bench: MakeBench) -> None:
    erase = store(1 << 16 | 1 << 3 | 1 << 1, FLASH_CR)  # STRT, sector 1, SER
    bench = make_bench(UNLOCK + erase + FEED + SELF)
    late_ns: list[int] = []
    memory = bench.models.internal_flash.memory
    bench.models.watchdog.on_feed = lambda: late_ns.append(
        bench.clock.now_ns - memory.busy_until_ns
    )
    bench.run(NS_PER_MS)
    bench.run(NS_PER_MS)
    assert memory.busy_until_ns > 100 * NS_PER_MS
    assert len(late_ns) == 1
    assert 0 <= late_ns[0] < NS_PER_MS


def test_an_event_that_an_access_asks_for_comes_at_its_own_time(make_bench: MakeBench) -> None:
    start = store(0x5555, IWDG_KR) + store(3, IWDG_RLR) + store(0xCCCC, IWDG_KR)
    bench = make_bench(start + SELF)
    bitten_ns: list[int] = []

    def bite() -> None:
        bitten_ns.append(bench.clock.now_ns)
        bench._note_reset(ResetCause.WATCHDOG)

    bench.models.watchdog.on_timeout = bite
    bench.run(9 * NS_PER_MS)
    assert len(bitten_ns) == 1
    assert 0 < bitten_ns[0] < NS_PER_MS
    assert bench.clock.now_ns == bitten_ns[0]


def test_a_reset_in_the_middle_of_a_run_stops_the_processor(make_bench: MakeBench) -> None:
    loop = load_constant(0, RAM) + b"\x01\x68\x01\x31\x01\x60\xfb\xe7"  # ldr; adds; str; b ldr
    bench = make_bench(loop)
    bench.engine.write_memory(RAM, bytes(4))
    bench.clock.call_at(NS_PER_MS, bench.engine.reset)
    bench.run(9 * NS_PER_MS)
    # Four instructions a turn at 16 a microsecond.
    assert bench.word(RAM) == pytest.approx(4000, abs=100)
    assert bench.clock.now_ns == 9 * NS_PER_MS


@pytest.mark.parametrize(
    "address", [0x4000_4400, 0x4002_3800, 0x4000_0000, 0xE000_E000, 0xE800_0000],
    ids=["UART", "model", "nothing", "controller", "system"],
)  # fmt: skip
def test_peripherals_are_no_place_for_code(make_bench: MakeBench, address: int) -> None:
    bench = make_bench(jump(address | 1), {3: add_one(RAM) + SELF})
    bench.engine.write_memory(RAM, bytes(4))
    bench.run(NS_PER_MS)
    bench.run(20 * NS_PER_MS)
    (fault,) = bench.faults
    assert (fault.kind, fault.address) == (FaultKind.EXECUTE_NEVER, address)
    assert bench.word(RAM) == 1


def test_without_a_stack_the_processor_locks_up(make_bench: MakeBench) -> None:
    bench = make_bench(SELF)
    bench.restart(program_counter=0x3000_0001, stack_pointer=0x3000_0000)
    bench.run(NS_PER_MS)
    bench.run(20 * NS_PER_MS)
    assert [(fault.kind, fault.exception) for fault in bench.faults] == [
        (FaultKind.UNMAPPED_FETCH, 3),
        (FaultKind.STACKING, None),
    ]
    assert bench.clock.now_ns == 21 * NS_PER_MS


def test_a_handler_that_is_no_code_locks_the_processor_up(make_bench: MakeBench) -> None:
    # VTOR stays 0 on Renode then, where an erased flash makes every handler 0xFFFFFFFE.
    bench = make_bench(SELF)
    bench.restart(program_counter=0x3000_0001, vector_table=0x3000_0000)
    bench.run(NS_PER_MS)
    bench.run(20 * NS_PER_MS)
    assert bench.faults[-1].exception is None
    assert bench.clock.now_ns == 21 * NS_PER_MS


def test_a_processor_that_gave_up_is_an_error_until_it_is_reset(make_bench: MakeBench) -> None:
    bench = make_bench(load_constant(0, 0x3000_0000) + b"\x01\x68" + SELF)  # ldr r1, [r0]
    from Antmicro.Renode.Peripherals.CPU import (  # noqa: PLC0415 - needs Renode
        ExternalMmuFaultHook,
        ExternalMmuResult,
    )

    # The M profile knows no such abort: Renode's own way to give up.
    hook = ExternalMmuFaultHook(lambda *_: ExternalMmuResult.ExternalAbort)
    processor = bench.engine._hardware.processor  # type: ignore[attr-defined]
    processor.AddHookOnMmuFault(hook)
    for _ in range(2):
        with pytest.raises(EngineError, match="given up"):
            bench.run(NS_PER_MS)
    processor.RemoveHookOnMmuFault(hook)
    bench.restart()
    bench.faults.clear()
    bench.run(NS_PER_MS)
    assert [fault.address for fault in bench.faults] == [0x3000_0000]


def test_a_closed_board_says_so(make_bench: MakeBench) -> None:
    bench = make_bench(SELF)
    bench.run(NS_PER_MS)
    bench.engine.close()
    bench.engine.close()
    for use in (
        lambda: bench.run(NS_PER_MS),
        lambda: bench.word(RAM),
        bench.engine.registers,
        bench.engine.reset,
    ):
        with pytest.raises(EngineError, match="closed"):
            use()
