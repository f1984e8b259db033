"""Which engines there are, by the names users give them."""

from platforms.description import load_description
from platforms.engines.embedded.engine import EmbeddedEngine
from platforms.errors import InvalidArgumentError
from platforms.machine import EngineFactory

EMBEDDED = "embedded"
ENGINES = (EMBEDDED,)


def engine_factory(name: str) -> EngineFactory:
    """What makes the engine called `name`; InvalidArgumentError when there is none."""
    if name == EMBEDDED:
        description = load_description()
        return lambda models, clock, events: EmbeddedEngine(description, models, clock, events)
    raise InvalidArgumentError(f"there is no engine {name!r}: choose one of {', '.join(ENGINES)}")
