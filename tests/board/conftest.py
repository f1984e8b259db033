"""What tests of the whole board start from."""

from collections.abc import Iterator

import pytest

from otasim import Board
from otasim.bundle_server import BundleServer


@pytest.fixture(scope="module")
def server() -> Iterator[BundleServer]:
    """A server of bundles on this machine."""
    with BundleServer() as bundles:
        yield bundles


@pytest.fixture
def board(engine: str) -> Iterator[Board]:
    """A board with the sample firmware 1.0, started, on each engine in turn."""
    with Board(engine=engine) as made:
        made.run(0.5)
        yield made
