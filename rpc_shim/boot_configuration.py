"""The boot state as the running application keeps it: read once, every change written through.

It is RAM of one boot of the application. What is in it is in the flash: a change counts from the
moment its record has been written and read back.
"""

from typing import Self

from bootloader_model.boot_state import NO_SLOT, BootState
from bootloader_model.journal import Journal
from bootloader_model.partition import Partitions
from rpc_shim.dispatch import FAILED, RpcError


class BootConfiguration:
    """The boot state, to be read and written by the services of one boot.

    Args:
        partitions: where the journal is.
        running_slot: the slot of the application that runs; -1 when it is not known.
        strict_original: read and write the journal as the original does.

    Raises:
        FlashError: the journal cannot be read.
    """

    def __init__(
        self, partitions: Partitions, running_slot: int, *, strict_original: bool = False
    ) -> None:
        self._running_slot = running_slot
        self._journal = Journal(partitions.journal_areas, strict_original=strict_original)
        # The loader writes the newest record anew after each loss of power.
        winner = self._journal.load(is_firm=True).winner
        self._state = None if winner is None else winner.state

    @classmethod
    def of_image_at(cls, partitions: Partitions, vector_table: int) -> Self:
        """The same, for the application that runs from this address."""
        boot = cls(partitions, NO_SLOT)
        if boot._state is not None:
            boot._running_slot = boot._state.slot_at(vector_table)
        return boot

    @property
    def state_or_none(self) -> BootState | None:
        """The boot state, None when no valid record is left."""
        return self._state

    @property
    def state(self) -> BootState:
        """The boot state; RpcError when no valid record is left."""
        if self._state is None:
            raise RpcError(FAILED, "there is no valid boot state in the flash: reboot to write one")
        return self._state

    @property
    def booted_state(self) -> BootState:
        """The boot state, when what runs is what it says.

        Raises RpcError when another slot is to be booted first. Until then nobody may decide about
        that slot, and the slot of the code that runs is not free, whatever the state says.
        """
        state = self.state
        if state.active_slot != self._running_slot:
            raise RpcError(
                FAILED,
                f"slot {state.active_slot} is to be booted, but the application in slot "
                f"{self._running_slot} still runs: reboot first (Sys.Reboot)",
            )
        return state

    def write(self, state: BootState) -> BootState:
        """Append `state` to the journal and return it as written, with its sequence number.

        Raises JournalWriteError when it could not be written; then nothing has changed.
        """
        self._state = self._journal.append(state)
        return self._state
