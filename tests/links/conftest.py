"""Every test here ends with as many threads and file descriptors as it began with."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.links.fake_board import wait_until


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    threads, files = threading.active_count(), _open_files()
    yield
    gc.collect()
    wait_until(lambda: threading.active_count() <= threads, f"{threading.enumerate()} to end")
    wait_until(lambda: _open_files() <= files, f"no more than {files} open files")
