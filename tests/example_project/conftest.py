"""What the doorbell's tests share: its own boot loader, and a place to get updates from."""

from collections.abc import Callable, Iterator

import pytest
from doorbell_loader import DoorbellLoader

from otasim.bundle_server import BundleServer


@pytest.fixture
def boot_loader() -> type[DoorbellLoader]:
    return DoorbellLoader


@pytest.fixture(scope="session")
def publish() -> Iterator[Callable[[str], str]]:
    with BundleServer() as server:
        yield server.publish_sample
