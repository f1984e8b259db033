"""What happens to the file systems when an application starts, and when a snapshot is taken.

Each slot has a file system of its own, which goes with its application. An update that brings none
gets a new one at its first start. Then, too, the files that the new file system does not have are
brought over from the one of the version before (MERGE_FS), as in the original.
"""

import re
from collections.abc import Callable

from bootloader_model.boot_state import APP_FLAG_FS_CREATED, BootFlag, BootState
from bootloader_model.partition import Partitions
from bootloader_model.slot_access import ERASE_RUN_SIZE
from platforms.flash import ERASED_BYTE
from rpc_shim.boot_configuration import BootConfiguration
from rpc_shim.filesystem import (
    FileSystem,
    FileSystemError,
    Reason,
    RootFileSystem,
    merge_file_systems,
)

_CONFIGURATION_FILE = re.compile(r"/?conf\d\.json(\.try)?")


class BootFiles:
    """The file systems of one boot of the application.

    Args:
        boot: the boot state.
        partitions: where they are.
        feed_watchdog: called in the middle of work that takes long.
        log: takes one line of text.

    Attributes:
        root: the file system of the application that runs; None when its slot has none.
    """

    def __init__(
        self,
        boot: BootConfiguration,
        partitions: Partitions,
        feed_watchdog: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self._boot = boot
        self._partitions = partitions
        self._feed_watchdog = feed_watchdog
        self._log = log
        self.root: RootFileSystem | None = None
        state = boot.state_or_none
        if state is not None and state.has_slot(state.active_slot):
            device = state.slots[state.active_slot].configuration.fs_dev
            if device:
                self.root = RootFileSystem(partitions.open(device), feed_watchdog)

    # -- the files of the application, as its configuration and access control need them -----------

    def read(self, name: str) -> bytes | None:
        """The contents of a file; None when there is no such file, or the slot has no file system.

        Raises FileSystemError when there should be one and it cannot be used: nobody knows then
        what was in it, the rules of who may call what among it.
        """
        if self.root is None:
            return None
        mounted = self.root.require()
        return mounted.read(name) if mounted.exists(name) else None

    def write_atomically(self, name: str, data: bytes) -> None:
        """Replace a file: whatever happens meanwhile, it has its old or its new contents."""
        self._require().write_atomically(name, data)

    def remove(self, name: str) -> None:
        """Delete a file; harmless when there is none."""
        if self.read(name) is not None:
            self._require().remove(name)

    def _require(self) -> FileSystem:
        if self.root is None:
            raise FileSystemError(
                "/", Reason.NOT_MOUNTED, "the slot of this application has no file system"
            )
        return self.root.require()

    # -- at the start ------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the file system where there is to be a new one, and fill it from the one before.

        Raises:
            FileSystemError: there is no file system, or no room in it for all files of the old
                one. What cannot be read in the old one is logged and left behind.
            JournalWriteError: what was made could not be recorded.
        """
        state = self._boot.state_or_none
        if self.root is None or state is None:
            return
        self._make_if_missing(self.root, state)
        if state.is_first_boot and BootFlag.MERGE_FS in state.flags:
            self._bring_over(self.root, state)

    def copy(self, source: int, target: int) -> None:
        """Copy the file system of slot `source` to that of slot `target`, if both have one."""
        slots = self._boot.state.slots
        names = [slots[number].configuration.fs_dev for number in (source, target)]
        if not all(names):
            return
        read_from, write_to = (self._partitions.open(name) for name in names)
        size = min(read_from.size, write_to.size)
        for offset, length in write_to.erase_runs(size, ERASE_RUN_SIZE):
            write_to.erase(offset, length)
            self._feed_watchdog()
        offset = 0
        for chunk in read_from.chunks(size):
            if chunk.count(ERASED_BYTE) != len(chunk):
                write_to.program(offset, chunk)
                self._feed_watchdog()
            offset += len(chunk)

    def _make_if_missing(self, root: RootFileSystem, state: BootState) -> None:
        if state.slots[state.active_slot].state.app_flags & APP_FLAG_FS_CREATED:
            return
        # What is in the partition of a fresh update is a file system of long ago. Without an
        # update the flag may be missing because the boot state was lost: then it is ours.
        if state.is_first_boot or root.mounted is None:
            self._log(f"fs: making a new file system in {root.partition.name}")
            root.format()
        self._boot.write(state.file_system_created())

    def _bring_over(self, root: RootFileSystem, state: BootState) -> None:
        if not state.has_slot(state.revert_slot):
            return
        device = state.slots[state.revert_slot].configuration.fs_dev
        if not device or device == root.partition.name:
            return
        # One that cannot be mounted fails the update: what protects the device may be in it.
        old = FileSystem.mount(self._partitions.open(device), self._feed_watchdog)
        try:
            merged = merge_file_systems(old, root.require())
        except FileSystemError as error:
            if error.reason is not Reason.FULL:
                raise
            raise FileSystemError(
                error.path,
                error.reason,
                f"there is no room for it in {root.partition.name} beside the files of this "
                f"update, so the update fails: remove files from {device} or bring less with the "
                "update, then retry",
            ) from error
        for left_out in merged.left_out:
            if _CONFIGURATION_FILE.fullmatch(left_out.path):
                # Without it the new firmware would be open to everybody.
                raise left_out
            self._log(f"fs: not brought over from {device}: {left_out}")
        self._log(f"fs: {len(merged.copied)} files brought over from {device}")
