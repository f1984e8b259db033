"""The boot state records in some flash contents."""

from collections.abc import Iterator

from bootloader_model.description import JournalArea
from bootloader_model.journal import Winner, scan_areas
from campaign.cells import JOURNAL_AREAS, Contents, Reading


def areas_of(contents: Contents, reading: Reading) -> Iterator[JournalArea]:
    """Both areas as they read."""
    bits = reading.bits(0)
    for part in JOURNAL_AREAS:
        content = contents.of(part.flash).read(part.offset, part.size, bits)
        yield JournalArea(part.name, part.offset, content)


def winner_of(contents: Contents, reading: Reading = Reading.STORED) -> Winner | None:
    """The boot state record that counts; None when there is none."""
    areas = areas_of(contents, reading)
    return scan_areas([(area.name, area.content) for area in areas]).winner
