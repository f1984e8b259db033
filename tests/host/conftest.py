"""What the tests of host tools share."""

from collections.abc import Iterator

import pytest

from otasim.bundle_server import BundleServer


@pytest.fixture(scope="module")
def server() -> Iterator[BundleServer]:
    """A server of bundles on this machine."""
    with BundleServer() as bundles:
        yield bundles
