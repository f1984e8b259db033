"""The committed images are what the committed source gives."""

import shutil
import subprocess
from pathlib import Path

import pytest
from intelhex import IntelHex

import firmware

FIRMWARE = Path(__file__).parents[2] / "firmware"
COMPILER = "arm-none-eabi-gcc"


@pytest.fixture(scope="module", autouse=True)
def _same_compiler() -> None:
    for program in (COMPILER, "make"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: the images cannot be rebuilt here")
    recorded = (FIRMWARE / "images" / "TOOLCHAIN").read_text().strip()
    installed = subprocess.run(
        [COMPILER, "-dumpversion"], check=True, capture_output=True, text=True
    ).stdout.strip()
    if installed != recorded:
        pytest.skip(
            f"the images were built by {COMPILER} {recorded}, here is {installed}: "
            "another compiler makes other bytes"
        )


def make(output: Path, *settings: str, only: str = "") -> Path:
    """Build all images, or `only` one, into `output`; returns the directory they are in."""
    images = output / "images"
    command = ["make", "-C", str(FIRMWARE), f"IMAGES={images}", f"BUILD={output / 'build'}"]
    target = [f"{images}/{only}.hex"] if only else []
    subprocess.run([*command, *settings, *target], check=True, capture_output=True, text=True)
    return images


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("rebuilt"))


def test_the_same_files_are_built(rebuilt: Path) -> None:
    committed = {file.name for file in (FIRMWARE / "images").iterdir()}

    assert {file.name for file in rebuilt.iterdir()} == committed
    assert (rebuilt / "TOOLCHAIN").read_text() == (FIRMWARE / "images" / "TOOLCHAIN").read_text()


@pytest.mark.parametrize("name", firmware.images())
def test_rebuilding_gives_the_committed_bytes(rebuilt: Path, name: str) -> None:
    assert (rebuilt / f"{name}.hex").read_bytes() == firmware.path(name).read_bytes()


def test_an_image_can_be_filled_up_to_a_size(tmp_path: Path) -> None:
    size = 64 * 1024

    images = make(tmp_path, f"IMAGE_SIZE={size}", only="sample-1.0")

    padded = IntelHex(str(images / "sample-1.0.hex")).tobinstr()
    plain = IntelHex(str(firmware.path("sample-1.0"))).tobinstr()
    assert padded == plain + b"\xff" * (size - len(plain))


def test_the_time_until_it_hangs_can_be_set(tmp_path: Path) -> None:
    images = make(tmp_path, "HANG_AFTER_MS=500", only="hang-2.1")

    assert (images / "hang-2.1.hex").read_bytes() != firmware.path("hang-2.1").read_bytes()
