"""Every engine with small pieces of real Thumb code."""

from pathlib import Path

import pytest

from otasim.engines import EMBEDDED
from platforms.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from platforms.description import BOARD_FILE, DescriptionError
from platforms.devices.peripheral import UnsupportedHardwareError
from platforms.devices.reset_cause import ResetCause
from platforms.engines.protocol import FaultKind
from tests.engines.bench import CODE, RAM, Bench, MakeBench
from tests.engines.registers import (
    AIRCR,
    ENABLE_FPU,
    IWDG_SR,
    PEND,
    PROGRAM_WORDS,
    SYSRESETREQ,
    UNLOCK,
    systick_every,
)
from tests.engines.thumb import BARRIERS, BX_LR, SELF, VMOV_ONE, add_one, jump, load_constant, store


def test_svc_runs_its_handler_and_comes_back(make_bench: MakeBench) -> None:
    bench = make_bench(
        b"\x05\xdf" + store(7, RAM + 4) + SELF,  # svc 5
        {11: store(42, RAM) + BX_LR},
    )
    bench.run(NS_PER_MS)
    assert (bench.word(RAM), bench.word(RAM + 4)) == (42, 7)
    assert bench.faults == []


def test_pendsv_is_taken_before_the_next_statement(make_bench: MakeBench) -> None:
    # PENDSVSET, then copy what the handler wrote: it must be there already.
    copy = load_constant(0, RAM) + b"\x01\x68" + b"\x41\x60"  # ldr r1, [r0]; str r1, [r0, #4]
    bench = make_bench(PEND + BARRIERS + copy + SELF, {14: store(9, RAM) + BX_LR})
    bench.run(NS_PER_MS)
    assert bench.word(RAM + 4) == 9


def test_an_access_that_ends_its_slice_happens_once(make_bench: MakeBench) -> None:
    bench = make_bench(
        PEND + BARRIERS + SELF,
        {14: add_one(RAM) + BX_LR},
    )
    bench.run(NS_PER_MS)
    assert bench.word(RAM) == 1


def test_systick_wakes_wfi_in_exact_virtual_time(make_bench: MakeBench) -> None:
    wait = b"\x30\xbf\xfd\xe7"  # wfi; b wfi
    bench = make_bench(systick_every(16_000) + wait, {15: add_one(RAM) + BX_LR})
    bench.run(NS_PER_S + NS_PER_MS // 2)
    assert bench.word(RAM) == 1000


def test_a_busy_loop_takes_the_time_its_instructions_take(make_bench: MakeBench) -> None:
    loop = b"\x01\x31\xfd\xe7"  # adds r1, #1; b back
    bench = make_bench(loop)
    bench.run(10 * NS_PER_MS)
    # Two instructions a turn at 16 instructions a microsecond.
    assert bench.engine.registers()["r1"] == pytest.approx(80_000, abs=2)


def test_a_loop_on_the_spot_costs_nothing_and_keeps_time() -> None:
    # Renode has no such shortcut: there a loop takes what it takes.
    bench = Bench(EMBEDDED, SELF)
    bench.run(3600 * NS_PER_S)
    assert bench.clock.now_ns == 3600 * NS_PER_S


def test_undefined_instruction_becomes_hard_fault_with_the_pc_on_it(make_bench: MakeBench) -> None:
    bench = make_bench(b"\x00\xbf\x01\xde", {3: store(1, RAM) + SELF})  # nop; udf 1
    bench.run(NS_PER_MS)
    (fault,) = bench.faults
    assert (fault.kind, fault.program_counter, fault.exception) == (
        FaultKind.UNDEFINED_INSTRUCTION,
        CODE + 2,
        3,
    )
    assert bench.word(RAM) == 1


@pytest.mark.parametrize(
    ("code", "kind", "address"),
    [
        (load_constant(0, 0x3000_0000) + b"\x01\x68", FaultKind.UNMAPPED_READ, 0x3000_0000),
        (store(1, 0x3000_0000), FaultKind.UNMAPPED_WRITE, 0x3000_0000),
        (jump(0x3000_0001), FaultKind.UNMAPPED_FETCH, 0x3000_0000),
    ],
    ids=["read", "write", "jump"],
)
def test_unmapped_memory_is_a_fault_that_names_the_address(
    make_bench: MakeBench, code: bytes, kind: FaultKind, address: int
) -> None:
    bench = make_bench(code + SELF)
    bench.run(NS_PER_MS)
    (fault,) = bench.faults
    assert (fault.kind, fault.address, fault.exception) == (kind, address, 3)


def test_a_fault_in_the_hard_fault_handler_locks_up_and_time_goes_on(make_bench: MakeBench) -> None:
    bench = make_bench(b"\x01\xde", {3: b"\x01\xde"})
    bench.run(NS_PER_S)
    assert [fault.exception for fault in bench.faults] == [3, None]
    assert bench.clock.now_ns == NS_PER_S


@pytest.mark.parametrize(
    ("address", "named"),
    [(0x4000_0000, "TIM2"), (0x5006_0808, "RNG"), (0x4002_3CF0, "FLASH")],
)
def test_hardware_that_is_not_modelled_is_an_error_with_address_and_pc(
    make_bench: MakeBench, address: int, named: str
) -> None:
    bench = make_bench(store(1, address) + SELF)
    with pytest.raises(UnsupportedHardwareError, match=named) as caught:
        bench.run(NS_PER_MS)
    assert caught.value.address == address
    assert caught.value.program_counter is not None
    assert CODE <= caught.value.program_counter < CODE + 0x20
    assert f"0x{address:08x}" in str(caught.value)


def test_system_reset_request_stops_at_once(make_bench: MakeBench) -> None:
    bench = make_bench(store(SYSRESETREQ, AIRCR) + store(1, RAM) + SELF)

    bench.run(NS_PER_S)
    assert bench.resets == [ResetCause.SOFTWARE]
    assert bench.clock.now_ns < NS_PER_MS
    assert bench.word(RAM) == 0


def test_float_registers_survive_an_interrupt_that_uses_them(make_bench: MakeBench) -> None:
    # Pend PendSV, whose handler clobbers s0; vmov r2, s0
    two = b"\xb0\xee\x00\x0a"  # vmov.f32 s0, #2.0
    bench = make_bench(
        ENABLE_FPU + VMOV_ONE + PEND + BARRIERS + b"\x10\xee\x10\x2a" + SELF,
        {14: two + BX_LR},
    )
    bench.run(NS_PER_MS)
    assert bench.engine.registers()["r2"] == 0x3F80_0000


def test_a_store_to_flash_programs_bits_to_zero_only(make_bench: MakeBench) -> None:
    target = 0x0804_0000
    stores = store(0x0F0F_0F0F, target) + store(0xFF00_FF00, target)
    bench = make_bench(UNLOCK + PROGRAM_WORDS + stores + SELF)
    bench.run(NS_PER_MS)
    assert bench.word(target) == 0x0F00_0F00


@pytest.mark.parametrize(("address", "named"), [(0x4000_4420, "usart2"), (0xE000_ED94, "MPU")])
def test_a_register_that_a_peripheral_of_ours_lacks_is_an_error(address: int, named: str) -> None:
    # On Renode these peripherals are Renode's, which logs a warning.
    bench = Bench(EMBEDDED, store(1, address) + SELF)
    with pytest.raises(UnsupportedHardwareError, match=named) as caught:
        bench.run(NS_PER_MS)
    assert caught.value.address == address


def test_a_store_to_locked_flash_changes_nothing() -> None:
    # Renode lets it through to its copy of the flash until the next reset; the model never sees it.
    bench = Bench(EMBEDDED, store(0, 0x0804_0000) + store(5, RAM) + SELF)
    bench.run(NS_PER_MS)
    assert (bench.word(0x0804_0000), bench.word(RAM)) == (0xFFFF_FFFF, 5)


def test_two_runs_are_equal_to_the_nanosecond(make_bench: MakeBench) -> None:
    def history() -> tuple[int, int, int]:
        loop = b"\x01\x32\x30\xbf\xfc\xe7"  # adds r2, #1; wfi; b adds
        bench = make_bench(systick_every(1600) + loop, {15: add_one(RAM) + BX_LR})
        bench.run(37 * NS_PER_MS + 3 * NS_PER_US)
        return bench.clock.now_ns, bench.word(RAM), bench.engine.registers()["r2"]

    assert history() == history()


def test_an_error_in_a_model_comes_out_of_the_run_and_the_next_run_goes_on(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(load_constant(0, IWDG_SR) + b"\x01\x68" + SELF)

    def fail(_offset: int, _width: int) -> int:
        raise RuntimeError("this model is broken")

    monkeypatch.setattr(bench.models.watchdog, "read", fail)
    with pytest.raises(RuntimeError, match="this model is broken") as caught:
        bench.run(NS_PER_MS)
    assert "fail" in [entry.name for entry in caught.traceback]
    monkeypatch.undo()
    bench.restart()
    bench.run(NS_PER_MS)
    assert bench.engine.registers()["r1"] == 0


def test_time_that_passes_in_a_model_passes_for_systick_too(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # IWDG_SR is read; b over a nop; wfi; b wfi. (Without the branch Renode 1.16 never wakes up: it
    # does not see an interrupt that an access has made pending in the same block as the WFI.)
    wait = load_constant(0, IWDG_SR) + b"\x01\x68\x00\xe0\x00\xbf\x30\xbf\xfd\xe7"
    bench = make_bench(systick_every(16_000) + wait, {15: add_one(RAM) + BX_LR})

    def slow(_offset: int, _width: int) -> int:
        bench.engine.advance(10 * NS_PER_MS)
        return 0

    monkeypatch.setattr(bench.models.watchdog, "read", slow)
    bench.run(20 * NS_PER_MS + NS_PER_MS // 2)
    # Ten ticks came while the processor could take none: one of them is left pending.
    assert bench.word(RAM) == 11


def test_an_event_stops_the_processor_at_its_own_time(make_bench: MakeBench) -> None:
    bench = make_bench(b"\x01\x31\xfd\xe7")  # adds r1, #1; b back
    bench.clock.call_at(3 * NS_PER_MS + NS_PER_US, bench.engine.stop)
    bench.run(NS_PER_S)
    assert bench.clock.now_ns == pytest.approx(3 * NS_PER_MS + NS_PER_US, abs=NS_PER_US)
    # Two instructions a turn at 16 a microsecond.
    assert bench.engine.registers()["r1"] == pytest.approx(8 * 3001, abs=8)


MORE_MEMORY = """
sram2: Memory.MappedMemory @ sysbus 0x20030000
    size: 0x1000
"""


def test_memory_added_to_the_platform_file_is_there(make_bench: MakeBench, tmp_path: Path) -> None:
    platform = tmp_path / "board.repl"
    platform.write_text(BOARD_FILE.read_text(encoding="utf-8") + MORE_MEMORY, encoding="utf-8")
    bench = make_bench(store(0xCAFE_F00D, 0x2003_0000) + SELF, None, platform)
    bench.run(NS_PER_MS)
    assert bench.word(0x2003_0000) == 0xCAFE_F00D


def test_a_peripheral_moved_in_the_platform_file_is_at_its_new_place(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    platform = tmp_path / "board.repl"
    text = BOARD_FILE.read_text(encoding="utf-8").replace("<0x40004400", "<0x40004800")
    platform.write_text(text, encoding="utf-8")
    enable = store(0x2008, 0x4000_480C)  # UE, TE
    bench = make_bench(enable + store(ord("!"), 0x4000_4804) + SELF, None, platform)
    bench.run(NS_PER_MS)
    assert bench.output == b"!"


@pytest.mark.parametrize(
    ("addition", "named"),
    [
        ("x: Timers.STM32_Timer @ sysbus 0x40000000", "Timers.STM32_Timer"),
        ("x: Memory.MappedMemory @ sysbus 0x20010000\n    size: 0x1000", "overlaps sram"),
        ("x: UART.STM32_UART @ sysbus <0x40003000, +0x400>", "overlaps IWDG"),
        ("x: SPI.STM32SPI @ sysbus 0x40004800\n    IRQ -> nvic@200", "interrupt line 200"),
        ("x: Memory.MappedMemory @ sysbus 0x40024000\n    size: 0x1000", "for peripherals only"),
        ("x: Memory.MappedMemory @ sysbus 0x60000000\n    size: 100", "steps of 0x1000"),
    ],
    ids=["type", "memory", "peripheral", "interrupt", "region", "size"],
)
def test_a_wrong_platform_file_is_an_error_with_file_line_and_entry(
    make_bench: MakeBench, tmp_path: Path, addition: str, named: str
) -> None:
    platform = tmp_path / "board.repl"
    text = BOARD_FILE.read_text(encoding="utf-8")
    platform.write_text(f"{text}\n\n{addition}\n", encoding="utf-8")
    with pytest.raises(DescriptionError, match=named) as caught:
        make_bench(SELF, None, platform)
    assert (caught.value.path, caught.value.entry) == (platform, "x")
    assert caught.value.line > text.count("\n")
