"""The board as hardware: power on, reset, cut the power, let virtual time pass.

What runs on it besides the firmware (the boot code, and the service that lives in the
application's main loop) is handed in as `BoardSoftware`: plain Python that runs while the processor
is held.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from platforms.clock import NS_PER_MS, Clock
from platforms.devices.flash_memory import FlashOperation
from platforms.devices.reset_cause import ResetCause
from platforms.devices.torn import TornShape
from platforms.engines.protocol import BoardModels, Engine, EngineEvents, ProcessorFault
from platforms.models import Models, make_models
from platforms.storage import FlashStorage
from platforms.trace import Trace

PACE_NS = 10 * NS_PER_MS
"""How much virtual time may pass between two looks at the outside world, when somebody looks."""

_SEED_STRIDE = 1_000_003  # more power cycles than any run has, so that no two draw alike


class ResetAsserted(Exception):  # noqa: N818 - it is control flow, not an error
    """The board was reset or lost power while Python code stood in for its processor.

    Deliberately no OtasimError: nobody may take it for a failure and go on.
    """


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """Where the processor starts: vector table, initial MSP, first instruction (bit 0 set)."""

    vector_table: int
    stack_pointer: int
    program_counter: int


class BoardSoftware(Protocol):
    """Boot code and main-loop service. All of it runs with the processor held."""

    def boot(self, cause: ResetCause) -> EntryPoint | None:
        """The boot code after a reset; None halts the processor until the next reset."""
        ...

    def application_started(self) -> None:
        """The firmware is about to run."""
        ...

    def turn(self) -> None:
        """One turn of the firmware's main loop."""
        ...

    def application_ended(self) -> None:
        """A reset or a power cut ended the application: its RAM is gone."""
        ...


EngineFactory = Callable[[BoardModels, Clock, EngineEvents], Engine]


class Machine:
    """One board. It starts without power.

    Attributes:
        clock: virtual time.
        trace: what happened.
        models: the Python hardware models.
        software: boot code and service; set before `power_on`.
        uart_output: takes what the firmware sends on the console UART.
        service_poll_ns: for firmware that feeds no watchdog: give the service a turn every so many
            nanoseconds while an application runs, alive or not. None: at every feed, as it should.
        outside_world: called at least every `PACE_NS` of virtual time when set: it may pace the
            board and bring input. None lets the board run at full speed.
    """

    def __init__(self, engine_factory: EngineFactory, storage: FlashStorage) -> None:
        self.clock = Clock()
        self.trace = Trace(self.clock)
        self.models: Models = make_models(self.clock, storage)
        self.software: BoardSoftware | None = None
        self.uart_output: Callable[[bytes], None] = lambda _data: None
        self.service_poll_ns: int | None = None
        self.outside_world: Callable[[], None] | None = None
        self._powered = False
        self._power_cycles = 0
        self._pending_reset: ResetCause | None = None
        self._application_running = False
        events = EngineEvents(
            uart_output=self._uart_output,
            reset_requested=self.reset,
            fault=self._note_fault,
        )
        self.engine: Engine = engine_factory(self.models.wiring(), self.clock, events)
        self.models.watchdog.on_timeout = lambda: self.reset(ResetCause.WATCHDOG)
        internal = self.models.internal_flash.memory
        internal.on_change.append(self.engine.flash_changed)
        for memory in (self.models.nor.memory, internal):
            memory.on_operation.append(self._note_flash_operation)

    # -- power and reset --------------------------------------------------------------------------

    @property
    def powered(self) -> bool:
        """Whether the supply is up."""
        return self._powered

    @property
    def application_running(self) -> bool:
        """Whether the boot code has started an application since the last reset."""
        return self._application_running

    def power_on(self) -> None:
        """The supply comes up; the board boots when virtual time next passes."""
        if not self._powered:
            self._powered = True
            if self._power_cycles == 0:
                self._scramble_ram(seed=0)
            self.models.nor.power_on()
            self._pending_reset = ResetCause.POWER_ON

    def cut_power(self, shape: TornShape = TornShape.RANDOM_BITS, seed: int = 0) -> None:
        """The supply goes away at once; a flash operation under way is torn in the given shape."""
        if not self._powered:
            return
        self.trace.record("power-cut", shape=shape.name.lower(), seed=seed)
        self._powered = False
        self._pending_reset = None
        self.models.nor.power_lost(shape, seed)
        self.models.internal_flash.power_lost(shape, seed)
        self.models.watchdog.reset()
        self._end_application()
        self._scramble_ram(seed)
        self.engine.reset()
        self.engine.stop()

    def brown_out(self, seed: int = 0) -> None:
        """The supply sags for a moment: too low to write flash, high enough for RAM to hold.

        A flash operation under way is garbled, the NOR flash starts anew, and the processor is
        reset. Without power: nothing.
        """
        if not self._powered:
            return
        self.trace.record("brown-out", seed=seed)
        self.models.nor.power_lost(TornShape.GARBLED, seed)
        self.models.nor.power_on()
        self.models.internal_flash.power_lost(TornShape.GARBLED, seed)
        self.reset(ResetCause.BROWN_OUT)

    def reset(self, cause: ResetCause) -> None:
        """Reset the processor; it takes effect at once, whatever runs. Without power: nothing."""
        if not self._powered:
            return
        if self._pending_reset is None:
            self._pending_reset = cause
        self.engine.stop()

    @property
    def reset_is_due(self) -> bool:
        """Whether the next moment begins with a reset."""
        return self._pending_reset is not None

    # -- time -------------------------------------------------------------------------------------

    def run_until(self, deadline_ns: int) -> None:
        """Let the board live until `deadline_ns` of virtual time.

        Boot code is not interrupted in the middle: the clock may stand later afterwards.
        """
        while self.clock.now_ns < deadline_ns:
            if self._pending_reset is not None:
                self._boot()
                continue
            step_ns = deadline_ns
            if self.outside_world is not None:
                step_ns = min(step_ns, self.clock.now_ns + PACE_NS)
            if self.service_poll_ns is not None:
                step_ns = min(step_ns, self.clock.now_ns + self.service_poll_ns)
            self.engine.run_until(step_ns)
            if self.service_poll_ns is not None and self._application_running:
                self.engine.call_held(self._turn)
            if self.outside_world is not None:
                self.outside_world()

    def wait(self, duration_ns: int) -> None:
        """Let virtual time pass with the processor held: boot code and service wait like this.

        Raises ResetAsserted through the caller when the board is reset or loses power on the way.
        """
        end_ns = self.clock.now_ns + duration_ns
        while self.clock.now_ns < end_ns:
            step_end_ns = end_ns
            if self.outside_world is not None:
                step_end_ns = min(step_end_ns, self.clock.now_ns + PACE_NS)
            next_event_ns = self.clock.next_event_ns
            if next_event_ns is not None:
                # It may reset the board or cut its power, and that is to be at that very moment:
                # a flash operation under way is torn where it stands then.
                step_end_ns = min(step_end_ns, next_event_ns)
            self.engine.advance(max(0, step_end_ns - self.clock.now_ns))
            if self._pending_reset is not None or not self._powered:
                raise ResetAsserted
            if self.outside_world is not None:
                self.outside_world()

    # -- internals --------------------------------------------------------------------------------

    def _scramble_ram(self, seed: int) -> None:
        """RAM that was without power holds anything, and something else each time."""
        self.engine.power_lost(seed * _SEED_STRIDE + self._power_cycles)
        self._power_cycles += 1

    def _boot(self) -> None:
        cause = self._pending_reset
        assert cause is not None  # noqa: S101 - run_until just looked
        assert self.software is not None, "set Machine.software before power_on"  # noqa: S101
        self._pending_reset = None
        self._end_application()
        self.models.reset_clock.note_reset(cause)
        for model in (
            self.models.watchdog,
            self.models.reset_clock,
            self.models.power_control,
            self.models.internal_flash,
        ):
            model.reset()
        self.engine.reset()
        self.models.nor.chip_select(active=False)
        if self.models.internal_flash.starts_watchdog:
            self.models.watchdog.start()
        self.trace.record("reset", cause=cause.value)
        try:
            entry = self.software.boot(cause)
            if entry is None:
                self.trace.record("halt")
                return
            self._application_running = True
            self.software.application_started()
        except ResetAsserted:
            return
        if self.service_poll_ns is None:
            self.models.watchdog.on_feed = lambda: self.engine.call_held(self._turn)
        self.engine.start(
            vector_table=entry.vector_table,
            stack_pointer=entry.stack_pointer,
            program_counter=entry.program_counter,
        )

    def _turn(self) -> None:
        assert self.software is not None  # noqa: S101 - an application runs
        try:
            self.software.turn()
        except ResetAsserted:
            # Taken by run_until: the engine has been stopped already.
            return

    def _end_application(self) -> None:
        self.models.watchdog.on_feed = None
        if self._application_running:
            self._application_running = False
            if self.software is not None:
                self.software.application_ended()

    def _uart_output(self, data: bytes) -> None:
        self.uart_output(data)

    def _note_fault(self, fault: ProcessorFault) -> None:
        self.trace.record(
            "fault",
            what=fault.kind.value,
            program_counter=fault.program_counter,
            address=fault.address,
            exception=fault.exception,
            locked_up=fault.exception is None,
        )

    def _note_flash_operation(self, operation: FlashOperation) -> None:
        self.trace.record(
            "flash",
            device=operation.device,
            operation=operation.kind.name.lower(),
            address=operation.address,
            length=operation.length,
            duration_ns=operation.duration_ns,
        )
