"""Flash contents of a campaign as a state directory: what `otasim run --state` goes on with."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shlex import quote

from campaign.cells import Contents, Reading
from campaign.expand import LASTING, Life
from campaign.faults import Fault
from campaign.files import with_file_systems
from campaign.reports.replay import state_before_last_boot
from campaign.story import Story
from platforms import storage
from platforms.devices import stm32f405_flash, w25q32jv


def write_state_directory(
    path: Path, contents: Contents, reading: Reading = Reading.STORED, seed: int = 0
) -> None:
    """Keep flash contents in a new state directory, all of its files or none.

    Files have no marginal bits: these are written as they read in this boot, and are firm then.

    Args:
        path: the directory; empty, or not there yet.
        contents: what the flash holds.
        reading: how marginal bits read.
        seed: for Reading.RANDOM.

    Raises StateDirectoryError when the directory holds a board already, or cannot be written.
    """
    cells = replace(
        storage.in_memory(),
        nor=bytearray(contents.nor.read(0, w25q32jv.SIZE, reading.bits(seed))),
        internal=bytearray(contents.internal.read(0, stm32f405_flash.SIZE, reading.bits(seed))),
    )
    written = []

    def manufacture() -> storage.FlashStorage:
        written.append(cells)
        return cells

    with storage.in_directory(path, manufacture):
        if not written:
            raise storage.StateDirectoryError(
                "holds a board already, which is left alone: choose another directory", path
            )


def keep_failing_state(path: Path, life: Life, story: Story) -> Iterator[str]:
    """Keep the flash from just before the last boot of a story, and say how to go on from there.

    Raises OtasimError when the story does not fit to scenario and loader, StateDirectoryError when
    the directory cannot be used.
    """
    contents, reading = state_before_last_boot(life, story)
    # A real board has file systems, and refuses all calls without.
    contents = with_file_systems(contents)
    write_state_directory(path, contents, reading, life.plan.settings.seed)
    name = quote(str(path))
    yield f"kept in {name}: the flash from just before the last boot"
    if contents.is_weak:
        yield f"  its marginal bits are firm now, as they were read then ({reading.value})"
    if story.fault in (*LASTING, Fault.STAYS_BUSY):
        yield f"  what {story.fault.value} has broken works again there: files hold bits, not cells"
    yield f"  otasim state {name}; otasim run --state {name} (with the same --loader)"
