"""Images in slots: reading, checking and copying them, whichever flash memory they are in."""

import zlib
from collections.abc import Callable

from bootloader_model.boot_state import Slot
from bootloader_model.image_check import (
    VECTOR_TABLE_HEAD_SIZE,
    ImageCheck,
    VectorTableHead,
    check_configuration,
    check_crc,
    check_vector_table,
)
from bootloader_model.layout import UnknownPartitionError
from bootloader_model.partition import OpenPartition, Partitions
from platforms.errors import OtasimError
from platforms.flash import ERASED_BYTE, FlashError

ERASE_RUN_SIZE = 0x1_0000
"""Bytes erased between two watchdog feeds, where the sectors are no larger."""
PROGRAM_ALIGNMENT = 4
"""Internal flash is programmed by words (RM0090 section 3.6.2, x32 parallelism)."""


class CopyError(OtasimError):
    """An image could not be copied.

    Attributes:
        source: partition it was read from.
        target: partition it was written to.
    """

    def __init__(self, source: str, target: str, problem: str) -> None:
        super().__init__(f"copying {source} to {target}: {problem}")
        self.source = source
        self.target = target


class SlotAccess:
    """The images of a board, by slot.

    Args:
        partitions: where slots are opened.
        feed: called between pieces of work that take long: the loader feeds its watchdog there,
            an application may give it a turn of its main loop.
    """

    def __init__(self, partitions: Partitions, feed: Callable[[], None]) -> None:
        self._partitions = partitions
        self._feed = feed

    def room(self, slot: Slot) -> int:
        """How many bytes the slot can hold; UnknownPartitionError when it is nowhere."""
        return self._open(slot).size

    def read_image(self, slot: Slot) -> bytes:
        """The slot's whole image, as long as its state says.

        Raises FlashError, and UnknownPartitionError when the slot is nowhere on this board.
        """
        partition = self._open(slot)
        return b"".join(partition.chunks(slot.state.app_len))

    def read_head(self, slot: Slot, length: int) -> bytes:
        """The first bytes of the slot's image, `length` of them or as many as it has."""
        return self._open(slot).read(0, min(length, slot.state.app_len))

    def crc32(self, slot: Slot, length: int | None = None) -> int:
        """CRC-32 (IEEE) of the slot's image, or of its first `length` bytes.

        Raises FlashError, and UnknownPartitionError when the slot is nowhere on this board.
        """
        partition = self._open(slot)
        return self._crc32(partition, slot.state.app_len if length is None else length)

    def check_image(self, slot: Slot) -> ImageCheck:
        """Whether the slot holds a good image: flags, length, CRC and vector table.

        A slot that is nowhere, or cannot be read, holds none; nothing is raised for it.
        """
        try:
            partition = self._open(slot)
            problem = check_configuration(slot, partition.size)
            if problem is None:
                problem = check_crc(slot, self._crc32(partition, slot.state.app_len))
            if problem is None:
                head = VectorTableHead.parse(partition.read(0, VECTOR_TABLE_HEAD_SIZE))
                problem = check_vector_table(head, slot.state.app_org, slot.state.app_len)
        except (FlashError, UnknownPartitionError) as error:
            problem = str(error)
        return ImageCheck(problem)

    def copy_image(self, source: Slot, target: Slot) -> None:
        """Copy `source`'s image to where `target` is, and verify it there.

        Only the sectors that the image touches are erased. Their content is never trusted to be
        erased already: an erase that was cut short looks done and is not.

        Raises CopyError when the image does not fit, the copy does not have the CRC that `source`
        says, or a device refuses.
        """
        names = source.configuration.app_dev, target.configuration.app_dev
        try:
            read_from, write_to = self._open(source), self._open(target)
            length = source.state.app_len
            if length > write_to.size:
                raise CopyError(*names, f"{length:,} bytes do not fit into {write_to.size:,}")
            for offset, size in write_to.erase_runs(length, ERASE_RUN_SIZE):
                write_to.erase(offset, size)
                self._feed()
            offset = 0
            for chunk in read_from.chunks(length):
                write_to.program(offset, _aligned(chunk))
                offset += len(chunk)
                self._feed()
            crc32 = self._crc32(write_to, length)
        except (FlashError, UnknownPartitionError) as error:
            raise CopyError(*names, str(error)) from error
        if crc32 != source.state.app_crc32:
            raise CopyError(
                *names, f"CRC32 0x{crc32:08x} instead of 0x{source.state.app_crc32:08x}"
            )

    def _open(self, slot: Slot) -> OpenPartition:
        return self._partitions.open(slot.configuration.app_dev)

    def _crc32(self, partition: OpenPartition, length: int) -> int:
        crc32 = 0
        for chunk in partition.chunks(length):
            crc32 = zlib.crc32(chunk, crc32)
            self._feed()
        return crc32


def _aligned(chunk: bytes) -> bytes:
    # Programming the erased value changes nothing, so that the padding is harmless.
    padding = -len(chunk) % PROGRAM_ALIGNMENT
    return chunk + bytes([ERASED_BYTE]) * padding
