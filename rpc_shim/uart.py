"""The serial line between the host and the application: console text and RPC traffic on one wire.

`HostOutput` is the wire towards the host and outlives resets, as the wire does. `UartChannel` is
the RPC service's end of it: RAM of one boot of the application, made anew at every boot.
"""

import re
from collections import deque
from collections.abc import Callable
from functools import partial

from rpc_shim.dispatch import Channel, Dispatcher
from rpc_shim.framing import (
    DEFAULT_MAX_FRAME_SIZE,
    HANDSHAKE_ANSWER,
    NEWLINE_DELIMITER,
    ConsoleInput,
    EmptyLine,
    FrameReceived,
    FrameRejected,
    Handshake,
    LineDemultiplexer,
    ReplyStyle,
    encode_frame,
)

DEFAULT_QUEUE_SIZE = 16 * 1024

_EVENT_OVERHEAD = 64  # bytes an event weighs besides its JSON, so that empty ones are bounded too
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")

QueuedEvent = Handshake | EmptyLine | FrameReceived | FrameRejected


class _Line:
    """The line as one reader sees it: log lines and answers start at the beginning of one."""

    def __init__(self, output: Callable[[bytes], None]) -> None:
        self._output = output
        self._is_open = False

    def send(self, data: bytes) -> None:
        self._is_open = not data.endswith(NEWLINE_DELIMITER)
        self._output(data)

    def send_line(self, line: bytes) -> None:
        """Send a line that begins with a newline, without it where a line has just ended."""
        self.send(line if self._is_open else line.removeprefix(NEWLINE_DELIMITER))


def _nobody(_data: bytes) -> None:
    """Takes what nobody wants to see."""


class HostOutput:
    """Everything the board sends to the host, from the boot loader's log to the last answer.

    Each call makes one call of `to_host`, so that an answer is never cut by console text, and
    answers and log lines start on a line of their own whatever stands on the current one.

    Args:
        to_host: takes the bytes for the link: console text and RPC traffic, in order.
        to_terminal: takes the console text alone, for people.
    """

    def __init__(
        self,
        to_host: Callable[[bytes], None],
        to_terminal: Callable[[bytes], None] = _nobody,
    ) -> None:
        self._host = _Line(to_host)
        self._terminal = _Line(to_terminal)

    def write_console(self, data: bytes) -> None:
        """Send what the firmware has written to its USART, as it is."""
        if data:
            self._host.send(data)
            self._terminal.send(data)

    def write_line(self, text: str) -> None:
        """Send one line of log text.

        Control characters and all but ASCII are escaped, and what a host could take for the start
        of a frame is changed, so that no text, wherever it is from, ends a host tool's session.
        """
        line = NEWLINE_DELIMITER + _harmless(text).encode("ascii") + NEWLINE_DELIMITER
        self._host.send_line(line)
        self._terminal.send_line(line)

    def write_frame(self, json: bytes, style: ReplyStyle) -> None:
        """Send an answer in the way its request was framed."""
        self._host.send_line(encode_frame(json, style))

    def write_handshake_answer(self) -> None:
        """Tell the host that it can send its request."""
        self._host.send_line(HANDSHAKE_ANSWER)

    def write_empty_line(self) -> None:
        """Answer an empty line."""
        self._host.send(NEWLINE_DELIMITER)


def _harmless(text: str) -> str:
    line = text.encode("ascii", "backslashreplace").decode("ascii")
    line = _CONTROL_CHARACTER.sub(lambda match: f"\\x{ord(match[0]):02x}", line)
    line = line.replace('"""', "'''")
    return " " + line if line.startswith("{") else line


class UartChannel:
    """The RPC service's end of the serial line for one boot of the application.

    What the host types reaches the firmware at once, by `to_firmware`, even when its main loop
    hangs: reception is by interrupt. Requests are only carried out in `turn`, because the service
    lives in the main loop. Nothing is ever sent unasked: `mos` cannot cope with it.

    Args:
        dispatcher: the methods of this boot.
        output: the wire to the host.
        to_firmware: takes the bytes for the firmware's USART.
        name: what `RPC.Ping` calls this channel.
        max_frame_size: longest accepted frame in bytes.
        queue_size: bytes of requests that may wait for the next turn; more are dropped.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        output: HostOutput,
        to_firmware: Callable[[bytes], None],
        *,
        name: str = "UART2",
        max_frame_size: int = DEFAULT_MAX_FRAME_SIZE,
        queue_size: int = DEFAULT_QUEUE_SIZE,
    ) -> None:
        self._dispatcher = dispatcher
        self._output = output
        self._to_firmware = to_firmware
        self._channel = Channel("UART", name)
        self._queue_size = queue_size
        self._demultiplexer = LineDemultiplexer(max_frame_size)
        self._queue: deque[QueuedEvent] = deque()
        self._queued_size = 0
        self._dropped = 0
        self._dropped_unlogged = 0
        self._closed = False

    @property
    def dropped(self) -> int:
        """Requests and the like lost so far because too many waited for a turn."""
        return self._dropped

    def host_bytes(self, data: bytes) -> None:
        """Take bytes from the host: console input goes on at once, the rest waits for `turn`."""
        if self._closed:
            return
        for event in self._demultiplexer.feed(data):
            if isinstance(event, ConsoleInput):
                self._to_firmware(event.data)
            else:
                self._enqueue(event)

    def turn(self) -> None:
        """One turn of the main loop: serve what waits. What arrives meanwhile waits in turn."""
        if self._dropped_unlogged:
            self.log(f"rpc: {self._dropped_unlogged} requests dropped: too many at once")
            self._dropped_unlogged = 0
        for _ in range(len(self._queue)):
            event = self._queue.popleft()
            self._queued_size -= _weight(event)
            self._serve(event)

    def log(self, text: str) -> None:
        """Write one line of log text on the console."""
        if not self._closed:
            self._output.write_line(text)

    def close(self) -> None:
        """The RAM is gone: nothing is taken or sent any more, late answers are dropped silently."""
        self._closed = True
        self._queue.clear()

    def _enqueue(self, event: QueuedEvent) -> None:
        if self._queued_size + _weight(event) > self._queue_size:
            self._dropped += 1
            self._dropped_unlogged += 1
            return
        self._queue.append(event)
        self._queued_size += _weight(event)

    def _serve(self, event: QueuedEvent) -> None:
        match event:
            case FrameReceived(json, style):
                self._dispatcher.handle(json, partial(self._reply, style), self._channel)
            case Handshake():
                self._output.write_handshake_answer()
            case EmptyLine():
                self._output.write_empty_line()
            case FrameRejected(message=message):
                self.log(f"rpc: {message}")

    def _reply(self, style: ReplyStyle, json: bytes) -> None:
        if not self._closed:
            self._output.write_frame(json, style)


def _weight(event: QueuedEvent) -> int:
    return _EVENT_OVERHEAD + (len(event.json) if isinstance(event, FrameReceived) else 0)
