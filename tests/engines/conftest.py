"""The bench that the tests of the engines share."""

from collections.abc import Iterator

import pytest

from tests.engines.bench import MakeBench, benches


@pytest.fixture
def make_bench(engine: str) -> Iterator[MakeBench]:
    with benches(engine) as make:
        yield make
