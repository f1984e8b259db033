"""The boot state as the running application keeps it: read once, every change written through.

It is RAM of one boot of the application. What is in it is in the flash: a change counts from the
moment its record has been written and read back.
"""

from bootloader_model.boot_state import BootState
from bootloader_model.journal import Journal
from bootloader_model.partition import Partitions
from rpc_shim.dispatch import FAILED, RpcError


class BootConfiguration:
    """The boot state, to be read and written by the services of one boot.

    Args:
        partitions: where the journal is.
        strict_original: read and write the journal as the original does.

    Raises:
        FlashError: the journal cannot be read.
    """

    def __init__(self, partitions: Partitions, *, strict_original: bool = False) -> None:
        self._journal = Journal(partitions.journal_areas, strict_original=strict_original)
        winner = self._journal.load().winner
        self._state = None if winner is None else winner.state

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

    def write(self, state: BootState) -> BootState:
        """Append `state` to the journal and return it as written, with its sequence number.

        Raises JournalWriteError when it could not be written; then nothing has changed.
        """
        self._state = self._journal.append(state)
        return self._state
