"""The bench that the tests of the engines share."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from platforms.description import BOARD_FILE
from tests.engines.bench import Bench, MakeBench


@pytest.fixture
def make_bench(engine: str) -> Iterator[MakeBench]:
    with ExitStack() as cleanup:

        def make(
            code: bytes, handlers: dict[int, bytes] | None = None, platform: Path = BOARD_FILE
        ) -> Bench:
            cleanup.close()
            bench = Bench(engine, code, handlers, platform)
            cleanup.callback(bench.engine.close)
            return bench

        yield make
