import json
import zlib
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rpc_shim.framing import (
    HANDSHAKE_ANSWER,
    ConsoleInput,
    Delimiter,
    EmptyLine,
    FrameReceived,
    FrameRejected,
    Handshake,
    LineDemultiplexer,
    LineEvent,
    Rejection,
    ReplyStyle,
    crc32_hex,
    encode_frame,
)

MOS_HANDSHAKE = b'"""\x04"""\n\n'
MOS_JSON = b'{"src":"mos","id":2019165903085,"method":"RPC.List"}'
MOS_REQUEST = b'\n"""{"src":"mos","id":2019165903085,"method":"RPC.List"}0ef3f5cf"""\n'
QUOTED_WITH_CRC = ReplyStyle(Delimiter.QUOTES, with_crc=True)
QUOTED = ReplyStyle(Delimiter.QUOTES, with_crc=False)
LINE_WITH_CRC = ReplyStyle(Delimiter.NEWLINE, with_crc=True)
LINE = ReplyStyle(Delimiter.NEWLINE, with_crc=False)


def decode(*portions: bytes, max_frame_size: int = 4096) -> list[LineEvent]:
    """All events, with adjacent console input joined."""
    demultiplexer = LineDemultiplexer(max_frame_size)
    return joined([event for portion in portions for event in demultiplexer.feed(portion)])


def joined(events: list[LineEvent]) -> list[LineEvent]:
    result: list[LineEvent] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, ConsoleInput) and isinstance(last, ConsoleInput):
            result[-1] = ConsoleInput(last.data + event.data)
        else:
            result.append(event)
    return result


def rejections(events: list[LineEvent]) -> list[Rejection]:
    return [event.reason for event in events if isinstance(event, FrameRejected)]


# --- what real clients send -----------------------------------------------------------------


def test_mos_sends_a_handshake_then_quotes_then_a_request_in_16_byte_chunks() -> None:
    chunks = [MOS_HANDSHAKE, b'"""']
    chunks += [MOS_REQUEST[start : start + 16] for start in range(0, len(MOS_REQUEST), 16)]
    assert decode(*chunks) == [
        Handshake(),
        EmptyLine(),
        FrameReceived(MOS_JSON, QUOTED_WITH_CRC),
    ]


def test_mos_repeats_its_handshake_until_it_is_answered() -> None:
    assert decode(MOS_HANDSHAKE * 3) == [Handshake(), EmptyLine()] * 3


def test_line_client_sends_json_crc_newline() -> None:
    request = b'{"jsonrpc": "2.0", "method": "Sys.GetInfo", "id": 1}'
    assert decode(request + crc32_hex(request) + b"\n") == [FrameReceived(request, LINE_WITH_CRC)]


def test_tcp_client_sends_no_crc_and_no_handshake() -> None:
    # The newline ahead cannot be told from a person's Enter: nothing has shown yet that RPC is on.
    request = b'\n"""{"id":1,"method":"A"}"""\n'
    answer = FrameReceived(b'{"id":1,"method":"A"}', QUOTED)
    assert decode(request + request) == [ConsoleInput(b"\n"), answer, EmptyLine(), answer]


def test_style_is_each_requests_own() -> None:
    line = b'{"id":2}' + crc32_hex(b'{"id":2}') + b"\n"
    events = decode(MOS_REQUEST + line + b'{"id":3}\n' + MOS_REQUEST)
    assert [event.style for event in events if isinstance(event, FrameReceived)] == [
        QUOTED_WITH_CRC,
        LINE_WITH_CRC,
        LINE,
        QUOTED_WITH_CRC,
    ]


# --- frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "style"),
    [
        (b"{}\n", LINE),
        (b"{}\r\n", LINE),
        (b"{} \t\n", LINE),
        (b'{}"""', QUOTED),
        (b"{}a3a6bf43\n", LINE_WITH_CRC),
        (b"{}A3A6BF43\n", LINE_WITH_CRC),
        (b"{}a3a6bf43\r\n", LINE_WITH_CRC),
        (b"{} a3a6bf43 ,a,b\n", LINE_WITH_CRC),
        (b'{}a3a6bf43,"\n', LINE_WITH_CRC),
        (b'{}a3a6bf43"""', QUOTED_WITH_CRC),
    ],
)
def test_metadata(sent: bytes, style: ReplyStyle) -> None:
    assert decode(sent) == [FrameReceived(b"{}", style)]


def test_crc_without_leading_zeros_is_understood() -> None:
    frame = next(json for n in range(1000) if zlib.crc32(json := b'{"n":%d}' % n) < 1 << 28)
    sent = frame + b"%x" % zlib.crc32(frame) + b"\n"
    assert decode(sent) == [FrameReceived(frame, LINE_WITH_CRC)]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"{}a3a6bf44\n", Rejection.WRONG_CRC),
        (b"{}a3a6bf4\n", Rejection.WRONG_CRC),
        (b"{}0a3a6bf43\n", Rejection.MALFORMED_METADATA),
        (b"{}hello\n", Rejection.MALFORMED_METADATA),
        (b"{},a3a6bf43\n", Rejection.MALFORMED_METADATA),
        (b"{}-3a6bf43\n", Rejection.MALFORMED_METADATA),
        (b"{}0xa38303\n", Rejection.MALFORMED_METADATA),
        (b'{"id":1\n', Rejection.NO_CLOSING_BRACE),
        (b'{"""', Rejection.NO_CLOSING_BRACE),
        (b'{"id":"\xc3\xa9"}\n', Rejection.NOT_ASCII),
        (b'{"id":""\xff\n', Rejection.NOT_ASCII),
    ],
)
def test_damaged_frame_is_dropped_and_the_next_one_taken(sent: bytes, reason: Rejection) -> None:
    events = decode(sent + MOS_REQUEST)
    assert rejections(events) == [reason]
    assert events[-1] == FrameReceived(MOS_JSON, QUOTED_WITH_CRC)
    assert not any(isinstance(event, ConsoleInput) for event in events)


@given(st.data())
def test_no_single_damaged_byte_passes_the_crc(data: st.DataObject) -> None:
    position = data.draw(st.integers(4, len(MOS_REQUEST) - 5))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != MOS_REQUEST[position]))
    damaged = MOS_REQUEST[:position] + bytes([byte]) + MOS_REQUEST[position + 1 :]
    taken = [event for event in decode(damaged) if isinstance(event, FrameReceived)]
    # Damage to the CRC's case or to a delimiter may leave the JSON whole: then it may be taken.
    assert all(event.json == MOS_JSON for event in taken)


def test_unterminated_frame_is_ended_by_the_next_delimiter() -> None:
    events = decode(b'{"id":1,"method":' + MOS_HANDSHAKE + MOS_REQUEST)
    assert rejections(events) == [Rejection.NO_CLOSING_BRACE]
    assert Handshake() in events
    assert FrameReceived(MOS_JSON, QUOTED_WITH_CRC) in events


@pytest.mark.parametrize("portion", [1, 7, 4096])
def test_over_long_frame_is_dropped_once(portion: int) -> None:
    sent = b"{" + b"{" * 5000 + b"\n" + MOS_REQUEST
    portions = [sent[start : start + portion] for start in range(0, len(sent), portion)]
    events = decode(*portions)
    assert rejections(events) == [Rejection.TOO_LONG]
    assert events[-1] == FrameReceived(MOS_JSON, QUOTED_WITH_CRC)


@pytest.mark.parametrize(("filling", "accepted"), [(14, True), (15, False)])
def test_length_limit_counts_json_and_metadata(filling: int, accepted: bool) -> None:
    text = json.dumps({"": "x" * filling}, separators=(",", ":")).encode()
    events = decode(text + crc32_hex(text) + b"\n", max_frame_size=29)
    assert isinstance(events[0], FrameReceived) is accepted


def test_noise_in_a_frame_empties_the_buffer_and_a_brace_starts_a_new_frame() -> None:
    assert decode(b'{"half\x80 of it{}\n')[1:] == [FrameReceived(b"{}", LINE)]


def test_what_follows_noise_in_a_frame_is_no_console_input() -> None:
    events = decode(b'{"id":1,"url":"\xc3\xa9","more":true}12345678\n')
    assert rejections(events) == [Rejection.NOT_ASCII]
    assert len(events) == 1


# --- console --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed",
    [
        b"help\n",
        b"help\r\n",
        b"\n",
        b"\n\n\n",
        b"\r",
        b'say "hello"\n',
        b'""\n',
        b'"',
        b'""x',
        b"\x04x\n",
        b"x\x04\n",
        b'\x04"\n',
        b'\x04""\x04\n',
        b"caf\xc3\xa9\n",
        b"\x03\x1b[A\x7f\x00\n",
    ],
)
def test_console_input_passes_unchanged(typed: bytes) -> None:
    # A quote or 0x04 that may yet become a delimiter is held back until the next byte.
    shown = typed.removesuffix(b'"') if typed == b'"' else typed
    assert decode(typed) == ([ConsoleInput(shown)] if shown else [])


def test_each_character_passes_at_once() -> None:
    demultiplexer = LineDemultiplexer()
    for character in (b"h", b"i", b"\n", b"\n", b"}"):
        assert demultiplexer.feed(character) == [ConsoleInput(character)]


def test_console_text_in_front_of_a_frame_goes_to_the_console() -> None:
    assert decode(b'hel{"id":1}\n') == [ConsoleInput(b"hel"), FrameReceived(b'{"id":1}', LINE)]


def test_delimiters_of_rpc_traffic_never_reach_the_console() -> None:
    assert decode(MOS_HANDSHAKE + b'"""' + MOS_REQUEST + b'""""""\n"""' + MOS_REQUEST) == [
        Handshake(),
        EmptyLine(),
        FrameReceived(MOS_JSON, QUOTED_WITH_CRC),
        FrameReceived(MOS_JSON, QUOTED_WITH_CRC),
    ]


def test_empty_line_is_answered_only_to_a_client_that_speaks_rpc() -> None:
    assert decode(b"\n" + b'{"id":1}\n' + b"\n" + b"ls\n" + b"\n") == [
        ConsoleInput(b"\n"),
        FrameReceived(b'{"id":1}', LINE),
        EmptyLine(),
        ConsoleInput(b"ls\n\n"),
    ]


@pytest.mark.parametrize("sent", [b'"""\x04"""', b"\x04\n", b'\n"""\x04\n', b'hi\n\x04"""'])
def test_handshake_is_0x04_alone_in_a_segment(sent: bytes) -> None:
    assert decode(sent)[-1] == Handshake()


@pytest.mark.parametrize("sent", [b'"""\x04\x04"""', b'"""\x04 """', b" \x04\n", b'{\x04"""'])
def test_0x04_among_other_bytes_is_no_handshake(sent: bytes) -> None:
    assert Handshake() not in decode(sent)


def test_a_host_can_tell_answers_from_text_with_braces() -> None:
    demultiplexer = LineDemultiplexer(frames_within_lines=False)
    events = joined(demultiplexer.feed(b'a {"b"} c\n{"id":1}\n'))
    assert events == [ConsoleInput(b'a {"b"} c\n'), FrameReceived(b'{"id":1}', LINE)]


# --- properties -----------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b'"',
        b'""',
        b'"""',
        b"\n",
        b"\r\n",
        b"\x04",
        b"\x80",
        b"\xff\xfe",
        b"x",
        b" ",
        b"help",
        b'{"id":1}',
        b"{}a3a6bf43",
        b"{}a3a6bf44",
        b"y" * 30,
        MOS_HANDSHAKE,
        MOS_REQUEST,
    ]
)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.data())
@example(b'\x04""" {""\xff"""', None)
def test_events_do_not_depend_on_the_portions(sent: bytes, data: st.DataObject | None) -> None:
    cuts = list(range(len(sent)))
    if data is not None:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=20)))
    bounds = [0, *cuts, len(sent)]
    portions = [sent[start:end] for start, end in pairwise(bounds)]
    assert decode(*portions, max_frame_size=64) == decode(sent, max_frame_size=64)


@given(st.lists(st.binary(max_size=100), max_size=20))
def test_random_bytes_never_raise_and_memory_stays_bounded(portions: list[bytes]) -> None:
    demultiplexer = LineDemultiplexer(max_frame_size=64)
    for portion in portions:
        demultiplexer.feed(portion)
        assert len(demultiplexer._frame) <= 64
        assert len(demultiplexer._held) <= 3
        assert not demultiplexer._console


@given(st.lists(PIECES, max_size=20).map(b"".join))
def test_a_handshake_gets_through_after_anything(sent: bytes) -> None:
    # The first one may be spent on ending what came before it; mos repeats it.
    assert Handshake() in decode(sent + MOS_HANDSHAKE + MOS_HANDSHAKE)


@given(
    st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.lists(st.text())),
    st.sampled_from(Delimiter),
    st.booleans(),
)
def test_what_is_encoded_is_decoded_to_the_same(
    members: dict[str, object],
    delimiter: Delimiter,
    with_crc: bool,
) -> None:
    text = json.dumps(members).encode()
    style = ReplyStyle(delimiter, with_crc)
    events = decode(encode_frame(text, style), max_frame_size=1024 * 1024)
    frames = [event for event in events if isinstance(event, FrameReceived)]
    assert frames == [FrameReceived(text, style)]


# --- encoder --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "sent"),
    [
        (QUOTED_WITH_CRC, b'\n"""{}a3a6bf43"""\n'),
        (QUOTED, b'\n"""{}"""\n'),
        (LINE_WITH_CRC, b"\n{}a3a6bf43\n"),
        (LINE, b"\n{}\n"),
    ],
)
def test_answer_is_framed_as_its_request_was(style: ReplyStyle, sent: bytes) -> None:
    assert encode_frame(b"{}", style) == sent


def test_handshake_answer() -> None:
    assert HANDSHAKE_ANSWER == b'\n"""\x04"""'
