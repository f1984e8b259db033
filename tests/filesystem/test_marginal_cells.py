"""The power goes in a change, and cells are left that read differently from time to time.

littlefs may take the commit that was under way for good at this start and for bad at the next one.
What has been acknowledged meanwhile must not depend on that, and neither must the file system.
"""

from collections.abc import Iterator

import pytest

from bootloader_model.layout import DEFAULT_LAYOUT
from bootloader_model.partition import OpenPartition
from campaign.cells import EXTREMES, Contents, Reading, Tear
from campaign.faults import power_cut_tears
from campaign.flash import FlashPair
from platforms.devices.torn import TornShape
from rpc_shim import filesystem
from rpc_shim.filesystem import FileSystem, FileSystemError

OLD, NEW, PROBE = b"old" * 20, b"new" * 20, b"later" * 6
Files = dict[str, bytes]


def partition(flash: FlashPair) -> OpenPartition:
    return OpenPartition(DEFAULT_LAYOUT.partition("fs0"), flash.nor)


def files_in(contents: Contents, reading: Reading) -> Files | None:
    try:
        mounted = FileSystem.mount(partition(FlashPair(contents, reading)))
        return {entry.name: mounted.read(entry.name) for entry in mounted.entries()}
    except FileSystemError:
        return None


def readings(contents: Contents) -> tuple[Reading, ...]:
    return tuple(Reading) if contents.is_weak else (Reading.STORED,)


def cuts(flash: FlashPair, shapes: tuple[Tear, ...]) -> Iterator[Contents]:
    """What each cut in the operations so far leaves."""
    for traced in flash.trace:
        yield traced.contents
        for tear in shapes:
            yield traced.contents.torn(traced.operation, tear)


MARGINAL = tuple(tear for tear in power_cut_tears(0) if tear.shape is TornShape.WEAK_BITS)


def after_a_marginal_cut() -> Iterator[tuple[Contents, Reading]]:
    """What a cut leaves in a change that is the first one after a mount, and in the one behind."""
    flash = FlashPair(Contents.erased())
    FileSystem.format(partition(flash)).write("a", OLD)
    flash.trace.clear()
    mounted = FileSystem.mount(partition(flash))
    mounted.write("a", NEW)
    mounted.write("a", OLD)
    for contents in cuts(flash, MARGINAL):
        for reading in readings(contents):
            yield contents, reading


def damaged() -> list[Files | None]:
    """What is wrong after a cut, a start, a change, perhaps cut as well, and another start."""
    wrong: list[Files | None] = []
    for contents, reading in after_a_marginal_cut():
        flash = FlashPair(contents, reading)
        mounted = FileSystem.mount(partition(flash))
        before = {"a": mounted.read("a")}
        mounted.write("probe", PROBE)
        wrong += [
            found
            for cut in cuts(flash, power_cut_tears(1))
            for found in (files_in(cut, each) for each in EXTREMES)
            if found is None or found.get("a") not in (OLD, NEW)
        ]
        after = [files_in(flash.contents, each) for each in EXTREMES]
        wrong += [found for found in after if found != before | {"probe": PROBE}]
    return wrong


def test_what_is_written_after_a_cut_stays_however_cells_read() -> None:
    assert not damaged()


def test_it_is_lost_where_littlefs_appends_to_what_it_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def prog(
        device: filesystem._BlockDevice, _config: object, block: int, offset: int, data: bytes
    ) -> int:
        return device._change(lambda: device._partition.program(block * 4096 + offset, data))

    monkeypatch.setattr(filesystem._BlockDevice, "prog", prog)
    assert {"a": NEW} in damaged()


def test_all_is_lost_where_the_other_block_is_erased_on_the_strength_of_a_marginal_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(filesystem._BlockDevice, "_make_firm", lambda *_: None)
    assert None in damaged()
