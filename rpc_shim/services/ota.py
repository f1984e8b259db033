"""The OTA service: commit, revert, snapshot, and the boot state. Updates are in `ota_update`.

Arguments and results are those of the public documentation of mongoose-os-libs/rpc-service-ota.
The service is RAM of one boot of the application. The boot state is in the flash: every change is
written there before it is answered.
"""

from collections.abc import Callable
from dataclasses import replace

from bootloader_model.boot_state import NO_SLOT, BootFlag, BootState, TransitionError
from bootloader_model.slot_access import SlotAccess
from bootloader_model.slots import find_slot
from platforms.clock import NS_PER_S
from platforms.errors import OtasimError
from rpc_shim.arguments import Arguments, flag, integer
from rpc_shim.boot_configuration import BootConfiguration
from rpc_shim.boot_files import BootFiles
from rpc_shim.dispatch import BAD_REQUEST, FAILED, Call, Dispatcher, RpcError
from rpc_shim.frame import JsonValue
from rpc_shim.services.device import Device
from rpc_shim.services.ota_update import COMMIT_FIRST, COMMIT_TIMEOUT, REBOOT_DELAY_MS

_ACTIVE_SLOT = integer("active_slot", minimum=0, maximum=127)
_REVERT_SLOT = integer("revert_slot", minimum=-1, maximum=127)
_IS_COMMITTED = flag("is_committed")
_SET_AS_REVERT = flag("set_as_revert")


class OtaService:
    """The service of one boot of the application.

    Args:
        dispatcher: where the methods are offered.
        device: the board.
        boot: the boot state.
        files: the file systems.
        refuse_during_update: called with what a method is about to change; RpcError when it must
            not change now.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        device: Device,
        boot: BootConfiguration,
        files: BootFiles,
        refuse_during_update: Callable[[str], None],
    ) -> None:
        self._device = device
        self._boot = boot
        self._files = files
        self._refuse_during_update = refuse_during_update
        self._access = SlotAccess(device.partitions, device.feed_watchdog)
        self._commit_deadline_ns: int | None = None
        for method, handler, arguments in (
            ("OTA.Commit", self._commit, Arguments()),
            ("OTA.Revert", self._revert, Arguments()),
            (
                "OTA.CreateSnapshot",
                self._create_snapshot,
                Arguments(_SET_AS_REVERT, COMMIT_TIMEOUT),
            ),
            ("OTA.GetBootState", self._get_boot_state, Arguments()),
            (
                "OTA.SetBootState",
                self._set_boot_state,
                Arguments(_ACTIVE_SLOT, _IS_COMMITTED, _REVERT_SLOT, COMMIT_TIMEOUT),
            ),
        ):
            dispatcher.register(method, handler, arguments)

    def start(self, *, is_initialised: bool) -> None:
        """The application has started: on the first boot of an update, wait for its commit.

        Args:
            is_initialised: whether its initialisation succeeded. One that fails is the end of an
                update, as in the original.
        """
        state = self._boot.state_or_none
        if state is None or state.is_committed or not state.is_first_boot:
            return
        if not is_initialised:
            self._device.record("initialisation-failed", slot=state.active_slot)
            self._roll_back(f"the first start has failed: rolling back to slot {state.revert_slot}")
            return
        if state.commit_timeout:
            self._device.log(
                f"ota: first boot of this firmware: commit within {state.commit_timeout} s, "
                f"or slot {state.revert_slot} comes back"
            )
            self._arm(state.commit_timeout)
        else:
            try:
                self._write(state.commit())
            except OtasimError as error:
                # Not committed, so the next reset brings the old firmware back.
                self._device.log(f"ota: this firmware cannot be committed: {error}")
                return
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
            self._commit_timed_out()

    # -- the boot state ---------------------------------------------------------------------------

    def _write(self, state: BootState) -> None:
        if self._boot.write(state).is_committed:
            self._commit_deadline_ns = None

    def _arm(self, timeout_s: int) -> None:
        self._commit_deadline_ns = self._device.clock.now_ns + timeout_s * NS_PER_S

    def _commit_timed_out(self) -> None:
        state = self._boot.state
        self._device.record("commit-timeout", slot=state.active_slot, revert_slot=state.revert_slot)
        self._roll_back(
            f"not committed within {state.commit_timeout} s: "
            f"rolling back to slot {state.revert_slot}"
        )

    def _roll_back(self, why: str) -> None:
        state = self._boot.state
        self._device.log(f"ota: {why}")
        try:
            self._write(state.revert())
        except TransitionError as error:
            self._device.log(f"ota: no rollback: {error}")
            return
        except OtasimError as error:
            self._device.log(f"ota: {error}; the boot loader has to roll back")
        self._device.reboot_after(0)

    def _commit(self, _call: Call) -> JsonValue:
        state = self._boot.booted_state
        if state.is_committed:
            raise RpcError(FAILED, f"slot {state.active_slot} is committed already")
        self._write(state.commit())
        self._device.record("commit", slot=state.active_slot, automatic=False)
        self._device.log(f"ota: slot {state.active_slot} is committed")
        return None

    def _revert(self, _call: Call) -> JsonValue:
        state = self._boot.state
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
        state = self._boot.state
        return {
            "active_slot": state.active_slot,
            "is_committed": state.is_committed,
            "revert_slot": state.revert_slot,
            "commit_timeout": state.commit_timeout or 0,
        }

    def _set_boot_state(self, call: Call) -> JsonValue:
        old = self._boot.state
        given = call.arguments
        active, committed = given.get(_ACTIVE_SLOT), given.get(_IS_COMMITTED)
        revert, timeout = given.get(_REVERT_SLOT), given.get(COMMIT_TIMEOUT)
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
        state = self._boot.state
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
        state = self._boot.booted_state
        if not state.is_committed:
            raise RpcError(FAILED, f"Cannot create snapshots in uncommitted state: {COMMIT_FIRST}")
        self._refuse_during_update("a snapshot")
        number = find_slot(state, want_fs=True)
        if number is None:
            number = find_slot(state)
        if number is None:
            raise RpcError(FAILED, "Failed to create snapshot: no slot is free to be written")
        self._access.copy_image(state.slots[state.active_slot], state.slots[number])
        self._files.copy(state.active_slot, number)
        state = state.snapshot_taken(number)
        timeout = call.arguments.get(COMMIT_TIMEOUT)
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
