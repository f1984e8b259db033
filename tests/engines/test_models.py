"""What models answer, on every engine: as wide as the access, and an error when it is no answer."""

from collections.abc import Callable

import pytest

from platforms.clock import NS_PER_MS
from platforms.devices.peripheral import ModelError
from tests.engines.bench import Bench, MakeBench
from tests.engines.registers import IWDG_RLR
from tests.engines.thumb import SELF, load_constant, store

LOADS = {1: b"\x01\x78", 2: b"\x01\x88", 4: b"\x01\x68"}  # ldrb, ldrh, ldr r1, [r0]


def load(width: int) -> bytes:
    return load_constant(0, IWDG_RLR) + LOADS[width] + SELF


def answer(bench: Bench, monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    monkeypatch.setattr(bench.models.watchdog, "read", lambda _offset, _width: value)


@pytest.mark.parametrize(("width", "seen"), [(1, 0xFF), (2, 0xFFF), (4, 0xFFF)])
def test_a_narrow_load_takes_the_bytes_it_names(
    make_bench: MakeBench, width: int, seen: int
) -> None:
    bench = make_bench(load(width))
    bench.run(NS_PER_MS)
    assert bench.engine.registers()["r1"] == seen


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("value", [-1, 1 << 32, (1 << 40) - 2, True])
def test_a_value_that_is_too_wide_is_cut(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, width: int, value: int
) -> None:
    bench = make_bench(load(width))
    answer(bench, monkeypatch, value)
    bench.run(NS_PER_MS)
    assert bench.engine.registers()["r1"] == int(value) & ((1 << 8 * width) - 1)


@pytest.mark.parametrize("value", [None, 1.5, "4095", b"\x01"])
def test_what_is_no_number_is_an_error_that_names_model_register_and_value(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    bench = make_bench(load(4))
    answer(bench, monkeypatch, value)
    with pytest.raises(ModelError) as caught:
        bench.run(NS_PER_MS)
    assert (caught.value.model, caught.value.place, caught.value.value) == (
        "IWDG",
        "register 0x08",
        value,
    )
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [lambda _data: [300], lambda _data: b"", lambda data: data + data, lambda _data: None],
    ids=["300", "nothing", "too much", "None"],
)
def test_an_spi_chip_that_does_not_answer_byte_for_byte_is_an_error(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[bytes], object]
) -> None:
    enable = store(0x0347, 0x4001_3000)  # SSM, SSI, SPE, MSTR, mode 3
    bench = make_bench(enable + store(0x9F, 0x4001_300C) + SELF)
    monkeypatch.setattr(bench.models.nor, "exchange", wrong)
    with pytest.raises(ModelError, match="SpiNorFlash"):
        bench.run(NS_PER_MS)
