"""Where the thread of the network links and the thread of the board meet.

Links put requests into the mailbox, the board takes them in its application's turn and answers
through them. A `Boot` is what the links know of one boot of the application: what they put in its
name is forgotten, and what is answered in its name is dropped, as soon as it has ended.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Protocol, TypeVar

from rpc_shim.dispatch import Channel, Reply

TAKEN_AT_ONCE = 64
"""Requests carried out in one turn of the main loop; the others wait for the next one."""

_LINES_KEPT = 100

ResultT = TypeVar("ResultT")


class CallInLoop(Protocol):
    """Has a function called in the thread of the links; may be called in any thread."""

    def __call__(self, function: Callable[..., None], /, *arguments: object) -> None:
        """Call `function` with `arguments`, soon."""
        ...


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """A request that came over a network link.

    Attributes:
        frame: its JSON, not parsed yet.
        channel: what it came over.
        reply: takes the answer's JSON, now or later, in the board's thread.
    """

    frame: bytes
    channel: Channel
    reply: Reply


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What waits in the mailbox.

    Attributes:
        request: None when somebody only waits for the application's next turn.
        taken: called in the thread of the links when the board has taken it.
    """

    request: NetworkRequest | None
    taken: Callable[[], None]


class Mailbox:
    """Requests and log lines on their way to the board's thread.

    Args:
        call_in_loop: reaches the thread of the links.
    """

    def __init__(self, call_in_loop: CallInLoop) -> None:
        self._call_in_loop = call_in_loop
        self._lock = threading.Lock()
        self._boot: Boot | None = None
        self._entries: dict[Entry, None] = {}  # a queue from whose middle entries can be withdrawn
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._read_end, self._write_end = os.pipe()
        self._signalled = False

    # -- the board's thread -----------------------------------------------------------------------

    def fileno(self) -> int:
        """For `select`: readable when more has come since `take` or `acknowledge`."""
        return self._read_end

    def acknowledge(self) -> None:
        """Be readable again only when more has come."""
        with self._lock:
            self._clear_signal()

    def take(self) -> list[NetworkRequest]:
        """The requests that have waited longest, to be carried out in this turn."""
        with self._lock:
            self._clear_signal()
            entries = list(self._entries)[:TAKEN_AT_ONCE]
            for entry in entries:
                del self._entries[entry]
            if self._entries:
                self._signal()
        if entries:
            self._call_in_loop(_tell_taken, entries)
        return [entry.request for entry in entries if entry.request is not None]

    def take_lines(self) -> list[str]:
        """What the links have to say on the console."""
        with self._lock:
            lines = list(self._lines)
            self._lines.clear()
        return lines

    def let_in(self, boot: "Boot | None") -> None:
        """Forget what waits, and from now on let in what comes in the name of `boot` only."""
        with self._lock:
            self._boot = boot
            self._entries.clear()
            self._clear_signal()

    def close(self) -> None:
        """Give the file descriptors back."""
        os.close(self._read_end)
        os.close(self._write_end)

    # -- the thread of the links ------------------------------------------------------------------

    def put(self, boot: "Boot", entry: Entry) -> None:
        """Add an entry, unless `boot` has ended."""
        with self._lock:
            if boot is self._boot:
                self._entries[entry] = None
                self._signal()

    def withdraw(self, entry: Entry) -> None:
        """Forget an entry that has not been taken yet."""
        with self._lock:
            self._entries.pop(entry, None)

    def put_line(self, text: str) -> None:
        """Add a log line; when there are too many the oldest is lost."""
        with self._lock:
            self._lines.append(text)

    # -- with the lock held -----------------------------------------------------------------------

    def _signal(self) -> None:
        if not self._signalled:
            self._signalled = True
            os.write(self._write_end, b"!")

    def _clear_signal(self) -> None:
        if self._signalled:
            self._signalled = False
            os.read(self._read_end, 1)


def _tell_taken(entries: list[Entry]) -> None:
    for entry in entries:
        entry.taken()


class Boot:
    """One boot of the application, for the links. All but `end` is for their thread.

    Attributes:
        device_id: the device's name.
        max_frame_size: longest accepted frame in bytes.
        answers_to: the name that a request may be addressed to; None when any will do.
        takes_uploads: whether a firmware bundle may be posted.
        is_over: the RAM is gone, though the links may not have been told yet.
        ended: set when they have been.
        ids: ids for requests that a link makes by itself.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        call_in_loop: CallInLoop,
        device_id: str,
        max_frame_size: int,
        *,
        takes_uploads: bool = True,
        answers_to_any_name: bool = False,
    ) -> None:
        self.device_id = device_id
        self.answers_to = None if answers_to_any_name else device_id
        self.max_frame_size = max_frame_size
        self.takes_uploads = takes_uploads
        self.is_over = False
        self.ended = asyncio.Event()
        self.ids = count(1)
        self._mailbox = mailbox
        self._call_in_loop = call_in_loop

    def end(self) -> None:
        """The RAM is gone; called in the board's thread."""
        self.is_over = True
        self._call_in_loop(self.ended.set)

    async def until_ended(self) -> None:
        """Wait until the RAM is gone."""
        await self.ended.wait()

    def log(self, text: str) -> None:
        """Have a line written on the console."""
        self._mailbox.put_line(text)

    def post(
        self,
        frame: bytes,
        channel: Channel,
        answered: Callable[[bytes], None],
        taken: Callable[[], None],
    ) -> Entry:
        """Hand a request to the board.

        Args:
            frame: the JSON of the request.
            channel: what it came over.
            answered: called with the answer's JSON, if one comes before the boot ends.
            taken: called when the application has taken the request.
        """
        reply = partial(self._call_in_loop, self._deliver, answered)
        entry = Entry(NetworkRequest(frame, channel, reply), taken)
        self._mailbox.put(self, entry)
        return entry

    def withdraw(self, entry: Entry) -> None:
        """Take a request back; it is carried out nevertheless if it has been taken already."""
        self._mailbox.withdraw(entry)

    async def submit(
        self, frame: bytes, channel: Channel, answered: Callable[[bytes], None]
    ) -> None:
        """Hand a request to the board and wait until it has been taken."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = self.post(frame, channel, answered, partial(_resolve, taken, None))
        await self._wait_for(taken, entry)

    async def call(self, frame: bytes, channel: Channel) -> bytes:
        """Hand a request to the board and wait for its answer."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        entry = self.post(frame, channel, partial(_resolve, answer), do_nothing)
        return await self._wait_for(answer, entry)

    async def turn(self) -> None:
        """Wait for the application's next turn: nobody answers for firmware that hangs."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = Entry(None, partial(_resolve, turn, None))
        self._mailbox.put(self, entry)
        await self._wait_for(turn, entry)

    async def _wait_for(self, future: asyncio.Future[ResultT], entry: Entry) -> ResultT:
        try:
            return await future
        except asyncio.CancelledError:
            self.withdraw(entry)
            raise

    def _deliver(self, answered: Callable[[bytes], None], json: bytes) -> None:
        if not self.ended.is_set():
            answered(json)


def do_nothing() -> None:
    """Nobody waits for the request to be taken."""


def drop_answer(_json: bytes) -> None:
    """Nobody waits for the answer."""


def _resolve(future: asyncio.Future[ResultT], result: ResultT) -> None:
    if not future.done():
        future.set_result(result)
