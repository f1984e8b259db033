"""The boot loader of a doorbell: what runs is in slot 0, updates come in slot 1 or 2."""

from bootloader_model.boot_state import BootFlag, BootState
from bootloader_model.image_check import VectorTableHead
from bootloader_model.journal import Journal
from bootloader_model.layout import APP0_ADDRESS, DEFAULT_LAYOUT
from bootloader_model.partition import Partitions
from bootloader_model.protocol import BootTarget, LoaderHardware
from bootloader_model.slot_access import SlotAccess
from platforms.errors import OtasimError


class DoorbellLoader:
    """Starts the active image from slot 0, and goes back to the old one without a commit."""

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        """Carry out what the newest record says."""
        hardware.start_watchdog(10)
        parts = Partitions(DEFAULT_LAYOUT, nor=hardware.nor, internal_flash=hardware.internal_flash)
        slots, journal = SlotAccess(parts, hardware.feed_watchdog), Journal(parts.journal_areas)
        winner = journal.load().winner
        if winner is None:
            raise OtasimError("there is no boot state: write one with a programmer")
        # The record may have been torn, and read differently next time: a copy of it holds.
        state = journal.append(winner.state)
        is_trial = BootFlag.FIRST_BOOT_B in state.flags
        if not state.is_committed and not is_trial:
            self._decide(hardware, "roll-back", state.revert_slot)
            state = journal.append(state.fall_back_to(state.revert_slot))
        if state.active_slot != 0:
            state = self._swap(hardware, slots, journal, state)
        self._decide(hardware, "start", 0)
        hardware.feed_watchdog()
        head = VectorTableHead.parse(slots.read_head(state.slots[0], 8))
        return BootTarget(APP0_ADDRESS, head.stack_pointer, head.reset_vector)

    def _swap(
        self, hardware: LoaderHardware, slots: SlotAccess, journal: Journal, state: BootState
    ) -> BootState:
        """Bring the active image to slot 0. A cut anywhere in it is followed by another try."""
        source = state.active_slot
        if state.revert_slot == 0:
            spare = 2 if source == 1 else 1
            self._decide(hardware, "keep-way-back", spare)
            slots.copy_image(state.slots[0], state.slots[spare])
            state = journal.append(state.backed_up(0, spare))
        self._decide(hardware, "copy", source)
        slots.copy_image(state.slots[source], state.slots[0])
        return journal.append(state.activated(source, 0).begin_first_boot())

    def _decide(self, hardware: LoaderHardware, reason: str, slot: int) -> None:
        hardware.record_decision(reason, slot=slot)
        hardware.log(f"doorbell: {reason}, slot {slot}\n")
