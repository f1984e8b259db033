"""Virtual time as firmware measures it, and that nothing outside the board changes it."""

from collections.abc import Iterator
from itertools import cycle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otasim import Board
from otasim.engines import EMBEDDED
from platforms.clock import NS_PER_MS, NS_PER_S, NS_PER_US, Clock
from platforms.engines.embedded import instruction_counter
from platforms.engines.embedded.engine import EmbeddedEngine
from platforms.engines.embedded.pace import Pace
from tests.engines.bench import CODE, RAM, Bench, MakeBench
from tests.engines.registers import (
    AIRCR,
    DWT_CTRL,
    DWT_CYCCNT,
    FLASH_CR,
    FLASH_SR,
    ICSR,
    IWDG_KR,
    IWDG_RLR,
    PEND,
    PENDSVSET,
    PROGRAM_WORDS,
    SYSRESETREQ,
    SYST_CTRL,
    SYST_LOAD,
    SYST_VAL,
    UNLOCK,
    USART_CR1,
    USART_DR,
    systick_every,
)
from tests.engines.thumb import (
    BARRIERS,
    BX_LR,
    CPSID_I,
    CPSIE_I,
    SELF,
    SVC,
    WFI,
    add_one,
    back_to,
    fetch,
    halfwords,
    keep,
    load,
    load_constant,
    move,
    put,
    spend,
    store,
)

COUNT_CYCLES = store(1, DWT_CTRL)


def for_ever(body: bytes) -> bytes:
    return body + back_to(body)


# -- what firmware measures -----------------------------------------------------------------------


def test_systick_comes_in_time_while_the_main_loop_is_busy(make_bench: MakeBench) -> None:
    bench = make_bench(systick_every(1600) + for_ever(add_one(RAM + 4)), {15: add_one(RAM) + BX_LR})
    bench.run(2 * NS_PER_MS)
    assert bench.word(RAM) in (19, 20)


def test_a_short_watchdog_bites_in_time(make_bench: MakeBench) -> None:
    start = store(0x5555, IWDG_KR) + store(0, IWDG_RLR) + store(0xCCCC, IWDG_KR)
    bench = make_bench(start + for_ever(add_one(RAM)))
    bites: list[int] = []

    def bite() -> None:
        bites.append(bench.clock.now_ns)
        bench.engine.stop()

    bench.models.watchdog.on_timeout = bite
    bench.run(3 * NS_PER_MS)
    # 4 cycles of the 32 kHz oscillator; a turn of the loop is 6 instructions.
    assert bites == [pytest.approx(125 * NS_PER_US, abs=2 * NS_PER_US)]
    assert bench.word(RAM) == pytest.approx(333, abs=5)


def test_a_slice_that_an_exception_cuts_takes_its_time(make_bench: MakeBench) -> None:
    # 10,000 instructions and SVC, 16 instructions a microsecond.
    body = spend(5000) + SVC + add_one(RAM)
    bench = make_bench(for_ever(body), {11: BX_LR})
    bench.run(5 * NS_PER_MS)
    assert bench.word(RAM) == 7


def test_a_delay_by_the_cycle_counter_takes_what_it_measures(make_bench: MakeBench) -> None:
    wait = load(3, 5) + halfwords(0x1A9B, 0x2BA0)  # subs r3, r3, r2; cmp r3, #160
    wait += halfwords(0xD3FB)  # blo wait
    start = COUNT_CYCLES + load_constant(5, DWT_CYCCNT) + load(2, 5)
    bench = make_bench(start + wait + keep(3, RAM) + SELF)
    bench.run(NS_PER_MS)
    assert 160 <= bench.word(RAM) <= 170


def test_systick_val_goes_down_with_every_instruction(make_bench: MakeBench) -> None:
    start = store(0xFF_FFFF, SYST_LOAD) + store(0, SYST_VAL) + store(5, SYST_CTRL)
    start += load_constant(5, SYST_VAL) + load(2, 5)
    bench = make_bench(start + spend(1000) + load(4, 5) + halfwords(0x1B12) + keep(2, RAM) + SELF)
    bench.run(NS_PER_MS)  # subs r2, r2, r4 stands there
    assert bench.word(RAM) == pytest.approx(2002, abs=20)  # Renode counts by blocks


def test_each_instruction_is_charged_however_often_the_slice_is_cut() -> None:
    # Each store to ICSR cuts its slice; PendSV comes and goes. Renode counts by blocks.
    measured = fetch(4, DWT_CYCCNT) + 5 * (PEND + BARRIERS) + fetch(5, DWT_CYCCNT)
    difference = halfwords(0x1B2D)  # subs r5, r5, r4
    bench = Bench(EMBEDDED, COUNT_CYCLES + measured + difference + keep(5, RAM) + SELF,
                  {14: add_one(RAM + 4) + BX_LR})  # fmt: skip
    bench.run(NS_PER_MS)
    assert bench.word(RAM + 4) == 5
    # Two constants of two instructions, the store, two barriers; a handler of six and BX; fetch.
    assert bench.word(RAM) == 5 * (5 + 2 + 7 + 1) + 3 - 5 * 2


def test_an_access_in_an_it_block_cuts_the_slice_behind_the_block() -> None:
    # movs sets Z=0; ittt ne; strne pends PendSV; movne r2, #1; movne r3, #2: then the handler runs.
    code = load_constant(0, ICSR) + load_constant(1, PENDSVSET) + move(4, 1)
    code += halfwords(0xBF1E) + put(1, 0) + move(2, 1) + move(3, 2)  # ittt ne
    bench = Bench(EMBEDDED, code + fetch(5, RAM) + keep(5, RAM + 4) + SELF,
                  {14: add_one(RAM) + BX_LR})  # fmt: skip
    bench.run(NS_PER_MS)
    assert (bench.word(RAM), bench.word(RAM + 4)) == (1, 1)


def test_an_event_that_is_due_already_comes_before_any_instruction() -> None:
    bench = Bench(EMBEDDED, add_one(RAM) + for_ever(add_one(RAM)))
    bench.clock.call_after(0, bench.engine.stop)
    bench.run(NS_PER_MS)
    assert (bench.clock.now_ns, bench.word(RAM)) == (0, 0)


def test_an_svc_behind_a_reset_in_an_it_block_is_forgotten() -> None:
    code = load_constant(0, AIRCR) + load_constant(1, SYSRESETREQ)
    code += move(2, 1) + halfwords(0xBF1C) + put(1, 0) + SVC + SELF  # itt ne
    bench = Bench(EMBEDDED, code, {11: add_one(RAM) + BX_LR})
    bench.engine.write_memory(RAM, bytes(4))
    bench.run(NS_PER_MS)
    assert bench.resets
    bench.restart(program_counter=CODE + 0x100)
    bench.run(NS_PER_MS)
    assert bench.word(RAM) == 0


def test_the_processor_stalls_as_soon_as_the_flash_erases() -> None:
    erase = store(0x0001_002A, FLASH_CR)  # STRT, SNB 5, SER
    bench = Bench(EMBEDDED, UNLOCK + erase + add_one(RAM) + SELF)
    bench.run(NS_PER_MS)
    assert bench.word(RAM) == 0
    bench.run(NS_PER_S * 5)
    assert bench.word(RAM) == 1


def test_a_store_to_flash_takes_the_time_of_programming() -> None:
    program = PROGRAM_WORDS + fetch(4, DWT_CYCCNT) + store(0, 0x0804_0000)
    difference = fetch(5, DWT_CYCCNT) + halfwords(0x1B2D)  # subs r5, r5, r4
    bench = Bench(EMBEDDED, COUNT_CYCLES + UNLOCK + program + difference + keep(5, RAM) + SELF)
    bench.run(NS_PER_MS)
    assert bench.word(RAM) == pytest.approx(16 * 16, abs=16)  # 16 us; datasheet, table 40


def test_a_store_across_words_of_flash_comes_in_bytes() -> None:
    program = store(0x0000_0001, FLASH_CR) + store(0x1122_3344, 0x0804_0001)  # PG, x8
    bench = Bench(EMBEDDED, UNLOCK + program + fetch(5, FLASH_SR) + keep(5, RAM) + SELF)
    bench.run(NS_PER_MS)
    assert bench.engine.read_memory(0x0804_0000, 6) == bytes.fromhex("ff44332211ff")
    assert bench.word(RAM) & 0xF0 == 0  # no error flag


@pytest.mark.parametrize("access", [load(1, 0), put(1, 0)], ids=["load", "store"])
def test_a_run_ends_where_a_device_has_let_its_time_pass(
    monkeypatch: pytest.MonkeyPatch, access: bytes
) -> None:
    bench = Bench(EMBEDDED, load_constant(0, IWDG_KR) + access + for_ever(add_one(RAM)))

    def wait(*_access: int) -> int:
        bench.engine.advance(10 * NS_PER_MS)
        return 0

    monkeypatch.setattr(bench.models.watchdog, "read", wait)
    monkeypatch.setattr(bench.models.watchdog, "write", wait)
    bench.run(NS_PER_MS)
    assert bench.clock.now_ns == pytest.approx(10 * NS_PER_MS, abs=NS_PER_US)
    assert bench.word(RAM) == 0


@pytest.mark.parametrize("access", [load(1, 3), put(1, 3)], ids=["load", "store"])
def test_after_a_reset_the_rest_of_an_it_block_touches_no_device(
    monkeypatch: pytest.MonkeyPatch, access: bytes
) -> None:
    code = load_constant(0, AIRCR) + load_constant(1, SYSRESETREQ)
    code += load_constant(3, IWDG_KR) + move(2, 1) + halfwords(0xBF1C) + put(1, 0) + access  # itt
    bench = Bench(EMBEDDED, code + SELF)
    touched: list[tuple[int, ...]] = []

    def touch(*access: int) -> int:
        touched.append(access)
        return 0

    monkeypatch.setattr(bench.models.watchdog, "read", touch)
    monkeypatch.setattr(bench.models.watchdog, "write", touch)
    bench.run(NS_PER_MS)
    assert bench.resets
    assert not touched


# -- what does not change it ----------------------------------------------------------------------

HISTORY_NS = 3 * NS_PER_MS


def _restless_code() -> bytes:
    """Time measured and printed, among all that ends a slice in some way."""
    conditional_return = halfwords(0x2C00, 0xBF08) + BX_LR + halfwords(0x3401) + BX_LR
    body = (
        CPSID_I
        + spend(40)
        + CPSIE_I
        + SVC
        + fetch(5, DWT_CYCCNT)
        + load_constant(0, USART_DR)
        + put(5, 0)
        + add_one(RAM + 8)
        # ands r4, r5, #1 by way of r1; bl to the conditional return at the end
        + move(1, 1)
        + halfwords(0x1C2C, 0x400C)  # adds r4, r5, #0; ands r4, r1
    )
    call = halfwords(0xF000, 0xF800 | (4 + 2) // 2)  # bl over the branch back
    wait = move(1, 15) + halfwords(0x420D, 0xBF08) + WFI  # tst r5, r1; it eq; wfieq
    loop = body + wait + call
    loop += halfwords(0xE7FE)  # patched below: branch to the beginning
    length = len(loop)
    back = halfwords(0xE000 | (-(length - 2 + 4) // 2) & 0x7FF)
    enable = store(0x2008, USART_CR1)
    filler = halfwords(0xBF00, 0xBF00)
    return (
        enable + COUNT_CYCLES + systick_every(1601)
        + loop[:-2] + back + filler + conditional_return
    )  # fmt: skip


PRINT_CYCLES = fetch(1, DWT_CYCCNT) + load_constant(0, USART_DR) + put(1, 0)
IDLE_CODE = store(0x2008, USART_CR1) + COUNT_CYCLES + systick_every(1601) + SELF


def _history(
    steps: Iterator[int], code: bytes | None = None
) -> tuple[bytes, int, dict[str, int], bytes]:
    handlers = {11: BX_LR, 15: PRINT_CYCLES + add_one(RAM) + BX_LR}
    bench = Bench(EMBEDDED, code or _restless_code(), handlers)
    while bench.clock.now_ns < HISTORY_NS:
        bench.engine.run_until(min(HISTORY_NS, bench.clock.now_ns + next(steps)))
    # The board may stand an instruction later: that is when the last one was done.
    history = (
        bytes(bench.output),
        bench.clock.now_ns,
        dict(bench.engine.registers()),
        bench.engine.read_memory(RAM, 16),
    )
    bench.engine.close()
    return history


@pytest.mark.parametrize("code", [_restless_code(), IDLE_CODE], ids=["restless", "on-the-spot"])
def test_steps_of_the_host_change_nothing_on_the_board(code: bytes) -> None:
    whole = _history(cycle([HISTORY_NS]), code)
    assert len(set(whole[0])) > 20  # the time measured is among it
    assert int.from_bytes(whole[3][:4], "little") > 20  # SysTick came
    for steps in ([NS_PER_MS], [130 * NS_PER_US], [10 * NS_PER_US], [62, 63, 1, 977], [701, 333]):
        assert _history(cycle(steps), code) == whole


def test_a_counting_hook_keeps_the_same_time_to_the_nanosecond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    native = _history(cycle([130 * NS_PER_US]))
    monkeypatch.setattr(instruction_counter, "native_offset", lambda: None)
    bench = Bench(EMBEDDED, SELF)
    assert isinstance(bench.engine, EmbeddedEngine)
    assert not bench.engine.counts_natively
    assert _history(cycle([130 * NS_PER_US])) == native


def test_unicorns_own_count_is_found_in_the_build_that_is_installed() -> None:
    bench = Bench(EMBEDDED, SELF)
    assert isinstance(bench.engine, EmbeddedEngine)
    assert bench.engine.counts_natively


def test_a_pair_of_words_is_found_where_it_is_aligned() -> None:
    pair = (13).to_bytes(8, "little") + (12).to_bytes(8, "little")
    state = bytes(16) + pair + bytes(4) + pair + bytes(4) + pair
    assert instruction_counter.places_of_pair(state, 13, 12) == {16, 56}


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=50), st.sampled_from([1, 7, 16, 168]))
def test_time_of_instructions_adds_up_exactly(parts: list[int], rate: int) -> None:
    in_parts, at_once = Clock(), Clock()
    pace = Pace(in_parts, rate)
    for part in parts:
        pace.charge(part)
    Pace(at_once, rate).charge(sum(parts))
    assert in_parts.now_ns == at_once.now_ns == -(-sum(parts) * 1000 // rate)


@given(st.lists(st.integers(1, 500), max_size=20), st.integers(1, 100_000))
@example([1], 63)
def test_a_slice_ends_with_the_first_instruction_that_reaches_its_end(
    before: list[int], distance_ns: int
) -> None:
    clock = Clock()
    pace = Pace(clock, 16)
    for part in before:
        pace.charge(part)
    end_ns = clock.now_ns + distance_ns
    instructions = pace.instructions_until(end_ns)
    assert instructions > 0
    pace.charge(instructions - 1)
    assert clock.now_ns < end_ns
    pace.charge(1)
    assert clock.now_ns >= end_ns


def test_steps_of_the_host_change_nothing_in_a_board_s_life() -> None:
    def life(step_s: float, *, watched: bool) -> tuple[str, list[object], int]:
        with Board("sample-1.0") as board:
            if watched:
                board.machine.outside_world = lambda: None
            board.run(0.5)
            board.type("uptime\n")
            end_ns = board.machine.clock.now_ns + 700 * NS_PER_MS
            while board.machine.clock.now_ns < end_ns:
                left_s = (end_ns - board.machine.clock.now_ns) / 1e9
                board.run(min(step_s, left_s))
            board.type("uptime\n")
            board.run(0.1)
            return board.console, list(board.trace.events), board.machine.clock.now_ns

    whole = life(1, watched=False)
    assert "uptime" in whole[0]
    for step_s, watched in ((0.0131, False), (0.0007, False), (1, True)):
        assert life(step_s, watched=watched) == whole
