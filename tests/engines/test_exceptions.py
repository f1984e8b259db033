"""Exceptions, masks, events and sleep, on every engine where it does as silicon does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otasim.engines import EMBEDDED, RENODE
from platforms.clock import NS_PER_MS, NS_PER_US
from platforms.devices.interrupt_controller import ICPR, ISER, InterruptController
from platforms.devices.system_control import SCR_SEVONPEND, SCR_SLEEPONEXIT
from platforms.engines.embedded import it_block
from platforms.engines.embedded.code_scan import scan
from platforms.engines.protocol import FaultKind
from tests.engines.bench import CODE, RAM, Bench, MakeBench
from tests.engines.registers import (
    ENABLE_FPU,
    NVIC_ICPR,
    NVIC_ISER,
    NVIC_ISPR,
    PEND,
    SCR,
    SHPR3,
    USART_CR1,
    USART_DR,
    systick_every,
)
from tests.engines.thumb import (
    BARRIERS,
    BASEPRI,
    BX_LR,
    CONTROL,
    CPSID_F,
    CPSID_I,
    CPSIE_I,
    FAULTMASK,
    IPSR,
    MSP,
    NOP,
    PRIMASK,
    PSP,
    SELF,
    SEV,
    SVC,
    VMOV_ONE,
    WFE,
    WFE_WIDE,
    WFI,
    add_one,
    fetch,
    halfwords,
    jump,
    keep,
    load_constant,
    move,
    read_special,
    store,
    write_special,
)

SYSTICK = systick_every(16_000)
MARK = add_one(RAM + 4)


# -- masks ----------------------------------------------------------------------------------------

MASKS = pytest.mark.parametrize(
    ("close", "open_"),
    [
        (CPSID_I, CPSIE_I),
        (CPSID_F, b"\x61\xb6"),
        (move(2, 1) + write_special(PRIMASK, 2), move(2, 0) + write_special(PRIMASK, 2)),
        (move(2, 1) + write_special(FAULTMASK, 2), move(2, 0) + write_special(FAULTMASK, 2)),
        (move(2, 16) + write_special(BASEPRI, 2), move(2, 0) + write_special(BASEPRI, 2)),
    ],
    ids=["cpsie-i", "cpsie-f", "primask", "faultmask", "basepri"],
)


def _window(close: bytes, open_: bytes) -> bytes:
    """Pend PendSV (priority 0x80) behind a mask, open the mask for two instructions, look."""
    isb = BARRIERS[4:]
    priority = store(0x80 << 16, SHPR3)
    return (
        priority + close + PEND + BARRIERS + fetch(5, RAM) + open_ + isb + close
        + fetch(6, RAM) + keep(5, RAM + 4) + keep(6, RAM + 8) + SELF
    )  # fmt: skip


@MASKS
def test_a_pending_exception_comes_as_soon_as_it_is_unmasked(
    engine: str, make_bench: MakeBench, close: bytes, open_: bytes
) -> None:
    if engine == RENODE and close in (CPSID_F, move(2, 1) + write_special(FAULTMASK, 2)):
        pytest.skip("Renode 1.16 never takes what became pending under FAULTMASK")
    bench = make_bench(_window(close, open_), {14: add_one(RAM) + BX_LR})
    bench.run(NS_PER_MS)
    assert [bench.word(RAM + 4 * n) for n in range(3)] == [1, 0, 1]


@MASKS
def test_that_holds_for_code_in_ram(close: bytes, open_: bytes) -> None:
    bench = Bench(EMBEDDED, jump(RAM + 0x801), {14: add_one(RAM) + BX_LR})
    bench.engine.write_memory(RAM + 0x800, _window(close, open_))
    bench.run(NS_PER_MS)
    assert [bench.word(RAM + 4 * n) for n in range(3)] == [1, 0, 1]


def test_code_in_ram_is_seen_although_what_follows_ran_before() -> None:
    # Entered behind the MSR; the second time round it comes by way of it.
    loop = write_special(BASEPRI, 2) + read_special(3, BASEPRI)
    loop += halfwords(0x3701, 0x2F02, 0xD1F8)  # adds r7, #1; cmp r7, #2; bne to the MSR
    enter = move(2, 5) + jump(RAM + 0x805)
    bench = Bench(EMBEDDED, enter)
    bench.engine.write_memory(RAM + 0x800, loop + keep(3, RAM) + SELF)
    bench.engine.write_memory(RAM, b"\xff" * 4)
    bench.run(NS_PER_MS)
    assert bench.engine.registers()["r7"] == 2
    assert bench.word(RAM) == 0


@pytest.mark.parametrize("phase", [0, 2])
@pytest.mark.parametrize("order", [1, -1], ids=["forward", "backward"])
def test_masks_written_in_flash_that_changed_are_seen_too(phase: int, order: int) -> None:
    # The code grows behind a loop on the spot in words that split instructions, then runs.
    bench = Bench(EMBEDDED, SELF, {14: add_one(RAM) + BX_LR})
    basepri = move(2, 16) + write_special(BASEPRI, 2), move(2, 0) + write_special(BASEPRI, 2)
    code = _window(*basepri)

    def write(address: int, data: bytes) -> None:
        bench.change_flash(address, data)
        bench.run(NS_PER_US)  # what changed is looked at piece by piece

    for start in range(-phase, len(code), 4)[::order]:
        first = max(start, 0)
        write(CODE + 4 + first, code[first : start + 4])
    write(CODE, NOP + NOP)
    bench.run(NS_PER_MS)
    assert [bench.word(RAM + 4 * n) for n in range(3)] == [1, 0, 1]


def test_bits_that_the_priorities_lack_mask_nothing() -> None:
    # Renode keeps all eight bits of BASEPRI.
    code = move(2, 5) + write_special(BASEPRI, 2) + read_special(3, BASEPRI) + PEND + BARRIERS
    bench = Bench(EMBEDDED, code + keep(3, RAM + 4) + SELF, {14: add_one(RAM) + BX_LR})
    bench.run(NS_PER_MS)
    assert (bench.word(RAM), bench.word(RAM + 4)) == (1, 0)


def test_leaving_an_exception_clears_faultmask(make_bench: MakeBench) -> None:
    # PendSV sets FAULTMASK and returns; ARMv7-M ARM B1.5.8.
    code = PEND + BARRIERS + read_special(2, FAULTMASK) + keep(2, RAM + 8) + PEND + BARRIERS + SELF
    handler = add_one(RAM) + CPSID_F + read_special(2, FAULTMASK) + keep(2, RAM + 4) + BX_LR
    bench = make_bench(code, {14: handler})
    bench.run(NS_PER_MS)
    assert [bench.word(RAM + 4 * n) for n in range(3)] == [2, 1, 0]


def test_a_reset_while_unprivileged_begins_privileged() -> None:
    code = move(2, 3) + write_special(CONTROL, 2) + SELF
    bench = Bench(EMBEDDED, code)
    bench.run(NS_PER_MS)
    bench.restart(program_counter=CODE)
    bench.change_flash(CODE, read_special(2, CONTROL) + keep(2, RAM) + SELF)
    bench.engine.write_memory(RAM, b"\xff" * 4)
    bench.run(NS_PER_MS)
    assert bench.word(RAM) == 0


# -- frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", [RAM + 0x800, RAM + 0x804])
def test_the_stack_pointer_comes_back_from_an_aligned_frame(
    make_bench: MakeBench, stack: int
) -> None:
    code = load_constant(0, stack) + halfwords(0x4685) + SVC + halfwords(0x466A)  # mov sp, r0 ...
    in_handler = halfwords(0x466A) + keep(2, RAM) + BX_LR  # mov r2, sp
    bench = make_bench(code + keep(2, RAM + 4) + SELF, {11: in_handler})
    bench.run(NS_PER_MS)
    assert bench.word(RAM) % 8 == 0
    assert bench.word(RAM + 4) == stack


def test_thread_mode_on_the_process_stack_gets_its_stack_back(make_bench: MakeBench) -> None:
    process_stack = RAM + 0x800
    code = load_constant(0, process_stack) + write_special(PSP, 0)
    code += move(0, 2) + write_special(CONTROL, 0) + BARRIERS[4:]
    code += SVC + halfwords(0x466A) + keep(2, RAM)  # mov r2, sp
    code += read_special(2, CONTROL) + keep(2, RAM + 4) + SELF
    handler = halfwords(0x4672) + keep(2, RAM + 8)  # mov r2, lr
    handler += read_special(2, PSP) + keep(2, RAM + 12)
    handler += read_special(2, MSP) + keep(2, RAM + 16)
    handler += read_special(2, IPSR) + keep(2, RAM + 20) + BX_LR
    bench = make_bench(code, {11: handler})
    bench.run(NS_PER_MS)
    words = [bench.word(RAM + 4 * n) for n in range(6)]
    assert words == [process_stack, 2, 0xFFFF_FFFD, process_stack - 32, RAM + 0x1000, 11]


def test_a_handler_starts_without_floating_point_context(make_bench: MakeBench) -> None:
    code = ENABLE_FPU + VMOV_ONE + SVC + SELF
    handler = read_special(2, CONTROL) + keep(2, RAM) + halfwords(0x4672) + keep(2, RAM + 4)
    bench = make_bench(code, {11: handler + BX_LR})
    bench.run(NS_PER_MS)
    assert (bench.word(RAM), bench.word(RAM + 4)) == (0, 0xFFFF_FFE9)


def test_the_flags_of_simd_instructions_survive_an_exception() -> None:
    # sadd8 r2, r2, r2 of zeros sets GE; the handler clears it: uadd8 of zeros; then sel r2, r3, r4.
    # Renode 1.16 loses GE.
    code = move(2, 0) + halfwords(0xFA82, 0xF202) + SVC + move(3, 7) + move(4, 9)
    code += halfwords(0xFAA3, 0xF284) + keep(2, RAM) + SELF
    bench = Bench(EMBEDDED, code, {11: move(2, 0) + halfwords(0xFA82, 0xF242) + BX_LR})
    bench.run(NS_PER_MS)
    assert bench.word(RAM) == 7


# -- sleep and events -----------------------------------------------------------------------------


def test_sleep_on_exit_never_comes_back_to_thread_mode(make_bench: MakeBench) -> None:
    code = store(SCR_SLEEPONEXIT, SCR) + SYSTICK + WFI + MARK + SELF
    bench = make_bench(code, {15: add_one(RAM) + BX_LR})
    bench.run(5 * NS_PER_MS + NS_PER_MS // 2)
    assert (bench.word(RAM), bench.word(RAM + 4)) == (5, 0)


@pytest.mark.parametrize(
    "event",
    [
        SEV,
        b"\xaf\xf3\x04\x80",  # sev.w
        SVC,
        store(SCR_SEVONPEND, SCR) + store(2, NVIC_ISPR),
    ],
    ids=["sev", "sev.w", "exception", "sevonpend"],
)
@pytest.mark.parametrize("wait", [WFE, WFE_WIDE], ids=["wfe", "wfe.w"])
def test_an_event_lets_one_wfe_pass(event: bytes, wait: bytes) -> None:
    # Renode 1.16 has no event register: its WFE waits for an interrupt.
    rounds = 2 * (event + wait + MARK)
    bench = Bench(EMBEDDED, store(0, RAM) + rounds + wait + MARK + SELF, {11: BX_LR})
    bench.run(NS_PER_MS)
    if event.startswith(store(SCR_SEVONPEND, SCR)):
        assert bench.word(RAM + 4) == 1  # pending already: no event the second time
    else:
        assert bench.word(RAM + 4) == 2


def test_entry_and_return_of_an_exception_are_an_event_each() -> None:
    handler = WFE + add_one(RAM) + BX_LR
    bench = Bench(EMBEDDED, SVC + WFE + MARK + WFE + MARK + SELF, {11: handler})
    bench.run(NS_PER_MS)
    assert (bench.word(RAM), bench.word(RAM + 4)) == (1, 1)


def test_wfe_ends_with_an_interrupt_that_is_taken(make_bench: MakeBench) -> None:
    bench = make_bench(SYSTICK + WFE + MARK + SELF, {15: add_one(RAM) + BX_LR})
    bench.run(NS_PER_MS // 2)
    assert bench.word(RAM + 4) == 0
    bench.run(NS_PER_MS)
    assert (bench.word(RAM), bench.word(RAM + 4)) == (1, 1)


def test_primask_holds_wfe_but_not_wfi(make_bench: MakeBench) -> None:
    # B1.5.18, B1.5.19. Without SEVONPEND a masked interrupt is no event.
    for wait, passed in ((WFI, 1), (WFE, 0)):
        bench = make_bench(CPSID_I + SYSTICK + wait + MARK + SELF)
        bench.run(3 * NS_PER_MS)
        assert bench.word(RAM + 4) == passed


@pytest.mark.parametrize("wait", [WFI, WFE], ids=["wfi", "wfe"])
def test_a_conditional_wait_waits_when_its_condition_holds(
    make_bench: MakeBench, wait: bytes
) -> None:
    for value, passed in ((1, 1), (0, 0)):
        code = move(2, value) + halfwords(0x2A00, 0xBF04) + wait + move(3, 1)  # cmp; itt eq
        bench = make_bench(code + MARK + SELF)
        bench.run(NS_PER_MS)
        assert bench.word(RAM + 4) == passed


@given(st.integers(0, 15), st.integers(0, 15))
def test_conditions_are_those_of_the_manual(condition: int, nzcv: int) -> None:
    n, z, c, v = (bool(nzcv >> bit & 1) for bit in (3, 2, 1, 0))
    named = {
        0: z, 1: not z, 2: c, 3: not c, 4: n, 5: not n, 6: v, 7: not v,
        8: c and not z, 9: not c or z, 10: n == v, 11: n != v,
        12: not z and n == v, 13: z or n != v, 14: True, 15: True,
    }  # fmt: skip
    assert it_block.is_met(condition, nzcv << 28) == named[condition]


def test_the_last_condition_of_an_it_block() -> None:
    zero = 1 << 30
    assert it_block.last_condition_of(0xBF08, 1, zero)  # it eq
    assert not it_block.last_condition_of(0xBF08, 1, 0)
    assert not it_block.last_condition_of(0xBF08, 2, zero)  # not the last one
    assert it_block.last_condition_of(0xBF0C, 2, 0)  # ite eq
    assert not it_block.last_condition_of(0xBF0C, 2, zero)
    assert it_block.last_condition_of(0xBF06, 3, 0)  # itte eq
    assert not it_block.last_condition_of(0xBF00, 4, zero)  # nop


# -- the NVIC -------------------------------------------------------------------------------------


def test_clearing_one_interrupt_leaves_the_lines_of_others_alone(make_bench: MakeBench) -> None:
    # USART2 (line 38) interrupts for a byte; its handler clears interrupt 0, then reads the byte.
    enable = store(0x202C, USART_CR1) + store(1 << 6, NVIC_ISER + 4)  # UE, TE, RE, RXNEIE
    handler = add_one(RAM) + store(1, NVIC_ICPR) + fetch(2, USART_DR) + BX_LR
    bench = make_bench(enable + SELF, {16 + 38: handler})
    bench.run(NS_PER_MS)
    assert bench.engine.uart_input(b"x") == 1
    bench.run(NS_PER_MS)
    assert bench.word(RAM) == 1


@given(st.sets(st.integers(0, 31)), st.sets(st.integers(0, 31)), st.integers(0, 0xFFFF_FFFF))
def test_nvic_clears_what_is_pending_but_no_line_that_is_high(
    high: set[int], serviced: set[int], cleared: int
) -> None:
    controller = InterruptController()
    controller.write(ISER, 4, 0xFFFF_FFFF)
    for line in high:
        controller.set_line(line, True)
    for line in serviced:
        controller.activate(16 + line)
    before = controller.pending
    controller.write(ICPR, 4, cleared)
    assert controller.pending == before  # nothing was pending but lines that are high
    for line in range(32):
        controller.pend(16 + line)
    controller.write(ICPR, 4, cleared)
    for line in range(32):
        held = line in high and line not in serviced
        assert controller.pending >> 16 + line & 1 == (held or not cleared >> line & 1)


# -- what is looked for in code -------------------------------------------------------------------


@given(st.binary(max_size=64), st.sampled_from([0, 2, 0x1_0000]))
def test_unmasking_instructions_are_found_wherever_they_stand(around: bytes, offset: int) -> None:
    around = around[: len(around) & ~1]
    for instruction in (CPSIE_I, write_special(BASEPRI, 7), write_special(CONTROL, 0)):
        found = scan(around + instruction + around, offset)
        assert offset + len(around) + len(instruction) in found.after_mask_writes
    assert offset + len(around) in scan(around + SEV + around, offset).events
    assert offset + len(around) in scan(around + WFE_WIDE + around, offset).waits


def test_other_instructions_are_not_taken_for_them() -> None:
    content = CPSID_I + write_special(PSP, 0) + WFI + BARRIERS + b"\xff" * 64
    found = scan(content, 0)
    assert not found.after_mask_writes
    assert not found.events
    assert not found.waits


def test_an_undefined_instruction_behind_a_wfe_is_no_wait() -> None:
    # b over the WFE; a slice begins on the undefined instruction (0xba80 is reserved).
    bench = Bench(EMBEDDED, halfwords(0xE000) + WFE + halfwords(0xBA80))
    bench.run(1)
    bench.run(NS_PER_MS)
    assert [fault.kind for fault in bench.faults] == [FaultKind.UNDEFINED_INSTRUCTION]
