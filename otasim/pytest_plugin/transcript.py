"""What went over a board's UART, both ways, as lines for people."""

import json
import re
from collections import deque
from collections.abc import Callable

from rpc_shim.framing import ConsoleInput, FrameReceived, FrameRejected, LineDemultiplexer

_MOST_LINES = 300
_LONGEST_LINE = 200
_LARGEST_ANSWER = 1024 * 1024
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")


class UartTranscript:
    """Console text and RPC calls, a line each, with the virtual time at which it came.

    Console text stands behind `|`, what the host sends behind `>`, answers behind `<`. The frames
    around calls and answers are left out.

    Args:
        now_s: virtual time in seconds.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._from_host = LineDemultiplexer()
        self._from_board = LineDemultiplexer(_LARGEST_ANSWER, frames_within_lines=False)
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._count = 0
        self._open_line = b""

    def sent(self, data: bytes) -> None:
        """Take what the host has sent."""
        for event in self._from_host.feed(data):
            match event:
                case ConsoleInput(text):
                    self._add(">", f"types {text.decode('latin-1')!a}")
                case FrameReceived(frame):
                    self._add(">", _call(frame))
                case FrameRejected(message=message):
                    self._add(">", message)

    def received(self, data: bytes) -> None:
        """Take what the board has sent."""
        for event in self._from_board.feed(data):
            match event:
                case ConsoleInput(text):
                    *lines, self._open_line = (self._open_line + text).split(b"\n")
                    for line in lines:
                        self._add("|", _text(line))
                case FrameReceived(frame):
                    self._add("<", _answer(frame))
                case FrameRejected(message=message):
                    self._add("<", message)

    def text(self) -> str:
        """The newest lines."""
        lines = list(self._lines)
        if self._count > len(lines):
            lines.insert(0, f"({self._count - len(lines):,} lines before are left out)")
        if self._open_line:
            lines.append(self._line("|", _text(self._open_line)))
        return "\n".join(lines) or "nothing"

    def _add(self, mark: str, text: str) -> None:
        self._lines.append(self._line(mark, text))
        self._count += 1

    def _line(self, mark: str, text: str) -> str:
        shown = text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}..."
        shown = _CONTROL_CHARACTER.sub(lambda match: f"\\x{ord(match[0]):02x}", shown)
        return f"{self._now_s():9.3f} s {mark} {shown}".rstrip()


def _text(line: bytes) -> str:
    return line.decode("ascii", "backslashreplace").removesuffix("\r")


def _call(frame: bytes) -> str:
    """A request as it would be typed: method and arguments."""
    request = _members(frame)
    if "method" not in request:
        return frame.decode("ascii")
    arguments = request.get("params", request.get("args"))
    told = "" if arguments is None else f" {json.dumps(arguments)}"
    return f"{request['method']}{told}"


def _answer(frame: bytes) -> str:
    """An answer without its envelope."""
    answer = _members(frame)
    if "error" in answer:
        return f"error {json.dumps(answer['error'])}"
    return json.dumps(answer["result"]) if "result" in answer else frame.decode("ascii")


def _members(frame: bytes) -> dict[str, object]:
    """The members of a JSON object; none when it is no such thing."""
    try:
        found: object = json.loads(frame)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
