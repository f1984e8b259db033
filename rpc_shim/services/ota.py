"""The OTA service: update, commit, revert, snapshot, and the boot state.

Arguments and results are those of the public documentation of mongoose-os-libs/rpc-service-ota.
The service is RAM of one boot of the application. The boot state is in the flash: every change is
written there before it is answered.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from bootloader_model.boot_state import NO_SLOT, BootFlag, BootState
from bootloader_model.journal import Journal
from bootloader_model.partition import Partitions
from bootloader_model.slot_access import SlotAccess
from bootloader_model.slots import find_slot
from platforms.clock import NS_PER_S, Clock
from platforms.errors import OtasimError
from rpc_shim.arguments import Arguments, flag, integer, seconds, text
from rpc_shim.dispatch import BAD_REQUEST, FAILED, Call, Dispatcher, PendingReply, RpcError
from rpc_shim.download import ByteSource
from rpc_shim.frame import JsonValue
from rpc_shim.update import FinishedUpdate, Update

REBOOT_DELAY_MS = 100
MAX_COMMIT_TIMEOUT_S = 30 * 24 * 3600
_PROGRESS_STEPS = 10

_URL = text("url", required=True)
_COMMIT_TIMEOUT = seconds("commit_timeout", maximum=MAX_COMMIT_TIMEOUT_S)
_SET_AS_REVERT = flag("set_as_revert")
_ACTIVE_SLOT = integer("active_slot", minimum=0, maximum=127)
_REVERT_SLOT = integer("revert_slot", minimum=-1, maximum=127)
_IS_COMMITTED = flag("is_committed")

_COMMIT_FIRST = "call OTA.Commit to keep the current firmware or OTA.Revert to go back, then retry"


class OtaDevice(Protocol):
    """The board as the service sees it."""

    @property
    def partitions(self) -> Partitions:
        """The partitions, by drivers that take virtual time."""
        ...

    @property
    def clock(self) -> Clock:
        """Virtual time."""
        ...

    def log(self, text: str) -> None:
        """One line on the console."""
        ...

    def reboot_after(self, delay_ms: int) -> None:
        """Reset by software when `delay_ms` have passed, not before this returns."""
        ...

    def feed_watchdog(self) -> None:
        """Keep the watchdog quiet in the middle of work that takes long."""
        ...

    def record(self, kind: str, **details: int | str | bool | None) -> None:
        """Put an event on record, for the trace."""
        ...


@dataclass(slots=True)
class _Running:
    """The update under way: who is to be answered, and when it was last heard of."""

    update: Update
    reply: PendingReply
    commit_timeout: int | None
    heard_ns: int
    told_tenths: int = 0


class OtaService:
    """The service of one boot of the application.

    Args:
        dispatcher: where the methods are offered.
        device: the board.
        open_url: starts a download; raises an OtasimError for a URL that cannot be one.
        update_timeout_s: virtual seconds without progress after which an update fails.
        strict_original: read and write the journal as the original does.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        device: OtaDevice,
        open_url: Callable[[str], ByteSource],
        *,
        update_timeout_s: int = 600,
        strict_original: bool = False,
    ) -> None:
        self._device = device
        self._open_url = open_url
        self._update_timeout_s = update_timeout_s
        self._journal = Journal(device.partitions.journal_areas, strict_original=strict_original)
        winner = self._journal.load().winner
        self._state: BootState | None = None if winner is None else winner.state
        self._access = SlotAccess(device.partitions, device.feed_watchdog)
        self._commit_deadline_ns: int | None = None
        self._running: _Running | None = None
        for method, handler, arguments in (
            ("OTA.Update", self._start_update, Arguments(_URL, _COMMIT_TIMEOUT)),
            ("OTA.Commit", self._commit, Arguments()),
            ("OTA.Revert", self._revert, Arguments()),
            (
                "OTA.CreateSnapshot",
                self._create_snapshot,
                Arguments(_SET_AS_REVERT, _COMMIT_TIMEOUT),
            ),
            ("OTA.GetBootState", self._get_boot_state, Arguments()),
            (
                "OTA.SetBootState",
                self._set_boot_state,
                Arguments(_ACTIVE_SLOT, _IS_COMMITTED, _REVERT_SLOT, _COMMIT_TIMEOUT),
            ),
        ):
            dispatcher.register(method, handler, arguments)

    def start(self) -> None:
        """The application has started: on the first boot of an update, wait for its commit."""
        state = self._state
        if state is None or state.is_committed or not state.is_first_boot:
            return
        if state.commit_timeout:
            self._device.log(
                f"ota: first boot of this firmware: commit within {state.commit_timeout} s, "
                f"or slot {state.revert_slot} comes back"
            )
            self._arm(state.commit_timeout)
        else:
            self._write(state.commit())
            self._device.record("commit", slot=state.active_slot, automatic=True)
            self._device.log(
                f"ota: first boot of this firmware, no commit timeout: slot {state.active_slot} "
                "is committed"
            )

    def turn(self) -> None:
        """One turn of the main loop."""
        now_ns = self._device.clock.now_ns
        if self._commit_deadline_ns is not None and now_ns >= self._commit_deadline_ns:
            self._commit_deadline_ns = None
            self._roll_back()
        if self._running is not None:
            self._continue_update(self._running)

    def close(self) -> None:
        """The RAM is gone: a download under way stops."""
        if self._running is not None:
            self._running.update.close()
            self._running = None

    # -- the boot state ---------------------------------------------------------------------------

    @property
    def _known_state(self) -> BootState:
        if self._state is None:
            raise RpcError(FAILED, "there is no valid boot state in the flash: reboot to write one")
        return self._state

    def _write(self, state: BootState) -> None:
        self._state = self._journal.append(state)
        if self._state.is_committed:
            self._commit_deadline_ns = None

    def _arm(self, timeout_s: int) -> None:
        self._commit_deadline_ns = self._device.clock.now_ns + timeout_s * NS_PER_S

    def _roll_back(self) -> None:
        state = self._known_state
        self._device.record("commit-timeout", slot=state.active_slot, revert_slot=state.revert_slot)
        self._device.log(
            f"ota: not committed within {state.commit_timeout} s: "
            f"rolling back to slot {state.revert_slot}"
        )
        self._write(state.revert())
        self._device.reboot_after(0)

    def _commit(self, _call: Call) -> JsonValue:
        state = self._known_state
        if state.is_committed:
            raise RpcError(FAILED, f"slot {state.active_slot} is committed already")
        self._write(state.commit())
        self._device.record("commit", slot=state.active_slot, automatic=False)
        self._device.log(f"ota: slot {state.active_slot} is committed")
        return None

    def _revert(self, _call: Call) -> JsonValue:
        state = self._known_state
        if state.is_committed:
            raise RpcError(
                FAILED, f"slot {state.active_slot} is committed: there is nothing to revert"
            )
        self._write(state.revert())
        self._device.record("revert", slot=state.revert_slot)
        self._device.log(f"ota: reverted to slot {state.revert_slot}, rebooting")
        self._device.reboot_after(REBOOT_DELAY_MS)
        return None

    def _get_boot_state(self, _call: Call) -> JsonValue:
        state = self._known_state
        return {
            "active_slot": state.active_slot,
            "is_committed": state.is_committed,
            "revert_slot": state.revert_slot,
            "commit_timeout": state.commit_timeout or 0,
        }

    def _set_boot_state(self, call: Call) -> JsonValue:
        old = self._known_state
        given = call.arguments
        active, committed = given.get(_ACTIVE_SLOT), given.get(_IS_COMMITTED)
        revert, timeout = given.get(_REVERT_SLOT), given.get(_COMMIT_TIMEOUT)
        if active is None and committed is None and revert is None and timeout is None:
            raise RpcError(
                BAD_REQUEST,
                "nothing to set: expected active_slot, is_committed, revert_slot or commit_timeout",
            )
        self._refuse_during_update("the boot state")
        state = replace(
            old,
            active_slot=old.active_slot if active is None else active,
            revert_slot=old.revert_slot if revert is None else revert,
            commit_timeout=old.commit_timeout if timeout is None else timeout or None,
        )
        if committed is not None:
            flags = int(state.flags) & ~int(BootFlag.COMMITTED)
            state = replace(
                state, flags=BootFlag(flags | (int(BootFlag.COMMITTED) if committed else 0))
            )
        self._check_bootable(state.active_slot, "active_slot")
        if state.revert_slot != NO_SLOT:
            self._check_bootable(state.revert_slot, "revert_slot")
        if not state.is_committed and state.revert_slot in (NO_SLOT, state.active_slot):
            raise RpcError(
                BAD_REQUEST,
                f"an uncommitted state needs a way back: set revert_slot to a slot with a good "
                f"image other than {state.active_slot}",
            )
        self._write(state)
        self._device.record(
            "boot-state-set",
            active_slot=state.active_slot,
            is_committed=state.is_committed,
            revert_slot=state.revert_slot,
        )
        if not state.is_committed and state.commit_timeout:
            self._arm(state.commit_timeout)
        return None

    def _check_bootable(self, number: int, argument: str) -> None:
        state = self._known_state
        if not state.has_slot(number):
            raise RpcError(
                BAD_REQUEST,
                f"{argument} {number} does not exist: expected 0 to {len(state.slots) - 1}",
            )
        check = self._access.check_image(state.slots[number])
        if check.problem is not None:
            raise RpcError(
                BAD_REQUEST,
                f"{argument} {number} cannot be booted: {check.problem}; put an image there first "
                "(OTA.Update or OTA.CreateSnapshot)",
            )

    # -- snapshots --------------------------------------------------------------------------------

    def _create_snapshot(self, call: Call) -> JsonValue:
        state = self._known_state
        if not state.is_committed:
            raise RpcError(FAILED, f"Cannot create snapshots in uncommitted state: {_COMMIT_FIRST}")
        self._refuse_during_update("a snapshot")
        number = find_slot(state)
        if number is None:
            raise RpcError(FAILED, "Failed to create snapshot: no slot is free to be written")
        self._access.copy_image(state.slots[state.active_slot], state.slots[number])
        state = state.snapshot_taken(number)
        timeout = call.arguments.get(_COMMIT_TIMEOUT)
        if call.arguments.get(_SET_AS_REVERT):
            state = state.set_as_revert(number, commit_timeout=timeout)
        self._write(state)
        self._device.record("snapshot", slot=number, is_revert_slot=not state.is_committed)
        self._device.log(
            f"ota: slot {number} holds a copy of slot {state.active_slot}"
            + ("" if state.is_committed else ", and is the way back until the next commit")
        )
        if not state.is_committed and timeout:
            self._arm(timeout)
        return {"slot": number}

    # -- updates ----------------------------------------------------------------------------------

    def _refuse_during_update(self, what: str) -> None:
        if self._running is not None:
            raise RpcError(
                FAILED, f"Update already in progress: wait for it to end before {what} is changed"
            )

    def _start_update(self, call: Call) -> JsonValue:
        if self._running is not None:
            raise RpcError(FAILED, "Update already in progress: wait for it to end")
        state = self._known_state
        if not state.is_committed:
            raise RpcError(FAILED, f"Previous update has not been committed yet: {_COMMIT_FIRST}")
        url = call.arguments.require(_URL)
        source = self._open_url(url)
        device = self._device
        update = Update(source, state, device.partitions, device.log)
        self._running = _Running(
            update, call.defer(), call.arguments.get(_COMMIT_TIMEOUT), device.clock.now_ns
        )
        device.record("update-started", url=url)
        device.log(f"ota: update from {url}")
        return None

    def _continue_update(self, running: _Running) -> None:
        update = running.update
        received = update.received
        try:
            finished = update.step()
        except OtasimError as error:
            self._fail_update(running, str(error))
            return
        now_ns = self._device.clock.now_ns
        if update.received != received:
            running.heard_ns = now_ns
            self._tell_progress(running)
        if finished is not None:
            self._finish_update(running, finished)
        elif now_ns - running.heard_ns >= self._update_timeout_s * NS_PER_S:
            self._fail_update(
                running,
                f"Update timed out: nothing came for {self._update_timeout_s} s; "
                "is the server all right?",
            )

    def _tell_progress(self, running: _Running) -> None:
        update = running.update
        if not update.total:
            return
        tenths = _PROGRESS_STEPS * update.received // update.total
        if tenths > running.told_tenths:
            running.told_tenths = tenths
            percent = 100 * update.received // update.total
            self._device.log(f"ota: {percent} % ({update.received:,} of {update.total:,} bytes)")
            self._device.record("update-progress", received=update.received, total=update.total)

    def _fail_update(self, running: _Running, reason: str) -> None:
        self._running = None
        running.update.close()
        self._device.record("update-failed", reason=reason)
        self._device.log(f"ota: update failed: {reason}")
        running.reply.error(FAILED, reason)

    def _finish_update(self, running: _Running, finished: FinishedUpdate) -> None:
        image = finished.image
        try:
            self._write(
                self._known_state.update_finished(
                    finished.slot,
                    length=image.app_len,
                    origin=image.app_org,
                    crc32=image.app_crc32,
                    commit_timeout=running.commit_timeout,
                )
            )
        except OtasimError as error:
            self._fail_update(running, str(error))
            return
        self._running = None
        running.update.close()
        self._device.record(
            "update-finished",
            slot=finished.slot,
            version=finished.manifest.version,
            commit_timeout=running.commit_timeout,
        )
        self._device.log(f"ota: {finished.manifest.title} is in slot {finished.slot}, rebooting")
        running.reply.result(None)
        self._device.reboot_after(REBOOT_DELAY_MS)
