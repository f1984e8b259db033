"""Flash contents told to people: every boot state record, and what really lies in each slot."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from bootloader_model.boot_state import NO_SLOT
from bootloader_model.description import describe_journal
from bootloader_model.journal import scan_areas
from bootloader_model.loader import describe_state
from campaign.cells import APPLICATIONS, JOURNAL_AREAS, Contents, Reading
from campaign.images import Image
from campaign.records import areas_of, winner_of
from campaign.reports.report import count
from platforms.flash import ERASED_BYTE

_CACHED = 4096  # slots; they hardly change from one flash operation to the next


class Held(Enum):
    """What lies in a slot; the value is the word in reports."""

    IMAGE = "image"
    MARGINAL = "marginal"
    DAMAGED = "damaged"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class SlotContents:
    """What lies in a slot.

    Attributes:
        number: which slot.
        held: what it is.
        image: name of the image that it is, or of the one that a damaged one is most like; empty
            when there is none.
        text: all of it in words.
    """

    number: int
    held: Held
    image: str
    text: str


def slots_of(contents: Contents, images: Iterable[Image]) -> tuple[SlotContents, ...]:
    """What lies in each slot, told by the bytes themselves and not by the boot state."""
    known = tuple(images)
    return tuple(_slot(number, contents, known) for number in range(len(APPLICATIONS)))


def _slot(number: int, contents: Contents, images: tuple[Image, ...]) -> SlotContents:
    partition = APPLICATIONS[number]
    cells = contents.of(partition.flash)
    size = max(len(image.data) for image in images)
    held, name, text = _content(cells.stored(partition.offset, size), images)
    if held is Held.IMAGE:
        length = next(len(image.data) for image in images if image.name == name)
        if cells.is_weak(partition.offset, length):
            held, text = Held.MARGINAL, f"{text}, with bits that read differently each time"
    return SlotContents(number, held, name, text)


@lru_cache(maxsize=_CACHED)
def _content(content: bytes, images: tuple[Image, ...]) -> tuple[Held, str, str]:
    for image in images:
        if content.startswith(image.data):
            return Held.IMAGE, image.name, f"image {image}, {len(image.data):,} bytes"
    written = len(content) - content.count(ERASED_BYTE)
    if not written:
        return Held.EMPTY, "", "empty"
    likeness = {image: _likeness(content, image) for image in images}
    image = max(likeness, key=lambda each: likeness[each])
    # Of unlike content, one byte in 256 is equal by chance, and erased bytes are in all of them.
    if likeness[image] < len(image.data) // 10:
        return Held.DAMAGED, "", f"no image that is known: {written:,} bytes are written"
    differing = [n for n, byte in enumerate(image.data) if content[n] != byte]
    first = differing[0]
    return (
        Held.DAMAGED,
        image.name,
        f"damaged image {image}: {len(differing):,} of {len(image.data):,} bytes differ, the first"
        f" at +0x{first:04x}: 0x{content[first]:02x} instead of 0x{image.data[first]:02x}",
    )


def _likeness(content: bytes, image: Image) -> int:
    pairs = zip(content, image.data, strict=False)
    return sum(found == wanted != ERASED_BYTE for found, wanted in pairs)


def describe_contents(contents: Contents, reading: Reading = Reading.STORED) -> str:
    """The boot state in some flash contents, in a few words."""
    winner = winner_of(contents, reading)
    if winner is None:
        return "no valid record"
    return f"seq {winner.state.seq} in {winner.location}: {describe_state(winner.state)}"


def dump_lines(
    contents: Contents, images: Iterable[Image], reading: Reading = Reading.STORED
) -> Iterator[str]:
    """The records of both areas as `otasim state` prints them, and what lies in each slot."""
    areas = tuple(areas_of(contents, reading))
    result = scan_areas([(area.name, area.content) for area in areas])
    yield from describe_journal(areas, result)
    state = None if result.winner is None else result.winner.state
    active, revert = (NO_SLOT, NO_SLOT) if state is None else (state.active_slot, state.revert_slot)
    for slot in slots_of(contents, images):
        marks = ", ".join(
            name
            for name, number in (("active", active), ("revert", revert))
            if number == slot.number
        )
        name = APPLICATIONS[slot.number].name
        yield f"really in slot {slot.number} {name}: {slot.text}" + (
            f"   <- {marks}" if marks else ""
        )
    for flash in dict.fromkeys(part.flash for part in (*JOURNAL_AREAS, *APPLICATIONS)):
        cells = contents.of(flash)
        for kind, bits in (("marginal", cells.weak_bits), ("stuck", tuple(cells.stuck_bits))):
            if bits:
                first, last = min(bits) // 8, max(bits) // 8
                number = count(len(bits), f"{kind} bit")
                yield f"{number} in {flash.value}, from 0x{first:06x} to 0x{last:06x}"
