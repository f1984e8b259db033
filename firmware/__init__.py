"""The sample firmware: ready-built images of an application for slot 0, good ones and bad ones.

`README.md` beside this file says what each variant does and how they are built.
"""

from pathlib import Path

from platforms.errors import OtasimError

_IMAGE_DIRECTORY = Path(__file__).parent / "images"


class UnknownImageError(OtasimError):
    """There is no sample image of the name asked for.

    Attributes:
        name: the name asked for.
        available: the names there are, in order.
    """

    def __init__(self, name: str, available: tuple[str, ...]) -> None:
        choice = f"choose one of: {', '.join(available)}" if available else "none is installed"
        super().__init__(f"there is no sample image {name!r}; {choice}")
        self.name = name
        self.available = available


def images() -> list[str]:
    """The names of the sample images, in alphabetical order: `hang-2.1`, `sample-1.0` and so on."""
    return sorted(file.stem for file in _IMAGE_DIRECTORY.glob("*.hex"))


def path(name: str) -> Path:
    """The Intel HEX file of a sample image.

    Args:
        name: one of `images()`, without `.hex`.

    Raises:
        UnknownImageError: there is none of that name.
    """
    available = images()
    if name not in available:
        raise UnknownImageError(name, tuple(available))
    return _IMAGE_DIRECTORY / f"{name}.hex"
