"""Updates: pulled from a URL by `OTA.Update`, or pushed by a host in chunks.

Source of the pushed way (`OTA.Begin`, `OTA.Write`, `OTA.End`, `OTA.Abort`, `OTA.Status`): what the
host tool `mos` sends and expects. It begins only when `state` is 0 or 2, sends a chunk up to three
times, and calls `OTA.End` to clean up when that fails. Beyond that a host may give its update a
`session`, a text of its own choice: a call that names another update than the one under way then is
an error, and no harm to somebody else's.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum

from bootloader_model.boot_state import BootState
from platforms.clock import NS_PER_S
from platforms.errors import OtasimError
from rpc_shim.arguments import INT32_MAX, Arguments, base64_bytes, integer, seconds, text
from rpc_shim.boot_configuration import BootConfiguration
from rpc_shim.bundle.manifest import Manifest
from rpc_shim.bundle.signature import NO_SIGNATURES_REQUIRED, SignaturePolicy
from rpc_shim.chunks import ChunkSequence
from rpc_shim.config.schema import MAX_COMMIT_TIMEOUT_S, UPDATE_COMMIT_TIMEOUT, UPDATE_TIMEOUT
from rpc_shim.dispatch import FAILED, Call, Dispatcher, PendingReply, RpcError
from rpc_shim.download import ByteSource
from rpc_shim.frame import JsonValue
from rpc_shim.services.device import Device
from rpc_shim.update import FinishedUpdate, Update

REBOOT_DELAY_MS = 100
MAX_UPDATE_TIMEOUT_S = 24 * 3600
PULLED_AT_ONCE = 4096
"""Bytes taken from the network, and written, in one turn of the main loop."""

COMMIT_TIMEOUT = seconds("commit_timeout", maximum=MAX_COMMIT_TIMEOUT_S)
COMMIT_FIRST = "call OTA.Commit to keep the current firmware or OTA.Revert to go back, then retry"

_URL = text("url", required=True)
_TIMEOUT = seconds("timeout", maximum=MAX_UPDATE_TIMEOUT_S)
_SIZE = integer("size", minimum=0, maximum=INT32_MAX)
_OFFSET = integer("offset", minimum=0, maximum=INT32_MAX)
_DATA = base64_bytes("data", required=True)
_SESSION = text("session", max_length=64)

_PROGRESS_STEPS = 10


class UpdateState(IntEnum):
    """`state` in the answer of `OTA.Status`; the numbers are the device's."""

    IDLE = 0
    PROGRESS = 1
    ERROR = 2
    SUCCESS = 3


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """How updates are made; read anew whenever one begins.

    Attributes:
        timeout_s: virtual seconds after which an update that has not ended is dropped.
        commit_timeout_s: commit timeout of an update that does not bring one; 0 = none.
        url: where to look for updates without being asked; empty = nowhere.
        interval_s: virtual seconds between two such looks; 0 = never.
        signature_policy: the signatures a bundle must have.
    """

    timeout_s: int = UPDATE_TIMEOUT.default
    commit_timeout_s: int = UPDATE_COMMIT_TIMEOUT.default
    url: str = ""
    interval_s: int = 0
    signature_policy: SignaturePolicy = NO_SIGNATURES_REQUIRED


class _SameVersionError(OtasimError):
    """The firmware in the bundle is the one that runs: there is nothing to do."""


@dataclass(slots=True)
class _Running:
    """The update under way.

    Attributes:
        update: takes the bytes.
        commit_timeout: what to store with it, in seconds.
        timeout_s: how long it may take.
        deadline_ns: when it is dropped, in virtual nanoseconds.
        download: where the bytes come from; None when a host pushes them.
        reply: who waits for its end; None when nobody does.
        session: what the host that pushes it calls it, if it does.
        chunks: the order of pushed chunks.
        received: bytes so far.
        told_tenths: how much of it the console has been told.
    """

    update: Update
    commit_timeout: int
    timeout_s: int
    deadline_ns: int
    download: ByteSource | None = None
    reply: PendingReply | None = None
    session: str | None = None
    chunks: ChunkSequence = field(default_factory=ChunkSequence)
    received: int = 0
    told_tenths: int = 0

    @property
    def total(self) -> int | None:
        """The announced length of the bundle in bytes, if there is one."""
        return self.chunks.size if self.download is None else self.download.content_length

    def close(self) -> None:
        """Stop the download."""
        if self.download is not None:
            self.download.close()


class UpdateService:
    """Updates in one boot of the application; at most one at a time.

    Args:
        dispatcher: where the methods are offered.
        device: the board.
        boot: the boot state.
        open_url: starts a download; raises an OtasimError for a URL that cannot be one.
        settings: how updates are made at this moment.
        is_running: whether a manifest is that of the firmware that runs.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        device: Device,
        boot: BootConfiguration,
        open_url: Callable[[str], ByteSource],
        *,
        settings: Callable[[], UpdateSettings],
        is_running: Callable[[Manifest], bool],
    ) -> None:
        self._device = device
        self._boot = boot
        self._open_url = open_url
        self._settings = settings
        self._is_running = is_running
        self._running: _Running | None = None
        self._outcome, self._message = UpdateState.IDLE, "idle"
        self._looked_ns = device.clock.now_ns
        dispatcher.register("OTA.Update", self._pull, Arguments(_URL, COMMIT_TIMEOUT))
        dispatcher.register(
            "OTA.Begin", self._begin, Arguments(_TIMEOUT, COMMIT_TIMEOUT, _SIZE, _SESSION)
        )
        dispatcher.register("OTA.Write", self._write, Arguments(_OFFSET, _DATA, _SESSION))
        dispatcher.register("OTA.End", self._end, Arguments(_SESSION))
        dispatcher.register("OTA.Abort", self._abort, Arguments(_SESSION))
        dispatcher.register("OTA.Status", self._status)

    def turn(self) -> None:
        """One turn of the main loop."""
        running = self._running
        if running is None:
            self._look_for_update()
        elif self._device.clock.now_ns >= running.deadline_ns:
            self._fail(
                running,
                f"Update timed out: not finished within {running.timeout_s} s; "
                "is its sender all right?",
            )
        elif running.download is not None:
            self._continue_pull(running, running.download)

    def close(self) -> None:
        """The RAM is gone: a download under way stops."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def refuse_during_update(self, what: str) -> None:
        """RpcError while an update is under way, because `what` must not change then."""
        if self._running is not None:
            raise RpcError(
                FAILED, f"Update already in progress: wait for it to end before {what} is changed"
            )

    # -- beginning and ending ---------------------------------------------------------------------

    def _start(
        self,
        origin: str,
        *,
        commit_timeout: int | None,
        timeout_s: int | None = None,
        is_pushed: bool = False,
        skip_same_version: bool = False,
    ) -> _Running:
        if self._running is not None:
            raise RpcError(
                FAILED, "Update already in progress: wait for it to end, or call OTA.Abort"
            )
        state = self._boot.booted_state
        if not state.is_committed:
            raise RpcError(FAILED, f"Previous update has not been committed yet: {COMMIT_FIRST}")
        settings = self._settings()

        def accept(manifest: Manifest) -> None:
            if skip_same_version and self._is_running(manifest):
                raise _SameVersionError(f"{manifest.title} is the firmware that runs")

        timeout_s = timeout_s or settings.timeout_s
        self._running = _Running(
            Update(
                state,
                self._device.partitions,
                self._device.log,
                accept,
                settings.signature_policy,
                to_the_end=is_pushed,
            ),
            settings.commit_timeout_s if commit_timeout is None else commit_timeout,
            timeout_s,
            self._device.clock.now_ns + timeout_s * NS_PER_S,
        )
        self._outcome, self._message = UpdateState.PROGRESS, "progress"
        self._device.log(f"ota: update from {origin}")
        self._device.record("update-started", origin=origin)
        return self._running

    def _take(self, running: _Running, data: bytes) -> None:
        running.received += len(data)
        running.update.feed(data)
        total = running.total
        if not total:
            return
        tenths = _PROGRESS_STEPS * running.received // total
        if tenths > running.told_tenths:
            running.told_tenths = tenths
            percent = 100 * running.received // total
            self._device.log(f"ota: {percent} % ({running.received:,} of {total:,} bytes)")
            self._device.record("update-progress", received=running.received, total=total)

    def _finish(self, running: _Running) -> None:
        """Make the update the one to boot; an OtasimError leaves everything as it was."""
        finished = running.update.finish()
        self._boot.write(self._state_after(finished, running.commit_timeout))
        self._stop(running, UpdateState.SUCCESS, "success")
        self._device.record(
            "update-finished",
            slot=finished.slot,
            version=finished.manifest.version,
            commit_timeout=running.commit_timeout or None,
        )
        self._device.log(f"ota: {finished.manifest.title} is in slot {finished.slot}, rebooting")
        if running.reply is not None:
            running.reply.result(None)
        self._device.reboot_after(REBOOT_DELAY_MS)

    def _state_after(self, finished: FinishedUpdate, commit_timeout: int) -> BootState:
        image = finished.image
        return self._boot.state.update_finished(
            finished.slot,
            length=image.app_len,
            origin=image.app_org,
            crc32=image.app_crc32,
            app_flags=image.app_flags,
            commit_timeout=commit_timeout,
        )

    def _fail(self, running: _Running, reason: str) -> None:
        self._stop(running, UpdateState.ERROR, reason)
        self._device.record("update-failed", reason=reason)
        self._device.log(f"ota: update failed: {reason}")
        if running.reply is not None:
            running.reply.error(FAILED, reason)

    def _stop(self, running: _Running, outcome: UpdateState, message: str) -> None:
        self._running = None
        running.close()
        self._outcome, self._message = outcome, message

    # -- pulled -----------------------------------------------------------------------------------

    def _pull(self, call: Call) -> JsonValue:
        url, commit_timeout = call.arguments.require(_URL), call.arguments.get(COMMIT_TIMEOUT)
        running = self._start(url, commit_timeout=commit_timeout)
        self._open(running, url)
        running.reply = call.defer()
        return None

    def _open(self, running: _Running, url: str) -> None:
        try:
            running.download = self._open_url(url)
        except OtasimError as error:
            self._fail(running, str(error))
            raise

    def _continue_pull(self, running: _Running, download: ByteSource) -> None:
        try:
            data = download.poll(PULLED_AT_ONCE)
            if data:
                self._take(running, data)
            if data == b"" or running.update.is_complete:
                self._finish(running)
        except _SameVersionError as error:
            self._stop(running, UpdateState.IDLE, "idle")
            self._device.record("update-skipped", reason=str(error))
            self._device.log(f"ota: no update needed: {error}")
        except OtasimError as error:
            self._fail(running, str(error))

    def _look_for_update(self) -> None:
        """Fetch `update.url` every `update.interval` seconds, as the original does."""
        settings = self._settings()
        now_ns = self._device.clock.now_ns
        if not settings.url or not settings.interval_s:
            return
        if now_ns - self._looked_ns < settings.interval_s * NS_PER_S:
            return
        self._looked_ns = now_ns
        try:
            running = self._start(settings.url, commit_timeout=None, skip_same_version=True)
        except OtasimError as error:
            self._device.log(f"ota: cannot look for an update: {error}")
            return
        with suppress(OtasimError):  # told already, as the update's failure
            self._open(running, settings.url)

    # -- pushed -----------------------------------------------------------------------------------

    def _begin(self, call: Call) -> JsonValue:
        running = self._start(
            f"the host, over {call.channel.kind}",
            commit_timeout=call.arguments.get(COMMIT_TIMEOUT),
            timeout_s=call.arguments.get(_TIMEOUT),
            is_pushed=True,
        )
        running.session = call.arguments.get(_SESSION)
        running.chunks = ChunkSequence(call.arguments.get(_SIZE) or None)
        return None

    def _write(self, call: Call) -> JsonValue:
        running = self._pushed(call)
        # A chunk in the wrong place fails alone: the right one may follow.
        data = running.chunks.take(call.arguments.get(_OFFSET), call.arguments.require(_DATA))
        try:
            self._take(running, data)
        except OtasimError as error:
            self._fail(running, str(error))
            raise
        return None

    def _end(self, call: Call) -> JsonValue:
        running = self._pushed(call)
        try:
            running.chunks.check_complete()
            self._finish(running)
        except OtasimError as error:
            self._fail(running, str(error))
            raise
        return None

    def _abort(self, call: Call) -> JsonValue:
        if self._running is None:
            raise RpcError(FAILED, "there is no update to abort")
        _check_session(call, self._running)
        self._fail(self._running, "aborted by the host")
        return None

    def _pushed(self, call: Call) -> _Running:
        running = self._running
        if running is None:
            why = (
                f" (the last one failed: {self._message})"
                if self._outcome == UpdateState.ERROR
                else ""
            )
            raise RpcError(FAILED, f"No update in progress{why}: call OTA.Begin first")
        if running.download is not None:
            raise RpcError(
                FAILED,
                "The update in progress is a download: wait for it to end, or call OTA.Abort",
            )
        _check_session(call, running)
        return running

    def _status(self, _call: Call) -> JsonValue:
        state, running = self._boot.state, self._running
        percent = 0
        if running is not None and running.total:
            percent = min(100, 100 * running.received // running.total)
        return {
            "state": int(self._outcome),
            "message": self._message,
            "is_committed": state.is_committed,
            "commit_timeout": state.commit_timeout or 0,
            "partition": state.active_slot,
            "progress_percent": percent,
        }


def _check_session(call: Call, running: _Running) -> None:
    session = call.arguments.get(_SESSION)
    if session is not None and session != running.session:
        raise RpcError(FAILED, "This update is not in progress any more, another one is")
