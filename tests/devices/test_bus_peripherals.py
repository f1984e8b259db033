"""USART, SPI master, GPIO, RCC, SysTick and NVIC against RM0090 and the ARMv7-M manual."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.clock import NS_PER_MS, NS_PER_S, Clock
from platforms.devices import gpio, spi, usart
from platforms.devices import reset_clock_control as rcc
from platforms.devices.gpio import GpioPort
from platforms.devices.interrupt_controller import HARD_FAULT, NMI, SYSTICK, InterruptController
from platforms.devices.peripheral import UnsupportedRegisterError
from platforms.devices.reset_cause import ResetCause
from platforms.devices.reset_clock_control import ResetClockControl
from platforms.devices.spi import SpiMaster
from platforms.devices.system_timer import SystemTimer
from platforms.devices.usart import Usart

UE, TE, RE, RXNEIE, TXEIE = 1 << 13, 1 << 3, 1 << 2, 1 << 5, 1 << 7
ANY_WORD = st.integers(0, 0xFFFF_FFFF)


# -- USART ----------------------------------------------------------------------------------------


def test_usart_sends_only_when_it_is_on() -> None:
    port, sent = Usart("USART2"), bytearray()
    port.on_transmit = sent.append
    port.write(usart.DR, 4, ord("a"))
    port.write(usart.CR1, 4, UE | TE)
    port.write(usart.DR, 4, ord("b"))
    assert sent == b"b"


@given(st.binary(max_size=200))
def test_usart_receives_every_byte_in_order(data: bytes) -> None:
    port = Usart("USART2")
    port.write(usart.CR1, 4, UE | RE)
    assert port.receive(data) == len(data)
    got = bytearray()
    while port.read(usart.SR, 4) & usart.SR_RXNE:
        got.append(port.read(usart.DR, 4))
    assert got == data


def test_usart_takes_nothing_while_the_receiver_is_off() -> None:
    port = Usart("USART2")
    assert port.receive(b"x") == 0
    port.write(usart.CR1, 4, UE)
    assert port.receive(b"x") == 0


def test_usart_interrupt_follows_flags_and_enables() -> None:
    port, levels = Usart("USART2"), [False]
    port.set_interrupt = levels.append
    port.write(usart.CR1, 4, UE | RE | RXNEIE)
    assert not levels[-1]
    port.receive(b"ab")
    assert levels[-1]
    port.read(usart.DR, 4)
    assert levels[-1]
    port.read(usart.DR, 4)
    assert not levels[-1]
    port.write(usart.CR1, 4, UE | TXEIE)
    assert levels[-1]
    port.reset()
    assert not levels[-1]


# -- SPI ------------------------------------------------------------------------------------------


class Echo:
    """A slave that answers each byte with its complement and notes its chip select."""

    def __init__(self) -> None:
        self.selected: list[bool] = []

    def chip_select(self, active: bool) -> None:
        self.selected.append(active)

    def exchange(self, data: bytes) -> bytes:
        return bytes(byte ^ 0xFF for byte in data)


def master() -> tuple[SpiMaster, Echo]:
    made, slave = SpiMaster("SPI1"), Echo()
    made.slave = slave
    return made, slave


ON = spi.CR1_MSTR | spi.CR1_SPE | spi.CR1_SSM | spi.CR1_SSI


@given(st.integers(0, 0xFF))
def test_spi_shifts_a_frame_out_and_one_in(byte: int) -> None:
    controller, _ = master()
    controller.write(spi.CR1, 4, ON)
    controller.write(spi.DR, 1, byte)
    assert controller.read(spi.SR, 4) & spi.SR_RXNE
    assert controller.read(spi.DR, 1) == byte ^ 0xFF
    assert not controller.read(spi.SR, 4) & spi.SR_RXNE


@given(st.integers(0, 0xFFFF))
def test_spi_shifts_sixteen_bits_most_significant_first(frame: int) -> None:
    controller, _ = master()
    controller.write(spi.CR1, 4, ON | spi.CR1_DFF)
    controller.write(spi.DR, 2, frame)
    assert controller.read(spi.DR, 2) == frame ^ 0xFFFF


def test_spi_keeps_the_first_frame_and_flags_an_overrun() -> None:
    controller, _ = master()
    controller.write(spi.CR1, 4, ON)
    controller.write(spi.DR, 1, 1)
    controller.write(spi.DR, 1, 2)
    assert controller.read(spi.SR, 4) & spi.SR_OVR
    assert controller.read(spi.DR, 1) == 0xFE
    # RM0090 28.3.10: reading DR and then SR clears it.
    controller.read(spi.SR, 4)
    assert not controller.read(spi.SR, 4) & spi.SR_OVR


def test_spi_selects_its_slave_itself_with_ssoe() -> None:
    controller, slave = master()
    controller.write(spi.CR2, 4, spi.CR2_SSOE)
    controller.write(spi.CR1, 4, spi.CR1_MSTR | spi.CR1_SPE)
    controller.write(spi.CR1, 4, spi.CR1_MSTR)
    assert slave.selected == [True, False]


def test_spi_dma_is_an_error_that_says_so() -> None:
    controller, _ = master()
    with pytest.raises(UnsupportedRegisterError) as caught:
        controller.write(spi.CR2, 4, 1)
    assert "DMA" in caught.value.hint


# -- GPIO -----------------------------------------------------------------------------------------


@given(ANY_WORD, st.integers(0, 0xFFFF))
def test_gpio_sets_and_clears_through_bsrr_and_set_wins(bits: int, before: int) -> None:
    port = GpioPort("GPIOA")
    port.write(gpio.ODR, 4, before)
    port.write(gpio.BSRR, 4, bits)
    assert port.read(gpio.ODR, 4) == before & ~(bits >> 16) & 0xFFFF | bits & 0xFFFF


def test_gpio_drives_a_line_as_an_output_only() -> None:
    port = GpioPort("GPIOA")
    levels: list[bool] = []
    port.connect(4, levels.append)
    port.write(gpio.BSRR, 4, 1 << (4 + 16))
    assert levels == []
    port.write(gpio.MODER, 4, 0b01 << 8)
    port.write(gpio.BSRR, 4, 1 << 4)
    assert levels == [False, True]
    port.write(gpio.BSRR, 4, 1 << (4 + 16))
    port.reset()
    assert levels == [False, True, False, True]


# -- RCC ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enable", [0, 16, 24, 26], ids=["HSI", "HSE", "PLL", "PLLI2S"])
def test_rcc_oscillators_are_ready_when_they_are_on(enable: int) -> None:
    control = ResetClockControl()
    control.write(rcc.CR, 4, 0x0001_0001)
    control.write(rcc.CFGR, 4, 0 if enable == 16 else 1)  # the system runs on another one
    control.write(rcc.CR, 4, control.read(rcc.CR, 4) | 1 << enable)
    assert control.read(rcc.CR, 4) >> (enable + 1) & 1
    control.write(rcc.CR, 4, 0)
    assert not control.read(rcc.CR, 4) >> (enable + 1) & 1


@pytest.mark.parametrize("source", [0, 1, 2])
def test_rcc_shows_the_clock_that_was_switched_to(source: int) -> None:
    control = ResetClockControl()
    control.write(rcc.CR, 4, 0x0101_0001)
    control.write(rcc.CFGR, 4, source)
    assert control.read(rcc.CFGR, 4) >> 2 & 3 == source


def test_rcc_switches_to_a_clock_once_it_is_ready_and_keeps_it_on() -> None:
    control = ResetClockControl()
    control.write(rcc.CFGR, 4, 2)
    assert control.read(rcc.CFGR, 4) == 2, "the PLL is off: the system stays on HSI"
    control.write(rcc.CR, 4, 0x0100_0000)
    assert control.read(rcc.CFGR, 4) == 2 << 2 | 2
    control.write(rcc.CR, 4, 0)
    assert control.read(rcc.CR, 4) == 0x0300_0000, "the clock in use cannot be switched off"


@pytest.mark.parametrize("cause", list(ResetCause))
def test_rcc_shows_why_it_was_reset_until_rmvf(cause: ResetCause) -> None:
    control = ResetClockControl()
    control.note_reset(cause)
    control.reset()
    assert ResetCause.from_rcc_csr(control.read(rcc.CSR, 4)) is cause
    control.write(rcc.CSR, 4, rcc.CSR_RMVF)
    assert ResetCause.from_rcc_csr(control.read(rcc.CSR, 4)) is None


def test_rcc_flags_add_up_until_power_on() -> None:
    control = ResetClockControl()
    control.note_reset(ResetCause.WATCHDOG)
    control.note_reset(ResetCause.SOFTWARE)
    both = control.read(rcc.CSR, 4)
    assert both >> 29 & 1
    assert both >> 28 & 1
    control.note_reset(ResetCause.POWER_ON)
    assert control.read(rcc.CSR, 4) >> 28 & 0b11 == 0


# -- SysTick --------------------------------------------------------------------------------------


@given(st.integers(1, 100_000), st.integers(1, 20))
def test_systick_ticks_every_load_plus_one_cycles(load: int, ticks: int) -> None:
    clock, seen = Clock(), []
    timer = SystemTimer(clock, 16_000_000)
    timer.on_tick = lambda: seen.append(clock.now_ns)
    timer.write(0x14, load)
    timer.write(0x18, 0)
    timer.write(0x10, 7)
    cycles = [(load + 1) * (number + 1) for number in range(ticks)]
    clock.advance_to(cycles[-1] * NS_PER_S // 16_000_000)
    assert seen == [count * NS_PER_S // 16_000_000 for count in cycles]


def test_systick_counts_down_and_flags_the_wrap_once() -> None:
    clock = Clock()
    timer = SystemTimer(clock, 16_000_000)
    timer.write(0x14, 15_999)
    timer.write(0x10, 5)
    clock.advance_to(NS_PER_MS // 4)
    assert timer.read(0x18) == pytest.approx(12_000, abs=1)
    assert not timer.read(0x10) >> 16
    clock.advance_to(NS_PER_MS)
    assert timer.read(0x10) >> 16 & 1
    assert not timer.read(0x10) >> 16


def test_systick_without_clksource_counts_an_eighth() -> None:
    clock, seen = Clock(), []
    timer = SystemTimer(clock, 16_000_000)
    timer.on_tick = lambda: seen.append(clock.now_ns)
    timer.write(0x14, 1999)
    timer.write(0x10, 3)
    clock.advance_to(NS_PER_MS)
    assert seen == [NS_PER_MS]


# -- NVIC -----------------------------------------------------------------------------------------


@given(st.dictionaries(st.integers(0, 81), st.integers(0, 15), min_size=1))
def test_nvic_takes_the_most_urgent_and_among_equals_the_lowest_number(
    lines: dict[int, int],
) -> None:
    controller = InterruptController()
    for line, priority in lines.items():
        controller.set_enabled(16 + line, enabled=True)
        controller.set_priority(16 + line, priority << 4)
        controller.set_line(line, True)
    taken = controller.next_exception(256)
    assert taken == 16 + min(lines, key=lambda line: (lines[line], line))


def test_nvic_line_that_stays_high_comes_again() -> None:
    controller = InterruptController()
    controller.set_enabled(20, enabled=True)
    controller.set_line(4, True)
    controller.activate(20)
    assert controller.next_exception(256) is None
    controller.deactivate(20)
    assert controller.next_exception(256) == 20
    controller.activate(20)
    controller.set_line(4, False)
    controller.deactivate(20)
    assert controller.next_exception(256) is None


@pytest.mark.parametrize(
    ("masks", "taken"),
    [
        ({"primask": 0, "basepri": 0, "faultmask": 0}, SYSTICK),
        ({"primask": 1, "basepri": 0, "faultmask": 0}, HARD_FAULT),
        ({"primask": 0, "basepri": 0x40, "faultmask": 0}, HARD_FAULT),
        ({"primask": 0, "basepri": 0, "faultmask": 1}, NMI),
    ],
    ids=["none", "PRIMASK", "BASEPRI", "FAULTMASK"],
)
def test_nvic_masks_let_through_what_the_manual_says(masks: dict[str, int], taken: int) -> None:
    controller = InterruptController()
    controller.set_priority(SYSTICK, 0x80)
    controller.pend(SYSTICK)
    if taken != SYSTICK:
        assert controller.next_exception(controller.execution_priority(**masks)) is None
        controller.pend(taken)
    assert controller.next_exception(controller.execution_priority(**masks)) == taken


@given(ANY_WORD, st.integers(0, 2))
def test_nvic_enables_are_set_and_cleared_bit_by_bit(bits: int, word: int) -> None:
    controller = InterruptController()
    implemented = 0xFFFF_FFFF if word < 2 else (1 << (82 - 64)) - 1
    controller.write(0x100 + 4 * word, 4, bits)
    assert controller.read(0x100 + 4 * word, 4) == bits & implemented
    controller.write(0x180 + 4 * word, 4, bits >> 1)
    assert controller.read(0x180 + 4 * word, 4) == bits & implemented & ~(bits >> 1)


@pytest.mark.parametrize(("register", "value"), [(usart.CR1, 1 << 4), (usart.CR3, 1 << 6)])
def test_usart_refuses_what_it_does_not_model(register: int, value: int) -> None:
    with pytest.raises(UnsupportedRegisterError, match=r"USART2\+0x") as caught:
        Usart("USART2").write(register, 4, value)
    assert "not modelled" in caught.value.hint


@pytest.mark.parametrize("control", [1 << 13, 1 << 10, 1 << 15, 1 << 6 | 1, 1 << 6 | 2])
def test_spi_refuses_what_it_does_not_model(control: int) -> None:
    with pytest.raises(UnsupportedRegisterError) as caught:
        SpiMaster("SPI1").write(spi.CR1, 4, control)
    assert caught.value.hint
