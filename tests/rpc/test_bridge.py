import gc
import json
import re
import weakref
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.clock import NS_PER_MS, Clock
from rpc_shim.bridge import FIRST_ID, HOST_SILENCE_NS, UartBridge
from rpc_shim.dispatch import Channel, Reply
from rpc_shim.frame import JsonValue
from rpc_shim.framing import FrameReceived, LineDemultiplexer

TCP = Channel("TCP", "127.0.0.1:5000")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=6,
)
IDS = st.integers(1, 3) | st.sampled_from(["1", "2", "a"]) | st.just(FIRST_ID)


@dataclass
class Bench:
    """A bridge, the lines that the firmware got, and what each client got."""

    max_frame_size: int = 4096
    max_waiting: int = 256
    queue_size: int = 64 * 1024
    uart: list[bytes] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.bridge = UartBridge(
            "dev",
            self.log.append,
            self.uart.append,
            self.clock,
            max_frame_size=self.max_frame_size,
            max_waiting=self.max_waiting,
            queue_size=self.queue_size,
        )

    def ask(self, request: str | dict[str, JsonValue]) -> list[JsonValue]:
        """Hand a request in; the list gets the answers to it."""
        answers: list[JsonValue] = []
        self.bridge.handle(as_bytes(request), into(answers), TCP)
        return answers

    def turns(self) -> list[dict[str, JsonValue]]:
        """Turns until nothing comes any more; the requests that the firmware got in them."""
        seen = len(self.uart)
        before = -1
        while before != len(self.uart):
            before = len(self.uart)
            self.bridge.turn()
        return [request_in(line) for line in self.uart[seen:]]


def into(answers: list[JsonValue]) -> Reply:
    return lambda answer: answers.append(json.loads(answer))


def as_bytes(request: str | dict[str, JsonValue]) -> bytes:
    return (request if isinstance(request, str) else json.dumps(request)).encode()


def request_in(line: bytes) -> dict[str, JsonValue]:
    """The JSON of a line, when it is one line of ASCII with a right CRC."""
    found = re.fullmatch(rb"([ -~]*\})([0-9a-f]{8})\n", line)
    assert found is not None, line
    assert int(found[2], 16) == zlib.crc32(found[1])
    members = json.loads(found[1])
    assert isinstance(members, dict)
    return members


def quoted(members: dict[str, JsonValue]) -> bytes:
    frame = as_bytes(members)
    return b'\n"""' + frame + b"%08x" % zlib.crc32(frame) + b'"""\n'


def line(members: dict[str, JsonValue]) -> bytes:
    frame = as_bytes(members)
    return b"\n" + frame + b"%08x\n" % zlib.crc32(frame)


def bare_line(members: dict[str, JsonValue]) -> bytes:
    return b"\n" + as_bytes(members) + b"\n"


FRAMINGS = [quoted, line, bare_line]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_request_goes_out_byte_for_byte_with_another_id(bench: Bench) -> None:
    bench.ask(
        '{\n "id": 7,\n "jsonrpc": "2.0", "method": "A.B", "params": {"\\u00fc": [1.5, "\\/"]}}'
    )

    bench.bridge.turn()

    frame = b'{"id":4503599627370496,"jsonrpc":"2.0","method":"A.B","params":{"\\u00fc":[1.5,"/"]}}'
    assert bench.uart == [frame + b"%08x\n" % zlib.crc32(frame)]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("client_id", [7, -1, 2**64 - 1, "7", "x" * 255])
def test_an_answer_comes_back_with_the_clients_id(
    bench: Bench, framing: Callable[[dict[str, JsonValue]], bytes], client_id: int | str
) -> None:
    answers = bench.ask({"id": client_id, "src": "me", "method": "A"})
    [request] = bench.turns()

    answer: dict[str, JsonValue] = {"id": request["id"], "src": "fw", "dst": "me", "result": {}}
    bench.bridge.uart_output(framing(answer))
    bench.bridge.uart_output(framing(answer))

    assert answers == [answer | {"id": client_id}]
    assert isinstance(answers[0], dict)
    assert type(answers[0]["id"]) is type(client_id)


@pytest.mark.parametrize("outcome", [{"error": {"code": 5, "message": "m"}}, {"result": None}, {}])
def test_errors_and_empty_answers_come_back_as_they_are(
    bench: Bench, outcome: dict[str, JsonValue]
) -> None:
    answers = bench.ask({"id": 1, "method": "A"})
    [request] = bench.turns()

    bench.bridge.uart_output(line({"id": request["id"], "tag": "t"} | outcome))

    assert answers == [{"id": 1, "tag": "t"} | outcome]


def test_a_notification_goes_through_and_nobody_waits(bench: Bench) -> None:
    bench = Bench(max_waiting=1)
    waiting = bench.ask({"id": 1, "method": "A"})
    nothing = bench.ask({"method": "B", "params": {"x": 1}})

    requests = bench.turns()

    assert requests == [
        {"id": FIRST_ID, "method": "A"},
        {"method": "B", "params": {"x": 1}},
    ]
    bench.bridge.uart_output(line({"id": FIRST_ID, "result": 1}))
    assert (waiting, nothing) == ([{"id": 1, "result": 1}], [])


@pytest.mark.parametrize(
    ("request_text", "address"),
    [
        ('{"id":1,"src":"me","tag":"t"}', {"id": 1, "dst": "me", "tag": "t"}),
        ('{"id":"1","method":5}', {"id": "1"}),
        ('{"id":1,"method":"A","params":3}', {"id": 1}),
        ('{"id":1,"method":"A","params":{"a":1,"a":2}}', {"id": 1}),
        ('{"id":1,"method":"A","params":[NaN]}', {"id": 1}),
    ],
)
def test_a_malformed_request_is_answered_and_not_passed_on(
    bench: Bench, request_text: str, address: dict[str, JsonValue]
) -> None:
    [answer] = bench.ask(request_text)

    assert isinstance(answer, dict)
    error = answer.pop("error")
    assert isinstance(error, dict)
    assert error["code"] == 400
    assert answer == {"src": "dev"} | address
    assert bench.turns() == []
    assert len(bench.log) == 1


@pytest.mark.parametrize(
    "request_text",
    ["", "{", "[]", "null", '{"id":null,"method":"A"}', '{"id":true,"method":"A"}', '{"a":"\x80"}'],
)
def test_what_says_not_whom_to_answer_is_only_logged(bench: Bench, request_text: str) -> None:
    assert bench.ask(request_text) == []
    assert bench.turns() == []
    assert len(bench.log) == 1


def test_a_request_longer_than_the_firmware_takes_is_an_error() -> None:
    bench = Bench(max_frame_size=100)

    def request_of(size: int) -> str:
        """A request of that many bytes with the bridge's id and the CRC."""
        rest = len(f'{{"id":{FIRST_ID},"method":""}}') + 8
        return f'{{"id":1,"method":"{"M" * (size - rest)}"}}'

    fits, too_long = bench.ask(request_of(100)), bench.ask(request_of(101))

    assert fits == []
    [answer] = too_long
    assert isinstance(answer, dict)
    assert isinstance(answer["error"], dict)
    assert answer["error"]["code"] == 400
    assert "101 bytes" in str(answer["error"]["message"])
    assert "takes 100" in str(answer["error"]["message"])
    bench.bridge.turn()
    assert len(bench.uart) == 1
    assert len(bench.uart[0]) == 101, "the frame and its newline"


def test_one_line_goes_out_in_a_turn(bench: Bench) -> None:
    for number in range(3):
        bench.ask({"id": number, "method": "A"})
    assert bench.uart == []

    for count in (1, 2, 3, 3):
        bench.bridge.turn()
        assert len(bench.uart) == count


def test_the_oldest_request_is_given_up_when_too_many_wait() -> None:
    bench = Bench(max_waiting=2)
    first, second, third = (bench.ask({"id": 1, "method": name}) for name in "ABC")

    [given_up] = first
    assert isinstance(given_up, dict)
    assert given_up["id"] == 1
    assert isinstance(given_up["error"], dict)
    assert given_up["error"]["code"] == -1
    for request in bench.turns():
        bench.bridge.uart_output(line({"id": request["id"], "result": request["method"]}))
    assert (len(first), second, third) == (
        1,
        [{"id": 1, "result": "B"}],
        [{"id": 1, "result": "C"}],
    )


def test_requests_that_do_not_fit_in_the_queue_are_refused_and_room_comes_back() -> None:
    request: dict[str, JsonValue] = {"id": 1, "method": "A"}
    size = len(f'{{"id":{FIRST_ID},"method":"A"}}') + 8 + 1
    bench = Bench(queue_size=2 * size)

    for _ in range(3):
        waiting = [bench.ask(request) for _ in range(2)]
        [refusal] = bench.ask(request)
        assert waiting == [[], []]
        assert isinstance(refusal, dict)
        assert isinstance(refusal["error"], dict)
        assert refusal["error"]["code"] == -1
        assert len(bench.turns()) == 2


@pytest.mark.parametrize(
    "output",
    [
        b'{"id":%d,"result":1}00000000\n' % FIRST_ID,
        b'"""{"id":%d,"result":1}12345678"""\n' % FIRST_ID,
        b'{"id":%d,"result":\n' % FIRST_ID,
        b'{"id":%d,"result":]}\n' % FIRST_ID,
        b'{"id":%d,"result":"\xff"}\n' % FIRST_ID,
        b'{"id":%d,"result":"%s"}\n' % (FIRST_ID, b"x" * 65536),
    ],
)
def test_a_broken_answer_is_dropped_with_a_line_of_log(bench: Bench, output: bytes) -> None:
    answers = bench.ask({"id": 1, "method": "A"})
    bench.bridge.turn()

    bench.bridge.uart_output(b"\n" + output)

    assert answers == []
    assert len(bench.log) == 1
    bench.bridge.uart_output(line({"id": FIRST_ID, "result": 2}))
    assert answers == [{"id": 1, "result": 2}]
    bench.bridge.uart_output(b"\n" + output)
    assert len(bench.log) == 1, "nobody waits: it was no answer"


@pytest.mark.parametrize(
    "output",
    [
        line({"id": 1, "result": "for a client on the serial line"}),
        line({"id": "4503599627370496", "result": "another type"}),
        line({"id": None, "result": 1}),
        line({"result": 1}),
        line({"id": FIRST_ID, "method": "A"}),
        b'\nlog {"id":4503599627370496,"result":1}\n',
        b"\n[4503599627370496]\n",
    ],
    ids=["other id", "text", "null", "no id", "echo", "in a line of log", "no object"],
)
def test_what_is_no_answer_to_the_bridge_is_left_alone(bench: Bench, output: bytes) -> None:
    answers = bench.ask({"id": 1, "method": "A"})
    bench.bridge.turn()

    bench.bridge.uart_output(output)

    assert (answers, bench.log) == ([], [])


def test_no_line_goes_out_in_the_middle_of_a_frame_from_the_serial_line(bench: Bench) -> None:
    bench.ask({"id": 1, "method": "A"})
    for portion in (b'\n"""{"id":1,', b'"method":"B"}', b'"', b'"'):
        bench.bridge.host_bytes(portion)
        bench.clock.advance_to(bench.clock.now_ns + HOST_SILENCE_NS - NS_PER_MS)
        bench.bridge.turn()
    assert b"".join(bench.uart) == b'\n"""{"id":1,"method":"B"}""'

    bench.bridge.host_bytes(b'"')
    bench.bridge.turn()

    assert request_in(bench.uart[-1])["method"] == "A"


def test_no_line_goes_out_behind_a_frame_that_is_too_long(bench: Bench) -> None:
    bench.ask({"id": 1, "method": "A"})
    bench.bridge.host_bytes(b"{" + b"x" * 5000)
    bench.bridge.turn()
    assert len(bench.uart) == 1

    bench.bridge.host_bytes(b"\n")
    bench.bridge.turn()

    assert request_in(bench.uart[-1])["method"] == "A"


def test_text_on_the_serial_line_holds_nothing_up(bench: Bench) -> None:
    bench.ask({"id": 1, "method": "A"})
    bench.bridge.host_bytes(b'"""\x04"""\n\nhel')

    bench.bridge.turn()

    assert request_in(bench.uart[-1])["method"] == "A"


def test_a_client_that_vanishes_in_the_middle_of_a_frame_holds_nothing_up(bench: Bench) -> None:
    bench.ask({"id": 1, "method": "A"})
    bench.ask({"id": 2, "method": "B"})
    bench.bridge.host_bytes(b'{"id":1,')
    bench.clock.advance_to(bench.clock.now_ns + HOST_SILENCE_NS)

    bench.bridge.turn()
    bench.bridge.turn()

    assert bench.uart[:2] == [b'{"id":1,', b"\n"]
    assert [request_in(line)["method"] for line in bench.uart[2:]] == ["A", "B"]


def test_nothing_happens_after_the_end_of_the_boot(bench: Bench) -> None:
    answers = bench.ask({"id": 1, "method": "A"})
    bench.bridge.turn()
    queued = bench.ask({"id": 2, "method": "B"})

    bench.bridge.close()

    late = bench.ask({"id": 3, "method": "C"})
    malformed = bench.ask("{]")
    bench.bridge.host_bytes(b"x")
    bench.bridge.uart_output(line({"id": FIRST_ID, "result": 1}))
    bench.bridge.turn()
    assert len(bench.uart) == 1
    assert (answers, queued, late, malformed, bench.log) == ([], [], [], [], [])


def test_the_end_of_the_boot_lets_go_of_those_who_wait(bench: Bench) -> None:
    def reply(_answer: bytes) -> None:
        """Never called."""

    held = weakref.ref(reply)
    bench.bridge.handle(b'{"id":1,"method":"A"}', reply, TCP)
    del reply

    bench.bridge.close()

    gc.collect()
    assert held() is None


# --- any clients, any order, any portions ----------------------------------------------------

GARBAGE = st.sampled_from(
    [
        b"",
        b"ready\n",
        b"half a line",
        b'say "hi" {"id":4503599627370496,"result":0}\n',
        b'\n"""\x04"""',
        b"\n{broken\n",
        b'\n{"id":4503599627370496,"result":0}00000000\n',
        b"\n\x80\xff{\n",
        line({"id": 1, "result": "for the serial line"}),
        quoted({"id": FIRST_ID - 1, "result": "for nobody"}),
        quoted({"id": FIRST_ID, "method": "Echoed"}),
    ]
)


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    places = draw(st.lists(st.integers(0, len(data)), max_size=12).map(sorted))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.data())
def test_each_client_gets_its_own_answer_whatever_the_order_and_the_portions(
    data: st.DataObject,
) -> None:
    bench = Bench()
    wanted = data.draw(st.lists(st.tuples(IDS, JSON_VALUES), min_size=1, max_size=8))
    answers = [
        bench.ask({"id": client_id, "method": "Echo", "params": [value]})
        for client_id, value in wanted
    ]
    requests = bench.turns()
    assert [request["params"] for request in requests] == [[value] for _, value in wanted]
    output = b""
    for request in data.draw(st.permutations(requests)):
        framing = data.draw(st.sampled_from(FRAMINGS))
        answer = framing({"id": request["id"], "result": request["params"]})
        output += data.draw(GARBAGE) + answer
    output += data.draw(GARBAGE)

    for portion in data.draw(cuts(output)):
        bench.bridge.uart_output(portion)

    expected = [[{"id": client_id, "result": [value]}] for client_id, value in wanted]
    assert answers == expected
    assert [type(got["id"]) for [got] in answers if isinstance(got, dict)] == [
        type(client_id) for client_id, _ in wanted
    ]


@given(st.lists(st.binary(max_size=60) | GARBAGE, max_size=8))
def test_no_output_of_the_firmware_breaks_the_bridge(portions: list[bytes]) -> None:
    bench = Bench()
    answers = bench.ask({"id": "x", "method": "A"})
    bench.bridge.turn()

    for portion in portions:
        bench.bridge.uart_output(portion)
    bench.bridge.uart_output(b'\n"""' + line({"id": FIRST_ID, "result": 1}))

    assert answers[-1:] == [{"id": "x", "result": 1}]


START_OF_OURS = b'{"id":45'


@given(
    st.lists(
        st.tuples(st.just("host"), st.sampled_from([b"{", b"}\n", b'"""', b"x", b"\n", b"\xff"]))
        | st.tuples(st.just("ask"), st.just(b""))
        | st.tuples(st.just("turn"), st.just(b"")),
        max_size=30,
    )
)
def test_the_serial_lines_bytes_arrive_whole_and_in_order(steps: list[tuple[str, bytes]]) -> None:
    bench = Bench()
    asked = 0
    for step, data in steps:
        if step == "host":
            bench.bridge.host_bytes(data)
        elif step == "ask":
            bench.ask({"id": 1, "method": "A"})
            asked += 1
        else:
            bench.bridge.turn()
    bench.clock.advance_to(HOST_SILENCE_NS)
    for _ in range(asked):
        bench.bridge.turn()

    sent = b"".join(bench.uart)
    ours = [one for one in bench.uart if START_OF_OURS in one]
    theirs = b"".join(data for step, data in steps if step == "host")
    rest = b"".join(one for one in bench.uart if START_OF_OURS not in one)
    assert len(ours) == asked
    assert rest in {theirs, theirs + b"\n"}
    received = LineDemultiplexer().feed(sent)
    frames = [event.json for event in received if isinstance(event, FrameReceived)]
    assert [frame for frame in frames if START_OF_OURS in frame] == [one[:-9] for one in ours]
