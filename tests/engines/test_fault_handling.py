"""Faults as firmware sees them, on every engine: the handler runs, and its registers say why."""

import pytest

from platforms.clock import NS_PER_MS
from platforms.engines.protocol import FaultKind
from tests.engines.bench import CODE, RAM, Bench, MakeBench
from tests.engines.registers import BFAR, CFSR, HFSR, SHCSR, SHPR3, systick_every
from tests.engines.thumb import BARRIERS, BX_LR, CPSID_I, SELF, add_one, jump, load_constant, store

HARD_FAULT, BUS_FAULT, SYSTICK = 3, 5, 15
STACKED, STATUS = RAM + 0x10, RAM + 0x20
FORCED = 1 << 30
PRECISE, INSTRUCTION = 1 << 9 | 1 << 15, 1 << 8
NOWHERE = 0x3000_0000

LOAD = load_constant(0, NOWHERE) + b"\x01\x68"  # ldr r1, [r0]
BAD_INSTRUCTION = b"\x01\xde"  # udf 1


def copy(source: int, target: int) -> bytes:
    """Copy a word by way of r0, r1."""
    return load_constant(0, source) + b"\x01\x68" + load_constant(0, target) + b"\x01\x60"


# A handler's code: ldr r1, [sp, #24] (the stacked PC); store it; count.
NOTE = b"\x06\x99" + load_constant(0, STACKED) + b"\x01\x60" + add_one(RAM)


def run_twice(bench: Bench) -> None:
    """Two runs: a processor that has given up shows it in the second one."""
    bench.run(NS_PER_MS)
    bench.run(20 * NS_PER_MS)


@pytest.mark.parametrize(
    "address",
    [NOWHERE, 0x6000_0000, 0x2002_0000],
    ids=["hole", "external", "behind the RAM"],
)
def test_a_jump_into_nowhere_runs_the_hard_fault_handler(
    make_bench: MakeBench, address: int
) -> None:
    bench = make_bench(jump(address | 1), {HARD_FAULT: NOTE + SELF})
    bench.engine.write_memory(RAM, bytes(4))
    run_twice(bench)
    (fault,) = bench.faults
    assert (fault.kind, fault.program_counter, fault.address, fault.exception) == (
        FaultKind.UNMAPPED_FETCH,
        address,
        address,
        HARD_FAULT,
    )
    assert (bench.word(RAM), bench.word(STACKED)) == (1, address)
    assert bench.clock.now_ns == 21 * NS_PER_MS


@pytest.mark.parametrize(
    ("code", "kind", "status", "address"),
    [
        (LOAD, FaultKind.UNMAPPED_READ, PRECISE, NOWHERE),
        (store(1, NOWHERE), FaultKind.UNMAPPED_WRITE, PRECISE, NOWHERE),
        (jump(NOWHERE | 1), FaultKind.UNMAPPED_FETCH, INSTRUCTION, None),
        (BAD_INSTRUCTION, FaultKind.UNDEFINED_INSTRUCTION, 1 << 16, None),
    ],
    ids=["read", "write", "jump", "undefined"],
)
def test_the_fault_registers_say_what_it_was(
    make_bench: MakeBench, code: bytes, kind: FaultKind, status: int, address: int | None
) -> None:
    for register, expected in ((CFSR, status), (HFSR, FORCED), (BFAR, address)):
        bench = make_bench(code + SELF, {HARD_FAULT: copy(register, STATUS) + add_one(RAM) + SELF})
        bench.engine.write_memory(RAM, bytes(4))
        run_twice(bench)
        assert [fault.kind for fault in bench.faults] == [kind]
        assert bench.word(RAM) == 1
        if expected is not None:
            assert bench.word(STATUS) == expected


def test_hard_fault_status_is_cleared_by_writing_ones(make_bench: MakeBench) -> None:
    handler = store(FORCED, HFSR) + copy(HFSR, STATUS) + SELF
    bench = make_bench(LOAD + SELF, {HARD_FAULT: handler})
    bench.engine.write_memory(STATUS, b"\xff\xff\xff\xff")
    run_twice(bench)
    assert bench.word(STATUS) == 0


@pytest.mark.parametrize(
    "code",
    [
        load_constant(0, NOWHERE) + b"\x0e\xc8",  # ldmia r0!, {r1, r2, r3}
        load_constant(0, NOWHERE) + b"\x0e\xc0",  # stmia r0!, {r1, r2, r3}
        load_constant(0, NOWHERE) + b"\xc0\xe9\x00\x12",  # strd r1, r2, [r0]
    ],
    ids=["ldm", "stm", "strd"],
)
def test_an_instruction_with_several_accesses_faults_once_and_nothing_behind_it_happens(
    make_bench: MakeBench, code: bytes
) -> None:
    bench = make_bench(code + store(1, RAM + 4) + SELF, {HARD_FAULT: NOTE + SELF})
    bench.engine.write_memory(RAM, bytes(8))
    run_twice(bench)
    assert [(fault.address, fault.program_counter) for fault in bench.faults] == [
        (NOWHERE, CODE + 8)
    ]
    assert (bench.word(RAM), bench.word(RAM + 4), bench.word(STACKED)) == (1, 0, CODE + 8)


def test_a_fault_is_taken_with_interrupts_masked(make_bench: MakeBench) -> None:
    unmasked = b"\xef\xf3\x10\x81" + load_constant(0, STATUS) + b"\x01\x60"  # mrs r1, primask
    bench = make_bench(CPSID_I + LOAD + SELF, {HARD_FAULT: unmasked + add_one(RAM) + SELF})
    bench.engine.write_memory(RAM, bytes(4))
    run_twice(bench)
    assert len(bench.faults) == 1
    assert (bench.word(RAM), bench.word(STATUS)) == (1, 1)


@pytest.mark.parametrize("code", [LOAD, BAD_INSTRUCTION], ids=["read", "undefined"])
def test_a_fault_in_an_interrupt_handler_is_taken_at_once_and_can_be_left(
    make_bench: MakeBench, code: bytes
) -> None:
    # The handler steps over the instruction: stacked PC + 2.
    step_over = b"\x06\x99\x02\x31\x06\x91"  # ldr r1, [sp, #24]; adds r1, #2; str r1, [sp, #24]
    bench = make_bench(
        systick_every(16_000) + copy(SHPR3, STATUS) + b"\xf7\xe7",  # b copy
        {
            HARD_FAULT: step_over + add_one(RAM) + BX_LR,
            SYSTICK: code + add_one(RAM + 4) + BX_LR,
            6: step_over + BX_LR,
        },
    )
    bench.engine.write_memory(RAM, bytes(8))
    bench.run(10 * NS_PER_MS + NS_PER_MS // 2)
    assert {fault.exception for fault in bench.faults} == {HARD_FAULT}
    if code == LOAD:
        assert (bench.word(RAM), bench.word(RAM + 4), len(bench.faults)) == (10, 10, 10)
        assert bench.word(STATUS) >> 24 == 0  # SysTick's priority is what it was


def test_an_enabled_bus_fault_takes_its_own_exception_unless_it_may_not(
    make_bench: MakeBench,
) -> None:
    enable = store(1 << 17, SHCSR)
    bench = make_bench(enable + LOAD + SELF, {BUS_FAULT: NOTE + SELF})
    run_twice(bench)
    assert [fault.exception for fault in bench.faults] == [BUS_FAULT]
    bench = make_bench(enable + CPSID_I + LOAD + SELF, {HARD_FAULT: NOTE + SELF})
    run_twice(bench)
    assert [fault.exception for fault in bench.faults] == [HARD_FAULT]


@pytest.mark.parametrize(
    "code", [LOAD, BAD_INSTRUCTION, jump(NOWHERE | 1)], ids=["read", "undefined", "jump"]
)
def test_a_fault_in_the_hard_fault_handler_locks_up_until_a_reset(
    make_bench: MakeBench, code: bytes
) -> None:
    bench = make_bench(code + SELF, {HARD_FAULT: code + SELF})
    run_twice(bench)
    assert [fault.exception for fault in bench.faults] == [HARD_FAULT, None]
    assert bench.clock.now_ns == 21 * NS_PER_MS
    bench.faults.clear()
    bench.restart()
    run_twice(bench)
    assert [fault.exception for fault in bench.faults] == [HARD_FAULT, None]


def test_a_supervisor_call_that_is_blocked_is_a_hard_fault(make_bench: MakeBench) -> None:
    bench = make_bench(CPSID_I + b"\x05\xdf" + SELF, {HARD_FAULT: NOTE + SELF})
    bench.engine.write_memory(RAM, bytes(4))
    run_twice(bench)
    assert [(fault.kind, fault.exception) for fault in bench.faults] == [
        (FaultKind.SUPERVISOR_CALL_BLOCKED, HARD_FAULT)
    ]
    assert bench.word(RAM) == 1


def test_what_follows_a_barrier_is_not_reached_before_the_fault(make_bench: MakeBench) -> None:
    bench = make_bench(LOAD + BARRIERS + store(1, RAM) + SELF, {HARD_FAULT: SELF})
    bench.engine.write_memory(RAM, bytes(4))
    run_twice(bench)
    assert bench.word(RAM) == 0
