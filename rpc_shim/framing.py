r'''How RPC frames share a serial line with a console.

A frame is one line of JSON, optionally followed by metadata: comma-separated fields of which only
the first is defined, the CRC-32 (IEEE 802.3, as in zlib) of the JSON bytes in hexadecimal:

    {"id":1,"method":"RPC.List"}e292971e

Two delimiters exist. The older `"""` stands before and after a frame, the newer one is the line
feed. A receiver treats both as separators and never pairs them up, because clients send a lone
`"""` after their handshake. Facts are from the public device sources (mongoose-os-libs/rpc-uart,
`mgos_rpc_channel_uart.c`) and from what the host tool `mos` sends.

The host may be a person at a terminal, so everything that is not RPC traffic goes to the firmware's
console at once, character by character. Who gets what:

* A segment becomes a frame at its first `{`; what stood before it has gone to the console.
* `"""` is never console input. One or two quotes are held back until the next byte decides.
* A segment that is the byte 0x04 alone is a handshake. The byte is held back until then.
* A line feed that ends a frame, or follows `"""` directly, belongs to the RPC traffic.
* A line feed on an otherwise empty line is an RPC client's "are you there?" as long as RPC traffic
  was the last thing seen, and a person's Enter key otherwise: before any RPC traffic, and again as
  soon as console text has arrived. So Enter reaches the firmware, and an RPC client that has
  introduced itself gets its empty line back.
* Any other line feed ends a line of console text and is part of it, as are carriage returns.
'''

import re
import zlib
from dataclasses import dataclass
from enum import Enum, auto

QUOTES_DELIMITER = b'"""'
NEWLINE_DELIMITER = b"\n"
END_OF_TRANSMISSION = b"\x04"

HANDSHAKE_ANSWER = b"\n" + QUOTES_DELIMITER + END_OF_TRANSMISSION + QUOTES_DELIMITER
"""The newline keeps a quote at the end of console text from being taken for the delimiter's."""

DEFAULT_MAX_FRAME_SIZE = 4096
"""Bytes of JSON and metadata in one frame, as `rpc.max_frame_size` of the device."""

_RUN = re.compile(rb'[^\n"{\x04\x80-\xff]+|[\x80-\xff]+|[\n"{\x04]')
_CRC_FIELD = re.compile(r"[0-9A-Fa-f]{1,8}")


class Delimiter(Enum):
    """What ended a frame, which tells what its sender expects around the answer."""

    QUOTES = auto()
    NEWLINE = auto()


@dataclass(frozen=True, slots=True)
class ReplyStyle:
    """How to frame the answer to a request: the way the request itself was framed.

    The device remembers the style once for all requests of a boot. Here it is taken from each
    request, so that a client that reads plain lines is served after one that used `\"\"\"`.
    """

    delimiter: Delimiter
    with_crc: bool


class Rejection(Enum):
    """Why what looked like a frame was dropped."""

    NO_CLOSING_BRACE = auto()
    MALFORMED_METADATA = auto()
    WRONG_CRC = auto()
    TOO_LONG = auto()
    NOT_ASCII = auto()


@dataclass(frozen=True, slots=True)
class ConsoleInput:
    """Bytes for the firmware's console."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Handshake:
    """The host wants the frame `0x04` back before it sends a request."""


@dataclass(frozen=True, slots=True)
class EmptyLine:
    """An RPC client asks for an empty line back."""


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """A whole frame whose CRC, if it has one, is right. `json` is not parsed yet."""

    json: bytes
    style: ReplyStyle


@dataclass(frozen=True, slots=True)
class FrameRejected:
    """A frame was dropped. The decoder goes on with the next one.

    Attributes:
        reason: what was wrong, for programs.
        message: what was wrong and what was expected, for people.
    """

    reason: Rejection
    message: str


LineEvent = ConsoleInput | Handshake | EmptyLine | FrameReceived | FrameRejected


def crc32_hex(json: bytes) -> bytes:
    """The CRC-32 of a frame's JSON as the 8 lower-case digits that go on the line."""
    return b"%08x" % zlib.crc32(json)


def encode_frame(json: bytes, style: ReplyStyle) -> bytes:
    r'''A frame ready for the line, starting on a line of its own.

    `\n"""JSON"""\n` for a client that used `"""`, `\nJSON\n` for one that did not, in both cases
    with the CRC behind the JSON when asked for.

    Args:
        json: one line of ASCII JSON.
        style: delimiter and CRC.
    '''
    quotes = QUOTES_DELIMITER if style.delimiter is Delimiter.QUOTES else b""
    crc = crc32_hex(json) if style.with_crc else b""
    return b"".join((NEWLINE_DELIMITER, quotes, json, crc, quotes, NEWLINE_DELIMITER))


def decode_segment(segment: bytes, delimiter: Delimiter) -> FrameReceived | FrameRejected:
    """Take a segment that starts with `{` apart into its JSON and its metadata.

    The JSON ends at the last `}`. The CRC is compared as a number, so that a client that leaves out
    leading zeros is understood; without metadata nothing is checked.

    Args:
        segment: ASCII bytes between two delimiters, from the first `{` on.
        delimiter: what ended the segment.
    """
    json, brace, rest = segment.rpartition(b"}")
    if not brace:
        return FrameRejected(
            Rejection.NO_CLOSING_BRACE,
            f"frame of {len(segment)} bytes dropped: it has no closing brace",
        )
    json += brace
    metadata = rest.decode("ascii").strip()
    style = ReplyStyle(delimiter, with_crc=bool(metadata))
    if not metadata:
        return FrameReceived(json, style)
    field = metadata.split(",", 1)[0].strip()
    if not _CRC_FIELD.fullmatch(field):
        return FrameRejected(
            Rejection.MALFORMED_METADATA,
            f"frame of {len(json)} bytes dropped: behind the JSON stands {metadata[:40]!a}, "
            "expected nothing or a CRC-32 of 8 hex digits",
        )
    computed = zlib.crc32(json)
    if int(field, 16) != computed:
        return FrameRejected(
            Rejection.WRONG_CRC,
            f"frame of {len(json)} bytes dropped: its CRC-32 says 0x{int(field, 16):08x}, "
            f"computed 0x{computed:08x}",
        )
    return FrameReceived(json, style)


class _Mode(Enum):
    TEXT = auto()  # no `{` in this segment yet
    FRAME = auto()  # from `{` on
    AFTER_NOISE = auto()  # a frame was emptied by a byte >= 0x80: dropped until a delimiter or `{`
    AFTER_OVERRUN = auto()  # a frame grew too long: dropped until a delimiter


class LineDemultiplexer:
    """Splits what a host sends into console input, frames, handshakes and empty lines.

    Bytes may arrive in any portions: the events are the same, except that console input comes in as
    many pieces as it arrived in. At most `max_frame_size` bytes and three held ones are kept.

    A host can use it as well, to tell a device's answers from its console text. Answers start at
    the beginning of a line, so with `frames_within_lines` off, braces further on are text.

    Args:
        max_frame_size: longest accepted frame, JSON and metadata together, in bytes.
        frames_within_lines: whether a frame may start behind text, as a device accepts it.
    """

    def __init__(
        self, max_frame_size: int = DEFAULT_MAX_FRAME_SIZE, *, frames_within_lines: bool = True
    ) -> None:
        self._max_frame_size = max_frame_size
        self._frames_within_lines = frames_within_lines
        self._mode = _Mode.TEXT
        self._frame = bytearray()
        self._held = bytearray()  # an 0x04 that began the segment, then up to two quotes
        self._text_in_segment = False
        self._after_quotes = False
        self._rpc_seen_last = False
        self._console = bytearray()
        self._events: list[LineEvent] = []

    def feed(self, data: bytes) -> list[LineEvent]:
        """Take the next bytes from the host and say, in order, what they completed."""
        self._events = []
        for run in _RUN.findall(data):
            if run == b'"':
                self._quote()
            elif run == b"\n":
                self._newline()
            elif run == END_OF_TRANSMISSION and self._at_segment_start:
                self._held += run
            else:
                self._release_held()
                self._content(run)
        self._flush_console()
        return self._events

    @property
    def in_frame(self) -> bool:
        """Whether a frame has begun and its delimiter has not come yet, be it good or dropped."""
        return self._mode is not _Mode.TEXT

    @property
    def _at_segment_start(self) -> bool:
        return self._mode is _Mode.TEXT and not self._text_in_segment and not self._held

    @property
    def _may_start_frame(self) -> bool:
        if self._mode is _Mode.TEXT:
            return self._frames_within_lines or not self._text_in_segment
        return self._mode is _Mode.AFTER_NOISE

    def _quote(self) -> None:
        self._held += b'"'
        if not self._held.endswith(QUOTES_DELIMITER):
            return
        del self._held[-len(QUOTES_DELIMITER) :]
        self._end_segment(Delimiter.QUOTES)
        self._after_quotes = True
        self._rpc_seen_last = True

    def _newline(self) -> None:
        if self._mode is _Mode.TEXT and self._held != END_OF_TRANSMISSION:
            self._release_held()
            self._newline_in_text()
        else:
            self._end_segment(Delimiter.NEWLINE)
            self._rpc_seen_last = True
        self._after_quotes = False

    def _newline_in_text(self) -> None:
        if self._text_in_segment or not self._rpc_seen_last:
            self._console += b"\n"
            self._rpc_seen_last = False
        elif not self._after_quotes:
            self._emit(EmptyLine())
        self._text_in_segment = False

    def _end_segment(self, delimiter: Delimiter) -> None:
        if self._held == END_OF_TRANSMISSION:
            self._emit(Handshake())
        else:
            self._release_held()
            if self._mode is _Mode.FRAME:
                self._emit(decode_segment(bytes(self._frame), delimiter))
        self._held.clear()
        self._frame.clear()
        self._mode = _Mode.TEXT
        self._text_in_segment = False

    def _release_held(self) -> None:
        """Treat held bytes as content, now that they turned out to be no delimiter or handshake."""
        held = bytes(self._held)
        self._held.clear()
        if held:
            self._content(held)

    def _content(self, run: bytes) -> None:
        if run == b"{" and self._may_start_frame:
            self._mode = _Mode.FRAME
        if self._mode is _Mode.TEXT:
            self._console += run
            self._text_in_segment = True
            self._rpc_seen_last = False
        elif self._mode is _Mode.FRAME:
            self._frame_content(run)

    def _frame_content(self, run: bytes) -> None:
        if run[0] >= 0x80:
            self._emit(
                FrameRejected(
                    Rejection.NOT_ASCII,
                    f"frame dropped at byte 0x{run[0]:02x}: frames are ASCII, "
                    "write other characters as \\uXXXX",
                )
            )
            self._mode = _Mode.AFTER_NOISE
        elif len(self._frame) + len(run) > self._max_frame_size:
            self._emit(
                FrameRejected(
                    Rejection.TOO_LONG,
                    f"frame dropped: it is longer than {self._max_frame_size} bytes",
                )
            )
            self._mode = _Mode.AFTER_OVERRUN
        else:
            self._frame += run
            return
        self._frame.clear()

    def _emit(self, event: LineEvent) -> None:
        self._flush_console()
        self._events.append(event)

    def _flush_console(self) -> None:
        if self._console:
            self._events.append(ConsoleInput(bytes(self._console)))
            self._console.clear()
