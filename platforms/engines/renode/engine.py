"""The board on Renode, in virtual time.

While the processor runs, Renode's clock leads and the board's clock follows: at every access to a
model, at every event the board waits for, and at the end of every run. While the processor is held,
the board's clock leads, and what Renode times (SysTick) is moved along. When Python stops a run,
the processor is halted at once, and what is left of Renode's run is no time of the board.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from platforms.clock import NEVER_NS, NS_PER_MS, NS_PER_US, Clock
from platforms.description import BoardDescription
from platforms.devices.device_signature import DeviceSignature
from platforms.devices.peripheral import UnsupportedHardwareError
from platforms.devices.reset_cause import ResetCause
from platforms.devices.system_control import DataWatchpointUnit
from platforms.engines.address_map import SIGNATURE_PAGE, located, refusal, unmodelled_region
from platforms.engines.bus import PeripheralBus
from platforms.engines.entries import CONTROLLER, PAGE
from platforms.engines.protocol import (
    BoardModels,
    BusModel,
    EngineError,
    EngineEvents,
    FaultKind,
    ProcessorFault,
)
from platforms.engines.renode.hardware import Hardware

LONGEST_RUN_NS = 10 * NS_PER_MS
DATA_WATCHPOINT_UNIT = 0xE000_1000
MOST_FAULTS_AT_ONCE = 64  # Renode's time moves on in steps of many instructions
_LOADS_AND_STORES = (FaultKind.UNMAPPED_READ, FaultKind.UNMAPPED_WRITE)


class RenodeEngine:
    """The engine protocol on Renode. One at a time in a process."""

    name = "renode"

    def __init__(
        self,
        description: BoardDescription,
        models: BoardModels,
        clock: Clock,
        events: EngineEvents,
    ) -> None:
        self.clock = clock
        self._events = events
        self._flash = models.flash
        self.attention: Callable[[], None] = lambda: None
        self._wiring = True  # Renode is put together, reset or taken apart: what it touches is void
        self._origin_ns = 0  # the board's time when Renode's was 0
        self._released = False
        self._in_run = False
        self._stop_requested = False
        self._reset_due = False
        self._watching = False
        self._alarm_ns: int | None = None
        self._error: BaseException | None = None
        self._after_run: Callable[[], object] | None = None
        self._fault_ns = 0
        self._faults_now = 0  # at this very time
        self._stale_flash: tuple[int, int] | None = (0, len(models.flash.cells))
        bus = PeripheralBus()
        for model in models.bus:
            bus.attach(model)
        frequency_hz = description.only(CONTROLLER).number("systickFrequency")
        self._cycle_counter = DataWatchpointUnit(clock, frequency_hz)
        bus.attach(BusModel(DATA_WATCHPOINT_UNIT, 0x1000, self._cycle_counter))
        bus.attach(BusModel(SIGNATURE_PAGE, PAGE, DeviceSignature(len(models.flash.cells))))
        self._open: Hardware | None = Hardware(
            description, models, bus, self._access, self._stack_fault
        )
        self._hardware.on_console_output(self._note_output)
        self._hardware.on_reset_request(self._note_reset_request)
        self._hardware.on_alarm(self._note_alarm)
        self._hardware.faults.guard(description, self._take_access_fault)
        self._hardware.faults.on_fault(self._take_own_fault)
        self._wiring = False

    @property
    def _hardware(self) -> Hardware:
        if self._open is None:
            raise EngineError("this board is closed: make another one")
        return self._open

    # -- the engine protocol ----------------------------------------------------------------------

    def reset(self) -> None:
        """System reset of processor and peripherals; the processor is held then."""
        self._released = False
        self._cycle_counter.reset()
        if self._in_run:
            self._reset_due = True  # Renode resets between runs
            self._hardware.hold()
        else:
            self._reset_hardware()

    def power_lost(self, seed: int) -> None:
        """RAM comes up with chance content; firmware must not count on zeros or on the past."""
        self._hardware.scramble_ram(seed)

    def start(self, *, vector_table: int, stack_pointer: int, program_counter: int) -> None:
        """Release the processor with VTOR, MSP and PC set, all else as after a reset."""
        self._refresh_flash()
        self._hardware.start(vector_table, stack_pointer, program_counter)
        self._origin_ns = self.clock.now_ns - self._hardware.now_ns
        self._alarm_ns = None
        self._released = True

    def run_until(self, deadline_ns: int) -> None:
        """Run until virtual time reaches `deadline_ns` or `stop` is called."""
        clock = self.clock
        _ = self._hardware  # EngineError when the board is closed
        self._stop_requested = False
        while not self._stop_requested and clock.now_ns < deadline_ns:
            if self._released:
                self._run(min(deadline_ns, clock.now_ns + LONGEST_RUN_NS))
            else:
                due_ns = clock.next_event_ns
                clock.advance_to(deadline_ns if due_ns is None else min(due_ns, deadline_ns))

    def advance(self, duration_ns: int) -> None:
        """Let virtual time pass with the processor held."""
        self.clock.advance_to(self.clock.now_ns + duration_ns)
        if self._released:
            self._hardware.pass_time(duration_ns)

    def stop(self) -> None:
        """Make `run_until` return; the processor is halted on the spot."""
        self._stop_requested = True
        if self._in_run:
            self._hardware.hold()

    def call_held(self, action: Callable[[], None]) -> None:
        """Run `action` here and now: Renode's processor waits for the access under way."""
        action()

    def uart_input(self, data: bytes) -> int:
        """Bytes arrive at the console UART; returns how many it took."""
        return self._hardware.receive(data) if self._released else 0

    def flash_changed(self, offset: int, length: int) -> None:
        """Renode's copy of the internal flash is stale here until the processor runs again."""
        if self._stale_flash is not None:
            first, last = self._stale_flash
            first, last = min(first, offset), max(last, offset + length)
        else:
            first, last = offset, offset + length
        self._stale_flash = first, last

    def read_memory(self, address: int, length: int) -> bytes:
        """Memory as a debugger sees it."""
        self._refresh_flash()
        return self._hardware.read(address, length)

    def write_memory(self, address: int, data: bytes) -> None:
        """Write RAM as a debugger does; the internal flash is changed through its model only."""
        self._hardware.write(address, data)

    def registers(self) -> Mapping[str, int]:
        """The processor's registers by name."""
        return self._hardware.registers()

    def close(self) -> None:
        """Take the board out of Renode."""
        if self._open is not None:
            self._wiring = True
            hardware, self._open = self._open, None
            hardware.close()

    # -- tools ------------------------------------------------------------------------------------

    def open_monitor(self, port: int) -> None:
        """Open Renode's monitor on a TCP port."""
        self._hardware.open_monitor(port)

    def start_gdb_server(self, port: int) -> None:
        """Start Renode's GDB server on a TCP port."""
        self._hardware.start_gdb_server(port)

    def log_to(self, path: Path) -> None:
        """Write Renode's log to a file."""
        self._hardware.log_to(path)

    # -- runs -------------------------------------------------------------------------------------

    def _run(self, until_ns: int) -> None:
        """Let the processor run, no further than `until_ns`; held time comes on top."""
        self._refresh_flash()
        self._set_alarm()
        self._in_run = True
        try:
            self._hardware.run_for(max(NS_PER_US, until_ns - self.clock.now_ns), self.attention)
        finally:
            self._in_run = False
        report, self._after_run = self._after_run, None
        if report is not None:
            report()
        if self._reset_due:
            self._reset_due = False
            self._reset_hardware()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._stop_requested or not self._released:
            return
        self.clock.advance_to(self._origin_ns + self._hardware.now_ns)

    def _reset_hardware(self) -> None:
        self._wiring = True
        self._hardware.reset()
        self._wiring = False

    def _refresh_flash(self) -> None:
        if self._stale_flash is not None:
            first, last = self._stale_flash
            self._stale_flash = None
            self._hardware.copy_flash(first, last - first)

    def _watch_stores(self) -> None:
        """Look at the processor's stores for as long as they program the flash."""
        programming = self._flash.programming()
        if programming != self._watching:
            self._watching = programming
            self._hardware.watch_stores(self._note_store if programming else None)

    def _set_alarm(self) -> None:
        """Have Renode call when the board's next event is due; an early call does no harm."""
        due_ns = self.clock.next_event_ns
        if due_ns is not None and (self._alarm_ns is None or due_ns < self._alarm_ns):
            self._alarm_ns = due_ns
            self._hardware.set_alarm(due_ns - self._origin_ns - self._hardware.now_ns)

    # -- what Renode calls, on its processor's thread ---------------------------------------------

    def _access(self, action: Callable[[], int]) -> int:
        """An access to a model; one of the processor's at its own moment of the board's time."""
        if self._wiring:
            return 0
        if not (self._in_run and self._hardware.on_processor_thread):
            return self._visit(action)
        if not self._released or self._stop_requested:
            return 0  # what Renode still does when it is halted already: void
        try:
            self._hardware.synchronize()
            self._follow_renode()
            self._refresh_flash()
            value = action()
            busy_until_ns = self._flash.busy_until_ns()
            # RM0090 3.5: the bus stalls every access to the flash until its operation ends.
            if busy_until_ns == NEVER_NS:
                self._hold_for_good()
            elif busy_until_ns > self.clock.now_ns:
                self.advance(busy_until_ns - self.clock.now_ns)
            self._watch_stores()
            self._set_alarm()
        except UnsupportedHardwareError as error:
            self._fail(located(error, self._hardware.program_counter))
        except BaseException as error:  # noqa: BLE001 - raised again by run_until, not in .NET
            self._fail(error)
        else:
            return value
        return 0

    def _visit(self, action: Callable[[], int]) -> int:
        """An access of somebody at the debugger, the monitor or in Python: it fails alone."""
        try:
            return action()
        except Exception as error:  # noqa: BLE001 - would end the process in .NET
            self._hardware.warn(f"not by the processor, and left out: {error}")
            return 0

    def _take_own_fault(self, kind: FaultKind) -> None:
        """The processor has found that it cannot go on."""

        def take() -> int:
            exception = self._exception_for(kind, None)
            self._note_fault(kind, None, exception)
            if exception is None:
                self._hold_for_good()
            return 0

        self._access(take)

    def _take_access_fault(self, kind: FaultKind, address: int) -> None:
        """An access cannot be made: the processor goes back to before its instruction first.

        Only then does its PC say where that is.
        """

        def take() -> int:
            if kind in _LOADS_AND_STORES and unmodelled_region(address) is not None:
                self._after_run = lambda: self._refuse(address)
                self._stop_requested = True
                self._hardware.hold()
                return 0
            exception = self._exception_for(kind, address)

            def note() -> int:
                self._note_fault(kind, address, exception)
                return 0

            if exception is None:
                self._after_run = note
                self._hold_for_good()
            else:
                self._hardware.faults.when_entered(lambda: self._access(note))
            return 0

        self._access(take)

    def _exception_for(self, kind: FaultKind, address: int | None) -> int | None:
        """What the processor is made to take, or None when it is locked up."""
        now_ns = self.clock.now_ns
        self._faults_now = self._faults_now + 1 if now_ns == self._fault_ns else 1
        self._fault_ns = now_ns
        if self._faults_now > MOST_FAULTS_AT_ONCE:
            return None  # its handler is no code: Renode would go round and round in no time
        return self._hardware.faults.take(kind, address)

    def _refuse(self, address: int) -> NoReturn:
        raise located(refusal(address), self._hardware.program_counter)

    def _stack_fault(self, kind: FaultKind, address: int) -> None:
        """Renode found no stack where it entered or left an exception."""
        if self._wiring or not (self._in_run and self._hardware.on_processor_thread):
            return  # somebody looks at what is not there

        def lock_up() -> int:
            stored = kind is FaultKind.UNMAPPED_WRITE
            found = FaultKind.STACKING if stored else FaultKind.UNSTACKING
            self._note_fault(found, address, None)
            self._hold_for_good()
            return 0

        self._access(lock_up)

    def _note_fault(self, kind: FaultKind, address: int | None, exception: int | None) -> None:
        counter = self._hardware.program_counter
        self._events.fault(ProcessorFault(kind, counter, address, exception))

    def _hold_for_good(self) -> None:
        """The processor is locked up or its bus stalls for ever: only a reset helps."""
        self._released = False
        self._hardware.hold()

    def _note_store(self, address: int, data: bytes) -> None:
        offset = self._hardware.flash_offset(address)
        if offset is None:
            return

        def store() -> int:
            self._flash.program(offset, data)
            # Renode has stored it as into RAM, whatever the cells have become.
            self.flash_changed(offset, len(data))
            return 0

        self._access(store)

    def _note_alarm(self) -> None:
        self._alarm_ns = None
        if not (self._in_run and self._released) or self._stop_requested:
            return
        try:
            self._follow_renode()
            self._set_alarm()
        except BaseException as error:  # noqa: BLE001 - raised again by run_until, not in .NET
            self._fail(error)

    def _note_output(self, byte: int) -> None:
        def put() -> int:
            self._events.uart_output(bytes((byte,)))
            return 0

        self._access(put)

    def _note_reset_request(self) -> None:
        def request() -> int:
            self._events.reset_requested(ResetCause.SOFTWARE)
            return 0

        self._access(request)

    def _follow_renode(self) -> None:
        now_ns = self._origin_ns + self._hardware.now_ns
        if now_ns > self.clock.now_ns:
            self.clock.advance_to(now_ns)

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._stop_requested = True
        self._hardware.hold()
