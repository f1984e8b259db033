"""The independent watchdog against RM0090 section 21."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from platforms.clock import NS_PER_MS, NS_PER_S, Clock
from platforms.devices.peripheral import UnsupportedRegisterError
from platforms.devices.watchdog import IndependentWatchdog, registers_for
from platforms.errors import InvalidArgumentError

KR, PR, RLR, SR = 0x00, 0x04, 0x08, 0x0C
RELOAD, ACCESS, START = 0xAAAA, 0x5555, 0xCCCC
LSI_HZ = 32_000


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.watchdog = IndependentWatchdog(self.clock)
        self.bites: list[int] = []
        self.watchdog.on_timeout = lambda: self.bites.append(self.clock.now_ns)

    def write(self, offset: int, value: int) -> None:
        self.watchdog.write(offset, 4, value)

    def read(self, offset: int) -> int:
        return self.watchdog.read(offset, 4)

    def configure(self, prescaler: int, reload: int) -> None:
        self.write(KR, ACCESS)
        self.write(PR, prescaler)
        self.write(RLR, reload)
        self.write(KR, RELOAD)

    def advance(self, duration_ns: int) -> None:
        self.clock.advance_to(self.clock.now_ns + duration_ns)


@given(st.integers(0, 7), st.integers(0, 0xFFF))
def test_it_bites_after_prescaler_times_reload_plus_one_cycles_of_32_khz(
    prescaler: int, reload: int
) -> None:
    bench = Bench()
    bench.write(KR, START)
    bench.configure(prescaler, reload)
    # RM0090 table 107: /4 ... /256, and code 7 is /256 as well.
    expected_ns = (reload + 1) * (4 << min(prescaler, 6)) * NS_PER_S // LSI_HZ
    bench.advance(expected_ns - 1)
    assert bench.bites == []
    bench.advance(1)
    assert bench.bites == [expected_ns]


def test_reset_values_are_those_of_the_manual() -> None:
    bench = Bench()
    assert [bench.read(offset) for offset in (KR, PR, RLR, SR)] == [0, 0, 0xFFF, 0]


def test_it_does_not_run_before_it_is_started() -> None:
    bench = Bench()
    bench.configure(0, 0)
    bench.advance(100 * NS_PER_S)
    assert (bench.bites, bench.watchdog.running) == ([], False)


def test_registers_are_protected_until_the_key_and_again_after_any_other() -> None:
    bench = Bench()
    bench.write(RLR, 5)
    assert bench.read(RLR) == 0xFFF
    bench.write(KR, ACCESS)
    bench.write(RLR, 5)
    assert bench.read(RLR) == 5
    bench.write(KR, RELOAD)
    bench.write(RLR, 9)
    bench.write(PR, 3)
    assert (bench.read(RLR), bench.read(PR)) == (5, 0)


def test_updates_show_in_sr_for_five_cycles() -> None:
    bench = Bench()
    bench.write(KR, ACCESS)
    bench.write(PR, 1)
    assert bench.read(SR) == 1
    bench.write(RLR, 1)
    assert bench.read(SR) == 3
    bench.advance(5 * NS_PER_S // LSI_HZ)
    assert bench.read(SR) == 0


def test_a_turn_is_reported_for_each_feed_of_firmware_only() -> None:
    bench = Bench()
    turns: list[None] = []
    bench.watchdog.on_feed = lambda: turns.append(None)
    bench.write(KR, START)
    bench.write(KR, RELOAD)
    bench.watchdog.feed()
    assert len(turns) == 1


@pytest.mark.parametrize("offset", [0x10, 0x3FC])
def test_a_register_it_does_not_have_is_an_error(offset: int) -> None:
    bench = Bench()
    with pytest.raises(UnsupportedRegisterError):
        bench.read(offset)
    with pytest.raises(UnsupportedRegisterError):
        bench.write(offset, 0)


@given(st.floats(0.001, 32.7))
def test_registers_for_a_time_come_near_it(timeout_s: float) -> None:
    prescaler, reload = registers_for(timeout_s)
    reached = (reload + 1) * (4 << prescaler) / LSI_HZ
    assert reached == pytest.approx(timeout_s, rel=0.1)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, 33.0])
def test_a_time_it_cannot_reach_is_refused(timeout_s: float) -> None:
    with pytest.raises(InvalidArgumentError):
        registers_for(timeout_s)


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order: fed in time it never bites, unfed it always does."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.deadline_ns: int | None = None
        self.expected: list[int] = []
        self.prescaler = 0
        self.update_ends_ns = 0

    @rule()
    def start(self) -> None:
        self.bench.write(KR, START)
        self.deadline_ns = self.bench.clock.now_ns + self.bench.watchdog.timeout_ns

    @rule()
    def feed(self) -> None:
        self.bench.write(KR, RELOAD)
        if self.deadline_ns is not None:
            self.deadline_ns = self.bench.clock.now_ns + self.bench.watchdog.timeout_ns

    @rule(prescaler=st.integers(0, 7), reload=st.integers(0, 200))
    def set_up(self, prescaler: int, reload: int) -> None:
        self.bench.write(KR, ACCESS)
        self.bench.write(PR, prescaler)
        self.bench.write(RLR, reload)  # the running count goes on until the next reload
        now_ns = self.bench.clock.now_ns
        if now_ns < self.update_ends_ns:
            return
        self.update_ends_ns = now_ns + 5 * NS_PER_S // LSI_HZ
        if self.deadline_ns is not None:
            before, after = (4 << min(code, 6) for code in (self.prescaler, prescaler))
            self.deadline_ns = now_ns + (self.deadline_ns - now_ns) * after // before
        self.prescaler = prescaler

    @rule(duration_ns=st.integers(1, 2000 * NS_PER_MS))
    def wait(self, duration_ns: int) -> None:
        end_ns = self.bench.clock.now_ns + duration_ns
        if self.deadline_ns is not None and self.deadline_ns <= end_ns:
            self.expected.append(self.deadline_ns)
            self.deadline_ns = None
        self.bench.advance(duration_ns)

    @rule()
    def system_reset(self) -> None:
        self.bench.watchdog.reset()
        self.deadline_ns = None
        self.prescaler = self.update_ends_ns = 0

    @invariant()
    def bites_are_those_expected(self) -> None:
        assert self.bench.bites == self.expected
        assert self.bench.watchdog.running == (self.deadline_ns is not None)


TestLife = Life.TestCase


def test_a_new_prescaler_counts_from_where_the_counter_is() -> None:
    bench = Bench()
    bench.write(KR, START)  # 4096 cycles of 4 / 32 kHz: 512 ms
    bench.advance(256 * NS_PER_MS)
    bench.write(KR, ACCESS)
    bench.write(PR, 2)  # the 2048 cycles that are left take four times as long
    bench.advance(1024 * NS_PER_MS - 1)
    assert bench.bites == []
    bench.advance(1)
    assert bench.bites == [1280 * NS_PER_MS]


@pytest.mark.parametrize(("register", "flag"), [(PR, 1), (RLR, 2)])
def test_a_register_is_not_written_while_its_update_is_under_way(register: int, flag: int) -> None:
    bench = Bench()
    bench.write(KR, ACCESS)
    bench.write(register, 1)
    bench.write(register, 2)
    assert (bench.read(register), bench.read(SR)) == (1, flag)
    bench.advance(5 * NS_PER_S // LSI_HZ)
    bench.write(register, 2)
    assert bench.read(register) == 2
