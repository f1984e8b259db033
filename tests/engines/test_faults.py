"""What a fault leaves in the registers that people look at, and what is an error instead.

Most of this is about the embedded engine alone. Renode 1.16 records no bus fault in CFSR and BFAR,
no BKPT in HFSR, and goes on from a branch to an even address, from unprivileged accesses and from a
vector table outside memory as if nothing had happened.
"""

import pytest

from otasim.engines import EMBEDDED
from platforms.clock import NS_PER_MS
from platforms.devices.device_signature import UNIQUE_ID_BYTES
from platforms.devices.peripheral import UnsupportedHardwareError
from platforms.engines.address_map import is_executable, unmodelled_region
from platforms.engines.protocol import FaultKind, ProcessorFault
from tests.engines.bench import CODE, RAM, Bench, MakeBench
from tests.engines.registers import (
    BFAR,
    CCR,
    CFSR,
    CPACR,
    DFSR,
    ENABLE_FPU,
    HFSR,
    ICSR,
    PROGRAM_WORDS,
    SHCSR,
    SHPR2,
    UNLOCK,
    VTOR,
    systick_every,
)
from tests.engines.thumb import (
    BX_LR,
    CONTROL,
    PSP,
    SELF,
    SVC,
    VMOV_ONE,
    WFI,
    add_one,
    fetch,
    halfwords,
    jump,
    keep,
    load,
    load_constant,
    move,
    put,
    store,
    write_special,
)

FORCED, VECTTBL, DEBUGEVT = 1 << 30, 1 << 1, 1 << 31
STKERR, UNSTKERR, IBUSERR, IACCVIOL, INVSTATE = 1 << 12, 1 << 11, 1 << 8, 1 << 0, 1 << 17
PRECISERR, BFARVALID = 1 << 9, 1 << 15

# A handler that stores CFSR, HFSR and BFAR at the start of RAM, by way of r4 to r6.
RECORD = (
    load_constant(4, CFSR) + load_constant(5, RAM)
    + load(6, 4) + put(6, 5) + load(6, 4, HFSR - CFSR) + put(6, 5, 4)
    + load(6, 4, BFAR - CFSR) + put(6, 5, 8) + SELF
)  # fmt: skip


def run(code: bytes, handlers: dict[int, bytes] | None = None) -> Bench:
    bench = Bench(EMBEDDED, code, {3: RECORD} | (handlers or {}))
    bench.run(NS_PER_MS)
    return bench


def the_fault(bench: Bench) -> ProcessorFault:
    (fault,) = bench.faults
    return fault


# -- faults ---------------------------------------------------------------------------------------


def test_bfar_holds_the_address_of_a_failed_access() -> None:
    bench = run(load_constant(0, 0x3000_0008) + load(1, 0) + SELF)
    assert bench.word(RAM) == PRECISERR | BFARVALID
    assert bench.word(RAM + 4) == FORCED
    assert bench.word(RAM + 8) == 0x3000_0008


@pytest.mark.parametrize("address", [0x4000_0000, 0xE000_E000, 0xA800_0000, 0xF000_0000])
def test_a_jump_to_where_code_never_stands_is_a_memory_management_fault(address: int) -> None:
    # Renode fetches instructions from its peripherals.
    bench = run(jump(address | 1))
    fault = the_fault(bench)
    assert (fault.kind, fault.program_counter) == (FaultKind.EXECUTE_NEVER, address)
    assert fault.exception == 3
    assert (bench.word(RAM), bench.word(RAM + 4)) == (IACCVIOL, FORCED)


def test_a_memory_management_fault_goes_to_its_own_handler_when_enabled() -> None:
    bench = run(store(1 << 16, SHCSR) + jump(0x4000_0001), {4: RECORD})
    assert the_fault(bench).exception == 4
    assert (bench.word(RAM), bench.word(RAM + 4)) == (IACCVIOL, 0)


def test_an_exception_return_outside_an_exception_is_a_wild_jump() -> None:
    fault = the_fault(run(jump(0xFFFF_FFF9)))
    assert fault.kind is FaultKind.EXECUTE_NEVER


def test_a_branch_to_an_even_address_is_an_invalid_state() -> None:
    bench = run(jump(CODE + 0x100))
    fault = the_fault(bench)
    assert (fault.kind, fault.program_counter) == (FaultKind.INVALID_STATE, CODE + 0x100)
    assert (bench.word(RAM), bench.word(RAM + 4)) == (INVSTATE, FORCED)


def test_a_return_to_such_a_place_faults_again() -> None:
    # The handler returns twice to the even address before it gives up.
    handler = add_one(RAM) + halfwords(0x2903, 0xBF18) + BX_LR + SELF  # cmp r1, #3; it ne
    bench = Bench(EMBEDDED, jump(CODE + 0x100), {3: handler})
    bench.run(NS_PER_MS)
    assert [fault.kind for fault in bench.faults] == 3 * [FaultKind.INVALID_STATE]


def test_a_breakpoint_without_a_debugger_shows_in_hfsr_and_dfsr() -> None:
    look = fetch(1, DFSR) + keep(1, RAM + 12) + store(2, DFSR) + fetch(1, DFSR) + keep(1, RAM + 16)
    bench = run(halfwords(0xBE00), {3: look + RECORD})
    assert the_fault(bench).kind is FaultKind.BREAKPOINT
    assert bench.word(RAM + 4) == DEBUGEVT
    assert (bench.word(RAM + 12), bench.word(RAM + 16)) == (2, 0)


def test_a_stack_overflow_at_exception_entry_names_the_stack() -> None:
    # MSP stands 8 bytes above the beginning of RAM when SVC comes.
    handler = load_constant(4, CFSR) + load(6, 4) + load_constant(5, RAM + 0x100) + put(6, 5) + SELF
    bench = Bench(EMBEDDED, jump_to_svc_with_stack(RAM + 8), {3: handler})
    bench.run(NS_PER_MS)
    fault = the_fault(bench)
    assert (fault.kind, fault.exception) == (FaultKind.STACKING, 3)
    assert fault.address == RAM + 8 - 32
    assert "stack" in fault.kind.value
    assert bench.word(RAM + 0x100) == STKERR


def jump_to_svc_with_stack(stack: int) -> bytes:
    return load_constant(0, stack) + halfwords(0x4685) + SVC + SELF  # mov sp, r0


def test_an_overflow_of_the_process_stack_leaves_the_handler_a_good_one() -> None:
    code = load_constant(0, 0x3000_0000) + write_special(PSP, 0)
    code += move(0, 2) + write_special(CONTROL, 0) + SVC + SELF
    bench = run(code, {3: halfwords(0xB410) + RECORD})  # push {r4}
    assert the_fault(bench).kind is FaultKind.STACKING
    assert (bench.word(RAM), bench.word(RAM + 4)) == (STKERR, FORCED)


def test_a_bus_fault_handler_takes_the_overflow_and_the_exception_waits() -> None:
    # BusFault is enabled and more urgent than SVCall, which comes when it has returned.
    code = store(1 << 17, SHCSR) + store(0x80 << 24, SHPR2)
    code += load_constant(0, 0x3000_0000) + write_special(PSP, 0)
    code += move(0, 2) + write_special(CONTROL, 0) + SVC + SELF
    good_frame = load_constant(0, RAM + 0x800 - 32) + write_special(PSP, 0)
    good_frame += load_constant(1, CODE + 0x201) + put(1, 0, 24)
    good_frame += load_constant(1, 1 << 24) + put(1, 0, 28)
    bench = Bench(EMBEDDED, code, {5: good_frame + add_one(RAM) + BX_LR,
                                   11: add_one(RAM + 4) + SELF})  # fmt: skip
    bench.run(NS_PER_MS)
    fault = the_fault(bench)
    assert (fault.kind, fault.exception) == (FaultKind.STACKING, 5)
    assert (bench.word(RAM), bench.word(RAM + 4)) == (1, 1)


def test_a_stack_lost_in_a_handler_is_a_fault_at_its_return() -> None:
    bench = Bench(EMBEDDED, SVC + SELF, {11: load_constant(0, 0x3000_0000) + halfwords(0x4685)
                                         + BX_LR})  # fmt: skip
    bench.run(NS_PER_MS)
    assert bench.faults[0].kind is FaultKind.UNSTACKING
    assert bench.faults[0].address == 0x3000_0000


def test_a_vector_table_outside_memory_is_a_vecttbl_hard_fault_and_then_lock_up() -> None:
    bench = Bench(EMBEDDED, store(0x3000_0000, VTOR) + SVC + SELF)
    bench.run(NS_PER_MS)
    assert [(fault.kind, fault.exception) for fault in bench.faults] == [
        (FaultKind.INVALID_VECTOR, 3),
        (FaultKind.INVALID_VECTOR, None),
    ]


@pytest.mark.parametrize("access", [load(1, 0), put(1, 0)], ids=["load", "store"])
def test_unprivileged_code_may_not_touch_the_system_s_registers(access: bytes) -> None:
    code = move(2, 1) + write_special(CONTROL, 2) + load_constant(0, VTOR) + access + SELF
    bench = run(code)
    assert the_fault(bench).program_counter == CODE + 14
    assert bench.word(RAM) == PRECISERR | BFARVALID
    assert bench.word(RAM + 8) == VTOR


def test_handlers_of_unprivileged_code_are_privileged(make_bench: MakeBench) -> None:
    code = move(2, 1) + write_special(CONTROL, 2) + SVC + SELF
    bench = make_bench(code, {11: fetch(2, ICSR) + keep(2, RAM) + BX_LR})
    bench.run(NS_PER_MS)
    assert bench.faults == []
    assert bench.word(RAM) & 0x1FF == 11


# -- what the real chip has and this board has not ------------------------------------------------


def test_the_unique_id_and_the_flash_size_can_be_read() -> None:
    # Renode has nothing there.
    code = b"".join(fetch(1, 0x1FFF_7A10 + 4 * n) + keep(1, RAM + 4 * n) for n in range(3))
    code += load_constant(0, 0x1FFF_7A22) + halfwords(0x8801) + keep(1, RAM + 12)  # ldrh r1, [r0]
    bench = Bench(EMBEDDED, code + fetch(1, 0x1FFF_7800) + keep(1, RAM + 16) + SELF)
    bench.run(NS_PER_MS)
    assert bench.engine.read_memory(RAM, 12) == UNIQUE_ID_BYTES
    assert bench.word(RAM + 12) == 1024  # KB
    assert bench.word(RAM + 16) == 0xFFFF_FFFF


@pytest.mark.parametrize(
    ("address", "named"),
    [
        (0x1FFF_0000, "boot loader in system memory"),
        (0x1FFF_7000, "boot loader in system memory"),
        (0x1FFF_C000, "option bytes"),
        (0x2200_0000, "bit-band alias of the RAM"),
        (0x4240_8000, "bit-band alias of the peripherals"),
        (0x6000_0000, "FSMC"),
        (0xA000_0000, "FSMC"),
    ],
)
@pytest.mark.parametrize("handled", [False, True], ids=["", "bus-fault-handler"])
def test_parts_of_the_real_chip_are_errors_that_name_address_and_remedy(
    address: int, named: str, handled: bool
) -> None:
    enable = store(1 << 17, SHCSR) if handled else b""
    bench = Bench(EMBEDDED, enable + fetch(1, address) + SELF, {5: SELF})
    with pytest.raises(UnsupportedHardwareError, match=named) as caught:
        bench.run(NS_PER_MS)
    assert caught.value.address == address
    assert caught.value.program_counter == CODE + len(enable) + 8
    assert f"0x{address:08x}" in str(caught.value)
    assert bench.faults == []


@pytest.mark.parametrize("address", [0x1FFE_0000, 0x1000_FFFF + 1, 0x2002_0000, 0x2240_0000])
def test_reserved_addresses_are_bus_faults_that_firmware_may_probe(
    make_bench: MakeBench, address: int
) -> None:
    assert unmodelled_region(address) is None
    bench = make_bench(fetch(1, address) + SELF)
    bench.run(NS_PER_MS)
    assert the_fault(bench).kind is FaultKind.UNMAPPED_READ


def test_only_code_and_ram_and_external_memory_can_be_executed() -> None:
    can = [start for start in range(0, 1 << 32, 1 << 29) if is_executable(start)]
    assert can == [0, 0x2000_0000, 0x6000_0000, 0x8000_0000]


@pytest.mark.parametrize(
    ("value", "named"),
    [(0x210, "DIV_0_TRP"), (0x208, "UNALIGN_TRP"), (0, "STKALIGN")],
)
def test_settings_that_the_processor_cannot_follow_are_errors(value: int, named: str) -> None:
    bench = Bench(EMBEDDED, store(value, CCR) + SELF)
    with pytest.raises(UnsupportedHardwareError, match=named) as caught:
        bench.run(NS_PER_MS)
    assert caught.value.address == CCR


@pytest.mark.parametrize(
    "end", [SVC + SELF, SELF, systick_every(16) + WFI + SELF], ids=["exception", "loop", "sleep"]
)
def test_the_fpu_used_while_it_is_off_is_an_error(end: bytes) -> None:
    bench = Bench(EMBEDDED, VMOV_ONE + end, {11: BX_LR})
    with pytest.raises(UnsupportedHardwareError, match="NOCP") as caught:
        bench.run(NS_PER_MS)
    assert caught.value.address == CPACR


def test_the_fpu_switched_off_after_use_is_an_error() -> None:
    code = ENABLE_FPU + VMOV_ONE + store(0, CPACR) + SELF
    with pytest.raises(UnsupportedHardwareError, match="leave it on"):
        Bench(EMBEDDED, code).run(NS_PER_MS)


def test_stores_to_flash_of_several_words_or_across_words_reach_the_model() -> None:
    target = 0x0804_0000
    words = load_constant(0, target) + load_constant(1, 0x1111_1111) + load_constant(2, 0x2222_2222)
    multiple = PROGRAM_WORDS + words + halfwords(0xC006)  # stm r0!, {r1, r2}
    bench = Bench(EMBEDDED, UNLOCK + multiple + SELF)
    bench.run(NS_PER_MS)
    assert (bench.word(target), bench.word(target + 4)) == (0x1111_1111, 0x2222_2222)
