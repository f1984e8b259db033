"""The state directory: kept, locked, checked, and safe from kills."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms import storage
from platforms.clock import Clock
from platforms.models import make_models
from platforms.storage import StateDirectoryError

WRITER = """
import sys
from pathlib import Path
from platforms import storage
with storage.in_directory(Path(sys.argv[1]), storage.in_memory) as cells:
    for number in range(256):
        cells.nor[number] = number ^ 0xFF
        print(number, flush=True)
    sys.stdin.read()
"""


def test_what_is_written_is_there_the_next_time(tmp_path: Path) -> None:
    with storage.in_directory(tmp_path, storage.in_memory) as cells:
        cells.nor[5] = 1
        cells.internal_options[0] = 2
    with storage.in_directory(tmp_path, pytest.fail) as cells:
        assert (cells.nor[5], cells.internal_options[0]) == (1, 2)


def test_wear_is_kept(tmp_path: Path) -> None:
    for erased in (1, 2):
        with storage.in_directory(tmp_path, storage.in_memory) as cells:
            memory = make_models(Clock(), cells).internal_flash.memory
            memory.begin_erase(0, 0x4000, 1)
            assert list(memory.wear[:2]) == [erased, 0]


def test_a_killed_process_has_lost_nothing_it_told_of(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 255:
                break
        with (
            pytest.raises(StateDirectoryError, match="another otasim"),
            storage.in_directory(tmp_path, storage.in_memory),
        ):
            pass
        os.kill(process.pid, signal.SIGKILL)
    with storage.in_directory(tmp_path, pytest.fail) as cells:
        assert bytes(cells.nor[:256]) == bytes(number ^ 0xFF for number in range(256))


@pytest.mark.parametrize("name", ["nor.bin", "internal.bin", "nor-status.bin"])
def test_a_file_of_another_size_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    with storage.in_directory(tmp_path, storage.in_memory):
        pass
    (tmp_path / name).write_bytes(b"mine")
    with (
        pytest.raises(StateDirectoryError, match="4 bytes") as caught,
        storage.in_directory(tmp_path, storage.in_memory),
    ):
        pass
    assert caught.value.path == tmp_path / name
    assert (tmp_path / name).read_bytes() == b"mine"


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("")
    with pytest.raises(StateDirectoryError), storage.in_directory(path, storage.in_memory):
        pass


@pytest.mark.parametrize("lost", ["nor.bin", "internal.bin", "internal-options.bin"])
def test_a_directory_that_has_lost_a_file_is_refused_and_kept(tmp_path: Path, lost: str) -> None:
    with storage.in_directory(tmp_path, storage.in_memory) as cells:
        cells.internal[0] = cells.nor[0] = 7
    (tmp_path / lost).unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        pytest.raises(StateDirectoryError, match=f"{lost} missing, but other files") as caught,
        storage.in_directory(tmp_path, pytest.fail),
    ):
        pass
    assert caught.value.path == tmp_path
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


KILLED_WHILE_MAKING = """
import os, signal, sys
from pathlib import Path
from platforms import storage

steps = int(sys.argv[2])

def count(event, arguments):
    # Every file that is opened for writing or renamed in the directory is a step.
    global steps
    if event in ("open", "os.rename") and ".new" in str(arguments[0]):
        steps -= 1
        if steps < 0:
            os.kill(os.getpid(), signal.SIGKILL)

def new_board():
    cells = storage.in_memory()
    cells.nor[0] = cells.internal[0] = 7
    return cells

sys.addaudithook(count)
with storage.in_directory(Path(sys.argv[1]), new_board):
    print("made")
"""


@pytest.mark.parametrize("steps", range(13))
def test_a_board_that_is_killed_while_it_is_made_is_made_by_the_next(
    tmp_path: Path, steps: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_MAKING, str(tmp_path), str(steps)],
        capture_output=True,
        text=True,
        check=False,
    )
    killed = steps < 12
    assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
    assert done.stdout == ("" if killed else "made\n")

    def new_board() -> storage.FlashStorage:
        cells = storage.in_memory()
        cells.nor[0] = cells.internal[0] = 7
        return cells

    with storage.in_directory(tmp_path, new_board) as cells:
        assert (cells.nor[0], cells.internal[0]) == (7, 7)
    with storage.in_directory(tmp_path, pytest.fail):
        assert not list(tmp_path.glob("*.new"))


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=30), st.integers(0, 60))
def test_the_clock_runs_events_in_order_of_time_and_of_asking(
    events: list[tuple[int, bool]], until: int
) -> None:
    clock = Clock()
    seen: list[tuple[int, int]] = []
    for order, (at_ns, cancelled) in enumerate(events):
        event = clock.call_at(at_ns, lambda at_ns=at_ns, order=order: seen.append((at_ns, order)))  # type: ignore[misc]
        if cancelled:
            event.cancel()
    clock.advance_to(until)
    expected = sorted(
        (at_ns, order)
        for order, (at_ns, cancelled) in enumerate(events)
        if not cancelled and at_ns <= until
    )
    assert seen == expected
    assert clock.now_ns == until
