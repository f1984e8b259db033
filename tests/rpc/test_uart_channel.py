import json
import re
import zlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc_shim.dispatch import Call, Dispatcher, PendingReply
from rpc_shim.frame import JsonValue
from rpc_shim.framing import Delimiter, ReplyStyle
from rpc_shim.uart import HostOutput, UartChannel

MOS_HANDSHAKE = b'"""\x04"""\n\n'
HANDSHAKE_ANSWER = b'"""\x04"""'


@dataclass
class Board:
    """One boot of an application that echoes its console, with what went over the wire."""

    queue_size: int = 16 * 1024
    to_host: list[bytes] = field(default_factory=list)
    to_firmware: bytearray = field(default_factory=bytearray)
    waiting: list[PendingReply] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.output = HostOutput(self.to_host.append)
        dispatcher = Dispatcher("dev", self.output.write_line)
        dispatcher.register("Ping", lambda _call: "pong")
        dispatcher.register("Talk", self.talk)
        dispatcher.register("Later", lambda call: self.waiting.append(call.defer()))
        self.channel = UartChannel(
            dispatcher, self.output, self.to_firmware.extend, queue_size=self.queue_size
        )

    def talk(self, call: Call) -> JsonValue:
        self.output.write_console(b"half a line")
        self.channel.log("and a log line")
        return call.channel.info

    @property
    def sent(self) -> bytes:
        return b"".join(self.to_host)

    def exchange(self, *portions: bytes) -> bytes:
        """What one turn of the main loop answers to these bytes."""
        self.to_host.clear()
        for portion in portions:
            self.channel.host_bytes(portion)
        self.channel.turn()
        return self.sent


@pytest.fixture
def board() -> Board:
    return Board()


def quoted(frame: str) -> bytes:
    """A frame as `mos` sends it and wants it back."""
    return b'\n"""' + frame.encode() + b"%08x" % zlib.crc32(frame.encode()) + b'"""\n'


def answer_in_quotes(frame: str) -> bytes:
    """The same as an answer where a line has just ended."""
    return quoted(frame).removeprefix(b"\n")


def line(frame: str) -> bytes:
    """A frame as a newer client sends it."""
    return frame.encode() + b"%08x\n" % zlib.crc32(frame.encode())


def in_chunks(data: bytes) -> list[bytes]:
    return [data[start : start + 16] for start in range(0, len(data), 16)]


def test_a_whole_session_of_mos_byte_for_byte(board: Board) -> None:
    assert board.exchange(MOS_HANDSHAKE) == HANDSHAKE_ANSWER + b"\n"
    request = quoted('{"src":"mos","id":2019165903085,"method":"Ping"}')
    answer = answer_in_quotes('{"id":2019165903085,"src":"dev","dst":"mos","result":"pong"}')
    assert board.exchange(b'"""', *in_chunks(request)) == answer
    assert board.exchange(MOS_HANDSHAKE) == HANDSHAKE_ANSWER + b"\n"
    request = quoted('{"src":"mos","id":2033054059294,"method":"No.Such"}')
    answer = answer_in_quotes(
        '{"id":2033054059294,"src":"dev","dst":"mos",'
        '"error":{"code":404,"message":"No handler for No.Such"}}'
    )
    assert board.exchange(b'"""', *in_chunks(request)) == (
        b"rpc: no handler for 'No.Such'\n" + answer
    )
    assert not board.to_firmware


def test_a_newer_client_byte_for_byte(board: Board) -> None:
    request = line('{"jsonrpc": "2.0", "method": "Ping", "id": 1}')
    assert board.exchange(request) == line('{"id":1,"src":"dev","result":"pong"}')
    assert board.exchange(b'{"method":"Ping","id":2}\n') == (
        b'{"id":2,"src":"dev","result":"pong"}\n'
    )
    assert board.exchange(b"\n") == b"\n"
    assert not board.to_firmware


def test_requests_wait_for_a_turn_and_console_input_does_not(board: Board) -> None:
    board.channel.host_bytes(b'he{"id":1,"method":"Ping"}\nlp\n')
    assert board.to_firmware == b"help\n"
    assert board.sent == b""
    board.channel.turn()
    assert board.sent == b'{"id":1,"src":"dev","result":"pong"}\n'
    assert board.exchange() == b""


def test_answer_is_one_write_behind_whatever_stands_on_the_line(board: Board) -> None:
    board.exchange(quoted('{"id":1,"method":"Talk"}'))
    assert board.to_host == [
        b"half a line",
        b"\nand a log line\n",
        answer_in_quotes('{"id":1,"src":"dev","result":"UART2"}'),
    ]


def test_answer_that_comes_later_keeps_its_requests_style(board: Board) -> None:
    assert board.exchange(quoted('{"id":1,"method":"Later"}')) == b""
    board.exchange(b'{"id":2,"method":"Ping"}\n')
    board.to_host.clear()
    board.waiting[0].result(None)
    assert board.sent == answer_in_quotes('{"id":1,"src":"dev","result":null}')


def test_rejected_frame_is_logged_in_the_turn_and_not_answered(board: Board) -> None:
    sent = board.exchange(b'{"id":1,"method":"Ping"}00000000\n')
    assert re.fullmatch(
        rb"rpc: frame of 24 bytes dropped: its CRC-32 says 0x00000000, computed 0x[0-9a-f]{8}\n",
        sent,
    )


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ('"id":18446744073709551616', "the number 18446744073709551616 does not fit 64 bits"),
        ('"id":-9223372036854775809', "the number -9223372036854775809 does not fit 64 bits"),
        ('"id":1,"id":2', "the key 'id' is there twice"),
        ('"id":1,"id":1', "the key 'id' is there twice"),
        ('"id":1,"id":2,"id":3', "the key 'id' is there twice"),
        ('"id":"a","src":"me","id":null', "the key 'id' is there twice"),
        ('"id":1e999', "the number 1e999 is too large"),
    ],
)
def test_a_request_without_a_usable_id_is_logged_and_not_answered(
    members: str, problem: str, board: Board
) -> None:
    sent = board.exchange(f'{{{members},"method":"Ping"}}\n'.encode())
    assert sent == f"rpc: request refused: {problem}\n".encode()


def test_nothing_survives_the_boot(board: Board) -> None:
    board.exchange(b'{"id":1,"method":"Later"}\n')
    board.channel.host_bytes(b'{"id":2,"method":"Ping"}\n{"id":3,"meth')
    board.channel.close()
    board.waiting[0].result("too late")
    board.channel.host_bytes(b'od":"Ping"}\nhelp\n')
    board.channel.turn()
    board.channel.log("from the grave")
    assert board.sent == b""
    assert not board.to_firmware


def test_requests_that_arrive_in_a_turn_wait_for_the_next(board: Board) -> None:
    request = b'{"id":1,"method":"Ping"}\n'
    dispatcher = Dispatcher("dev", board.output.write_line)
    channel = UartChannel(dispatcher, board.output, board.to_firmware.extend)
    dispatcher.register("Ping", lambda _call: channel.host_bytes(request))
    channel.host_bytes(request)
    channel.turn()
    assert len(board.to_host) == 1
    channel.turn()
    assert len(board.to_host) == 2


@pytest.mark.parametrize("flood", [b'{"id":1,"method":"Ping"}\n', MOS_HANDSHAKE, b"{\n"])
def test_a_main_loop_that_hangs_is_not_flooded(flood: bytes) -> None:
    board = Board(queue_size=1000)
    for _ in range(1000):
        board.channel.host_bytes(flood)
    assert board.channel._queued_size <= 1000
    assert board.channel.dropped > 900
    board.channel.turn()
    assert board.sent.startswith(b"rpc: %d requests dropped" % board.channel.dropped)
    assert board.channel._queued_size == 0
    answer = board.exchange(b'{"id":1,"method":"Ping"}\n')
    assert answer.removeprefix(b"\n") == b'{"id":1,"src":"dev","result":"pong"}\n'


# --- the wire to the host -------------------------------------------------------------------


def test_log_lines_start_on_a_line_of_their_own() -> None:
    sent: list[bytes] = []
    output = HostOutput(sent.append)
    output.write_line("first")
    output.write_console(b"prompt> ")
    output.write_line("second")
    output.write_console(b"")
    output.write_line("third")
    output.write_handshake_answer()
    output.write_line("fourth")
    output.write_console(b"prompt> ")
    output.write_frame(b"{}", ReplyStyle(Delimiter.QUOTES, with_crc=False))
    output.write_frame(b"{}", ReplyStyle(Delimiter.NEWLINE, with_crc=False))
    assert (
        b"".join(sent)
        == b'first\nprompt> \nsecond\nthird\n"""\x04"""\nfourth\nprompt> \n"""{}"""\n{}\n'
    )


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("a\nb\r\x1b[1m", rb"a\x0ab\x0d\x1b[1m"),
        ("caf\u00e9 \U0001f600 \ud800", rb"caf\xe9 \U0001f600 \ud800"),
        ('no handler for """{', b"no handler for '''{"),
        ("{}", b" {}"),
        ("", b""),
    ],
)
def test_log_lines_are_harmless(text: str, sent: bytes) -> None:
    output: list[bytes] = []
    HostOutput(output.append).write_line(text)
    assert output == [sent + b"\n"]


def read_as_mos(received: bytes) -> list[JsonValue]:
    """Frames as `mos` finds them in a device's output; it gives up at a damaged one.

    A frame starts with an opening brace right behind a delimiter and reaches to the next delimiter.
    """
    frames: list[JsonValue] = []
    delimiter = re.compile(rb'"""|\n')
    position = 0
    while start := delimiter.search(received, position):
        position = start.end()
        if received[position : position + 1] != b"{":
            continue
        end = delimiter.search(received, position)
        assert end is not None
        payload, brace, crc = received[position : end.start()].strip().rpartition(b"}")
        assert zlib.crc32(payload + brace) == int(crc, 16)
        frames.append(json.loads(payload + brace))
        position = end.end()
    return frames


@given(
    st.lists(
        st.one_of(
            st.text(st.sampled_from('ab"{}\n\u00e9')),
            st.binary(max_size=4).map(lambda data: data.replace(b"{", b"")),
            st.integers(0, 9),
        ),
        max_size=20,
    )
)
def test_mos_finds_every_answer_whatever_is_logged(said: list[str | bytes | int]) -> None:
    sent: list[bytes] = []
    output = HostOutput(sent.append)
    for item in said:
        if isinstance(item, str):
            output.write_line(item)
        elif isinstance(item, bytes):
            output.write_console(item)
        else:
            style = ReplyStyle(Delimiter.QUOTES, with_crc=True)
            output.write_frame(b'{"n":%d}' % item, style)
    answers = [{"n": item} for item in said if isinstance(item, int)]
    assert read_as_mos(b"".join(sent)) == answers


SENT = st.one_of(
    st.tuples(st.just("console"), st.binary(max_size=6) | st.sampled_from([b"{", b'{"a":1}\n'])),
    st.tuples(st.just("log"), st.sampled_from([b"plain", b"ota: {url}", b'"""{'])),
    st.tuples(st.sampled_from(["frame", "handshake", "empty line"]), st.just(b"")),
)


@given(st.lists(SENT, max_size=20))
def test_a_terminal_gets_the_console_text_and_nothing_else(sent: list[tuple[str, bytes]]) -> None:
    everything: list[bytes] = []
    terminal: list[bytes] = []
    output = HostOutput(everything.append, terminal.append)
    alone: list[bytes] = []
    without_rpc = HostOutput(alone.append)
    for kind, data in sent:
        match kind:
            case "console":
                output.write_console(data)
                without_rpc.write_console(data)
            case "log":
                output.write_line(data.decode())
                without_rpc.write_line(data.decode())
            case "frame":
                output.write_frame(b'{"id":1}', ReplyStyle(Delimiter.QUOTES, with_crc=True))
            case "handshake":
                output.write_handshake_answer()
            case _:
                output.write_empty_line()
    assert b"".join(terminal) == b"".join(alone)
    assert len(everything) == sum(1 for kind, data in sent if kind != "console" or data)
