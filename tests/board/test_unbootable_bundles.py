"""Bundles that could never be started are refused before anything is written."""

import json
import zipfile
from datetime import UTC, datetime
from io import BytesIO

import pytest

import firmware
from otasim import Board
from otasim.bundle_server import BundleServer, bundle_of
from rpc_shim.bundle.create import create_bundle
from rpc_shim.bundle.image_file import FirmwareImage, load_image
from rpc_shim.client import RpcClientError


def with_address(address: int) -> bytes:
    """The bundle of a good image whose manifest says another address."""
    changed = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(bundle_of("sample-2.0"))) as source,
        zipfile.ZipFile(changed, "w", zipfile.ZIP_STORED) as target,
    ):
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("manifest.json"):
                manifest = json.loads(content)
                manifest["parts"]["app"]["addr"] = address
                content = json.dumps(manifest).encode()
            target.writestr(entry.filename, content)
    return changed.getvalue()


def linked_for(address: int) -> bytes:
    """The bundle of an image that is really linked for `address`, as far as a board can see."""
    image = bytearray(load_image(firmware.path("sample-2.0")).data)
    reset_vector = int.from_bytes(image[4:8], "little") - 0x0801_0000 + address
    image[4:8] = reset_vector.to_bytes(4, "little")
    return create_bundle(
        FirmwareImage(address, bytes(image)),
        name="elsewhere",
        version="9.0",
        build_id="9",
        build_timestamp=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("content", "address"),
    [
        (with_address(0x0801_0001), "0x08010001"),
        (with_address(0x0801_0004), "0x08010004"),
        (with_address(0), "0x00000000"),
        (linked_for(0x0802_0000), "0x08020000"),
    ],
    ids=["odd", "a word on", "nowhere", "linked elsewhere"],
)
def test_an_image_for_an_address_that_no_slot_has_is_refused(
    content: bytes, address: str, board: Board, server: BundleServer
) -> None:
    before = board.boot_state
    flash = bytes(board.machine.models.nor.memory.storage)
    url = server.publish("fw.zip", content)
    with pytest.raises(RpcClientError, match=rf"for {address}.*can be booted: 0x08010000"):
        board.call("OTA.Update", {"url": url})
    assert board.boot_state == before
    assert bytes(board.machine.models.nor.memory.storage) == flash
    board.call("OTA.Update", {"url": server.publish_sample("sample-2.0")})
