"""How a board leaves the factory: slot 0 filled and committed, and perhaps a factory image."""

import zlib
from dataclasses import replace

from bootloader_model.boot_state import (
    APP_FLAG_FS_CREATED,
    NO_SLOT,
    BootFlag,
    BootState,
    Slot,
    SlotState,
)
from bootloader_model.journal import Journal
from bootloader_model.layout import (
    APP0_ADDRESS,
    DEFAULT_LAYOUT,
    DEFAULT_SLOTS,
    FACTORY_SLOT,
    Layout,
)
from bootloader_model.partition import OpenPartition, Partitions
from bootloader_model.slot_access import ERASE_RUN_SIZE, PROGRAM_ALIGNMENT
from platforms.errors import InvalidArgumentError
from platforms.flash import ERASED_BYTE, FlashDevice


def describe_image(image: bytes, *, origin: int = APP0_ADDRESS) -> SlotState:
    """What a slot's state says about an image linked for address `origin`."""
    return SlotState(app_len=len(image), app_org=origin, app_crc32=zlib.crc32(image))


def default_state(application: SlotState, factory_image: SlotState | None = None) -> BootState:
    """What the loader writes when no record is left: slot 0 is active and committed.

    How long the images are is not known then; as in the original, the whole slot 0 is taken for
    the image, whatever it holds.

    Args:
        application: what there is to say about slot 0.
        factory_image: the same for slot 3, None to leave it empty, as the original does.
    """
    slots = [replace(DEFAULT_SLOTS[0], state=application), *DEFAULT_SLOTS[1:]]
    if factory_image is not None:
        slots[FACTORY_SLOT] = replace(slots[FACTORY_SLOT], state=factory_image)
    return _committed_state(tuple(slots))


def initial_state(
    application: bytes, factory_image: bytes | None = None, *, has_file_system: bool = False
) -> BootState:
    """The boot state of a fresh board. The journal gives it its sequence number.

    Args:
        application: the image in slot 0.
        factory_image: the image in slot 3; None = that slot is empty.
        has_file_system: whether slot 0 has a file system already.
    """
    image = describe_image(application)
    if has_file_system:
        image = replace(image, app_flags=APP_FLAG_FS_CREATED)
    factory = None if factory_image is None else describe_image(factory_image)
    return default_state(image, factory)


def provision(
    nor: FlashDevice,
    internal_flash: FlashDevice,
    application: bytes,
    *,
    factory_image: bytes | None = None,
    has_file_system: bool = False,
    layout: Layout = DEFAULT_LAYOUT,
) -> BootState:
    """Fill a fresh board: the images into their slots, the state as the only record, seq 1.

    Returns the state as written. Raises InvalidArgumentError when an image is empty or longer than
    its slot, and what the flash devices raise.
    """
    partitions = Partitions(layout, nor=nor, internal_flash=internal_flash)
    state = initial_state(application, factory_image, has_file_system=has_file_system)
    _write_image(partitions.open(state.slots[0].configuration.app_dev), application)
    if factory_image is not None:
        factory = partitions.open(state.slots[FACTORY_SLOT].configuration.app_dev)
        _write_image(factory, factory_image)
    return Journal(partitions.journal_areas).append_first(state)


def _committed_state(slots: tuple[Slot, ...]) -> BootState:
    return BootState(
        seq=0, active_slot=0, revert_slot=NO_SLOT, flags=BootFlag.COMMITTED, slots=slots
    )


def _write_image(partition: OpenPartition, image: bytes) -> None:
    if not 0 < len(image) <= partition.size:
        raise InvalidArgumentError(
            f"an image of {len(image):,} bytes does not go into {partition.name}:"
            f" expected 1 to {partition.size:,} bytes"
        )
    for offset, length in partition.erase_runs(len(image), ERASE_RUN_SIZE):
        partition.erase(offset, length)
    padding = -len(image) % PROGRAM_ALIGNMENT
    partition.program(0, image + bytes([ERASED_BYTE]) * padding)
