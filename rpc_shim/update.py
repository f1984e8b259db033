"""An update in progress: a bundle that arrives, checked and written to a free slot as it comes.

Nothing but the slot is touched until the whole bundle has come, every checksum is right and the
image has been read back: a failed update leaves the boot state as it was. At most `STEP_SIZE` bytes
are dealt with in a turn, so that the application's main loop goes on meanwhile.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from bootloader_model.boot_state import BootState, Slot, SlotState
from bootloader_model.image_check import VectorTableHead, check_vector_table
from bootloader_model.partition import OpenPartition, Partitions
from bootloader_model.slot_access import ERASE_RUN_SIZE
from bootloader_model.slots import find_update_slot
from platforms.errors import OtasimError
from rpc_shim.bundle.manifest import Manifest, Part
from rpc_shim.bundle.signature import NO_SIGNATURES_REQUIRED, SignaturePolicy
from rpc_shim.bundle.stream import (
    BundleEvent,
    BundleReader,
    EndOfArchive,
    ManifestReceived,
    PartBegin,
    PartData,
    PartEnd,
    SkippedFile,
)
from rpc_shim.download import ByteSource

PLATFORM = "stm32"
STEP_SIZE = 4096
"""Bytes taken from the network, and written, in one turn of the main loop."""
MAX_SKIPPED_SIZE = 1024 * 1024
"""The largest file system image that is passed over."""

_VECTOR_TABLE_HEAD_SIZE = 8


class UpdateError(OtasimError):
    """An update cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class FinishedUpdate:
    """An image that is in its slot, verified.

    Attributes:
        slot: where it is.
        image: what the boot state is to say about it.
        manifest: what the bundle said of itself.
    """

    slot: int
    image: SlotState
    manifest: Manifest


class Update:
    """One update. Call `step` once a turn until it returns what was finished.

    Args:
        source: where the bundle comes from; closed by `close`.
        state: the boot state, which is only read.
        partitions: where slots are opened.
        log: takes one line of text.
        signature_policy: the signatures a bundle must have; unless told otherwise, none.
    """

    def __init__(
        self,
        source: ByteSource,
        state: BootState,
        partitions: Partitions,
        log: Callable[[str], None],
        signature_policy: SignaturePolicy = NO_SIGNATURES_REQUIRED,
    ) -> None:
        self._source = source
        self._state = state
        self._partitions = partitions
        self._log = log
        self._signature_policy = signature_policy
        self._reader = BundleReader(part_size_limit=self._size_limit)
        self._manifest: Manifest | None = None
        self._writer: _SlotWriter | None = None
        self._finished = False
        self.received = 0

    @property
    def total(self) -> int | None:
        """The announced size of the bundle in bytes, if it is known."""
        return self._source.content_length

    def close(self) -> None:
        """Stop the download."""
        self._source.close()

    def step(self) -> FinishedUpdate | None:
        """Deal with what has arrived, as much as fits into a turn.

        Raises an OtasimError when the update has failed.
        """
        data = self._source.poll(STEP_SIZE)
        if data is None:
            return None
        if data:
            self.received += len(data)
            for event in self._reader.feed(data):
                self._take(event)
        if not data or self._reader.complete:
            self._reader.finish()
            return self._finish()
        return None

    def _size_limit(self, part: Part) -> int:
        if part.name != "app":
            return MAX_SKIPPED_SIZE
        slot = self._slot_for(part)
        return part.app_offset + self._partitions.open(_device(self._state.slots[slot])).size

    def _slot_for(self, part: Part) -> int:
        slot = find_update_slot(self._state, part.app_org)
        if slot is None:
            raise UpdateError("No slots available for update: commit or revert, then try again")
        return slot

    def _take(self, event: BundleEvent) -> None:
        match event:
            case ManifestReceived(manifest, text, signatures):
                if not manifest.is_for(PLATFORM):
                    raise UpdateError(
                        f"Wrong platform: the bundle is for {manifest.platform!r}, "
                        f"this device is {PLATFORM!r}"
                    )
                signed_by = self._signature_policy.check(manifest, text, signatures)
                self._manifest = manifest
                self._log(f"ota: receiving {manifest.title}")
                if signed_by:
                    self._log(f"ota: signed by key {', '.join(map(str, signed_by))}")
            case PartBegin(part=part, size=size) if part.name == "app":
                number = self._slot_for(part)
                slot = self._state.slots[number]
                self._log(f"ota: writing slot {number} ({_device(slot)})")
                self._writer = _SlotWriter(
                    number, self._partitions.open(_device(slot)), part, size - part.app_offset
                )
            case PartBegin(part=part):
                self._log(f"ota: part {part.name} is not written: this device has no use for it")
            case PartData(part=part, offset=offset, data=data) if part.name == "app":
                if self._writer is not None:
                    self._writer.write(offset, data)
            case PartData() | PartEnd() | SkippedFile() | EndOfArchive():
                pass

    def _finish(self) -> FinishedUpdate:
        if self._manifest is None or self._writer is None:
            raise UpdateError("Incomplete update package: there is no application in it")
        return FinishedUpdate(self._writer.number, self._writer.verify(), self._manifest)


class _SlotWriter:
    """Writes an application to its slot while it comes, erasing ahead of it."""

    def __init__(self, number: int, partition: OpenPartition, part: Part, length: int) -> None:
        if length < _VECTOR_TABLE_HEAD_SIZE:
            raise UpdateError("App file too short: there is no application behind its headers")
        if length > partition.size:
            raise UpdateError(
                f"the application of {length:,} bytes does not fit into slot {number}, "
                f"which has {partition.size:,}"
            )
        self.number = number
        self._partition = partition
        self._skip = part.app_offset
        self._origin = part.app_org
        self._length = length
        self._crc32 = 0
        self._written = 0
        self._erase_runs = partition.erase_runs(length, ERASE_RUN_SIZE)

    def write(self, offset: int, data: bytes) -> None:
        """The next bytes of the part's file, `offset` bytes from its start."""
        data = data[max(0, self._skip - offset) :]
        if not data:
            return
        if self._written == 0 and len(data) >= _VECTOR_TABLE_HEAD_SIZE:
            self._check_head(data)
        while self._erase_runs and self._erase_runs[0][0] < self._written + len(data):
            self._partition.erase(*self._erase_runs.pop(0))
        self._partition.program(self._written, data)
        self._crc32 = zlib.crc32(data, self._crc32)
        self._written += len(data)

    def verify(self) -> SlotState:
        """Read the image back; what the boot state is to say about it."""
        self._check_head(self._partition.read(0, _VECTOR_TABLE_HEAD_SIZE))
        read_back = 0
        for offset in range(0, self._length, STEP_SIZE):
            chunk = self._partition.read(offset, min(STEP_SIZE, self._length - offset))
            read_back = zlib.crc32(chunk, read_back)
        if read_back != self._crc32:
            raise UpdateError(
                f"slot {self.number} does not read back as written: CRC32 0x{read_back:08x} "
                f"instead of 0x{self._crc32:08x}; the flash may be worn out"
            )
        return SlotState(app_len=self._length, app_org=self._origin, app_crc32=self._crc32)

    def _check_head(self, data: bytes) -> None:
        head = VectorTableHead.parse(data)
        problem = check_vector_table(head, self._origin, self._length)
        if problem is not None:
            raise UpdateError(f"the image cannot be started: {problem}")


def _device(slot: Slot) -> str:
    return slot.configuration.app_dev
