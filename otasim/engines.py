"""Which engines there are, by the names users give them."""

import logging
from pathlib import Path

from platforms.description import BOARD_FILE, load_description
from platforms.engines.embedded.engine import EmbeddedEngine
from platforms.engines.renode import library
from platforms.errors import InvalidArgumentError
from platforms.machine import EngineFactory

_log = logging.getLogger(__name__)

EMBEDDED, RENODE = "embedded", "renode"
ENGINES = (EMBEDDED, RENODE)
AUTO = "auto"
"""Renode where it is found and loads, else the embedded engine."""


def missing_engine(name: str) -> str:
    """Why the engine called `name` cannot be used on this machine; empty when it is there."""
    if name == RENODE:
        try:
            library.find()
        except library.RenodeNotFoundError as error:
            return str(error)
    return ""


def choose_engine(name: str) -> str:
    """The engine that `name` stands for, which may be `AUTO`.

    A Renode that is there but cannot be used is no reason to do nothing: a warning says what is
    wrong with it.
    """
    if name != AUTO:
        return name
    if missing_engine(RENODE):
        return EMBEDDED
    try:
        library.load()
    except library.RenodeError as error:
        _log.warning("otasim: the embedded engine is used, for Renode cannot be: %s", error)
        return EMBEDDED
    return RENODE


def engine_factory(name: str, platform: Path = BOARD_FILE) -> EngineFactory:
    """What makes the engine called `name` for the board that the file `platform` describes.

    Raises:
        DescriptionError: the platform file is missing, or outside what `platforms/description.py`
            documents.
        InvalidArgumentError: there is none of that name.
        RenodeError: Renode is asked for, and is missing, too old or does not load.
    """
    if name == EMBEDDED:
        description = load_description(platform)
        return lambda models, clock, events: EmbeddedEngine(description, models, clock, events)
    if name == RENODE:
        library.load()
        from platforms.engines.renode.engine import RenodeEngine  # noqa: PLC0415 - needs Renode

        description = load_description(platform)
        return lambda models, clock, events: RenodeEngine(description, models, clock, events)
    raise InvalidArgumentError(f"there is no engine {name!r}: choose one of {', '.join(ENGINES)}")
