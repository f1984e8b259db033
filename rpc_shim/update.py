"""An update in progress: a bundle, checked and written to a free slot as it comes.

Nothing but the slot is touched until the whole bundle has come, every checksum is right and all of
it has been read back: a failed update leaves the boot state as it was. The slot's file system is
written when the bundle brings one, as a part of its own or in front of the application; otherwise
the application makes a new one when it first starts. The boot loader in a bundle is not written:
the one of this board is no code in its flash.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bootloader_model.boot_state import (
    APP_FLAG_FS_CREATED,
    APP_FLAGS_OF_ORIGINAL,
    BootState,
    Slot,
    SlotState,
)
from bootloader_model.image_check import VectorTableHead, check_vector_table
from bootloader_model.partition import OpenPartition, Partitions
from bootloader_model.slot_access import ERASE_RUN_SIZE
from bootloader_model.slots import find_update_slot
from platforms.errors import OtasimError
from platforms.flash import ERASED_BYTE
from rpc_shim.bundle.manifest import APP_PART, Manifest, Part
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

PLATFORM = "stm32"

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


def identity_flags(manifest: Manifest) -> int:
    """What a slot's `app_flags` keep of the manifest that its image came with.

    It tells whether a bundle is the one that runs, also when the image says nothing of itself or
    something else. The original uses bit 0 of the flags alone.
    """
    identity = zlib.crc32(f"{manifest.version}\0{manifest.build_id}".encode())
    return identity & ~APP_FLAGS_OF_ORIGINAL


class Update:
    """One update: give it the bundle's bytes by `feed`, in any portions, then call `finish`.

    Args:
        state: the boot state, which is only read.
        partitions: where slots are opened.
        log: takes one line of text.
        accept: sees the manifest before anything is written; raises an OtasimError to refuse it.
        signature_policy: the signatures a bundle must have; unless told otherwise, none.
        to_the_end: all of the bundle will be fed, its directory too, and nothing may come behind.
    """

    def __init__(
        self,
        state: BootState,
        partitions: Partitions,
        log: Callable[[str], None],
        accept: Callable[[Manifest], None],
        signature_policy: SignaturePolicy = NO_SIGNATURES_REQUIRED,
        *,
        to_the_end: bool = False,
    ) -> None:
        self._state = state
        self._partitions = partitions
        self._log = log
        self._accept = accept
        self._signature_policy = signature_policy
        self._reader = BundleReader(part_size_limit=self._size_limit, to_the_end=to_the_end)
        self._target: _Target | None = None
        self._application: _PartitionWriter | None = None
        self._file_system: _PartitionWriter | None = None
        self._regions: Sequence[_Region] = ()

    @property
    def is_complete(self) -> bool:
        """Whether all that matters of the bundle has come; what may follow is its directory.

        A device hangs up here, and so does this one. It never learns whether the server had as many
        bytes as it announced: a wrong length is an error only when files are not whole.
        """
        return self._reader.complete

    def feed(self, data: bytes) -> None:
        """Deal with the next bytes; an OtasimError means that the update has failed."""
        for event in self._reader.feed(data):
            self._take(event)

    def finish(self) -> FinishedUpdate:
        """No more bytes will come: read everything back.

        Raises an OtasimError when the bundle is not complete or does not read back as written.
        """
        self._reader.finish()
        if self._target is None or self._application is None:
            raise UpdateError("Incomplete update package: there is no application in it")
        flags = identity_flags(self._target.manifest)
        if self._file_system is not None:
            self._file_system.verify()
            # Blank space for a file system is no file system.
            flags |= 0 if self._file_system.is_blank else APP_FLAG_FS_CREATED
        crc32 = self._application.verify()
        self._check_head(self._application.read(_VECTOR_TABLE_HEAD_SIZE))
        image = SlotState(self._application.length, self._target.origin, crc32, flags)
        return FinishedUpdate(self._target.number, image, self._target.manifest)

    def _take(self, event: BundleEvent) -> None:
        match event:
            case ManifestReceived() as received:
                self._target = self._choose_target(received)
            case PartBegin(part=part, size=size) if part.name == APP_PART:
                self._begin_application(part, size)
            case PartBegin(size=size):
                self._file_system = self._writer(self._slot.configuration.fs_dev, size)
                self._regions = (_Region(0, size, self._file_system),)
            case PartData(offset=offset, data=data):
                for region in self._regions:
                    self._write(region, region.part_of(offset, data))
            case PartEnd() | SkippedFile() | EndOfArchive():
                pass

    def _choose_target(self, received: ManifestReceived) -> "_Target":
        manifest = received.manifest
        if not manifest.is_for(PLATFORM):
            raise UpdateError(
                f"Wrong platform: the bundle is for {manifest.platform!r}, "
                f"this device is {PLATFORM!r}"
            )
        signed_by = self._signature_policy.check(manifest, received.text, received.signatures)
        self._accept(manifest)
        # The reader has refused a manifest without an application before it comes here.
        origin = 0 if manifest.app is None else manifest.app.app_org
        bootable = sorted({slot.configuration.app_map_addr for slot in self._state.slots} - {0})
        if origin not in bootable:
            places = ", ".join(f"0x{address:08x}" for address in bootable)
            raise UpdateError(
                f"the image is for 0x{origin:08x}, and no slot is there; link it for an address "
                f"that can be booted: {places or 'none'}"
            )
        number = find_update_slot(self._state, origin)
        if number is None:
            raise UpdateError("No slots available for update: commit or revert, then try again")
        self._log(f"ota: receiving {manifest.title}")
        if signed_by:
            self._log(f"ota: signed by key {', '.join(map(str, signed_by))}")
        return _Target(manifest, number, origin)

    def _begin_application(self, part: Part, size: int) -> None:
        target, slot = self._known_target, self._slot
        length = size - part.app_offset
        if length < _VECTOR_TABLE_HEAD_SIZE:
            raise UpdateError("App file too short: there is no application behind its headers")
        self._log(f"ota: writing slot {target.number} ({slot.configuration.app_dev})")
        self._application = self._writer(slot.configuration.app_dev, length)
        regions = [_Region(part.app_offset, size, self._application)]
        # A file system of its own wins over one in front of the application, as on the device.
        if part.fs_size and target.manifest.fs is None:
            self._file_system = self._writer(slot.configuration.fs_dev, part.fs_size)
            fs_start = part.app_offset - part.fs_size
            regions.insert(0, _Region(fs_start, part.app_offset, self._file_system))
        self._regions = regions

    def _write(self, region: "_Region", data: bytes) -> None:
        writer = region.writer
        is_first = writer is self._application and not writer.written
        if is_first and len(data) >= _VECTOR_TABLE_HEAD_SIZE:
            # The earliest moment at which an image that cannot be started can be refused.
            self._check_head(data)
        if data:
            writer.write(data)

    def _check_head(self, data: bytes) -> None:
        length = 0 if self._application is None else self._application.length
        head = VectorTableHead.parse(data)
        problem = check_vector_table(head, self._known_target.origin, length)
        if problem is not None:
            raise UpdateError(f"the image cannot be started: {problem}")

    def _size_limit(self, part: Part) -> int:
        configuration = self._slot.configuration
        if part.name == APP_PART:
            return part.app_offset + self._partitions.open(configuration.app_dev).size
        return self._partitions.open(configuration.fs_dev).size

    @property
    def _known_target(self) -> "_Target":
        if self._target is None:
            raise UpdateError("Incomplete update package: its manifest has not come")
        return self._target

    @property
    def _slot(self) -> Slot:
        return self._state.slots[self._known_target.number]

    def _writer(self, device: str, length: int) -> "_PartitionWriter":
        return _PartitionWriter(self._partitions.open(device), length)


@dataclass(frozen=True, slots=True)
class _Target:
    """Where the update goes, and what it is."""

    manifest: Manifest
    number: int
    origin: int


class _PartitionWriter:
    """Fills a partition from its start, erasing ahead, and checks that it reads back."""

    def __init__(self, partition: OpenPartition, length: int) -> None:
        if length > partition.size:
            raise UpdateError(
                f"{length:,} bytes do not fit into {partition.name}, which has {partition.size:,}"
            )
        self.length = length
        self.written = 0
        self.is_blank = True
        self._partition = partition
        self._crc32 = 0
        self._erase_runs = partition.erase_runs(length, ERASE_RUN_SIZE)

    def write(self, data: bytes) -> None:
        """The next bytes."""
        while self._erase_runs and self._erase_runs[0][0] < self.written + len(data):
            self._partition.erase(*self._erase_runs.pop(0))
        self._partition.program(self.written, data)
        self.is_blank = self.is_blank and data.count(ERASED_BYTE) == len(data)
        self._crc32 = zlib.crc32(data, self._crc32)
        self.written += len(data)

    def read(self, length: int) -> bytes:
        """The first bytes."""
        return self._partition.read(0, length)

    def verify(self) -> int:
        """Read everything back; its CRC-32 (IEEE). UpdateError when it is not as written."""
        read_back = 0
        for chunk in self._partition.chunks(self.length):
            read_back = zlib.crc32(chunk, read_back)
        if read_back != self._crc32:
            raise UpdateError(
                f"{self._partition.name} does not read back as written: CRC32 0x{read_back:08x} "
                f"instead of 0x{self._crc32:08x}; the flash may be worn out"
            )
        return read_back


@dataclass(frozen=True, slots=True)
class _Region:
    """A part of a file, from `start` to before `end`, and who writes it."""

    start: int
    end: int
    writer: _PartitionWriter

    def part_of(self, offset: int, data: bytes) -> bytes:
        """What of `data`, which stands at `offset` of the file, lies in this region."""
        return data[max(0, self.start - offset) : max(0, self.end - offset)]
