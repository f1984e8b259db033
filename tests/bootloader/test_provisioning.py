import zlib

import pytest

from bootloader_model.boot_state import SlotState
from bootloader_model.layout import APP0_ADDRESS, FACTORY_SLOT
from bootloader_model.provisioning import default_state, initial_state
from platforms.errors import InvalidArgumentError
from tests.bootloader.fake_board import SMALL_APP_SIZE, FakeBoard, make_image

IMAGE = make_image("1.0", 1001)


def test_a_fresh_board_holds_what_its_state_says() -> None:
    board = FakeBoard()
    board.provision(IMAGE, make_image("0.9"))
    state = board.state()
    assert state.seq == 1
    assert state.is_committed
    assert board.image_in(0) == IMAGE
    assert board.image_in(FACTORY_SLOT) == make_image("0.9")
    facts = state.slots[0].state
    assert (facts.app_len, facts.app_org) == (1001, APP0_ADDRESS)
    assert facts.app_crc32 == zlib.crc32(IMAGE)


def test_without_a_factory_image_its_slot_is_empty() -> None:
    assert initial_state(IMAGE).slots[FACTORY_SLOT].state.app_len == 0


def test_a_board_can_be_provisioned_again() -> None:
    board = FakeBoard()
    board.provision(IMAGE)
    board.update(make_image("2.0"))
    board.provision(make_image("3.0"))
    assert board.state().seq == 1
    assert board.image_in(0) == make_image("3.0")


@pytest.mark.parametrize("size", [0, SMALL_APP_SIZE + 1])
def test_an_image_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(InvalidArgumentError, match="does not go into app0"):
        FakeBoard().provision(bytes(size))


def test_the_default_takes_all_of_slot_0_for_the_application() -> None:
    state = default_state(SlotState(0xF0000, APP0_ADDRESS, 0x1234))
    facts = state.slots[0].state
    assert (facts.app_len, facts.app_org, facts.app_crc32) == (0xF0000, APP0_ADDRESS, 0x1234)
    assert state.is_committed
