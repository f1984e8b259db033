"""Files on the whole board: kept, carried over and brought by updates, safe from power cuts."""

from datetime import UTC, datetime

import pytest

import firmware
from bootloader_model.boot_state import APP_FLAG_FS_CREATED
from otasim import Board, TornShape
from otasim.bundle_server import BundleServer
from rpc_shim.bundle.create import create_bundle
from rpc_shim.bundle.fs_image import make_fs_image
from rpc_shim.bundle.image_file import load_image
from rpc_shim.client import RpcClientError, RpcTimeoutError
from rpc_shim.frame import JsonValue
from tests.board.files import damage_files, get, put


def files(board: Board) -> JsonValue:
    return board.call("FS.List")


def bundle_with(sample: str, fs: bytes) -> bytes:
    return create_bundle(
        load_image(firmware.path(sample)),
        name="sample",
        version=sample.removeprefix("sample-"),
        build_id="test",
        build_timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        fs=fs,
    )


def update(board: Board, url: str, version: str, commit_timeout: int = 0) -> None:
    board.call("OTA.Update", {"url": url, "commit_timeout": commit_timeout})
    board.run_until(lambda: board.version == version)
    board.run(0.5)


def test_a_fresh_board_has_an_empty_file_system(board: Board) -> None:
    assert files(board) == []
    info = board.call("Sys.GetInfo")
    assert isinstance(info, dict)
    assert info["fs_size"] == 256 * 1024
    assert 0 < int(str(info["fs_free"])) < 256 * 1024


def test_files_survive_resets_and_power_cuts(board: Board) -> None:
    put(board, "a.txt", b"hello")
    board.reset()
    board.run(0.5)
    board.power_cycle()
    board.run(0.5)
    assert get(board, "a.txt") == b"hello"


def test_an_update_without_files_carries_all_of_them_over(
    board: Board, server: BundleServer
) -> None:
    put(board, "a.txt", b"hello")
    board.call("Config.Set", {"config": {"device": {"id": "lab-7"}}, "save": True})
    update(board, server.publish_sample("sample-2.0"), "2.0")
    assert "2 files brought over from fs0" in board.console
    assert get(board, "a.txt") == b"hello"
    assert board.call("Config.Get", {"key": "device.id"}) == "lab-7"
    # And once more, now from a file system that was made on the way.
    put(board, "b.txt", b"two")
    update(board, server.publish_sample("sample-3.0"), "3.0")
    assert (get(board, "a.txt"), get(board, "b.txt")) == (b"hello", b"two")


def test_files_of_an_update_win_over_the_old_ones(board: Board, server: BundleServer) -> None:
    put(board, "both.txt", b"old")
    put(board, "old.txt", b"old")
    image = make_fs_image({"both.txt": b"new", "new.txt": b"new", "sub/deep.txt": b"deep"})
    update(board, server.publish("files.zip", bundle_with("sample-2.0", image)), "2.0")
    assert {name: get(board, name) for name in ("both.txt", "old.txt", "new.txt")} == {
        "both.txt": b"new",
        "old.txt": b"old",
        "new.txt": b"new",
    }
    assert get(board, "sub/deep.txt") == b"deep"


def test_a_damaged_file_system_opens_nothing_until_it_is_made_anew(
    board: Board, server: BundleServer
) -> None:
    damage_files(board)
    url = server.publish_sample("sample-2.0")
    before = board.boot_state
    for method, params in (("OTA.Update", {"url": url}), ("Config.Get", {})):
        with pytest.raises(RpcClientError, match="the configuration is damaged") as caught:
            board.call(method, params)
        assert caught.value.code == 500
    assert board.boot_state == before
    board.call("FS.Mkfs", {"dev_name": "fs0", "fs_type": "LFS"})
    board.call("Sys.Reboot")
    board.run(1)
    update(board, url, "2.0")


def test_old_files_that_cannot_be_carried_over_are_named(
    board: Board, server: BundleServer
) -> None:
    image = make_fs_image({"half.txt (unfinished)": b"1", "n" * 255: b"2"})
    update(board, server.publish("names.zip", bundle_with("sample-2.0", image)), "2.0")
    update(board, server.publish_sample("sample-3.0"), "3.0")
    assert files(board) == ["n" * 255]
    assert 'not brought over from fs1: "/half.txt (unfinished)": it is an unf' in board.console


def test_no_room_for_the_old_files_ends_the_update(board: Board, server: BundleServer) -> None:
    put(board, "a.txt", b"old" * 500)
    put(board, "b.txt", b"old" * 500)
    image = make_fs_image({"big.bin": bytes(range(256)) * 970})
    url = server.publish("full.zip", bundle_with("sample-2.0", image))
    board.call("OTA.Update", {"url": url, "commit_timeout": 600})
    board.run(10)
    assert '"/b.txt": there is no room for it in fs1 beside the files of this update' in (
        board.console
    )
    assert "ota: the first start has failed: rolling back" in board.console
    assert (board.version, get(board, "b.txt")) == ("1.0", b"old" * 500)


def test_a_rollback_brings_the_old_files_back(board: Board, server: BundleServer) -> None:
    put(board, "a.txt", b"before")
    update(board, server.publish_sample("sample-2.0"), "2.0", commit_timeout=600)
    put(board, "a.txt", b"after")
    put(board, "more.txt", b"more")
    board.call("OTA.Revert")
    board.run_until(lambda: board.version == "1.0")
    board.run(0.5)
    assert files(board) == ["a.txt"]
    assert get(board, "a.txt") == b"before"


def test_a_snapshot_keeps_the_files_of_its_moment(board: Board) -> None:
    put(board, "a.txt", b"then")
    board.call("OTA.CreateSnapshot", {"set_as_revert": True, "commit_timeout": 600})
    put(board, "a.txt", b"now")
    board.call("OTA.Revert")
    board.run(5)
    assert get(board, "a.txt") == b"then"


def test_a_file_system_that_cannot_be_used_ends_the_update(
    board: Board, server: BundleServer
) -> None:
    put(board, "a.txt", b"hello")
    url = server.publish("broken.zip", bundle_with("sample-2.0", b"no file system " * 1000))
    board.call("OTA.Update", {"url": url, "commit_timeout": 600})
    board.run(5)
    assert "ota: the first start has failed: rolling back" in board.console
    assert (board.version, get(board, "a.txt")) == ("1.0", b"hello")


def test_a_file_system_that_is_too_large_is_refused(board: Board, server: BundleServer) -> None:
    before = board.boot_state
    url = server.publish("large.zip", bundle_with("sample-2.0", bytes(256 * 1024 + 1)))
    with pytest.raises(RpcClientError, match="the limit for part fs is 262,144"):
        board.call("OTA.Update", {"url": url})
    assert board.boot_state == before


def test_a_lost_boot_state_costs_no_file(board: Board) -> None:
    put(board, "a.txt", b"hello")
    board.cut_power()
    board.machine.models.nor.memory.storage[:0x4000] = b"\xff" * 0x4000
    board.power_on()
    board.run(2)
    assert get(board, "a.txt") == b"hello"
    assert board.boot_state is not None
    assert board.boot_state.slots[0].state.app_flags & APP_FLAG_FS_CREATED


def test_a_damaged_file_system_says_how_to_get_a_new_one(board: Board) -> None:
    state = board.boot_state
    assert state is not None
    damage_files(board)
    with pytest.raises(RpcClientError, match=r"FS\.Mkfs"):
        files(board)
    board.call("FS.Mkfs", {"dev_name": "fs0", "fs_type": "LFS"})
    put(board, "a.txt", b"new")
    assert files(board) == ["a.txt"]


@pytest.mark.parametrize("moment_ms", range(0, 120, 15))
def test_a_power_cut_while_a_file_is_written_leaves_the_old_or_the_new_one(
    board: Board, moment_ms: int
) -> None:
    shape = list(TornShape)[moment_ms // 15 % len(TornShape)]
    old, new = b"old" * 500, b"new" * 700
    put(board, "a.txt", old)
    board.cut_power(shape, seed=moment_ms, after_s=0.001 + moment_ms / 1000)
    try:
        put(board, "a.txt", new)
        acknowledged = board.powered
    except RpcTimeoutError:
        acknowledged = False
    board.run(0.2)
    board.power_on()
    board.run(1)
    found = get(board, "a.txt")
    assert found in ((new,) if acknowledged else (old, new))
