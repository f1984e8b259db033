"""Faults that damage the storage, in the life of a scenario: where, and what comes of them.

A bit flips while the board is off; after that the board is switched on. Cells that stick and wear
out, and a flash memory that stays busy, meet the firmware at work: it goes on as well as it can, to
the end of the step, before the power is cycled.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

from bootloader_model.layout import FlashName
from campaign.boot import LoaderFactory, run_boot
from campaign.cells import GEOMETRIES, PAGE_SIZE, Contents, Operation
from campaign.faults import Fault, power_cut_tears
from campaign.flash import FlashPair
from campaign.golden import CutPoint, Golden, GoldenStep, contents_after, point_of, relive
from campaign.scenario import Boot, Expectation
from campaign.story import Cut, Damage
from platforms.clock import Clock
from platforms.devices.damage import worn_bits
from platforms.devices.flash_memory import OperationKind
from platforms.errors import OtasimError

STUCK_BITS = 32
"""Bits of each operation that are tried as stuck: spread evenly over those that it changes."""
_WORN_SPAN = 2048
"""Bytes at the start of a worn-out sector that its bad bits lie in: what campaign images cover."""
WORN_SETS = 2
"""Sets of bits that are tried for each erase that wears its sector out."""


def damages(golden: Golden, fault: Fault, seed: int) -> Iterator[Cut]:
    """Where and how a fault damages the storage in a scenario, in order."""
    for step in golden.steps:
        for index, traced in enumerate(step.trace):
            operation, number = traced.operation, step.first_operation + index
            match fault:
                case Fault.STUCK_BIT:
                    for bit in _some_changed_bits(operation):
                        yield Cut(number, damage=Damage(operation.flash, bit))
                case Fault.WORN_SECTOR if operation.kind is OperationKind.ERASE:
                    for chosen in range(seed, seed + WORN_SETS):
                        yield Cut(number, damage=Damage(operation.flash, chosen))
                case Fault.STAYS_BUSY if operation.flash is FlashName.NOR:
                    busy = Cut(number, damage=Damage(operation.flash, 0))
                    yield busy
                    yield from (replace(busy, tear=tear) for tear in power_cut_tears(seed))
                    yield replace(busy, is_after=True)
        if fault is Fault.BIT_FLIP and step.trace:
            last = Cut(step.first_operation + len(step.trace) - 1, is_after=True)
            for flash in FlashName:
                for bit in _used_bits(step.end, flash):
                    yield replace(last, damage=Damage(flash, bit))


def number_of_damages(golden: Golden, fault: Fault, seed: int) -> Counter[int]:
    """How many there are, by operation; the bits that can flip are not gone through one by one."""
    if fault is not Fault.BIT_FLIP:
        return Counter(cut.operation for cut in damages(golden, fault, seed))
    return Counter(
        {
            step.first_operation + len(step.trace) - 1: sum(
                8 * PAGE_SIZE * len(_used_pages(step.end, flash)) for flash in FlashName
            )
            for step in golden.steps
            if step.trace
        }
    )


def _some_changed_bits(operation: Operation) -> list[int]:
    before = int.from_bytes(operation.before, "little")
    changed = before ^ int.from_bytes(operation.after, "little")
    bits = [bit for bit in range(changed.bit_length()) if changed >> bit & 1]
    chosen = bits[:: max(1, -(-len(bits) // STUCK_BITS))]
    return [8 * operation.address + bit for bit in chosen]


def _used_bits(contents: Contents, flash: FlashName) -> Iterator[int]:
    for address in _used_pages(contents, flash):
        yield from range(8 * address, 8 * (address + PAGE_SIZE))


def _used_pages(contents: Contents, flash: FlashName) -> list[int]:
    """Pages in use, and those behind them: what is written next may lie there."""
    used = {address for address, _ in contents.of(flash).pages()}
    size = GEOMETRIES[flash].size
    behind = {address + PAGE_SIZE for address in used}
    return sorted(address for address in used | behind if address < size)


def broken_bits(fault: Fault, damage: Damage, address: int, cell: int) -> dict[int, int]:
    """The bits that stick when damage is done, and the level of each.

    Args:
        fault: STUCK_BIT or WORN_SECTOR.
        damage: what is damaged.
        address: where the operation begins that meets it.
        cell: the byte that a bit that sticks is in, as it stands.
    """
    if fault is Fault.STUCK_BIT:
        return {damage.number: cell >> damage.number % 8 & 1}
    return dict.fromkeys(worn_bits(address, _WORN_SPAN, damage.number), 0)


def damaged_point(
    golden: Golden,
    step: GoldenStep,
    cut: Cut,
    fault: Fault,
    loader: LoaderFactory,
    expectation: Expectation,
) -> CutPoint:
    """What damage in a scenario leads to, when the power has been cycled afterwards.

    Args:
        golden: the scenario without it.
        step: the step in which it is done.
        cut: where and how.
        fault: what it is.
        loader: makes a boot loader.
        expectation: what may run when the damage may have cost any image or record.
    """
    index = cut.operation - step.first_operation
    if fault is Fault.STAYS_BUSY:
        # The chip works again as soon as the power is cycled: a power cut that took long.
        expectation = point_of(step, replace(cut, damage=None), step.start).expectation
    if fault is Fault.BIT_FLIP:
        in_step = Cut(index, is_after=True)
        damage = _damage_of(cut)
        contents = contents_after(step.trace, in_step, step.end)
        return CutPoint(step, cut, contents.flipped(damage.flash, damage.number), expectation)
    if isinstance(step.step.act, Boot):
        flashes: list[FlashPair] = []

        def arm_boot(flash: FlashPair) -> None:
            flashes.append(flash)
            _arm(flash, index, cut, fault)

        boot = run_boot(loader(), step.start, cause=step.step.act.cause, arm=arm_boot)
        contents = _after_power_cycle(flashes[0], step, index, cut)
        return CutPoint(step, cut, contents, expectation, replace(boot, contents=contents))
    booted = golden.booted_before(step)
    flash = FlashPair(booted.end)
    skipped = step.first_operation - booted.first_operation - len(booted.trace)
    _arm(flash, skipped + index, cut, fault)
    # The application tells its host when it cannot go on; what counts is what the flash holds.
    with suppress(OtasimError):
        relive(golden, step, flash.nor, flash.internal, Clock())
    return CutPoint(step, cut, _after_power_cycle(flash, step, index, cut), expectation)


def _damage_of(cut: Cut) -> Damage:
    if cut.damage is None:
        raise OtasimError(f"cut {cut} of this fault has to say what is damaged")
    return cut.damage


def _arm(flash: FlashPair, index: int, cut: Cut, fault: Fault) -> None:
    flash.before_operation = partial(_strike, flash, index, _damage_of(cut), fault)


def _strike(
    flash: FlashPair, index: int, damage: Damage, fault: Fault, operation: Operation
) -> None:
    if len(flash.trace) != index or flash.hangs:
        return
    if fault is Fault.STAYS_BUSY:
        flash.hang(operation)
    cell = flash.contents.of(damage.flash).stored(damage.number // 8, 1)[0]
    bits = broken_bits(fault, damage, operation.address, cell)
    flash.contents = flash.contents.stuck(damage.flash, bits)


def _after_power_cycle(flash: FlashPair, step: GoldenStep, index: int, cut: Cut) -> Contents:
    """What the flash holds then: an operation that never ended does so now."""
    if not flash.hangs:
        return flash.contents
    operation = step.trace[index].operation
    if cut.tear is not None:
        return flash.contents.torn(operation, cut.tear)
    return flash.contents.completed(operation) if cut.is_after else flash.contents
