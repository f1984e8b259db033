"""The decision: from what was read to what to do. Pure; `loader` carries it out.

The loader asks `decide` what to do and tells it what it knows so far. The answer is either the
question whether a slot holds a good image (images are read only when it matters), or a plan: named
decisions, and steps in their order. When a step fails, the loader adds that to what it knows and
asks again. Every answer either adds to what is known or is final, so it comes to an end.

The reset cause has no say: firmware that is not committed is rolled back by whatever resets it,
a power cut as much as a watchdog. What must not count as such a reset is one that comes before the
new firmware has been started at all. The original clears FIRST_BOOT_B first and copies after, so
that a power cut during the copy silently cancels the update at the next boot. Here it is cleared in
the one record write that also makes the bootable slot the active one. The pages of a swap, update
in slot 1, A the old image and B the new one, ? in the midst of being written:

    step                               slot 0  slot 1  slot 2   record
    the application writes the update    A       B       -      active 1, revert 0, first boot
    copy slot 0 to slot 2                A       B       ?      the same: begun anew after a cut
    write the record                     A       B       A      active 1, revert 2, first boot
    copy slot 1 to slot 0                ?       B       A      the same: gone on with after a cut
    write the record                     B       B       A      active 0, revert 2

A rollback is recorded first (active = revert slot, committed) and copied after: cut short, the next
boot finds an active slot that is not directly bootable, and copies again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from bootloader_model.boot_state import NO_SLOT, BootFlag, BootState
from bootloader_model.image_check import ImageCheck
from bootloader_model.slots import find_bootable_slot, find_factory_slot, find_slot

COPY_ATTEMPTS = 2
"""How often one copy is tried in one boot before something else is."""


class Reason(Enum):
    """Why the loader does what it does; the value is the name in traces and logs."""

    DEFAULTS_WRITTEN = "defaults-written"
    BOOT_ACTIVE = "boot-active"
    FIRST_BOOT = "first-boot"
    ROLLBACK_UNCOMMITTED = "rollback-uncommitted"
    NO_WAY_BACK = "no-way-back"
    FALLBACK_REVERT = "fallback-revert"
    FALLBACK_FACTORY = "fallback-factory"
    LAST_RESORT = "last-resort"
    SWAP_WITH_BACKUP = "swap-with-backup"
    SWAP_WITHOUT_BACKUP = "swap-without-backup"
    SWAP_RESUMED = "swap-resumed"
    SWAP_WAY_BACK_LOST = "swap-way-back-lost"
    STATE_UNWRITABLE = "state-unwritable"
    NO_BOOTABLE_IMAGE = "no-bootable-image"


_GOING_BACK = (Reason.ROLLBACK_UNCOMMITTED, Reason.FALLBACK_REVERT, Reason.FALLBACK_FACTORY)

SENTENCES: Mapping[Reason, str] = {
    Reason.DEFAULTS_WRITTEN: (
        "no valid boot state in either area: writing the default, slot {slot} active and committed"
    ),
    Reason.BOOT_ACTIVE: "slot {slot} is active and committed",
    Reason.FIRST_BOOT: "first boot of the new firmware in slot {slot}",
    Reason.ROLLBACK_UNCOMMITTED: "no commit before this reset: rolling back to slot {slot}",
    Reason.NO_WAY_BACK: (
        "no commit before this reset, but no revert slot is set: staying with slot {slot}"
    ),
    Reason.FALLBACK_REVERT: "{why}: falling back to the revert slot {slot}",
    Reason.FALLBACK_FACTORY: "{why}: falling back to the factory image in slot {slot}",
    Reason.LAST_RESORT: (
        "no commit before this reset, but nothing to roll back to ({why}): staying with slot {slot}"
    ),
    Reason.SWAP_WITH_BACKUP: (
        "slot {slot} is not directly bootable: keeping slot {target} in slot {spare} as the way"
        " back, then copying slot {slot} to slot {target}"
    ),
    Reason.SWAP_WITHOUT_BACKUP: (
        "slot {slot} is not directly bootable: copying it to slot {target}"
    ),
    Reason.SWAP_RESUMED: (
        "going on with an unfinished swap, the way back is in slot {spare}: copying slot {slot} to"
        " slot {target}"
    ),
    Reason.SWAP_WAY_BACK_LOST: (
        "{why}: it cannot be kept as the way back, copying slot {slot} to slot {target} without"
    ),
    Reason.STATE_UNWRITABLE: (
        "nothing that is decided can be recorded: starting the good image in slot {slot} as it is"
    ),
    Reason.NO_BOOTABLE_IMAGE: (
        "no bootable image ({why}): write a good image to a slot, or the whole flash anew, with a"
        " programmer; waiting for the watchdog to try again"
    ),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """One named decision.

    Attributes:
        reason: its name.
        slot: the slot it is about; -1 when it is about none.
        target: the slot that is written, in a swap.
        spare: the slot that keeps the way back, in a swap.
        why: what made other choices impossible, in words.
    """

    reason: Reason
    slot: int = NO_SLOT
    target: int | None = None
    spare: int | None = None
    why: str = ""

    def sentence(self) -> str:
        """The decision as one sentence for people."""
        return SENTENCES[self.reason].format(
            slot=self.slot, target=self.target, spare=self.spare, why=self.why
        )

    def details(self) -> dict[str, int | str]:
        """What belongs to the decision, for a trace; only what applies."""
        details: dict[str, int | str] = {}
        if self.slot != NO_SLOT:
            details["slot"] = self.slot
        if self.target is not None:
            details["target"] = self.target
        if self.spare is not None:
            details["spare"] = self.spare
        if self.why:
            details["why"] = self.why
        return details


@dataclass(frozen=True, slots=True)
class WriteDefaults:
    """Erase both areas and write the default boot state."""


@dataclass(frozen=True, slots=True)
class WriteState:
    """Append a boot state to the journal."""

    state: BootState


@dataclass(frozen=True, slots=True)
class CopyImage:
    """Copy the image in `source` to `target` and verify it there."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class VerifyImage:
    """Check the image in a slot and give up when it is bad (the original's behaviour)."""

    slot: int


@dataclass(frozen=True, slots=True)
class Boot:
    """Start the image in a directly bootable slot."""

    slot: int


@dataclass(frozen=True, slots=True)
class Halt:
    """Do nothing until the watchdog resets the board."""


Step = WriteDefaults | WriteState | CopyImage | VerifyImage | Boot | Halt


@dataclass(frozen=True, slots=True)
class CheckImage:
    """The question whether `slot` holds a good image."""

    slot: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do.

    Attributes:
        decisions: why, in the order in which they were made.
        steps: what, in this order.
        gives_up: whether a step that fails ends the boot (the original) instead of being answered
            by another plan.
    """

    decisions: tuple[Decision, ...]
    steps: tuple[Step, ...]
    gives_up: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known so far in this boot.

    Attributes:
        state: the newest boot state; None when there is no valid record.
        images: what came out of checking slots.
        failed_copies: how often copying (source, target) has failed.
        is_state_fresh: whether the newest record was written, and read back, in this very boot.
    """

    state: BootState | None
    images: Mapping[int, ImageCheck] = field(default_factory=dict)
    failed_copies: Mapping[tuple[int, int], int] = field(default_factory=dict)
    is_state_fresh: bool = False


def decide(evidence: Evidence, *, strict_original: bool = False) -> Plan | CheckImage:
    """What to do next.

    Args:
        evidence: what is known so far.
        strict_original: decide as the original does, soft spots included.
    """
    state = evidence.state
    if state is None:
        return Plan((Decision(Reason.DEFAULTS_WRITTEN, slot=0),), (WriteDefaults(),))
    if strict_original:
        return _decide_as_original(state)
    rejected: list[str] = []
    for reason, slot in _candidates(state):
        problem = _problem_of(evidence, state, slot)
        if isinstance(problem, CheckImage):
            return problem
        if problem is None:
            route = _plan_for(evidence, state, reason, slot, "; ".join(rejected))
            if not isinstance(route, str):
                return route
            problem = route
        if problem not in rejected:
            rejected.append(problem)
    return _no_bootable_image("; ".join(rejected))


def _candidates(state: BootState) -> Iterator[tuple[Reason, int]]:
    """What could be started, the best first."""
    if state.is_committed:
        yield Reason.BOOT_ACTIVE, state.active_slot
    elif BootFlag.FIRST_BOOT_B in state.flags:
        yield Reason.FIRST_BOOT, state.active_slot
    elif state.revert_slot == NO_SLOT:
        # The original goes to slot -1 here, which is no slot.
        yield Reason.NO_WAY_BACK, state.active_slot
    else:
        yield Reason.ROLLBACK_UNCOMMITTED, state.revert_slot
    if state.revert_slot != NO_SLOT:
        yield Reason.FALLBACK_REVERT, state.revert_slot
    factory_slot = find_factory_slot(state)
    if factory_slot is not None:
        yield Reason.FALLBACK_FACTORY, factory_slot
    if not state.is_committed:
        # Nobody has vouched for it, but it is better than nothing.
        yield Reason.LAST_RESORT, state.active_slot


def _problem_of(evidence: Evidence, state: BootState, slot: int) -> str | CheckImage | None:
    if not state.has_slot(slot):
        return f"slot {slot} does not exist"
    check = evidence.images.get(slot)
    if check is None:
        return CheckImage(slot)
    return None if check.problem is None else f"slot {slot}: {check.problem}"


def _plan_for(
    evidence: Evidence, state: BootState, reason: Reason, slot: int, why: str
) -> Plan | CheckImage | str:
    """How to start `slot`, whose image is good; a string says why it cannot be."""
    is_first_boot = reason is Reason.FIRST_BOOT
    steps: tuple[Step, ...] = ()
    if reason in _GOING_BACK:
        state = state.fall_back_to(slot)
        steps = (WriteState(state),)
    decision = Decision(reason, slot, why=why)
    if state.slots[slot].is_directly_bootable:
        if is_first_boot:
            steps = (WriteState(state.begin_first_boot()),)
        return Plan((decision,), (*steps, Boot(slot)))
    is_recorded = evidence.is_state_fresh or bool(steps)
    swap = _plan_swap(evidence, state, is_first_boot=is_first_boot, is_recorded=is_recorded)
    if not isinstance(swap, Plan):
        return swap
    return Plan((decision, *swap.decisions), (*steps, *swap.steps))


def _plan_swap(
    evidence: Evidence, state: BootState, *, is_first_boot: bool, is_recorded: bool
) -> Plan | CheckImage | str:
    """How to get the active image to where it can be started; a string says why that cannot be."""
    source = state.active_slot
    origin = state.slots[source].state.app_org
    target = find_bootable_slot(state, origin)
    if target is None:
        return f"slot {source}: its image is linked for 0x{origin:08x}, where no slot is mapped"
    if evidence.failed_copies.get((source, target), 0) >= COPY_ATTEMPTS:
        return f"slot {source}: copying it to slot {target} fails"
    decision = Decision(Reason.SWAP_WITHOUT_BACKUP, source, target)
    first_steps: tuple[Step, ...] = ()
    if state.revert_slot == target:
        way_back = _problem_of(evidence, state, target)
        if isinstance(way_back, CheckImage):
            # Copied unseen, a damaged image would take the place of what may be a good copy.
            return way_back
        if way_back is None:
            spare = _find_spare(evidence, state, target)
            if spare is None:
                return f"slot {source}: no slot is left to keep slot {target} in"
            decision = Decision(Reason.SWAP_WITH_BACKUP, source, target, spare)
            state = state.backed_up(target, spare)
            first_steps = (CopyImage(target, spare), WriteState(state))
        else:
            decision = Decision(Reason.SWAP_WAY_BACK_LOST, source, target, why=way_back)
            state = replace(state, revert_slot=NO_SLOT)
            first_steps = (WriteState(state),)
    elif is_first_boot and state.has_slot(state.revert_slot):
        decision = Decision(Reason.SWAP_RESUMED, source, target, state.revert_slot)
    if not first_steps and not is_recorded:
        # The bootable slot is about to be erased on the strength of a record that an earlier boot
        # left. If its write was cut short, marginal cells may read as a good record now and as a
        # bad one after the next power cut, and the older record would then take the slot that was
        # being written for a good way back. Written anew, and read back, it holds.
        first_steps = (WriteState(state),)
    swapped = state.activated(source, target)
    if is_first_boot:
        swapped = swapped.begin_first_boot()
    steps = (*first_steps, CopyImage(source, target), WriteState(swapped), Boot(target))
    return Plan((decision,), steps)


def _find_spare(evidence: Evidence, state: BootState, target: int) -> int | None:
    excluded = {target}
    for (source, failed), attempts in evidence.failed_copies.items():
        if source == target and attempts >= COPY_ATTEMPTS:
            excluded.add(failed)
    return find_slot(state, excluded=excluded)


def _no_bootable_image(why: str) -> Plan:
    return Plan((Decision(Reason.NO_BOOTABLE_IMAGE, why=why),), (Halt(),))


def _decide_as_original(state: BootState) -> Plan:
    decisions: list[Decision] = []
    steps: list[Step] = []
    if state.is_committed:
        decisions.append(Decision(Reason.BOOT_ACTIVE, state.active_slot))
    elif BootFlag.FIRST_BOOT_B in state.flags:
        decisions.append(Decision(Reason.FIRST_BOOT, state.active_slot))
        state = state.begin_first_boot()
        steps.append(WriteState(state))
    else:
        decisions.append(Decision(Reason.ROLLBACK_UNCOMMITTED, state.revert_slot))
        state = state.fall_back_to(state.revert_slot)
        steps.append(WriteState(state))
    why = _add_swap_as_original(state, decisions, steps)
    if why is not None:
        decisions.append(Decision(Reason.NO_BOOTABLE_IMAGE, why=why))
        steps.append(Halt())
    return Plan(tuple(decisions), tuple(steps), gives_up=True)


def _add_swap_as_original(
    state: BootState, decisions: list[Decision], steps: list[Step]
) -> str | None:
    source = state.active_slot
    if not state.has_slot(source):
        return f"slot {source} does not exist"
    if state.slots[source].is_directly_bootable:
        steps += [VerifyImage(source), Boot(source)]
        return None
    origin = state.slots[source].state.app_org
    target = find_bootable_slot(state, origin)
    if target is None:
        return f"slot {source}: its image is linked for 0x{origin:08x}, where no slot is mapped"
    if state.revert_slot == target:
        spare = find_slot(state, excluded={target})
        if spare is None:
            return f"slot {source}: no slot is left to keep slot {target} in"
        decisions.append(Decision(Reason.SWAP_WITH_BACKUP, source, target, spare))
        state = state.backed_up(target, spare)
        steps += [CopyImage(target, spare), WriteState(state)]
    else:
        decisions.append(Decision(Reason.SWAP_WITHOUT_BACKUP, source, target))
    state = state.activated(source, target)
    steps += [CopyImage(source, target), WriteState(state), VerifyImage(target), Boot(target)]
    return None
