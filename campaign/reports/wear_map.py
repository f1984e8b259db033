"""How often each sector is erased: in one life of the device, and in all boots of a campaign."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bootloader_model.layout import DEFAULT_LAYOUT, FlashName
from campaign.cells import GEOMETRIES
from campaign.flash import erased_sectors
from campaign.reports.report import ScenarioReport
from platforms.flash import Sector

HEATS = 5
"""Shades for sectors that are erased at all."""
_ROW = 16  # sectors: 64 KB of NOR flash, and all of the internal flash

Erases = Counter[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class WearCell:
    """A sector.

    Attributes:
        sector: where it is.
        golden: its erases in the golden run.
        campaign: its erases in all boots of the campaign.
        heat: 0 = never erased, to HEATS = the most often erased of its memory.
    """

    sector: Sector
    golden: int
    campaign: int
    heat: int


@dataclass(frozen=True, slots=True)
class WearRow:
    """Neighbouring sectors.

    Attributes:
        address: of the first.
        partitions: what lies in them, in words.
        cells: the sectors.
    """

    address: int
    partitions: str
    cells: tuple[WearCell, ...]


@dataclass(frozen=True, slots=True)
class WearMap:
    """A memory; rows that are never erased are left out.

    Attributes:
        flash: which memory.
        rows: its sectors.
        untouched: how many sectors are in no row.
    """

    flash: FlashName
    rows: tuple[WearRow, ...]
    untouched: int


def wear_maps(scenarios: Iterable[ScenarioReport]) -> tuple[WearMap, ...]:
    """The wear of both memories over some scenarios."""
    golden: Erases = Counter()
    campaign: Erases = Counter()
    for scenario in scenarios:
        campaign.update(scenario.result.tally.erases)
        for step in scenario.life.golden.steps:
            golden.update(erased_sectors(step.trace))
    return tuple(_map(flash, golden, campaign) for flash in FlashName)


def _map(flash: FlashName, golden: Erases, campaign: Erases) -> WearMap:
    sectors = GEOMETRIES[flash].sectors
    keys = [(flash.value, sector.address) for sector in sectors]
    most = max(campaign[key] + golden[key] for key in keys)
    rows, untouched = [], 0
    for first in range(0, len(sectors), _ROW):
        cells = tuple(
            WearCell(sector, golden[key], campaign[key], _heat(campaign[key] + golden[key], most))
            for sector, key in zip(
                sectors[first : first + _ROW], keys[first : first + _ROW], strict=True
            )
        )
        if any(cell.heat for cell in cells):
            rows.append(WearRow(cells[0].sector.address, ", ".join(_names(flash, cells)), cells))
        else:
            untouched += len(cells)
    return WearMap(flash, tuple(rows), untouched)


def _heat(erases: int, most: int) -> int:
    """A shade: each is for so many times the erases of the one before."""
    if not erases:
        return 0
    return max(1, math.ceil(HEATS * math.log(erases + 1) / math.log(most + 1)))


def _names(flash: FlashName, cells: tuple[WearCell, ...]) -> Iterator[str]:
    first, end = cells[0].sector.address, cells[-1].sector.end
    for part in DEFAULT_LAYOUT.partitions.values():
        if part.flash is flash and part.offset < end and first < part.offset + part.size:
            yield part.name
