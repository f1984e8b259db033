"""Choosing a slot. Pure; the rules are those of Mongoose OS (mgos_boot_cfg_find_slot)."""

from collections.abc import Container

from bootloader_model.boot_state import BootState, SlotFlag

_USABLE = SlotFlag.VALID | SlotFlag.WRITEABLE


def find_slot(
    state: BootState,
    *,
    map_address: int = 0,
    want_fs: bool = False,
    excluded: Container[int] = (),
) -> int | None:
    """The best slot to write to, or None when no slot will do.

    Never the active one; VALID and WRITEABLE; of the candidates the one whose writes have failed
    least. The search starts at slot (seq mod number of slots), so that wear spreads.

    Args:
        state: the boot state.
        map_address: address at which the processor must see the slot; 0 = does not matter.
        want_fs: whether the slot must have a file system.
        excluded: slots not to be used.
    """
    best: int | None = None
    for step in range(len(state.slots)):
        number = (state.seq + step) % len(state.slots)
        if number == state.active_slot or number in excluded:
            continue
        slot = state.slots[number]
        if slot.configuration.flags & _USABLE != _USABLE:
            continue
        if map_address not in (0, slot.configuration.app_map_addr):
            continue
        if want_fs and not slot.configuration.fs_dev:
            continue
        if best is None or slot.state.err_count < state.slots[best].state.err_count:
            best = number
    return best


def find_update_slot(state: BootState, origin: int) -> int | None:
    """Where an update linked for `origin` goes: a directly bootable slot, or else any other.

    Either way one with a file system. None when there is no such slot.
    """
    slot = find_slot(state, map_address=origin, want_fs=True)
    return slot if slot is not None else find_slot(state, want_fs=True)


def find_bootable_slot(state: BootState, origin: int) -> int | None:
    """Which slot other than the active one an image linked for `origin` can be started from."""
    # Address 0 stands for "not mapped", so nothing can be started there. (The original takes it
    # for "any slot" here and goes on to start an image from SPI flash.)
    return find_slot(state, map_address=origin) if origin else None


def find_factory_slot(state: BootState) -> int | None:
    """The slot with the factory image: the first that is valid and not writeable."""
    for number, slot in enumerate(state.slots):
        if slot.configuration.flags & _USABLE == SlotFlag.VALID:
            return number
    return None
