"""The device's file system as the configuration sees it, without the flash."""

from dataclasses import dataclass, field

from platforms.errors import OtasimError


class BrokenFilesError(OtasimError):
    """The file system does not work."""


@dataclass
class Files:
    """Files in memory; `broken` names operations that fail."""

    contents: dict[str, bytes] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    def read(self, name: str) -> bytes | None:
        self._check("read")
        return self.contents.get(name)

    def write_atomically(self, name: str, data: bytes) -> None:
        self._check("write")
        self.contents[name] = data

    def remove(self, name: str) -> None:
        self._check("remove")
        self.contents.pop(name, None)

    def _check(self, operation: str) -> None:
        if operation in self.broken:
            raise BrokenFilesError(f"{operation} failed")
