"""A bare engine with a vector table and code in its flash, for tests of any engine."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from otasim.engines import engine_factory
from platforms.clock import Clock
from platforms.description import BOARD_FILE
from platforms.devices.reset_cause import ResetCause
from platforms.engines.protocol import EngineEvents, ProcessorFault
from platforms.models import Models, make_models
from platforms.storage import in_memory
from tests.engines.thumb import SELF

FLASH = 0x0800_0000
BASE = 0x0801_0000
RAM = 0x2000_0000
STACK = RAM + 0x1000
CODE = BASE + 0x200
HANDLER_SIZE = 0x80


class Bench:
    """An engine with a vector table, and code at CODE."""

    def __init__(
        self,
        engine: str,
        code: bytes,
        handlers: dict[int, bytes] | None = None,
        platform: Path = BOARD_FILE,
    ) -> None:
        self.clock = Clock()
        storage = in_memory()
        self.models: Models = make_models(self.clock, storage)
        self.output = bytearray()
        self.resets: list[ResetCause] = []
        self.faults: list[ProcessorFault] = []
        self.engine = engine_factory(engine, platform)(
            self.models.wiring(),
            self.clock,
            EngineEvents(self.output.extend, self._note_reset, self.faults.append),
        )
        cells = storage.internal
        self._put(cells, CODE, code)
        place = CODE + 0x400
        for number in range(2, 98):
            handler = (handlers or {}).get(number, SELF)
            assert len(handler) <= HANDLER_SIZE
            self._put(cells, place, handler)
            self._put(cells, BASE + 4 * number, (place | 1).to_bytes(4, "little"))
            place += HANDLER_SIZE
        self.restart()

    def restart(
        self, program_counter: int = CODE | 1, stack_pointer: int = STACK, vector_table: int = BASE
    ) -> None:
        """Reset the processor and start it."""
        self.engine.reset()
        self.engine.start(
            vector_table=vector_table, stack_pointer=stack_pointer, program_counter=program_counter
        )

    def change_flash(self, address: int, data: bytes) -> None:
        """Change the flash behind the processor's back."""
        cells = self.models.internal_flash.memory.storage
        offset = address - FLASH
        cells[offset : offset + len(data)] = data
        self.engine.flash_changed(offset, len(data))

    def _note_reset(self, cause: ResetCause) -> None:
        self.resets.append(cause)
        self.engine.stop()

    @staticmethod
    def _put(cells: object, address: int, data: bytes) -> None:
        assert isinstance(cells, bytearray)
        cells[address - FLASH : address - FLASH + len(data)] = data

    def run(self, duration_ns: int) -> None:
        self.engine.run_until(self.clock.now_ns + duration_ns)

    def word(self, address: int) -> int:
        return int.from_bytes(self.engine.read_memory(address, 4), "little")


MakeBench = Callable[..., Bench]


@contextmanager
def benches(engine: str) -> Iterator[MakeBench]:
    """What makes benches on an engine, one at a time."""
    with ExitStack() as cleanup:

        def make(
            code: bytes, handlers: dict[int, bytes] | None = None, platform: Path = BOARD_FILE
        ) -> Bench:
            cleanup.close()
            bench = Bench(engine, code, handlers, platform)
            cleanup.callback(bench.engine.close)
            return bench

        yield make
