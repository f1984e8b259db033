"""A file that is there whole or not at all, whoever looks and whenever the process is killed."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under another name, and give it its own when all is in it; OSError if not."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
