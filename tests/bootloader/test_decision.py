"""The decision table, one test for each row; and what must hold for every state there may be."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootloader_model.boot_state import NO_SLOT, BootFlag, BootState, Slot, SlotFlag
from bootloader_model.decision import (
    COPY_ATTEMPTS,
    SENTENCES,
    Boot,
    CheckImage,
    CopyImage,
    Decision,
    Evidence,
    Halt,
    Plan,
    Reason,
    VerifyImage,
    WriteDefaults,
    WriteState,
    decide,
)
from bootloader_model.image_check import ImageCheck
from bootloader_model.layout import APP0_ADDRESS, DEFAULT_SLOTS, FACTORY_SLOT
from bootloader_model.provisioning import initial_state

GOOD = ImageCheck()
BAD = ImageCheck("it is bad")
ALL_GOOD = dict.fromkeys(range(4), GOOD)


def fresh() -> BootState:
    return replace(initial_state(b"application", b"factory image"), seq=1)


def updated() -> BootState:
    return fresh().update_finished(1, length=100, origin=APP0_ADDRESS, crc32=1, commit_timeout=60)


def uncommitted() -> BootState:
    return updated().backed_up(0, 2).activated(1, 0).begin_first_boot()


def plan_for(
    state: BootState | None,
    images: Mapping[int, ImageCheck] = ALL_GOOD,
    failed_copies: Mapping[tuple[int, int], int] | None = None,
    *,
    fresh: bool = False,
    strict: bool = False,
) -> Plan:
    answer = decide(
        Evidence(state, images, failed_copies or {}, is_state_fresh=fresh),
        strict_original=strict,
    )
    assert isinstance(answer, Plan), answer
    return answer


def reasons(plan: Plan) -> list[Reason]:
    return [decision.reason for decision in plan.decisions]


def bad(*slots: int) -> dict[int, ImageCheck]:
    return {**ALL_GOOD, **dict.fromkeys(slots, BAD)}


def without_slots(state: BootState, *unusable: int) -> BootState:
    def changed(number: int, slot: Slot) -> Slot:
        if number not in unusable:
            return slot
        return replace(slot, configuration=replace(slot.configuration, flags=SlotFlag(0)))

    slots = tuple(changed(number, slot) for number, slot in enumerate(state.slots))
    return replace(state, slots=slots)


# The table


def test_no_record_means_the_default_is_written() -> None:
    plan = plan_for(None)
    assert reasons(plan) == [Reason.DEFAULTS_WRITTEN]
    assert plan.steps == (WriteDefaults(),)


def test_committed_firmware_is_started_and_nothing_is_written() -> None:
    plan = plan_for(fresh())
    assert reasons(plan) == [Reason.BOOT_ACTIVE]
    assert plan.steps == (Boot(0),)


def test_images_are_asked_about_before_anything_is_decided() -> None:
    assert decide(Evidence(fresh())) == CheckImage(0)
    assert decide(Evidence(updated())) == CheckImage(1)
    assert decide(Evidence(updated(), {1: GOOD})) == CheckImage(0)
    assert decide(Evidence(uncommitted())) == CheckImage(2)


def test_the_first_boot_of_an_update_keeps_the_old_image_before_it_is_overwritten() -> None:
    state = updated()
    plan = plan_for(state)
    assert reasons(plan) == [Reason.FIRST_BOOT, Reason.SWAP_WITH_BACKUP]
    kept = state.backed_up(0, 2)
    assert plan.steps == (
        CopyImage(0, 2),
        WriteState(kept),
        CopyImage(1, 0),
        WriteState(kept.activated(1, 0).begin_first_boot()),
        Boot(0),
    )
    # Until the very last write the update is one that has not been started yet.
    assert BootFlag.FIRST_BOOT_B in kept.flags


def test_the_first_boot_of_an_update_that_is_where_it_belongs_needs_no_copy() -> None:
    state = replace(updated(), active_slot=0, revert_slot=1)
    plan = plan_for(state)
    assert reasons(plan) == [Reason.FIRST_BOOT]
    assert plan.steps == (WriteState(state.begin_first_boot()), Boot(0))


def test_a_swap_that_was_cut_short_after_the_backup_goes_on() -> None:
    state = updated().backed_up(0, 2)
    plan = plan_for(state)
    assert reasons(plan) == [Reason.FIRST_BOOT, Reason.SWAP_RESUMED]
    assert plan.steps == (
        WriteState(state),
        CopyImage(1, 0),
        WriteState(state.activated(1, 0).begin_first_boot()),
        Boot(0),
    )


def test_a_record_written_in_this_boot_is_not_written_again() -> None:
    plan = plan_for(updated().backed_up(0, 2), fresh=True)
    assert plan.steps[0] == CopyImage(1, 0)


def test_without_a_commit_the_next_boot_rolls_back() -> None:
    state = uncommitted()
    plan = plan_for(state)
    assert reasons(plan) == [Reason.ROLLBACK_UNCOMMITTED, Reason.SWAP_WITHOUT_BACKUP]
    back = state.fall_back_to(2)
    assert plan.steps == (
        WriteState(back),
        CopyImage(2, 0),
        WriteState(back.activated(2, 0)),
        Boot(0),
    )
    assert plan.decisions[0].sentence() == "no commit before this reset: rolling back to slot 2"


def test_a_rollback_to_where_the_image_can_be_started_needs_no_copy() -> None:
    state = replace(updated().begin_first_boot(), active_slot=1, revert_slot=0)
    plan = plan_for(state)
    assert reasons(plan) == [Reason.ROLLBACK_UNCOMMITTED]
    assert plan.steps == (WriteState(state.fall_back_to(0)), Boot(0))


def test_a_rollback_that_was_cut_short_goes_on() -> None:
    state = uncommitted().fall_back_to(2)
    plan = plan_for(state)
    assert reasons(plan) == [Reason.BOOT_ACTIVE, Reason.SWAP_WITHOUT_BACKUP]
    assert CopyImage(2, 0) in plan.steps
    assert Boot(0) in plan.steps


def test_an_update_that_is_no_good_is_given_up_before_anything_is_overwritten() -> None:
    state = updated()
    plan = plan_for(state, bad(1))
    assert reasons(plan) == [Reason.FALLBACK_REVERT]
    assert plan.steps == (WriteState(state.fall_back_to(0)), Boot(0))
    assert plan.decisions[0].sentence() == "slot 1: it is bad: falling back to the revert slot 0"


def test_committed_firmware_that_is_no_good_is_replaced_by_the_factory_image() -> None:
    plan = plan_for(fresh(), bad(0))
    assert reasons(plan) == [Reason.FALLBACK_FACTORY, Reason.SWAP_WITHOUT_BACKUP]
    assert CopyImage(FACTORY_SLOT, 0) in plan.steps


def test_a_rollback_whose_way_back_is_no_good_goes_to_the_factory_image() -> None:
    plan = plan_for(uncommitted(), bad(2))
    assert reasons(plan) == [Reason.FALLBACK_FACTORY, Reason.SWAP_WITHOUT_BACKUP]


def test_when_all_else_is_bad_uncommitted_firmware_is_better_than_none() -> None:
    plan = plan_for(uncommitted(), bad(2, 3))
    assert reasons(plan) == [Reason.LAST_RESORT]
    assert plan.steps == (Boot(0),)
    assert "slot 2: it is bad; slot 3: it is bad" in plan.decisions[0].sentence()


def test_uncommitted_firmware_without_a_revert_slot_stays() -> None:
    plan = plan_for(replace(uncommitted(), revert_slot=NO_SLOT))
    assert reasons(plan) == [Reason.NO_WAY_BACK]
    assert plan.steps == (Boot(0),)


def test_when_nothing_is_good_the_loader_says_so_and_halts() -> None:
    plan = plan_for(uncommitted(), bad(0, 1, 2, 3))
    assert reasons(plan) == [Reason.NO_BOOTABLE_IMAGE]
    assert plan.steps == (Halt(),)
    sentence = plan.decisions[0].sentence()
    for slot in (0, 2, 3):
        assert sentence.count(f"slot {slot}: it is bad") == 1


def test_a_way_back_that_is_no_good_is_not_kept_in_the_place_of_a_good_copy() -> None:
    state = updated()
    plan = plan_for(state, bad(0))
    assert reasons(plan) == [Reason.FIRST_BOOT, Reason.SWAP_WAY_BACK_LOST]
    without = replace(state, revert_slot=NO_SLOT)
    assert plan.steps[:2] == (WriteState(without), CopyImage(1, 0))


def test_no_room_for_a_backup_means_no_update() -> None:
    plan = plan_for(without_slots(updated(), 2))
    assert reasons(plan) == [Reason.FALLBACK_REVERT]
    assert "no slot is left to keep slot 0 in" in plan.decisions[0].sentence()


@pytest.mark.parametrize("origin", [0, 0x08020000])
def test_an_image_that_can_be_started_nowhere_is_passed_over(origin: int) -> None:
    state = fresh().update_finished(1, length=9, origin=origin, crc32=1, commit_timeout=None)
    plan = plan_for(state)
    assert reasons(plan) == [Reason.FALLBACK_REVERT]
    assert f"linked for 0x{origin:08x}" in plan.decisions[0].sentence()


def test_a_copy_that_keeps_failing_is_given_up_and_the_way_back_taken() -> None:
    state = updated().backed_up(0, 2)
    assert reasons(plan_for(state, failed_copies={(1, 0): COPY_ATTEMPTS - 1}))[0] is (
        Reason.FIRST_BOOT
    )
    plan = plan_for(state, failed_copies={(1, 0): COPY_ATTEMPTS})
    assert reasons(plan) == [Reason.FALLBACK_REVERT, Reason.SWAP_WITHOUT_BACKUP]


def test_a_spare_slot_that_keeps_failing_is_not_tried_for_ever() -> None:
    plan = plan_for(updated(), failed_copies={(0, 2): COPY_ATTEMPTS})
    assert reasons(plan) == [Reason.FALLBACK_REVERT]


@pytest.mark.parametrize("slot", [-128, -1, 4, 127])
def test_an_active_slot_that_does_not_exist_is_passed_over(slot: int) -> None:
    plan = plan_for(replace(fresh(), active_slot=slot))
    assert reasons(plan)[0] is Reason.FALLBACK_FACTORY
    assert f"slot {slot} does not exist" in plan.decisions[0].sentence()


@pytest.mark.parametrize("slot", [-2, 4])
def test_a_revert_slot_that_does_not_exist_is_passed_over(slot: int) -> None:
    plan = plan_for(replace(uncommitted(), revert_slot=slot), bad(3))
    assert reasons(plan) == [Reason.LAST_RESORT]


# The original


def test_the_original_records_the_first_boot_before_it_copies() -> None:
    state = updated().begin_first_boot()
    plan = plan_for(updated(), {}, strict=True)
    assert reasons(plan) == [Reason.FIRST_BOOT, Reason.SWAP_WITH_BACKUP]
    kept = state.backed_up(0, 2)
    assert plan.steps == (
        WriteState(state),
        CopyImage(0, 2),
        WriteState(kept),
        CopyImage(1, 0),
        WriteState(kept.activated(1, 0)),
        VerifyImage(0),
        Boot(0),
    )
    assert plan.gives_up


def test_the_original_rolls_back_in_the_same_order() -> None:
    back = uncommitted().fall_back_to(2)
    assert plan_for(uncommitted(), {}, strict=True).steps == (
        WriteState(back),
        CopyImage(2, 0),
        WriteState(back.activated(2, 0)),
        VerifyImage(0),
        Boot(0),
    )


def test_the_original_only_verifies_what_it_is_about_to_start() -> None:
    assert plan_for(fresh(), {}, strict=True).steps == (VerifyImage(0), Boot(0))


@pytest.mark.parametrize(
    "state",
    [
        replace(uncommitted(), revert_slot=NO_SLOT),
        without_slots(updated(), 2),
        fresh().update_finished(1, length=9, origin=1, crc32=1, commit_timeout=None),
    ],
)
def test_the_original_halts_where_it_knows_no_way_on(state: BootState) -> None:
    plan = plan_for(state, {}, strict=True)
    assert reasons(plan)[-1] is Reason.NO_BOOTABLE_IMAGE
    assert plan.steps[-1] == Halt()


# Whatever the state


STATES = st.builds(
    BootState,
    seq=st.integers(0, 7),
    active_slot=st.integers(-2, 5),
    revert_slot=st.integers(-2, 5),
    flags=st.integers(0, 15).map(BootFlag),
    slots=st.lists(
        st.builds(
            lambda slot, origin, flags: replace(
                slot,
                configuration=replace(slot.configuration, flags=SlotFlag(flags)),
                state=replace(slot.state, app_org=origin, app_len=100),
            ),
            st.sampled_from(DEFAULT_SLOTS),
            st.sampled_from([0, APP0_ADDRESS, 0x08020000]),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=5,
    ).map(tuple),
)
CHECKS = st.dictionaries(st.integers(0, 4), st.sampled_from([GOOD, BAD]))
FAILURES = st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 4)), st.integers(0, 3))


@given(STATES, CHECKS, FAILURES, st.booleans())
def test_every_plan_ends_and_starts_only_good_images_and_overwrites_none_it_needs(
    state: BootState,
    images: dict[int, ImageCheck],
    failures: dict[tuple[int, int], int],
    fresh: bool,
) -> None:
    evidence = Evidence(state, images, failures, is_state_fresh=fresh)
    for _ in range(6):
        answer = decide(evidence)
        if isinstance(answer, Plan):
            break
        assert answer.slot not in evidence.images
        evidence = replace(evidence, images={**evidence.images, answer.slot: GOOD})
    else:
        pytest.fail("still asking")
    *steps, last = answer.steps
    current, checked = state, dict(evidence.images)
    for step in steps:
        if isinstance(step, WriteState):
            current = step.state
        elif isinstance(step, CopyImage):
            assert checked[step.source].is_good
            assert SlotFlag.WRITEABLE in current.slots[step.target].configuration.flags
            # As long as the record says so, the next boot may need these.
            assert step.target != current.active_slot
            if checked.get(step.target, BAD).is_good:
                assert step.target != current.revert_slot
            checked[step.target] = GOOD
    if isinstance(last, Boot):
        assert checked[last.slot].is_good
        assert current.active_slot == last.slot
        assert current.slots[last.slot].is_directly_bootable
        assert BootFlag.FIRST_BOOT_B not in current.flags or current.is_committed
    else:
        assert answer.steps == (Halt(),)


@given(STATES)
def test_the_original_has_a_plan_for_every_state(state: BootState) -> None:
    plan = plan_for(state, {}, strict=True)
    assert isinstance(plan.steps[-1], Boot | Halt)


def test_every_reason_has_its_one_sentence() -> None:
    assert set(SENTENCES) == set(Reason)
    for reason in Reason:
        sentence = Decision(reason, 1, target=0, spare=2, why="because").sentence()
        assert "{" not in sentence
        assert "None" not in sentence


def test_details_hold_only_what_applies() -> None:
    assert Decision(Reason.BOOT_ACTIVE, 0).details() == {"slot": 0}
    assert Decision(Reason.NO_BOOTABLE_IMAGE, why="w").details() == {"why": "w"}
    assert Decision(Reason.SWAP_WITH_BACKUP, 1, 0, 2).details() == {
        "slot": 1,
        "target": 0,
        "spare": 2,
    }
