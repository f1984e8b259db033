"""Where everything is: the partitions of both flash memories, and the slots a fresh board has.

The division into slots is the one of the STM32 boot loader of Mongoose OS; the sizes are this
board's, with 1 MB of internal flash (the application from 64 KB on, the loader below it) and 4 MB
of SPI NOR flash.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from bootloader_model.boot_state import Slot, SlotConfiguration, SlotFlag
from platforms.errors import OtasimError

FLASH_BASE = 0x0800_0000
"""Where the processor sees the first byte of internal flash."""
APP0_OFFSET = 0x1_0000
APP0_ADDRESS = FLASH_BASE + APP0_OFFSET
"""What an application for slot 0 is linked for."""
APP_SIZE = 0xF_0000
"""Room for an image in each slot, in bytes."""


class FlashName(Enum):
    """The two flash memories of the board."""

    INTERNAL = "internal"
    NOR = "nor"


class UnknownPartitionError(OtasimError):
    """A slot names a partition that this board does not have.

    Attributes:
        partition: the name.
    """

    def __init__(self, partition: str, known: Mapping[str, "Partition"]) -> None:
        super().__init__(f"no partition {partition!r} on this board: expected one of {list(known)}")
        self.partition = partition


@dataclass(frozen=True, slots=True)
class Partition:
    """A named part of a flash memory; `offset` from the device's start and `size` in bytes."""

    name: str
    flash: FlashName
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The partitions of a board.

    Attributes:
        partitions: by name.
        journal_areas: names of the two partitions that hold boot state records.
    """

    partitions: Mapping[str, Partition]
    journal_areas: tuple[str, str] = ("bcfg0", "bcfg1")

    def partition(self, name: str) -> Partition:
        """The partition called `name`; UnknownPartitionError when there is none."""
        try:
            return self.partitions[name]
        except KeyError:
            raise UnknownPartitionError(name, self.partitions) from None


def _partitions(*partitions: Partition) -> dict[str, Partition]:
    return {partition.name: partition for partition in partitions}


DEFAULT_LAYOUT = Layout(
    _partitions(
        Partition("app0", FlashName.INTERNAL, APP0_OFFSET, APP_SIZE),
        Partition("bcfg0", FlashName.NOR, 0x00_0000, 0x2000),
        Partition("bcfg1", FlashName.NOR, 0x00_2000, 0x2000),
        Partition("app1", FlashName.NOR, 0x01_0000, APP_SIZE),
        Partition("appT", FlashName.NOR, 0x10_0000, APP_SIZE),
        Partition("appF", FlashName.NOR, 0x1F_0000, APP_SIZE),
        Partition("fs1", FlashName.NOR, 0x2E_0000, 0x4_0000),
        Partition("fsF", FlashName.NOR, 0x32_0000, 0x4_0000),
        Partition("fs0", FlashName.NOR, 0x36_0000, 0x4_0000),
    )
)

_WRITEABLE = SlotFlag.VALID | SlotFlag.WRITEABLE

DEFAULT_SLOTS = (
    # The only directly bootable one.
    Slot(SlotConfiguration.of(_WRITEABLE, "app0", APP0_ADDRESS, "fs0")),
    # Where updates arrive.
    Slot(SlotConfiguration.of(_WRITEABLE, "app1", fs_dev="fs1")),
    # Spare room for swaps; has no file system of its own.
    Slot(SlotConfiguration.of(_WRITEABLE, "appT")),
    # The factory image: never written after manufacture.
    Slot(SlotConfiguration.of(SlotFlag.VALID, "appF", fs_dev="fsF")),
)
FACTORY_SLOT = 3
