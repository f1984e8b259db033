"""The oracle: which image runs, whether it may, and whether the board still takes updates.

It stands outside the loader and believes nothing it says. What runs is told by the exact bytes that
lie where the loader sends the processor, and by the stack pointer and program counter it is sent
with.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial

from bootloader_model.boot_state import Slot, SlotFlag
from bootloader_model.image_check import VECTOR_TABLE_HEAD_SIZE, VectorTableHead
from bootloader_model.layout import (
    APP0_OFFSET,
    DEFAULT_LAYOUT,
    DEFAULT_SLOTS,
    FACTORY_SLOT,
    FLASH_BASE,
    FlashName,
)
from campaign.application import Application
from campaign.boot import BootRun, Ending, LoaderFactory, run_boot
from campaign.cells import Contents
from campaign.files import describe_difference, files_found
from campaign.flash import FlashPair
from campaign.images import PROBE, Image
from campaign.records import winner_of
from campaign.scenario import COMMIT_LOST, NOT_ROLLED_BACK, UPDATE_LOST, Expectation
from platforms.clock import Clock
from platforms.devices.damage import with_stuck_bits
from platforms.devices.reset_cause import ResetCause
from platforms.errors import OtasimError


class Kind(Enum):
    """What is wrong; the value is the name in reports, `EXPLANATIONS` says what it means."""

    BRICK = "brick"
    HANG = "hang"
    RAISED = "loader-raised"
    WRONG_IMAGE = "wrong-image"
    WRONG_ENTRY = "wrong-entry"
    MARGINAL_IMAGE = "marginal-image"
    NO_WATCHDOG = "no-watchdog"
    COMMIT_LOST = COMMIT_LOST
    NOT_ROLLED_BACK = NOT_ROLLED_BACK
    UPDATE_LOST = UPDATE_LOST
    WAY_BACK_LOST = "way-back-lost"
    WRONG_VERSION = "wrong-version"
    NOT_RESET = "not-reset"
    FILE_LOST = "file-lost"
    FILE_SYSTEM_DAMAGED = "file-system-damaged"
    NO_ANSWER = "no-answer"
    FORBIDDEN_WRITE = "forbidden-write"
    CANNOT_UPDATE = "cannot-update"


EXPLANATIONS: Mapping[Kind, str] = {
    Kind.BRICK: "No application is started, however often the watchdog resets the board.",
    Kind.HANG: "The loader does not come to an end, and no watchdog ends it.",
    Kind.RAISED: "The loader raises an exception, or does not say what to start.",
    Kind.WRONG_IMAGE: ("What is started is none of the images, but something torn or half-copied."),
    Kind.WRONG_ENTRY: (
        "A good image is started with a stack pointer or program counter that is not its own."
    ),
    Kind.MARGINAL_IMAGE: (
        "The image that is started has cells that read differently each time: a write that was cut"
        " short is trusted because it happens to read well."
    ),
    Kind.NO_WATCHDOG: (
        "An application is started, or flash changed, without a watchdog: what hangs then is never"
        " reset."
    ),
    Kind.COMMIT_LOST: "A commit was acknowledged, and an older image runs nevertheless.",
    Kind.NOT_ROLLED_BACK: (
        "An update was started, never committed, and runs again instead of being rolled back."
    ),
    Kind.UPDATE_LOST: "A complete update is dropped without having been started.",
    Kind.WAY_BACK_LOST: "The image to roll back to is in no slot any more.",
    Kind.WRONG_VERSION: "An image runs that may not run at this point of the scenario.",
    Kind.NOT_RESET: (
        "The application runs on where it has to ask for a reset, as after its commit timeout."
    ),
    Kind.FILE_LOST: "A file is not as it was acknowledged, or one that was removed is back.",
    Kind.FILE_SYSTEM_DAMAGED: (
        "The application cannot use its file system, or cannot make the one that it needs."
    ),
    Kind.NO_ANSWER: ("A good image is started, and answers no RPC call when a processor runs it."),
    Kind.FORBIDDEN_WRITE: (
        "The loader changes flash that nobody may change: its own code, or a slot that is not"
        " writeable, as the factory image's."
    ),
    Kind.CANNOT_UPDATE: "The board runs and takes no update any more.",
}
"""What each kind means, in one sentence."""


def _forbidden() -> Iterator[tuple[FlashName, int, int]]:
    """Memory, first address and the one behind the last of all that no loader may change."""
    yield FlashName.INTERNAL, 0, APP0_OFFSET
    for slot in DEFAULT_SLOTS:
        if SlotFlag.WRITEABLE not in slot.configuration.flags:
            for name in (slot.configuration.app_dev, slot.configuration.fs_dev):
                partition = DEFAULT_LAYOUT.partition(name)
                yield partition.flash, partition.offset, partition.offset + partition.size


_FORBIDDEN = tuple(_forbidden())


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, by name and in words."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a boot.

    Attributes:
        image: what runs; None when nothing that is known does.
        problem: what is wrong; None when nothing is.
    """

    image: Image | None
    problem: Problem | None


_ENDINGS = {Ending.HUNG: Kind.HANG, Ending.RAISED: Kind.RAISED, Ending.WATCHDOG: Kind.BRICK}


def judge(boot: BootRun, expectation: Expectation, images: Iterable[Image]) -> Verdict:
    """Judge a boot that was not cut.

    Args:
        boot: the boot.
        expectation: what may run.
        images: all images that there are.
    """
    if boot.ending is not Ending.STARTED:
        return Verdict(None, Problem(_ENDINGS[boot.ending], boot.problem))
    image, problem = _what_runs(boot, images)
    if problem is None and not boot.has_watchdog:
        problem = Problem(Kind.NO_WATCHDOG, "the application is started without a watchdog")
    if problem is None and boot.unwatched:
        text = f"flash operations before the watchdog is started: {boot.unwatched}"
        problem = Problem(Kind.NO_WATCHDOG, text)
    problem = problem or _write_problem(boot)
    if problem is None and image is not None and expectation.after(image) is None:
        problem = _not_allowed(image, expectation, boot.contents)
    if problem is None and image is not None:
        problem = _files_problem(boot, image, expectation)
    return Verdict(image, problem)


def _what_runs(boot: BootRun, images: Iterable[Image]) -> tuple[Image | None, Problem | None]:
    target, cells = boot.target, boot.contents.internal
    assert target is not None  # noqa: S101 - it was started
    offset = target.vector_table - FLASH_BASE
    for image in images:
        size = len(image.data)
        if offset < 0 or cells.stored(offset, size) != image.data:
            continue
        head = VectorTableHead.parse(image.data[:VECTOR_TABLE_HEAD_SIZE])
        if (target.stack_pointer, target.program_counter) != (
            head.stack_pointer,
            head.reset_vector,
        ):
            return image, Problem(
                Kind.WRONG_ENTRY,
                f"image {image} is entered at 0x{target.program_counter:08x} with stack pointer"
                f" 0x{target.stack_pointer:08x} instead of 0x{head.reset_vector:08x} with"
                f" 0x{head.stack_pointer:08x}",
            )
        if cells.is_weak(offset, size):
            return image, Problem(
                Kind.MARGINAL_IMAGE, f"image {image} is started from cells that are marginal"
            )
        return image, None
    return None, Problem(
        Kind.WRONG_IMAGE, f"what is at 0x{target.vector_table:08x} is none of the images"
    )


def _not_allowed(image: Image, expectation: Expectation, contents: Contents) -> Problem:
    name = dict(expectation.forbidden).get(image.name, Kind.WRONG_VERSION.value)
    kind = Kind(name)
    wanted = expectation.runs[0][0]
    if kind is Kind.NOT_ROLLED_BACK and not is_in_a_slot(wanted, contents):
        kind = Kind.WAY_BACK_LOST
    return Problem(kind, f"image {image} runs, only {expectation.names()} may")


def _write_problem(boot: BootRun) -> Problem | None:
    for traced in boot.trace:
        operation = traced.operation
        if any(
            operation.flash is flash and operation.address < end and operation.end > start
            for flash, start, end in _FORBIDDEN
        ):
            return Problem(Kind.FORBIDDEN_WRITE, f"the loader makes this operation: {operation}")
    return None


def _files_problem(boot: BootRun, image: Image, expectation: Expectation) -> Problem | None:
    allowed = expectation.files_of(image)
    if not allowed:
        return None
    assert boot.target is not None  # noqa: S101 - it was started
    found = files_found(boot.contents, boot.target.vector_table, boot.reading)
    files = found.files
    if files is not None and files not in allowed:
        nearest = min(allowed, key=lambda wanted: len(wanted ^ files))
        difference = describe_difference(files, nearest)
        return Problem(Kind.FILE_LOST, f"among the files of image {image} {difference}")
    if found.problem:
        text = f"the file system of image {image}: {found.problem}"
        return Problem(Kind.FILE_SYSTEM_DAMAGED, text)
    return None


def is_in_a_slot(image: Image, contents: Contents) -> bool:
    """Whether any slot holds the whole image."""
    return any(is_in_slot(image, contents, slot) for slot in DEFAULT_SLOTS)


def has_way_out(contents: Contents, images: Iterable[Image]) -> bool:
    """Whether anything is left that a loader could start, as far as the boot state tells it.

    An image has to be whole in the active slot, the one to go back to or the factory's (without a
    boot state: in the first one), and the cells that it runs from have to take it.
    """
    winner = winner_of(contents)
    known = {0} if winner is None else {winner.state.active_slot, winner.state.revert_slot}
    slots = [DEFAULT_SLOTS[number] for number in sorted({*known, FACTORY_SLOT}) if number >= 0]
    stuck = contents.internal.stuck_bits
    return any(
        is_in_slot(image, contents, slot)
        and with_stuck_bits(image.data, APP0_OFFSET, stuck) == image.data
        for image in images
        for slot in slots
    )


def is_in_slot(image: Image, contents: Contents, slot: Slot) -> bool:
    """Whether a slot holds the whole image."""
    partition = DEFAULT_LAYOUT.partition(slot.configuration.app_dev)
    stored = contents.of(partition.flash).stored(partition.offset, len(image.data))
    return stored == image.data


def update_problem(
    loader: LoaderFactory, boot: BootRun, *, has_file_system: bool
) -> Problem | None:
    """What keeps the board from taking an update after this boot; None when nothing does.

    The application commits what runs if it has to, takes an update, which has to start, and commits
    that one, which has to stay.
    """
    assert boot.target is not None  # noqa: S101 - it was started
    flash = FlashPair(boot.contents)
    start = partial(
        Application,
        flash.nor,
        flash.internal,
        vector_table=boot.target.vector_table,
        has_file_system=has_file_system,
    )
    try:
        application = start(clock=Clock())
        application.start()
        if not application.is_committed:
            application.call("OTA.Commit")
        application.update(PROBE, 60)
        if (problem := _probe_problem(loader, flash, "does not start")) is not None:
            return problem
        application = start(clock=Clock())
        application.start()
        application.call("OTA.Commit")
    except OtasimError as error:
        return Problem(Kind.CANNOT_UPDATE, str(error))
    return _probe_problem(loader, flash, "does not stay when it is committed")


def _probe_problem(loader: LoaderFactory, flash: FlashPair, what: str) -> Problem | None:
    boot = run_boot(loader(), flash.contents, cause=ResetCause.SOFTWARE)
    flash.contents = boot.contents
    if boot.ending is Ending.STARTED and _what_runs(boot, (PROBE,)) == (PROBE, None):
        return None
    decided = ", ".join(map(str, boot.decisions)) or "none on record"
    came = boot.problem or f"another image runs (decisions: {decided})"
    return Problem(Kind.CANNOT_UPDATE, f"the next update, image {PROBE}, {what}: {came}")
