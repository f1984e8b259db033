"""The commands that need no running board, as a shell runs them."""

import json
import os
import shutil
from pathlib import Path

import pytest

import firmware
from bootloader_model.boot_record import build_record, parse_record
from otasim import Board
from otasim.bundle_server import BundleServer, bundle_of
from tests.cli.command import otasim


@pytest.fixture(scope="module")
def updated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board's flash after an update that nobody has committed."""
    path = tmp_path_factory.mktemp("updated") / "board"
    with BundleServer() as server, Board(state_directory=path) as board:
        board.run(0.5)
        url = server.publish_sample("sample-2.0")
        board.call("OTA.Update", {"url": url, "commit_timeout": 300})
        board.run(3)
    return path


@pytest.fixture
def state_directory(updated: Path, tmp_path: Path) -> Path:
    """A copy of that for each test."""
    return shutil.copytree(updated, tmp_path / "board")


def test_demo_prints_one_json_object() -> None:
    done = otasim("demo", "--json", "--engine", "embedded")
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"], told["engine"]) == (0, True, "embedded")
    assert len(told["stories"]) == 4
    for story in told["stories"]:
        assert set(story) == {"name", "ok", "virtual_s", "wall_s", "events"}
        assert story["events"]


def test_demo_tells_its_stories() -> None:
    done = otasim("demo", "--engine", "embedded")
    assert done.returncode == 0
    assert "4 of 4 stories ended as told" in done.stdout
    assert "rollback-uncommitted" in done.stdout


def test_state_shows_which_record_wins_and_why(state_directory: Path) -> None:
    done = otasim("state", state_directory)
    assert done.returncode == 0
    assert "bcfg0+0x0500 wins: seq 6 is the newest of 6 good records" in done.stdout
    assert "slot 2 appT" in done.stdout
    told = json.loads(otasim("state", state_directory, "--json").stdout)
    assert told["winner"]["seq"] == 6
    assert (told["winner"]["revert_slot"], told["winner"]["is_committed"]) == (2, False)
    assert told["winner"]["commit_timeout"] == 300


def test_state_finds_records_in_a_dump_of_any_size(state_directory: Path, tmp_path: Path) -> None:
    dump = tmp_path / "dump.bin"
    records = (state_directory / "nor.bin").read_bytes()[:0x400]
    dump.write_bytes(b"\xff" * 0x300 + records + b"\xff" * 0x500)
    done = otasim("state", dump)
    assert done.returncode == 0
    assert "at 0x000300+0x0300 wins" in done.stdout


def test_state_goes_on_behind_a_record_with_any_bit_flipped(
    state_directory: Path, tmp_path: Path
) -> None:
    content = bytearray((state_directory / "nor.bin").read_bytes())
    content[0x300 + 12] ^= 0x04
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(content)
    done = otasim("state", damaged)
    assert "bad CRC" in done.stdout
    assert "bcfg0+0x0200 wins: seq 3" in done.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "too short"), (b"\xff" * 4096, "no boot-state record"), (b"x" * 5000, "no boot-state")],
)
def test_state_of_what_is_no_flash_image(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "dump.bin"
    path.write_bytes(content)
    done = otasim("state", path)
    assert done.returncode == 1
    assert words in done.stderr


def test_an_erased_flash_has_no_winner(tmp_path: Path) -> None:
    path = tmp_path / "erased.bin"
    path.write_bytes(b"\xff" * 0x40_0000)
    done = otasim("state", path)
    assert done.returncode == 1
    assert "no area holds a good record" in done.stdout


def test_bundle_is_made_shown_and_checked(tmp_path: Path) -> None:
    output = tmp_path / "fw.zip"
    image = firmware.path("sample-2.0")
    assert otasim("bundle", "create", output, "--app", image).returncode == 0
    shown = otasim("bundle", "show", output)
    assert shown.stdout.startswith("sample 2.0 (build 20260201-000000/v2.0) for stm32")
    assert otasim("bundle", "check", output).returncode == 0
    damaged = bytearray(output.read_bytes())
    damaged[1000] ^= 1
    output.write_bytes(damaged)
    checked = otasim("bundle", "check", output)
    assert checked.returncode == 1
    assert "CRC" in checked.stderr


def test_a_bundle_in_the_devices_layout_is_taken_too(tmp_path: Path) -> None:
    output = tmp_path / "fw.zip"
    image = firmware.path("sample-3.0")
    made = otasim("bundle", "create", output, "--app", image, "--device-layout")
    assert made.returncode == 0
    with BundleServer() as server, Board() as board:
        board.run(0.5)
        board.call("OTA.Update", {"url": server.publish("fw.zip", output.read_bytes())})
        board.run(5)
        assert board.version == "3.0"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["bundle", "check", "/nowhere.zip"],
        ["state", "/nowhere"],
        ["run", "--speed", "0"],
        ["run", "--engine", "embedded", "--gdb", "3333"],
    ],
)
def test_wrong_use_exits_with_2(arguments: list[str]) -> None:
    assert otasim(*arguments).returncode == 2


def test_doctor_says_what_is_there() -> None:
    told = json.loads(otasim("doctor", "--json").stdout)
    assert told["ok"] is True
    assert {item["name"] for item in told["findings"]} >= {"engine embedded", "host tool mos"}


def test_records_of_the_flash_round_trip(state_directory: Path) -> None:
    raw = (state_directory / "nor.bin").read_bytes()[:256]
    assert build_record(parse_record(raw)) == raw


def test_state_searches_a_dump_of_four_megabytes_that_is_laid_out_otherwise(
    state_directory: Path, tmp_path: Path
) -> None:
    dump = tmp_path / "dump.bin"
    content = (state_directory / "nor.bin").read_bytes()
    dump.write_bytes(b"\xff" * 0x20000 + content[:0x400] + b"\xff" * (len(content) - 0x20400))
    done = otasim("state", dump)
    assert done.returncode == 0
    assert "at 0x020000+0x0300 wins" in done.stdout


def test_state_says_when_the_original_loader_sees_another_record(state_directory: Path) -> None:
    nor = state_directory / "nor.bin"
    content = bytearray(nor.read_bytes())
    content[0x100 + 20] ^= 1
    nor.write_bytes(content)
    done = otasim("state", state_directory)
    assert "bcfg0+0x0500 wins" in done.stdout
    assert "for a device with the original loader, bcfg0+0x0000 wins" in done.stdout
    strict = otasim("state", state_directory, "--strict-original")
    assert "bcfg0+0x0000 wins" in strict.stdout
    assert "note:" not in strict.stdout


def test_state_reads_no_device_that_never_ends() -> None:
    done = otasim("state", "/dev/zero")
    assert (done.returncode, "not a regular file" in done.stderr) == (1, True)


def test_run_says_when_there_is_nothing_to_start(state_directory: Path) -> None:
    for name in ("nor.bin", "internal.bin"):
        file = state_directory / name
        file.write_bytes(b"\xff" * file.stat().st_size)
    done = otasim("run", "--engine", "embedded", "--state", state_directory)
    assert done.returncode == 1
    assert "no bootable image" in done.stdout
    assert "the boot loader has started no application in 60 virtual seconds" in done.stderr


@pytest.mark.parametrize("timeout", ["1e300", "inf", "nan", "0", "-1", "soon"])
def test_a_timeout_that_is_none_is_wrong_use(timeout: str) -> None:
    done = otasim("call", "RPC.Ping", "--port", "/nowhere", "--timeout", timeout)
    assert done.returncode == 2
    assert "seconds" in done.stderr


def test_pipes_are_refused_rather_than_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fw.zip"
    os.mkfifo(fifo)
    uses: tuple[tuple[str | Path, ...], ...] = (
        ("bundle", "check", fifo),
        ("bundle", "show", fifo),
        ("bundle", "create", tmp_path / "out.zip", "--app", fifo),
        ("state", fifo),
        ("run", "--image", fifo),
    )
    for arguments in uses:
        done = otasim(*arguments)
        assert done.returncode in (1, 2)
        assert "not a regular file" in done.stderr


def test_a_bundle_that_cannot_start_is_made_with_a_warning(tmp_path: Path) -> None:
    image, output = tmp_path / "text.bin", tmp_path / "fw.zip"
    image.write_bytes(b"this is no firmware at all")
    made = otasim("bundle", "create", output, "--app", image, "--name", "x", "--version", "1")
    assert made.returncode == 0
    checked = otasim("bundle", "check", output)
    assert checked.returncode == 1
    errors = [line for line in checked.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert made.stderr.splitlines() == [line.replace("error:", "warning:") for line in errors]


def test_a_good_bundle_is_made_without_a_warning(tmp_path: Path) -> None:
    image = firmware.path("sample-2.0")
    assert otasim("bundle", "create", tmp_path / "fw.zip", "--app", image).stderr == ""


@pytest.mark.parametrize("length", [60, 1500])
def test_showing_a_truncated_bundle_fails(tmp_path: Path, length: int) -> None:
    path = tmp_path / "fw.zip"
    path.write_bytes(bundle_of("sample-2.0")[:length])
    shown = otasim("bundle", "show", path)
    assert shown.returncode == 1
    assert "error: " in shown.stderr


@pytest.mark.parametrize("name", ["bootloader_model.protocol:Loader", "decimal:Decimal"])
def test_what_is_no_loader_is_one_line(name: str) -> None:
    done = otasim("run", "--engine", "embedded", "--loader", name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: loader '{name}': ")
