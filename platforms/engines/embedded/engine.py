"""A Cortex-M4 board on Unicorn, in virtual time.

The processor runs in slices, each ending no later than the next event of the clock. An access to a
device happens at its own moment: the clock is brought up to date first. Where an access changes
what should run next (PendSV pended, a line raised, an event asked for within the slice, a reset),
the slice ends behind the instruction. Every instruction takes the same time, and each is charged
exactly, so virtual time does not depend on where slices end or in which steps the board is run.
"""

import random
from collections.abc import Callable, Mapping

from unicorn import unicorn_const as uc

from platforms.clock import Clock
from platforms.description import BoardDescription
from platforms.devices.device_signature import DeviceSignature
from platforms.devices.interrupt_controller import SYSTICK, InterruptController
from platforms.devices.peripheral import UnsupportedHardwareError, mask_of
from platforms.devices.reset_cause import ResetCause
from platforms.devices.system_control import (
    SYSTEM_CONTROL_SPACE,
    DataWatchpointUnit,
    SystemControlSpace,
)
from platforms.devices.system_timer import SystemTimer
from platforms.engines.address_map import SIGNATURE_PAGE, located
from platforms.engines.embedded import processor as cpu
from platforms.engines.embedded.assembly import Assembly, assemble
from platforms.engines.embedded.code_scan import ends_in_mask_write, scan
from platforms.engines.embedded.core import Core, State
from platforms.engines.embedded.pace import Pace
from platforms.engines.entries import PAGE, PERIPHERAL_REGION, PRIVATE_REGION
from platforms.engines.protocol import BoardModels, BusModel, EngineEvents, FaultKind

LONGEST_SLICE = 160_000  # instructions: how long Python does not get to look at signals
DATA_WATCHPOINT_UNIT = 0xE000_1000
_LONGEST_INSTRUCTION = 4


class EmbeddedEngine:
    """The engine protocol on Unicorn.

    Attributes:
        counts_natively: whether Unicorn counts the instructions itself, as the builds known do.
            Else everything is the same, but code runs at some two million instructions a second.
    """

    name = "embedded"

    def __init__(
        self,
        description: BoardDescription,
        models: BoardModels,
        clock: Clock,
        events: EngineEvents,
    ) -> None:
        self.clock = clock
        self._flash = models.flash
        self._processor = cpu.Processor()
        self.counts_natively = self._processor.counter.native
        self._all_registers = self._processor.batch(*cpu.GENERAL_REGISTERS.values())
        self._stop_requested = False
        # The slice under way:
        self._in_slice = False
        self._slice_end_ns = 0
        self._flash_stores: list[tuple[int, bytes]] = []
        # What is known of the code:
        self._stale_translations = False
        self._ram_hooks: dict[int, int] = {}
        self._stale_flash = [(0, len(models.flash.cells))]
        self._mask_write_hooks: dict[int, list[int]] = {}
        self._event_hooks: dict[int, list[int]] = {}
        self._events: set[int] = set()
        self._waits: set[int] = set()

        self._interrupts = InterruptController()
        self._board: Assembly = assemble(description, models, self._interrupts)
        self._pace = Pace(clock, self._board.instructions_per_us)
        frequency_hz = self._board.system_timer_hz
        timer = SystemTimer(clock, frequency_hz)
        timer.on_tick = lambda: self._interrupts.pend(SYSTICK)
        self._system = SystemControlSpace(self._interrupts, timer)
        self._system.on_system_reset = lambda: events.reset_requested(ResetCause.SOFTWARE)
        self._cycle_counter = DataWatchpointUnit(clock, frequency_hz)
        signature = DeviceSignature(len(models.flash.cells))
        self._core = Core(self._processor, self._system, events)
        bus = self._board.bus
        bus.attach(BusModel(SYSTEM_CONTROL_SPACE, 0x1000, self._system))
        bus.attach(BusModel(DATA_WATCHPOINT_UNIT, 0x1000, self._cycle_counter))
        bus.attach(BusModel(SIGNATURE_PAGE, PAGE, signature))
        self._board.console.on_transmit = lambda byte: events.uart_output(bytes((byte,)))
        self._map_memory()

    # -- construction -----------------------------------------------------------------------------

    def _map_memory(self) -> None:
        processor = self._processor
        for start, end in (PERIPHERAL_REGION, (SIGNATURE_PAGE, SIGNATURE_PAGE + PAGE)):
            processor.map_bus(start, end - start, self._read, self._write)
        start, end = PRIVATE_REGION
        processor.map_bus(start, end - start, self._read_private, self._write_private)
        self._flash_addresses = [
            address
            for memory in self._board.memories
            if memory.is_flash
            for address in memory.addresses
        ]
        for memory in self._board.memories:
            for address in memory.addresses:
                processor.map_shared(address, memory.cells, writable=not memory.is_flash)
                if not memory.is_flash:
                    # Code in RAM comes and goes unseen: it is looked at when it is translated.
                    last = address + len(memory.cells) - 1
                    processor.on_translation(address, last, self._note_translation)
        processor.on_invalid_access(self._note_bad_access)

    # -- accesses of the firmware, inside a slice -------------------------------------------------

    def _read(self, address: int, width: int) -> int:
        if self._stop_requested:
            return 0  # the rest of an IT block, after a reset or a power cut
        clock = self.clock
        self._pace.catch_up(self._processor.counter.begun - 1)
        before_ns = clock.now_ns
        value = self._board.bus.read(address, width)
        interrupts = self._interrupts
        if clock.now_ns != before_ns or interrupts.pending & interrupts.enabled:
            self._processor.cut()
        return value

    def _write(self, address: int, width: int, value: int) -> None:
        if self._stop_requested:
            return
        clock = self.clock
        self._pace.catch_up(self._processor.counter.begun - 1)
        before_ns = clock.now_ns
        self._board.bus.write(address, width, value)
        interrupts = self._interrupts
        due_ns = clock.next_event_ns
        if (
            interrupts.pending & interrupts.enabled  # an exception may come first
            or (due_ns is not None and due_ns < self._slice_end_ns)
            or clock.now_ns != before_ns
            or self._flash.busy_until_ns() > before_ns
        ):
            self._processor.cut()

    def _read_private(self, address: int, width: int) -> int:
        if self._core.refuses(FaultKind.UNMAPPED_READ, address):
            return 0
        return self._read(address, width)

    def _write_private(self, address: int, width: int, value: int) -> None:
        if not self._core.refuses(FaultKind.UNMAPPED_WRITE, address):
            self._write(address, width, value)

    def _note_bad_access(self, kind: int, address: int, width: int, value: int) -> bool:
        if kind == uc.UC_MEM_WRITE_PROT:
            self._store_to_flash(address, width, value)
            return True
        self._core.note_bad_access(kind, address)
        return False

    def _store_to_flash(self, address: int, width: int, value: int) -> None:
        """Hand a store to the model, which knows the physics; Unicorn stores all the same."""
        if address % width:
            return  # it comes again byte by byte
        offset = next(
            address - base
            for base in self._flash_addresses
            if 0 <= address - base < len(self._flash.cells)
        )
        self._pace.catch_up(self._processor.counter.begun - 1)
        self._flash.program(offset, (value & mask_of(width)).to_bytes(width, "little"))
        self._flash_stores.append((offset, bytes(self._flash.cells[offset : offset + width])))
        self._processor.cut()

    def _note_translation(self, address: int, length: int) -> None:
        """A block of code in RAM is about to run for the first time."""
        place = address + length
        if place not in self._ram_hooks and ends_in_mask_write(
            self._processor.read_memory(address, length)
        ):
            self._ram_hooks[place] = self._processor.on_block(
                place, place, self._core.note_special_register_written
            )
            # What stands there may be translated already, without the hook.
            self._stale_translations = True
            self._processor.cut()

    # -- the engine protocol ----------------------------------------------------------------------

    def reset(self) -> None:
        """System reset of the processor and of the peripherals this engine made."""
        self._core.hold()
        self._system.reset()
        self._cycle_counter.reset()
        for peripheral in self._board.owned:
            peripheral.reset()
        self._processor.cut()

    def power_lost(self, seed: int) -> None:
        """RAM comes up with chance content; firmware must not count on zeros or on the past."""
        noise = random.Random(seed)  # noqa: S311 - chance, not secrecy
        for memory in self._board.memories:
            if not memory.is_flash:
                memory.cells[:] = noise.randbytes(len(memory.cells))

    def start(self, *, vector_table: int, stack_pointer: int, program_counter: int) -> None:
        """Release the processor with VTOR, MSP and PC set, all else as after a reset."""
        self._pace.restart()
        self._core.start(
            vector_table=vector_table, stack_pointer=stack_pointer, program_counter=program_counter
        )

    def run_until(self, deadline_ns: int) -> None:
        """Run until virtual time reaches `deadline_ns` or `stop` is called."""
        clock, core = self.clock, self._core
        self._stop_requested = False
        while not self._stop_requested and clock.now_ns < deadline_ns:
            core.take_exception()
            if core.state is State.RUNNING:
                self._run_slice(deadline_ns)
            else:
                clock.advance_to(self._next_stop_ns(deadline_ns))

    def advance(self, duration_ns: int) -> None:
        """Let virtual time pass with the processor held."""
        self.clock.advance_to(self.clock.now_ns + duration_ns)

    def stop(self) -> None:
        """Make `run_until` return; in the middle of an instruction, right behind it."""
        self._stop_requested = True
        self._processor.cut()

    def call_held(self, action: Callable[[], None]) -> None:
        """Run `action` here and now: a device calls while its instruction waits, so it is held."""
        action()

    def uart_input(self, data: bytes) -> int:
        """Bytes arrive at the console UART; returns how many it took."""
        return self._board.console.receive(data)

    def flash_changed(self, offset: int, length: int) -> None:
        """Code may have changed: translations and what is known of it are stale from here on."""
        self._stale_flash.append((offset, length))
        self._processor.cut()

    def read_memory(self, address: int, length: int) -> bytes:
        """Memory as a debugger sees it."""
        return self._processor.read_memory(address, length)

    def write_memory(self, address: int, data: bytes) -> None:
        """Write RAM as a debugger does; the internal flash is changed through its model only."""
        self._processor.write_memory(address, data)
        self._processor.forget_translations()

    def registers(self) -> Mapping[str, int]:
        """The processor's registers by name."""
        values = dict(
            zip(cpu.GENERAL_REGISTERS, self._all_registers.read(), strict=True),
        )
        if not self._in_slice:
            values["pc"] = self._core.program_counter
        return values

    def close(self) -> None:
        """Let go of the memory shared with the models."""
        self._processor.close()

    # -- slices -----------------------------------------------------------------------------------

    def _next_stop_ns(self, deadline_ns: int) -> int:
        due_ns = self.clock.next_event_ns
        return deadline_ns if due_ns is None else min(due_ns, deadline_ns)

    def _run_slice(self, deadline_ns: int) -> None:
        busy_until_ns = self._flash.busy_until_ns()
        if busy_until_ns > self.clock.now_ns:
            # RM0090 3.5: the bus stalls every access to the flash until the operation has ended,
            # or an event resets the board.
            self.clock.advance_to(min(busy_until_ns, self._next_stop_ns(deadline_ns)))
            return
        if self._stale_flash:
            self._refresh_flash()
        if self._stale_translations:
            self._stale_translations = False
            self._processor.forget_translations()
        self._slice_end_ns = self._next_stop_ns(deadline_ns)
        instructions = self._pace.instructions_until(self._slice_end_ns)
        if not instructions or self._core.on_the_spot:
            # An event is due now; or only an exception leads out of here, and none can come before
            # the next event.
            self._pace.charge(instructions)
        else:
            self._execute(min(instructions, LONGEST_SLICE))

    def _execute(self, instructions: int) -> None:
        processor, core = self._processor, self._core
        self._pace.begin_slice()
        try:
            status = self._run(instructions)
            if core.held:
                return  # reset in the middle: what the processor did since is void
            self._pace.catch_up(core.end_slice(status))
            if not core.held:
                core.conclude()
        except UnsupportedHardwareError as error:
            core.program_counter = processor.read_register(cpu.PC)
            raise located(error, error.program_counter or core.program_counter) from error

    def _run(self, instructions: int) -> int:
        self._in_slice = True
        try:
            return self._processor.run(self._core.program_counter, instructions)
        finally:
            self._in_slice = False
            self._take_flash_stores_back()

    def _take_flash_stores_back(self) -> None:
        """Unicorn has stored into the flash as into RAM: put back what the model made of it."""
        for offset, cells in self._flash_stores:
            self._flash.cells[offset : offset + len(cells)] = cells
        self._flash_stores.clear()

    # -- code in flash ----------------------------------------------------------------------------

    def _refresh_flash(self) -> None:
        """Translate changed code anew, and find what must be looked at when it is executed."""
        cells = self._flash.cells
        for offset, length in self._stale_flash:
            # An instruction may begin in front of the change, or end behind it.
            first = max(0, (offset & ~1) - _LONGEST_INSTRUCTION)
            last = min(len(cells), offset + length + _LONGEST_INSTRUCTION)
            found = scan(bytes(cells[first:last]), first)
            changed = range(first + _LONGEST_INSTRUCTION if first else 0, last)
            for known in (self._mask_write_hooks, self._event_hooks):
                for place in [place for place in known if place in changed]:
                    self._unhook(known, place)
            for place in found.after_mask_writes:
                self._hook_mask_write(place)
            self._events = {place for place in self._events if place not in changed} | found.events
            self._waits = {place for place in self._waits if place not in changed} | found.waits
        self._stale_flash.clear()
        self._hook_events()
        self._stale_translations = True

    def _hook_mask_write(self, place: int) -> None:
        if place not in self._mask_write_hooks:
            self._mask_write_hooks[place] = [
                self._processor.on_block(
                    base + place, base + place, self._core.note_special_register_written
                )
                for base in self._flash_addresses
            ]

    def _hook_events(self) -> None:
        """Look out for SEV, but only beside a WFE: all code is slower for it."""
        wanted = self._events if self._waits else set()
        for place in [place for place in self._event_hooks if place not in wanted]:
            self._unhook(self._event_hooks, place)
        for place in wanted - self._event_hooks.keys():
            self._event_hooks[place] = [
                self._processor.on_instruction(base + place, self._core.note_event)
                for base in self._flash_addresses
            ]

    def _unhook(self, hooks: dict[int, list[int]], place: int) -> None:
        for hook in hooks.pop(place):
            self._processor.remove_hook(hook)
