"""The boot state of a Mongoose OS STM32 device, and what may happen to it.

It says which slot the next boot uses, which one is the way back, and what each slot holds. The
methods of `BootState` are the transitions: pure functions that return the next state. The sequence
number is not theirs to change: the journal counts it up when it writes. How a state looks in flash
is `boot_record`'s business.

Source of the rules: the public boot configuration library of Mongoose OS (mgos_boot_cfg.h and .c),
its STM32 boot loader, and the last public version of its OTA library.
"""

from dataclasses import dataclass, field, replace
from enum import IntFlag

from platforms.errors import InvalidArgumentError, OtasimError

NO_SLOT = -1
MAX_ERROR_COUNT = 0xFF
NAME_SIZE = 8
"""Bytes of a device name in a record, with the NUL that ends it."""
APP_FLAG_FS_CREATED = 1
"""In a slot's `app_flags`: the application has a file system already."""
APP_FLAGS_OF_ORIGINAL = 0xFF
"""The bits of `app_flags` that are left to the original."""
ERASED_PADDING = b"\xff" * 28
"""What a real record has behind its slots."""


class BootFlag(IntFlag):
    """Flags of the whole state. Bits without a name are kept as they are."""

    COMMITTED = 1 << 0
    FIRST_BOOT_A = 1 << 1
    """For the application: this firmware has not finished its first start yet."""
    FIRST_BOOT_B = 1 << 2
    """For the boot loader: this firmware has not been started yet."""
    MERGE_FS = 1 << 3
    """For the application: bring files over from the revert slot's file system."""


class SlotFlag(IntFlag):
    """Flags of a slot's configuration. Bits without a name are kept as they are."""

    VALID = 1 << 0
    WRITEABLE = 1 << 1


class TransitionError(OtasimError):
    """The boot state does not allow what was asked for."""


@dataclass(frozen=True, slots=True)
class SlotConfiguration:
    """Where a slot is; hardly ever changes.

    The two names are kept as the eight bytes of the record, because the original copies them with
    strcpy and leaves what stood behind the NUL: real records have such leftovers, and what is
    parsed must build to the same bytes again.

    Attributes:
        flags: whether the slot may be used, and written.
        app_dev_field: name of the partition that holds the image, 8 bytes, ended by a NUL.
        app_map_addr: address at which the processor sees the image; 0 = not memory mapped.
        fs_dev_field: name of the partition that holds the file system, likewise; empty = none.
    """

    flags: SlotFlag
    app_dev_field: bytes
    app_map_addr: int
    fs_dev_field: bytes

    @classmethod
    def of(
        cls, flags: SlotFlag, app_dev: str, app_map_addr: int = 0, fs_dev: str = ""
    ) -> "SlotConfiguration":
        """A configuration from plain names.

        Raises InvalidArgumentError when a name is not ASCII or has more than 7 characters.
        """
        return cls(flags, _name_field(app_dev), app_map_addr, _name_field(fs_dev))

    @property
    def app_dev(self) -> str:
        """Name of the partition that holds the image."""
        return _name(self.app_dev_field)

    @property
    def fs_dev(self) -> str:
        """Name of the partition that holds the file system; empty when there is none."""
        return _name(self.fs_dev_field)


@dataclass(frozen=True, slots=True)
class SlotState:
    """What a slot holds.

    Attributes:
        app_len: length of the image in bytes; 0 = no image.
        app_org: address the image is linked for.
        app_crc32: CRC-32 (IEEE) of the image.
        app_flags: the application's own flags, see APP_FLAG_FS_CREATED.
        err_count: how often copying to the slot has failed.
    """

    app_len: int = 0
    app_org: int = 0
    app_crc32: int = 0
    app_flags: int = 0
    err_count: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """One place for an image: where it is, and what it holds."""

    configuration: SlotConfiguration
    state: SlotState = SlotState()

    @property
    def is_directly_bootable(self) -> bool:
        """Whether the image is linked for the very address at which the processor sees the slot."""
        return (
            self.configuration.app_map_addr != 0
            and self.state.app_org == self.configuration.app_map_addr
        )


@dataclass(frozen=True, slots=True)
class BootState:
    """The boot state: what the next boot uses, and the way back.

    Attributes:
        seq: sequence number, larger = newer; set by the journal when it writes.
        version: format version, 1.
        active_slot: what the next boot uses.
        revert_slot: the way back; -1 = none.
        flags: see BootFlag.
        slots: one to five slots.
        commit_timeout: seconds after which firmware that has not been committed is reverted; None =
            none stored, which makes the application commit at its first successful start.
        unused_slots: bytes of the entries behind the last slot; empty = zeros, as in real records.
        padding: the 28 bytes behind the slots, without the commit timeout.
    """

    seq: int
    active_slot: int
    revert_slot: int
    flags: BootFlag
    slots: tuple[Slot, ...]
    version: int = 1
    commit_timeout: int | None = None
    unused_slots: bytes = field(default=b"", repr=False)
    padding: bytes = field(default=ERASED_PADDING, repr=False)

    @property
    def is_committed(self) -> bool:
        """Whether the active firmware is there to stay."""
        return BootFlag.COMMITTED in self.flags

    @property
    def is_first_boot(self) -> bool:
        """Whether the application has yet to decide about itself (FIRST_BOOT_A)."""
        return BootFlag.FIRST_BOOT_A in self.flags

    def has_slot(self, number: int) -> bool:
        """Whether there is a slot of this number."""
        return 0 <= number < len(self.slots)

    def slot_at(self, vector_table: int) -> int:
        """The first slot that the processor sees at this address; NO_SLOT when none is there."""
        for number, slot in enumerate(self.slots):
            if slot.configuration.app_map_addr == vector_table:
                return number
        return NO_SLOT

    # What the running application does (source: OTA library).

    def commit(self) -> "BootState":
        """Keep the active firmware for good.

        Raises TransitionError when it is committed already.
        """
        if self.is_committed:
            raise TransitionError(
                f"slot {self.active_slot} is committed already: there is nothing to commit"
            )
        return self.fall_back_to(self.active_slot)

    def revert(self) -> "BootState":
        """Go back to the revert slot with the next reset.

        Raises TransitionError when the firmware is committed, or when there is no revert slot.
        """
        if self.is_committed:
            raise TransitionError(
                f"slot {self.active_slot} is committed: there is nothing to revert to"
            )
        if not self.has_slot(self.revert_slot):
            raise TransitionError(
                f"no revert slot is set (it is {self.revert_slot}): commit, or set one first"
            )
        return self.fall_back_to(self.revert_slot)

    def update_finished(
        self,
        slot: int,
        *,
        length: int,
        origin: int,
        crc32: int,
        commit_timeout: int | None,
        app_flags: int = 0,
    ) -> "BootState":
        """Use the update that has been written to `slot` with the next reset.

        Args:
            slot: where the image has been written; VALID, WRITEABLE and not the active one.
            length: of the image, in bytes.
            origin: address the image is linked for.
            crc32: CRC-32 (IEEE) of the image.
            commit_timeout: seconds; None or 0 = commit at the first successful start.
            app_flags: APP_FLAG_FS_CREATED when the slot's file system was written, too.

        Raises TransitionError when the state is not committed or the slot may not be written.
        """
        self._expect_committed("an update")
        self._expect_writeable(slot)
        image = replace(
            self.slots[slot].state,
            app_len=length,
            app_org=origin,
            app_crc32=crc32,
            app_flags=app_flags,
        )
        flags = _without(self.flags, BootFlag.COMMITTED)
        return replace(
            self._with_slot_state(slot, image),
            active_slot=slot,
            revert_slot=self.active_slot,
            flags=flags | BootFlag.FIRST_BOOT_A | BootFlag.FIRST_BOOT_B | BootFlag.MERGE_FS,
            commit_timeout=commit_timeout or None,
        )

    def file_system_created(self) -> "BootState":
        """The active slot's application has a file system now."""
        state = self.slots[self.active_slot].state
        created = replace(state, app_flags=state.app_flags | APP_FLAG_FS_CREATED)
        return self._with_slot_state(self.active_slot, created)

    def snapshot_taken(self, slot: int) -> "BootState":
        """`slot` holds a copy of the active image now.

        Raises TransitionError when the state is not committed or the slot may not be written.
        """
        self._expect_committed("a snapshot")
        self._expect_writeable(slot)
        return self._with_image_of(self.active_slot, slot)

    def set_as_revert(self, slot: int, *, commit_timeout: int | None) -> "BootState":
        """Make `slot` the way back: without a commit, the next reset goes there.

        Raises TransitionError when the state is not committed, or the slot is the active one or
        does not exist.
        """
        self._expect_committed("a new revert slot")
        if not self.has_slot(slot) or slot == self.active_slot:
            raise TransitionError(
                f"slot {slot} cannot be the way back: expected one of 0 to {len(self.slots) - 1}"
                f" other than the active slot {self.active_slot}"
            )
        return replace(
            self,
            revert_slot=slot,
            flags=_without(self.flags, BootFlag.COMMITTED),
            commit_timeout=commit_timeout or None,
        )

    # What the boot loader does (source: STM32 boot loader).

    def begin_first_boot(self) -> "BootState":
        """The new firmware is about to start: without a commit, the next boot rolls back."""
        return replace(self, flags=_without(self.flags, BootFlag.FIRST_BOOT_B))

    def fall_back_to(self, slot: int) -> "BootState":
        """Use `slot` from now on, committed: rollback, revert and commit all end here.

        The original's revert leaves FIRST_BOOT_B alone, which is clear by then. It is cleared here
        because falling back may come before the first boot of an update that is no good.
        """
        pending = BootFlag.FIRST_BOOT_A | BootFlag.FIRST_BOOT_B | BootFlag.MERGE_FS
        return replace(
            self,
            active_slot=slot,
            revert_slot=NO_SLOT,
            flags=_without(self.flags, pending) | BootFlag.COMMITTED,
            commit_timeout=None,
        )

    def backed_up(self, source: int, spare: int) -> "BootState":
        """`spare` holds a copy of `source` now, and is the way back in its stead.

        A stable point: whatever happens to `source` from here on, nothing is lost.
        """
        return replace(self, slots=self._slots_after_copy(source, spare), revert_slot=spare)

    def activated(self, source: int, target: int) -> "BootState":
        """`target` holds a copy of `source` now and is started in its stead."""
        return replace(self, slots=self._slots_after_copy(source, target), active_slot=target)

    def copy_failed(self, target: int) -> "BootState":
        """Copying to `target` failed: avoid it when there is a choice."""
        state = self.slots[target].state
        # The original's counter wraps from 255 to 0, which makes the worst slot the best one.
        errors = min(state.err_count + 1, MAX_ERROR_COUNT)
        return self._with_slot_state(target, replace(state, err_count=errors))

    def _with_image_of(self, source: int, target: int) -> "BootState":
        image = self.slots[source].state
        errors = self.slots[target].state.err_count
        return self._with_slot_state(target, replace(image, err_count=errors))

    def _slots_after_copy(self, source: int, target: int) -> tuple[Slot, ...]:
        """The slots when `target` holds `source`'s image.

        The file system goes with its application, as in the original, with two exceptions: a slot
        without one has none to give, and a slot that is not writeable (the factory image) keeps its
        own, which could never be made again.
        """
        slots = list(self._with_image_of(source, target).slots)
        giver, taker = slots[source].configuration, slots[target].configuration
        if giver.fs_dev and SlotFlag.WRITEABLE in giver.flags:
            given = replace(giver, fs_dev_field=taker.fs_dev_field)
            taken = replace(taker, fs_dev_field=giver.fs_dev_field)
            slots[source] = replace(slots[source], configuration=given)
            slots[target] = replace(slots[target], configuration=taken)
        return tuple(slots)

    def _with_slot_state(self, number: int, state: SlotState) -> "BootState":
        slots = list(self.slots)
        slots[number] = replace(slots[number], state=state)
        return replace(self, slots=tuple(slots))

    def _expect_committed(self, what: str) -> None:
        if not self.is_committed:
            raise TransitionError(
                f"slot {self.active_slot} is not committed: commit or revert before {what}"
            )

    def _expect_writeable(self, number: int) -> None:
        if not self.has_slot(number):
            raise TransitionError(
                f"slot {number} does not exist: expected 0 to {len(self.slots) - 1}"
            )
        if number == self.active_slot:
            raise TransitionError(f"slot {number} is active: it cannot be written")
        wanted = SlotFlag.VALID | SlotFlag.WRITEABLE
        if self.slots[number].configuration.flags & wanted != wanted:
            raise TransitionError(f"slot {number} is not both valid and writeable")


def _name(field_bytes: bytes) -> str:
    return field_bytes.split(b"\0", 1)[0].decode("ascii", errors="backslashreplace")


def _name_field(name: str) -> bytes:
    if not name.isascii() or "\0" in name or len(name) >= NAME_SIZE:
        raise InvalidArgumentError(
            f"device name {name!r}: expected at most {NAME_SIZE - 1} ASCII characters"
        )
    return name.encode("ascii").ljust(NAME_SIZE, b"\0")


def _without(flags: BootFlag, cleared: BootFlag) -> BootFlag:
    # The inverse of an IntFlag holds only the bits that have names: flags & ~cleared would drop
    # the others.
    return BootFlag(int(flags) & ~int(cleared))
