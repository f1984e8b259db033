"""A start is as after a reset, whatever ran before."""

from platforms.clock import NS_PER_MS
from tests.engines.bench import CODE, RAM, MakeBench
from tests.engines.thumb import (
    BASEPRI,
    CONTROL,
    CPSID_F,
    CPSID_I,
    SELF,
    SVC,
    load_constant,
    move,
    write_special,
)

SPSEL, N_PRIV = 2, 1


def test_registers_and_masks_of_what_ran_before_are_gone(make_bench: MakeBench) -> None:
    fill = b"".join(load_constant(number, 0x1111 * (number + 1)) for number in (*range(13), 14))
    masks = move(0, 0x40) + write_special(BASEPRI, 0) + CPSID_I + CPSID_F
    control = move(0, SPSEL | N_PRIV) + write_special(CONTROL, 0)
    bench = make_bench(masks + control + fill + SELF)
    bench.run(NS_PER_MS)
    assert bench.engine.registers()["r7"] == 0x8888
    bench.restart(stack_pointer=RAM + 0x800)
    registers = bench.engine.registers()
    assert {registers[f"r{number}"] for number in range(13)} == {0}
    assert registers["lr"] in {0xFFFF_FFFF, 0}  # the second is what Renode makes of it
    assert registers["sp"] == RAM + 0x800
    # Privileged, and unmasked: the code runs again to its end.
    bench.run(NS_PER_MS)
    assert bench.engine.registers()["r7"] == 0x8888
    assert not bench.faults


def test_a_start_unmasks_exceptions(make_bench: MakeBench) -> None:
    hold = move(0, 0x40) + write_special(BASEPRI, 0) + CPSID_I + CPSID_F + SELF
    bench = make_bench(hold)
    bench.run(NS_PER_MS)
    # An SVC at its place, which every one of the masks would turn into a HardFault.
    bench.change_flash(CODE, SVC + SELF)
    bench.restart(stack_pointer=RAM + 0x800)
    bench.run(NS_PER_MS)
    assert bench.engine.registers()["xpsr"] & 0x1FF == 11
    assert not bench.faults
