"""Which engines there are, by the names users give them."""

from platforms.description import load_description
from platforms.engines.embedded.engine import EmbeddedEngine
from platforms.engines.renode import library
from platforms.errors import InvalidArgumentError
from platforms.machine import EngineFactory

EMBEDDED = "embedded"
RENODE = "renode"
ENGINES = (EMBEDDED, RENODE)


def engine_factory(name: str) -> EngineFactory:
    """What makes the engine called `name`; InvalidArgumentError when there is none."""
    if name == EMBEDDED:
        description = load_description()
        return lambda models, clock, events: EmbeddedEngine(description, models, clock, events)
    if name == RENODE:
        library.load()
        from platforms.engines.renode.engine import RenodeEngine  # noqa: PLC0415 - needs Renode

        description = load_description()
        return lambda models, clock, events: RenodeEngine(description, models, clock, events)
    raise InvalidArgumentError(f"there is no engine {name!r}: choose one of {', '.join(ENGINES)}")
