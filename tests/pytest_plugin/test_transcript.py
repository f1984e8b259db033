"""What went over the UART, as people read it."""

from hypothesis import given
from hypothesis import strategies as st

from otasim.pytest_plugin.transcript import UartTranscript
from rpc_shim.framing import Delimiter, ReplyStyle, encode_frame

STYLE = ReplyStyle(Delimiter.QUOTES, with_crc=True)


def transcript(at_s: float = 1.5) -> UartTranscript:
    return UartTranscript(lambda: at_s)


def test_frames_are_shown_without_what_is_around_them() -> None:
    uart = transcript()
    uart.sent(encode_frame(b'{"id":1,"method":"A.B","params":{"x":1}}', STYLE)[1:])
    uart.received(encode_frame(b'{"id":1,"src":"me","result":{"y":[2]}}', STYLE)[1:])
    uart.sent(encode_frame(b'{"id":2,"method":"C"}', STYLE))
    uart.received(encode_frame(b'{"id":2,"error":{"code":404}}', STYLE))
    assert uart.text().splitlines() == [
        '    1.500 s > A.B {"x": 1}',
        '    1.500 s < {"y": [2]}',
        "    1.500 s > C",
        '    1.500 s < error {"code": 404}',
    ]


def test_frames_that_are_no_calls_are_shown_as_they_are() -> None:
    uart = transcript()
    uart.sent(b'{"id": 1}\n{"id": \n{x}\n')
    uart.received(b"{1}\n")
    assert [line[12:] for line in uart.text().splitlines()] == [
        '> {"id": 1}',
        "> frame of 7 bytes dropped: it has no closing brace",
        "> {x}",
        "< {1}",
    ]


def test_console_text_comes_in_lines_and_what_is_typed_is_shown() -> None:
    uart = transcript()
    uart.received(b"boot: sta")
    uart.received(b"rting\r\n\x1b[1mrea")
    uart.sent(b"help\n")
    assert [line[12:] for line in uart.text().splitlines()] == [
        "| boot: starting",
        "> types 'help\\n'",
        "| \\x1b[1mrea",
    ]


def test_long_things_are_cut_short() -> None:
    uart = transcript()
    for number in range(305):
        uart.received(b"%d\n" % number)
    uart.received(b"x" * 1000 + b"\n")
    lines = uart.text().splitlines()
    assert lines[0] == "(6 lines before are left out)"
    assert lines[1].endswith("| 6")
    assert lines[-1].endswith("xxx...")
    assert len(lines) == 301


def test_nothing_is_said() -> None:
    assert transcript().text() == "nothing"


@given(st.lists(st.tuples(st.booleans(), st.binary())))
def test_any_bytes_can_be_shown(traffic: list[tuple[bool, bytes]]) -> None:
    uart = transcript()
    for is_sent, data in traffic:
        (uart.sent if is_sent else uart.received)(data)
    assert all(line.isascii() and line.isprintable() for line in uart.text().split("\n"))
