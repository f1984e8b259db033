"""The power goes at every flash operation of an update's life. Nothing may ever be lost by it."""

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootloader_model.boot_state import BootFlag, BootState
from bootloader_model.loader import LoaderSettings
from platforms.devices.reset_cause import ResetCause
from tests.bootloader.fake_board import FakeBoard, make_image
from tests.bootloader.fake_flash import Moment, PowerCutError

OLD = make_image("1.0", 600)
NEW = make_image("2.0", 700)
NEXT = make_image("3.0", 500)
FACTORY = make_image("0.9", 400)
TORN_SEEDS = range(4)
CUTS = [
    (Moment.BEFORE, 0),
    (Moment.AFTER, 0),
    *((Moment.TORN, seed) for seed in TORN_SEEDS),
    *((Moment.WEAK, seed) for seed in TORN_SEEDS),
]

Flow = Callable[[FakeBoard], object]


@cache
def states() -> dict[str, FakeBoard]:
    board = FakeBoard()
    board.provision(OLD)
    found = {"fresh": board.copy()}
    board.update(NEW)
    found["updated"] = board.copy()
    board.boot()
    found["uncommitted"] = board.copy()
    board.change(BootState.commit)
    found["committed"] = board.copy()
    return found


def fresh() -> FakeBoard:
    return states()["fresh"].copy()


def updated() -> FakeBoard:
    return states()["updated"].copy()


def uncommitted() -> FakeBoard:
    return states()["uncommitted"].copy()


def committed() -> FakeBoard:
    return states()["committed"].copy()


def update(board: FakeBoard) -> None:
    board.update(NEW)


def boot(board: FakeBoard) -> None:
    board.boot()


@cache
def operations_of(start: Callable[[], FakeBoard], flow: Flow) -> int:
    board = start()
    before = board.power.operations
    flow(board)
    return board.power.operations - before


def cut_during(board: FakeBoard, flow: Flow, operation: int, moment: Moment, seed: int) -> None:
    board.power.cut(operation, moment, seed)
    with pytest.raises(PowerCutError):
        flow(board)
    board.power.restore()


def cases(start: Callable[[], FakeBoard], flow: Flow) -> list[tuple[int, Moment, int]]:
    return [
        (operation, moment, seed)
        for operation in range(operations_of(start, flow))
        for moment, seed in CUTS
    ]


def boots_into(board: FakeBoard, cause: ResetCause = ResetCause.POWER_ON) -> bytes:
    """Boot and say which image runs: what the processor sees has to be whole."""
    board.boot(cause)
    state = board.state()
    slot = state.slots[state.active_slot]
    assert slot.is_directly_bootable
    running = board.running_image(slot.state.app_len)
    assert running in (OLD, NEW, NEXT, FACTORY)
    return running


def assert_can_go_back(board: FakeBoard) -> None:
    """The new image runs and nobody has committed it: the next reset brings the old one back."""
    assert not board.state().is_committed
    assert boots_into(board, ResetCause.WATCHDOG) == OLD
    assert board.state().is_committed
    assert boots_into(board) == OLD


def test_a_cut_while_the_update_is_written_leaves_the_old_firmware_or_the_whole_update() -> None:
    last = operations_of(fresh, update) - 1
    for operation, moment, seed in cases(fresh, update):
        board = fresh()
        cut_during(board, update, operation, moment, seed)
        image = boots_into(board)
        if operation < last or moment is Moment.BEFORE:
            assert image == OLD, (operation, moment, seed)
        elif moment is Moment.AFTER:
            assert image == NEW
        if image == NEW:
            assert_can_go_back(board)


def test_a_cut_during_the_first_boot_loses_neither_the_update_nor_the_way_back() -> None:
    last = operations_of(updated, boot) - 1
    assert last >= 8
    for operation, moment, seed in cases(updated, boot):
        board = updated()
        cut_during(board, boot, operation, moment, seed)
        image = boots_into(board)
        if operation < last or moment is Moment.BEFORE:
            assert image == NEW, (operation, moment, seed)
        elif moment is Moment.AFTER:
            # The last operation records the first boot. What resets the board from there on comes
            # without a commit, whether the application has run for a second or not at all.
            assert image == OLD
        if image == NEW:
            assert_can_go_back(board)


def test_a_cut_during_the_rollback_only_delays_it() -> None:
    for operation, moment, seed in cases(uncommitted, boot):
        board = uncommitted()
        cut_during(board, boot, operation, moment, seed)
        assert boots_into(board) == OLD, (operation, moment, seed)
        assert board.state().is_committed


def test_a_cut_during_the_commit_leaves_it_made_or_not_made() -> None:
    def commit(board: FakeBoard) -> None:
        board.change(BootState.commit)

    assert operations_of(uncommitted, commit) == 1
    for operation, moment, seed in cases(uncommitted, commit):
        board = uncommitted()
        cut_during(board, commit, operation, moment, seed)
        image = boots_into(board)
        if moment is Moment.BEFORE:
            assert image == OLD
        if moment is Moment.AFTER:
            assert image == NEW
        assert board.state().is_committed


def test_a_cut_in_a_second_update_is_as_harmless_as_in_the_first() -> None:
    def update_again(board: FakeBoard) -> None:
        board.update(NEXT)
        board.boot()

    for operation, moment, seed in cases(committed, update_again):
        board = committed()
        cut_during(board, update_again, operation, moment, seed)
        assert boots_into(board) in (NEW, NEXT), (operation, moment, seed)


@pytest.mark.parametrize("cause", list(ResetCause))
def test_no_cause_of_a_reset_during_the_swap_counts_as_a_boot_without_commit(
    cause: ResetCause,
) -> None:
    for operation in range(operations_of(updated, boot)):
        board = updated()
        cut_during(board, boot, operation, Moment.BEFORE, 0)
        assert boots_into(board, cause) == NEW


def test_the_sequence_number_never_goes_back_over_a_cut() -> None:
    for operation, moment, seed in cases(updated, boot):
        board = updated()
        before = board.state().seq
        cut_during(board, boot, operation, moment, seed)
        board.boot()
        assert board.state().seq > before, (operation, moment, seed)


@settings(max_examples=40, deadline=None)
@given(
    start=st.sampled_from([updated, uncommitted]),
    cuts=st.lists(
        st.tuples(
            st.integers(0, 25), st.sampled_from(list(Moment)), st.integers(0, 2**32), st.booleans()
        ),
        max_size=8,
    ),
)
def test_any_number_of_cuts_ends_with_a_good_image_and_a_way_back(
    start: Callable[[], FakeBoard], cuts: list[tuple[int, Moment, int, bool]]
) -> None:
    board = start()
    for operation, moment, seed, is_torn_twice in cuts:
        board.power.cut(operation, moment, seed)
        try:
            board.boot()
            if is_torn_twice:
                board.boot()
        except PowerCutError:
            board.power.restore()
    board.power.restore()
    board.nor.weak.clear()
    image = boots_into(board)
    assert image in (OLD, NEW)
    if start is uncommitted:
        assert image == OLD
    if image == NEW:
        assert_can_go_back(board)
    else:
        assert BootFlag.COMMITTED in board.state().flags


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    acts=st.lists(st.sampled_from(["update", "boot", "commit", "revert"]), max_size=12),
)
def test_whatever_the_application_does_and_wherever_the_power_goes_the_board_boots(
    data: st.DataObject, acts: list[str]
) -> None:
    board = FakeBoard()
    board.provision(OLD, FACTORY)
    board.boot()
    for act in acts:
        is_committed = board.state().is_committed
        if data.draw(st.booleans()):
            board.power.cut(
                data.draw(st.integers(0, 30)),
                data.draw(st.sampled_from(list(Moment))),
                data.draw(st.integers(0, 2**32)),
            )
        try:
            if act == "update" and is_committed:
                board.update(data.draw(st.sampled_from([NEW, NEXT])))
            elif act == "commit" and not is_committed:
                board.change(BootState.commit)
            elif act == "revert" and not is_committed:
                board.change(BootState.revert)
                board.boot()
            elif act == "boot":
                board.boot()
        except PowerCutError:
            board.power.restore()
            # After a cut nothing but the loader comes next.
            assert boots_into(board) != FACTORY
        board.power.restore()
    assert boots_into(board) != FACTORY


def original() -> FakeBoard:
    board = FakeBoard(settings=LoaderSettings(strict_original=True))
    board.provision(OLD)
    board.update(NEW)
    return board


def test_the_original_silently_cancels_an_update_whose_swap_was_cut_short() -> None:
    outcomes = set()
    for operation in range(operations_of(original, boot)):
        board = original()
        cut_during(board, boot, operation, Moment.BEFORE, 0)
        outcomes.add(boots_into(board))
    assert OLD in outcomes


def test_the_original_may_lose_everything_where_a_record_is_torn_at_the_end_of_an_area() -> None:
    """What the default journal is there to prevent; see `journal`."""
    board = FakeBoard(settings=LoaderSettings(strict_original=True))
    board.provision(OLD)
    while board.journal().newest.offset < 31 * 256:  # type: ignore[union-attr]
        board.change(lambda state: state)
    # The first record of the second area does not verify: the original erases the first area.
    board.nor.broken = {0x2000 + 4: 0xFF}
    board.power.cut(3, Moment.BEFORE)
    with pytest.raises(PowerCutError):
        board.change(lambda state: state)
    board.power.restore()
    assert board.journal().newest is None
