"""The boot loader that comes with the board: a thin shell that carries out what `decision` says.

Its boot log explains every decision. It holds nothing from one boot to the next.
"""

from dataclasses import dataclass, replace

from bootloader_model.app_info import SEARCH_LENGTH, read_app_info
from bootloader_model.boot_state import BootFlag, BootState, Slot, SlotState
from bootloader_model.decision import (
    Boot,
    CheckImage,
    CopyImage,
    Decision,
    Evidence,
    Halt,
    Plan,
    Reason,
    Step,
    VerifyImage,
    WriteDefaults,
    WriteState,
    decide,
)
from bootloader_model.image_check import VectorTableHead
from bootloader_model.journal import Journal, JournalWriteError
from bootloader_model.layout import (
    APP0_ADDRESS,
    DEFAULT_LAYOUT,
    DEFAULT_SLOTS,
    FACTORY_SLOT,
    Layout,
)
from bootloader_model.partition import Partitions
from bootloader_model.protocol import BootTarget, LoaderHardware
from bootloader_model.provisioning import default_state
from bootloader_model.slot_access import CopyError, SlotAccess
from platforms.clock import NS_PER_MS, NS_PER_S
from platforms.devices.reset_cause import ResetCause
from platforms.errors import OtasimError
from platforms.flash import FlashError

DEFAULT_WATCHDOG_TIMEOUT_S = 10

_POWER_LOSSES = (ResetCause.POWER_ON, ResetCause.BROWN_OUT)
_SPIN_NS = 100 * NS_PER_MS
# The watchdog's oscillator may run at half its nominal speed (DS8626: 17 to 47 kHz, 32 typical).
_SPIN_LIMIT_FACTOR = 3


class WatchdogSilentError(OtasimError):
    """The loader has given up and the watchdog that should reset the board does not."""


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """What can be chosen about the loader.

    Attributes:
        strict_original: behave as the original loader does, soft spots included: it stops reading
            an area at the first bad record, records the first boot of an update before it copies,
            and does nothing until the watchdog resets it when an image is bad.
        watchdog_timeout_s: how long the loader, and then the application, may go without feeding
            the watchdog, in seconds.
    """

    strict_original: bool = False
    watchdog_timeout_s: float = DEFAULT_WATCHDOG_TIMEOUT_S


class MosLoader:
    """The boot loader of a Mongoose OS STM32 device."""

    def __init__(
        self, settings: LoaderSettings | None = None, *, layout: Layout = DEFAULT_LAYOUT
    ) -> None:
        self._settings = settings or LoaderSettings()
        self._layout = layout

    def boot(self, hardware: LoaderHardware) -> BootTarget:
        """Start the right image; never returns when there is none, until the watchdog resets."""
        hardware.start_watchdog(self._settings.watchdog_timeout_s)
        return _BootRun(hardware, self._settings, self._layout).run()


class _GaveUpError(OtasimError):
    """This boot goes no further; the message says why."""


class _BootRun:
    """One boot: all that the loader knows, gone with the next reset."""

    def __init__(self, hardware: LoaderHardware, settings: LoaderSettings, layout: Layout) -> None:
        self._hardware = hardware
        self._settings = settings
        partitions = Partitions(layout, nor=hardware.nor, internal_flash=hardware.internal_flash)
        self._journal = Journal(partitions.journal_areas, strict_original=settings.strict_original)
        self._slots = SlotAccess(partitions, hardware.feed_watchdog)
        self._evidence = Evidence(None)

    def run(self) -> BootTarget:
        try:
            self._read_state()
            while True:
                target = self._carry_out(self._decide())
                if target is not None:
                    return target
        except (_GaveUpError, FlashError) as error:
            self._log(f"FAIL: {error}")
        except JournalWriteError as error:
            self._log(f"FAIL: {error}")
            target = self._start_as_it_is()
            if target is not None:
                return target
        self._spin()
        raise WatchdogSilentError(
            f"the boot loader gave up, and no watchdog reset came within {_SPIN_LIMIT_FACTOR} times"
            f" the timeout of {self._settings.watchdog_timeout_s} s: check the board's watchdog"
        )

    def _read_state(self) -> None:
        lost_power = self._hardware.reset_cause in _POWER_LOSSES
        result = self._journal.load(is_firm=not lost_power)
        cause = self._hardware.reset_cause.value
        if result.winner is None:
            self._log(f"reset cause {cause}; no boot state")
            return
        state = result.winner.state
        self._evidence = Evidence(state)
        self._log(
            f"reset cause {cause}; state seq {state.seq} in {result.winner.location}:"
            f" {describe_state(state)}"
        )
        if lost_power and not self._settings.strict_original:
            self._make_firm(state)

    def _make_firm(self, state: BootState) -> None:
        """Write the state anew: power may have gone in the midst of its record, or of the next.

        Marginal cells may read as a good record in this boot and as a bad one in the next, and an
        update that ran as committed would be gone. A copy holds. Where it cannot be written, the
        board boots as well as it can.
        """
        try:
            self._write(state)
        except JournalWriteError as error:
            self._log(str(error))

    def _decide(self) -> Plan:
        while True:
            answer = decide(self._evidence, strict_original=self._settings.strict_original)
            if isinstance(answer, Plan):
                return answer
            self._check_image(answer)

    def _check_image(self, question: CheckImage) -> None:
        check = self._slots.check_image(self._state().slots[question.slot])
        self._evidence = replace(
            self._evidence, images={**self._evidence.images, question.slot: check}
        )

    def _carry_out(self, plan: Plan) -> BootTarget | None:
        """Take the plan's steps; None when one has failed or more has to be decided."""
        for decision in plan.decisions:
            self._announce(decision)
        for step in plan.steps:
            if isinstance(step, Boot):
                return self._start(step.slot)
            if not self._take(step):
                if plan.gives_up:
                    raise _GaveUpError(f"{_describe_step(step)} failed")
                return None
        return None

    def _take(self, step: Step) -> bool:
        match step:
            case WriteDefaults():
                self._write_defaults()
            case WriteState(state):
                self._write(state)
            case CopyImage(source, target):
                return self._copy(source, target)
            case VerifyImage(slot):
                return self._verify(slot)
            case Halt():
                raise _GaveUpError("nothing can be started")
        return True

    def _write(self, state: BootState) -> None:
        written = self._journal.append(state)
        self._evidence = replace(self._evidence, state=written, is_state_fresh=True)

    def _write_defaults(self) -> None:
        application = self._whole_slot(0)
        factory_image = None
        if not self._settings.strict_original:
            # The original forgets the factory image here. One that looks like an image is kept.
            whole = self._whole_slot(FACTORY_SLOT)
            candidate = replace(DEFAULT_SLOTS[FACTORY_SLOT], state=whole)
            factory_image = whole if self._slots.check_image(candidate).is_good else None
        written = self._journal.append_first(default_state(application, factory_image))
        self._evidence = Evidence(written, is_state_fresh=True)

    def _whole_slot(self, number: int) -> SlotState:
        """What there is to say about a slot when its content is taken as it is."""
        slot = DEFAULT_SLOTS[number]
        room = self._slots.room(slot)
        return SlotState(room, APP0_ADDRESS, self._slots.crc32(slot, room))

    def _copy(self, source: int, target: int) -> bool:
        state = self._state()
        image = state.slots[source].state
        self._hardware.log(
            f"boot: copying slot {source} (app at 0x{image.app_org:08x}, {image.app_len:,} bytes)"
            f" to slot {target} ... "
        )
        images = {slot: check for slot, check in self._evidence.images.items() if slot != target}
        try:
            self._slots.copy_image(state.slots[source], state.slots[target])
        except CopyError as error:
            self._hardware.log(f"failed: {error}\n")
            failures = self._evidence.failed_copies
            self._evidence = replace(
                self._evidence,
                images=images,
                failed_copies={
                    **failures,
                    (source, target): failures.get((source, target), 0) + 1,
                },
            )
            self._write(state.copy_failed(target))
            return False
        self._hardware.log(f"verified, CRC32 0x{image.app_crc32:08x}\n")
        if source in images:
            images[target] = images[source]
        self._evidence = replace(self._evidence, images=images)
        return True

    def _verify(self, slot: int) -> bool:
        check = self._slots.check_image(self._state().slots[slot])
        if check.problem is not None:
            self._log(f"slot {slot}: {check.problem}")
        return check.is_good

    def _start(self, number: int) -> BootTarget:
        return self._start_image(number, self._state().slots[number])

    def _start_image(self, number: int, slot: Slot) -> BootTarget:
        origin = slot.state.app_org
        head = self._slots.read_head(slot, SEARCH_LENGTH)
        info = read_app_info(head)
        what = f"application at 0x{origin:08x}" if info is None else f"{info.name} {info.version}"
        self._log(f"starting slot {number}: {what}")
        # The application gets the watchdog with its full time ahead, however long a copy took.
        self._hardware.feed_watchdog()
        vectors = VectorTableHead.parse(head)
        return BootTarget(origin, vectors.stack_pointer, vectors.reset_vector)

    def _start_as_it_is(self) -> BootTarget | None:
        """Start a good image where it lies, and change nothing; None when there is none.

        For a flash that takes no record any more: the board would else be dead with a good image
        in it. A copy may have been made whose record was refused, so what lies in the slot may be
        the image that any other slot is said to hold. The original gives up.
        """
        state = self._evidence.state
        if state is None or self._settings.strict_original:
            return None
        for number, slot in enumerate(state.slots):
            for described in state.slots:
                candidate = replace(slot, state=described.state)
                if candidate.is_directly_bootable and self._slots.check_image(candidate).is_good:
                    self._announce(Decision(Reason.STATE_UNWRITABLE, number))
                    return self._start_image(number, candidate)
        return None

    def _announce(self, decision: Decision) -> None:
        self._hardware.record_decision(decision.reason.value, **decision.details())
        self._log(decision.sentence())

    def _state(self) -> BootState:
        state = self._evidence.state
        if state is None:
            raise _GaveUpError("no boot state has been read or written yet")
        return state

    def _spin(self) -> None:
        limit_ns = int(self._settings.watchdog_timeout_s * NS_PER_S) * _SPIN_LIMIT_FACTOR
        for _ in range(0, limit_ns, _SPIN_NS):
            self._hardware.wait(_SPIN_NS)

    def _log(self, line: str) -> None:
        self._hardware.log(f"boot: {line}\n")


def describe_state(state: BootState) -> str:
    """A boot state in a few words: `active 0, revert 2, not committed`."""
    revert = "none" if state.revert_slot < 0 else str(state.revert_slot)
    committed = "committed" if state.is_committed else "not committed"
    words = f"active {state.active_slot}, revert {revert}, {committed}"
    return f"{words}, not started yet" if BootFlag.FIRST_BOOT_B in state.flags else words


def _describe_step(step: Step) -> str:
    match step:
        case CopyImage(source, target):
            return f"copying slot {source} to slot {target}"
        case VerifyImage(slot):
            return f"verifying slot {slot}"
        case _:
            return type(step).__name__
