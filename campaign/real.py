"""The same cut for real: the board's flash models, through its drivers, compared byte for byte.

A campaign computes what a cut leaves. Here it is made: the operation is begun on the chip model,
the supply goes away in it, and the loader is run on the real drivers. Whatever differs is an error
of the campaign, never a finding about the loader.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from bootloader_model.layout import FlashName
from bootloader_model.protocol import BootTarget
from campaign.boot import Ending, Hardware, LoaderFactory, PowerCut, carry_out
from campaign.cells import PAGE_SIZE, Cells, Contents, Reading
from campaign.damage import broken_bits
from campaign.faults import Fault
from campaign.golden import Golden, GoldenStep, relive
from campaign.scenario import Boot
from campaign.story import Cut, Damage
from platforms import storage
from platforms.clock import Clock
from platforms.devices.flash_memory import BitSource, FlashMemory, FlashOperation, Moment
from platforms.devices.reset_cause import ResetCause
from platforms.devices.torn import TornShape
from platforms.drivers.internal_flash import InternalFlashDriver
from platforms.drivers.nor_flash import NorFlashDriver
from platforms.errors import OtasimError
from platforms.models import Models, make_models


class MismatchError(OtasimError):
    """What was computed is not what the board's models do: trust nothing of this campaign.

    Attributes:
        story: identifier of the story in which it was seen.
        what: what differs.
    """

    _advice = "The campaign cannot be trusted; please report it with this line"

    def __init__(self, story: str, what: str) -> None:
        super().__init__(f"{story}: {what}. {self._advice}")
        self.story = story
        self.what = what

    def __reduce__(self) -> tuple[type["MismatchError"], tuple[str, str]]:
        """How it comes back from another process."""
        return type(self), (self.story, self.what)


class UnrepeatableError(MismatchError):
    """The loader does not do the same twice from the same state: nothing can be said of it."""

    _advice = (
        "The loader does not do the same twice from the same flash contents: does it keep"
        " something from one boot to the next (a class attribute, a global), or use chance or the"
        " time? On a board nothing survives a reset but flash"
    )


class RealFlash:
    """Both flash memories of a board as its models and drivers make them.

    Args:
        contents: what they hold.
        reading: how marginal bits read.
        seed: for Reading.RANDOM.

    Attributes:
        clock: virtual time.
        on_time: called when a driver has waited, with that time in virtual ns.
    """

    def __init__(
        self, contents: Contents, reading: Reading = Reading.STORED, seed: int = 0
    ) -> None:
        cells = storage.in_memory()
        self.clock = Clock()
        self.on_time: Callable[[int], None] | None = None
        models = make_models(self.clock, cells)
        self._memories = memories_of(models)
        for flash, memory in self._memories.items():
            memory.storage[:] = _image_of(contents.of(flash), len(memory.storage))
            put_odd_bits(memory, contents.of(flash), reading.bits(seed))
        self.nor = NorFlashDriver(models.nor, self._wait)
        self.internal = InternalFlashDriver(models.internal_flash, self._wait)

    def arm(self, index: int, cut: Cut, fault: Fault) -> None:
        """Let a fault happen at an operation, counted over both memories from now on."""
        if fault.interrupts:
            self.cut_at(replace(cut, operation=index))
        else:
            self.damage_at(index, cut, fault)

    def cut_at(self, cut: Cut) -> None:
        """Let the power go at this operation, counted over both memories from now on."""
        begun = 0
        is_off = False

        def cut_power() -> None:
            nonlocal is_off
            is_off = True
            raise PowerCut

        def intercept(memory: FlashMemory, _operation: FlashOperation, moment: Moment) -> None:
            nonlocal begun
            if is_off:  # a loader that catches everything goes on without a board
                raise PowerCut
            begun += moment is Moment.BEFORE
            if begun - 1 != cut.operation:
                return
            tear = cut.tear
            if moment is Moment.DURING and tear is not None:
                memory.power_lost(tear.shape, tear.seed, tear.progress)
                cut_power()
            elif tear is None and moment is (Moment.AFTER if cut.is_after else Moment.BEFORE):
                cut_power()

        for memory in self._memories.values():
            memory.interceptor = partial(intercept, memory)

    def damage_at(self, index: int, cut: Cut, fault: Fault) -> None:
        """Let a fault damage what it damages at this operation, counted from now on."""
        damage = cut.damage
        assert damage is not None  # noqa: S101 - such a fault has some
        begun = 0

        def intercept(memory: FlashMemory, operation: FlashOperation, moment: Moment) -> None:
            nonlocal begun
            begun += moment is Moment.BEFORE
            if begun - 1 != index:
                return
            if fault is Fault.STAYS_BUSY:
                if moment is Moment.DURING:
                    memory.hang()
            elif moment is Moment.BEFORE:
                cell = memory.storage[damage.number // 8]
                memory.stick(broken_bits(fault, damage, operation.address, cell))

        for memory in self._memories.values():
            memory.interceptor = partial(intercept, memory)

    def cycle_power(self, cut: Cut) -> None:
        """Let an operation end that never did, as the cut says."""
        shape, progress, seed = TornShape.COMPLETE, 1.0, 0
        if cut.tear is not None:
            shape, progress, seed = cut.tear.shape, cut.tear.progress, cut.tear.seed
        elif not cut.is_after:
            shape = TornShape.NOTHING
        for memory in self._memories.values():
            if memory.hangs:
                memory.power_lost(shape, seed, progress)

    def flip(self, damage: Damage) -> None:
        """Let a bit change its level."""
        self._memories[damage.flash].flip(damage.number)

    def difference(self, expected: Contents) -> str | None:
        """Where these memories do not hold `expected`; None when they hold just that."""
        return difference(self._memories, expected)

    def _wait(self, duration_ns: int) -> None:
        self.clock.advance_to(self.clock.now_ns + duration_ns)
        if self.on_time is not None:
            self.on_time(duration_ns)


def memories_of(models: Models) -> dict[FlashName, FlashMemory]:
    """Both flash memories of a board, by name."""
    return {
        FlashName.NOR: models.nor.memory,
        FlashName.INTERNAL: models.internal_flash.memory,
    }


def put_odd_bits(memory: FlashMemory, cells: Cells, bits: BitSource) -> None:
    """Give a memory these marginal and stuck bits, in place of its own; `bits` are its readings."""
    memory.weak_bits.clear()
    memory.weak_bits.update(cells.weak_bits)
    memory.stuck_bits.clear()
    memory.stick(cells.stuck_bits)
    memory.weak_rng = bits


def difference(memories: Mapping[FlashName, FlashMemory], expected: Contents) -> str | None:
    """Where a board's memories do not hold `expected`; None when they hold just that."""
    for flash, memory in memories.items():
        stored, cells = bytes(memory.storage), expected.of(flash)
        if stored != (wanted := _image_of(cells, len(stored))):
            address = next(i for i, byte in enumerate(stored) if byte != wanted[i])
            return (
                f"{flash.value} 0x{address:06x} holds 0x{stored[address]:02x} on the board,"
                f" computed 0x{wanted[address]:02x}"
            )
        if memory.weak_bits != set(cells.weak_bits):
            return f"{flash.value} has other marginal bits on the board than computed"
        if memory.stuck_bits != cells.stuck_bits:
            return f"{flash.value} has other stuck bits on the board than computed"
    return None


def _image_of(cells: Cells, size: int) -> bytes:
    image = bytearray(b"\xff") * size
    for address, content in cells.pages():
        image[address : address + PAGE_SIZE] = content
    return bytes(image)


@dataclass(frozen=True, slots=True)
class RealBoot:
    """A boot to be made for real.

    Attributes:
        contents: what the flash holds.
        cause: what led to it.
        reading: how marginal bits read.
        seed: for Reading.RANDOM.
    """

    contents: Contents
    cause: ResetCause
    reading: Reading
    seed: int

    def run(
        self,
        loader: LoaderFactory,
        cut: Cut | None = None,
        fault: Fault = Fault.POWER_LOSS,
    ) -> tuple[RealFlash, Ending, BootTarget | None]:
        """Boot: what the flash holds then, how the boot ended, and what it started.

        Args:
            loader: makes a boot loader.
            cut: where the power goes, or damage is done, in the boot; None = nowhere.
            fault: what the cut is.
        """
        flash = RealFlash(self.contents, self.reading, self.seed)
        if cut is not None:
            flash.arm(cut.operation, cut, fault)
        hardware = Hardware(flash.nor, flash.internal, self.cause)
        flash.on_time = hardware.spend
        ending, target, _ = carry_out(loader(), hardware)
        return flash, ending, target


def run_scenario_cut(
    golden: Golden, step: GoldenStep, cut: Cut, fault: Fault, loader: LoaderFactory
) -> RealFlash:
    """Make a cut of the scenario, or another fault, for real; what the flash holds then."""
    index = cut.operation - step.first_operation
    if fault is Fault.BIT_FLIP:
        assert cut.damage is not None  # noqa: S101 - such a fault has some
        flash = RealFlash(step.end)
        flash.flip(cut.damage)
    elif isinstance(step.step.act, Boot):
        boot = RealBoot(step.start, step.step.act.cause, Reading.STORED, 0)
        flash = boot.run(loader, replace(cut, operation=index), fault)[0]
    else:
        booted = golden.booted_before(step)
        flash = RealFlash(booted.end)
        skipped = step.first_operation - booted.first_operation - len(booted.trace)
        flash.arm(skipped + index, cut, fault)
        with suppress(PowerCut) if fault.interrupts else suppress(OtasimError):
            relive(golden, step, flash.nor, flash.internal, flash.clock)
    flash.cycle_power(cut)
    return flash
