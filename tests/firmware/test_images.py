from itertools import pairwise

import pytest
from intelhex import IntelHex

import firmware
from bootloader_model.app_info import read_app_info
from platforms.errors import OtasimError

ORIGIN = 0x08010000
STACK_TOP = 0x20020000
VECTOR_COUNT = 16 + 82
SMALL = 6 * 1024

NAMES = [
    "hang-2.1",
    "hardfault-2.2",
    "no-feed-2.4",
    "no-main-loop-2.3",
    "own-rpc-1.0",
    "sample-1.0",
    "sample-2.0",
    "sample-3.0",
]


def load(name: str) -> tuple[int, bytes]:
    """The address and the bytes of an image."""
    content = IntelHex(str(firmware.path(name)))
    return content.minaddr(), content.tobinstr()


def vectors(image: bytes) -> list[int]:
    return [int.from_bytes(image[4 * i : 4 * i + 4], "little") for i in range(VECTOR_COUNT)]


def test_every_variant_is_there() -> None:
    assert firmware.images() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_image_lies_in_one_piece_at_the_slot(name: str) -> None:
    content = IntelHex(str(firmware.path(name)))

    assert content.minaddr() == ORIGIN
    assert len(content.segments()) == 1
    assert VECTOR_COUNT * 4 < len(content) < SMALL
    assert len(content) % 4 == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_vector_table_is_sane(name: str) -> None:
    _, image = load(name)
    stack_pointer, reset, *others = vectors(image)

    assert stack_pointer == STACK_TOP
    for address in [reset, *filter(None, others)]:
        assert address % 2 == 1, "a handler is Thumb code"
        assert ORIGIN + 4 * VECTOR_COUNT < address < ORIGIN + len(image)
    reserved = [7, 8, 9, 10, 13]
    assert [index for index, address in enumerate(vectors(image)) if address == 0] == reserved


@pytest.mark.parametrize("name", NAMES)
def test_the_handlers_in_use_are_not_the_default_one(name: str) -> None:
    _, image = load(name)
    table = vectors(image)
    default = table[2]

    used = [index for index, address in enumerate(table) if address not in (0, default)]

    assert used == [0, 1, 3, 11, 14, 15, 16 + 38], (
        "SP, reset, HardFault, SVC, PendSV, SysTick, USART2"
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_image_says_what_its_file_is_called(name: str) -> None:
    _, image = load(name)

    info = read_app_info(image)

    assert info is not None
    assert f"{info.name}-{info.version}" == name
    assert info.build_id.endswith(f"/v{info.version}")


def test_build_identifiers_tell_the_images_apart() -> None:
    infos = [read_app_info(load(name)[1]) for name in NAMES]

    assert len({info.build_id for info in infos if info is not None}) == len(NAMES)


def test_good_versions_differ_in_nothing_but_their_descriptor() -> None:
    for one, other in pairwise(["sample-1.0", "sample-2.0", "sample-3.0"]):
        _, first = load(one)
        _, second = load(other)
        descriptor = slice(4 * VECTOR_COUNT, 4 * VECTOR_COUNT + 76)
        assert first[descriptor] != second[descriptor]
        assert first[: descriptor.start] == second[: descriptor.start]
        assert first[descriptor.stop :] == second[descriptor.stop :]


@pytest.mark.parametrize("name", ["", "sample", "sample-1.0.hex", "../__init__", "SAMPLE-1.0"])
def test_an_unknown_name_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(firmware.UnknownImageError, match=r"sample-1\.0, sample-2\.0") as caught:
        firmware.path(name)

    assert caught.value.name == name
    assert caught.value.available == tuple(NAMES)
    assert isinstance(caught.value, OtasimError)
