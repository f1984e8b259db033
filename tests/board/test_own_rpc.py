"""Firmware with its own RPC service, on each engine: by itself, and with a bridge to its UART."""

import json
import re
import select
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import firmware
from otasim.engines import EMBEDDED, engine_factory
from platforms.clock import NS_PER_MS
from platforms.devices.reset_cause import ResetCause
from platforms.machine import EntryPoint, Machine
from platforms.storage import in_memory
from rpc_shim.bridge import HOST_SILENCE_NS, UartBridge
from rpc_shim.bundle.image_file import load_image
from rpc_shim.dispatch import Channel
from rpc_shim.frame import JsonValue
from rpc_shim.framing import FrameReceived, LineDemultiplexer
from rpc_shim.links.pty import PtyLink
from tests.rpc.mos import MOS, mos_environment, needs_mos

SLOT = 0x0801_0000
INTERNAL_FLASH = 0x0800_0000
STEP_NS = NS_PER_MS
FRAME_SIZE = 512
HTTP = Channel("HTTP", "127.0.0.1:5000")


class Station:
    """A board whose UART is the firmware's, with a bridge to it: the machine's `BoardSoftware`."""

    def __init__(self, engine: str) -> None:
        storage = in_memory()
        self._image = load_image(firmware.path("own-rpc-1.0")).data
        offset = SLOT - INTERNAL_FLASH
        storage.internal[offset : offset + len(self._image)] = self._image
        self.machine = Machine(engine_factory(engine), storage)
        self.machine.software = self
        self.machine.uart_output = self._uart_output
        self.output = bytearray()
        self.log: list[str] = []
        self.bridge: UartBridge | None = None
        self.machine.power_on()
        self.run_until(b"ready\n")

    def boot(self, _cause: ResetCause) -> EntryPoint:
        stack_pointer, entry = (
            int.from_bytes(self._image[place : place + 4], "little") for place in (0, 4)
        )
        return EntryPoint(SLOT, stack_pointer, entry)

    def application_started(self) -> None:
        self.bridge = UartBridge(
            "board", self.log.append, self._to_firmware, self.machine.clock, max_frame_size=512
        )

    def turn(self) -> None:
        assert self.bridge is not None
        self.bridge.turn()

    def application_ended(self) -> None:
        if self.bridge is not None:
            self.bridge.close()
            self.bridge = None

    def run(self, duration_ns: int) -> None:
        self.machine.run_until(self.machine.clock.now_ns + duration_ns)

    def run_until(self, expected: bytes, limit_ns: int = 500 * NS_PER_MS) -> None:
        deadline_ns = self.machine.clock.now_ns + limit_ns
        while expected not in self.output:
            assert self.machine.clock.now_ns < deadline_ns, bytes(self.output)
            self.run(STEP_NS)

    def exchange(self, *portions: bytes, duration_ns: int = 60 * NS_PER_MS) -> bytes:
        """What the firmware says to these bytes from the serial line."""
        self.output.clear()
        for portion in portions:
            self.serial(portion)
            self.run(STEP_NS)
        self.run(duration_ns)
        return bytes(self.output)

    def serial(self, data: bytes) -> None:
        """Bytes from a client on the serial line."""
        assert self.bridge is not None
        self.bridge.host_bytes(data)

    def ask(self, request: dict[str, JsonValue]) -> list[JsonValue]:
        """Hand a request in to the bridge; the list gets the answer to it."""
        assert self.bridge is not None
        answers: list[JsonValue] = []
        self.bridge.handle(json.dumps(request).encode(), partial(_keep, answers), HTTP)
        return answers

    def _to_firmware(self, data: bytes) -> None:
        assert self.machine.engine.uart_input(data) == len(data)

    def _uart_output(self, data: bytes) -> None:
        self.output += data
        if self.bridge is not None:
            self.bridge.uart_output(data)


def _keep(answers: list[JsonValue], answer: bytes) -> None:
    answers.append(json.loads(answer))


@pytest.fixture
def station(engine: str) -> Iterator[Station]:
    made = Station(engine)
    yield made
    made.machine.engine.close()


@pytest.fixture(scope="module")
def lasting_station() -> Iterator[Station]:
    """One board for many examples."""
    made = Station(EMBEDDED)
    yield made
    made.machine.engine.close()


def with_crc(frame: bytes) -> bytes:
    return frame + b"%08x" % zlib.crc32(frame)


def quoted(frame: bytes) -> bytes:
    """As `mos` sends it."""
    return b'\n"""' + with_crc(frame) + b'"""\n'


def in_chunks(data: bytes) -> list[bytes]:
    return [data[start : start + 16] for start in range(0, len(data), 16)]


def frames_in(output: bytes) -> list[JsonValue]:
    events = LineDemultiplexer(64 * 1024, frames_within_lines=False).feed(output)
    return [json.loads(event.json) for event in events if isinstance(event, FrameReceived)]


# --- the firmware by itself ------------------------------------------------------------------


def test_a_session_of_mos_byte_for_byte(station: Station) -> None:
    handshake = b'"""\x04"""\n\n'
    assert station.exchange(handshake).startswith(b'\n"""\x04"""')
    request = b'{"src":"mos","id":2019165903085,"method":"RPC.Ping"}'
    answer = b'{"id":2019165903085,"src":"own-rpc","dst":"mos","result":{"channel_info":"UART2"}}'
    assert station.exchange(b'"""', *in_chunks(quoted(request))) == quoted(answer)
    request = b'{"id":"a\\u00fc\\"","tag":"t","method":"No.\\n"}'
    answer = (
        b'{"id":"a\\u00fc\\"","src":"own-rpc","tag":"t",'
        b'"error":{"code":404,"message":"No handler for No.\\n"}}'
    )
    assert station.exchange(quoted(request)) == b"\n" + quoted(answer)


def test_a_client_that_reads_lines(station: Station) -> None:
    echo = b'{"params": [ 1.50, {"a" :"\\u00fc"} ], "id":-7 ,"method":"Echo"}'
    answer = b'{"id":-7,"src":"own-rpc","result":[ 1.50, {"a" :"\\u00fc"} ]}'
    assert station.exchange(echo + b"\n") == b"\n" + answer + b"\n"
    assert station.exchange(with_crc(echo) + b"\r\n") == b"\n" + with_crc(answer) + b"\n"
    assert station.exchange(b'"""' + echo + b'"""') == b'\n"""' + answer + b'"""\n'
    assert station.exchange(b'{"method":"Echo","id":1}\n') == (
        b'\n{"id":1,"src":"own-rpc","result":null}\n'
    )
    assert station.exchange(b'{"method":"Echo","id":1,"args":{}}\n') == (
        b'\n{"id":1,"src":"own-rpc","result":{}}\n'
    )


def test_what_it_says_of_itself(station: Station) -> None:
    station.run(2_000 * NS_PER_MS)
    [listed, info] = frames_in(
        station.exchange(b'{"id":1,"method":"RPC.List"}\n{"id":2,"method":"Sys.GetInfo"}\n')
    )
    assert listed == {
        "id": 1,
        "src": "own-rpc",
        "result": ["Echo", "RPC.List", "RPC.Ping", "Sys.GetInfo"],
    }
    assert info == {
        "id": 2,
        "src": "own-rpc",
        "result": {
            "id": "own-rpc",
            "app": "own-rpc",
            "fw_version": "1.0",
            "fw_id": "20260111-000000/v1.0",
            "uptime": 2,
            "answered_by": "firmware",
        },
    }


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b'{"id":1,"method":"Echo"}00000000\n', "wrong CRC"),
        (b'"""{"id":1,"method":"Echo"}1"""', "wrong CRC"),
        (b'{"id":1,"method":"Echo"}trailing\n', "wrong CRC"),
        (b'{"id":1,"method":"Echo"\n', "not JSON"),
        (b'{"id":1,"method":"Echo","params":{"a":tru}}\n', "not JSON"),
        (b'{"id":1,"method":"Echo","params":' + b"[" * 17 + b"]" * 17 + b"}\n", "not JSON"),
        (b'{"id":1,"result":{}}\n', "no request"),
        (b'{"id":1,"method":5}\n', "no request"),
        (b'{"id":null,"method":"Echo"}\n', "its id is no number or string"),
        (b'{"id":1,"method":"\xc3\xbc"}\n', "not ASCII"),
        (b'{"id":1,"x":"' + b"x" * FRAME_SIZE + b'"}\n', "too long"),
        (b'{"x":"' + b"x" * 3000 + b'{"id":1,"method":"Echo"}\n', "too long"),
    ],
)
def test_a_bad_frame_is_dropped_and_told(station: Station, sent: bytes, reason: str) -> None:
    assert station.exchange(sent) == f"rpc: frame dropped: {reason}\n".encode()
    assert station.exchange(b'{"id":2,"method":"Echo"}\n') == (
        b'\n{"id":2,"src":"own-rpc","result":null}\n'
    )


def test_a_frame_of_exactly_the_limit_is_answered(station: Station) -> None:
    frame = b'{"id":1,"method":"Echo","params":["' + b"x" * 466 + b'"]}'
    assert len(with_crc(frame)) == FRAME_SIZE
    [answer] = frames_in(station.exchange(with_crc(frame) + b"\n"))
    assert answer == {"id": 1, "src": "own-rpc", "result": ["x" * 466]}


def test_names_are_compared_whole(station: Station) -> None:
    error = b'"error":{"code":404,"message":"No handler for %s"}'
    for name in (b"Ech", b"Echoes", b"echo", b"\\u0045cho", b""):
        request = b'{"id":1,"method":"%s","params":{"x":1}}\n' % name
        assert station.exchange(request) == b'\n{"id":1,"src":"own-rpc",%s}\n' % (error % name)
    request = b'{"id":1,"paramsx":1,"param":2,"x":{"params":3},"method":"Echo"}\n'
    assert station.exchange(request) == b'\n{"id":1,"src":"own-rpc","result":null}\n'


def test_a_notification_gets_no_answer(station: Station) -> None:
    assert station.exchange(b'{"method":"Echo"}\n') == b""


def test_the_console_goes_on(station: Station) -> None:
    version = b"own-rpc 1.0 (build 20260111-000000/v1.0)\n"
    assert station.exchange(b"version\n") == b"version\n" + version
    assert station.exchange(b'{"id":1,"method":"Echo"}\nversion\r\n').endswith(version)
    assert station.exchange(b'say "" "x"\n').startswith(b'say "" "x"\nunknown command: say ""')
    assert station.exchange(b"ver", b'{"id":1,"method":"Echo"}\n', b"sion\n") == (
        b'ver\n{"id":1,"src":"own-rpc","result":null}\nsion\n' + version
    )
    assert station.exchange(b"\n") == b"\n"


PIECES_OF_JSON = (
    *'{}[],:" ',
    *("0", "-1", "01", "1.5", "2.", "1e5", "1E+5", "1e", "-", "true", "nul", "null", "[]", "{}"),
    *('"a"', '"\\n"', '"\\x"', '"\\u00fc"', '"\\u00f"', '"a":'),
)


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@settings(max_examples=200)
@given(text=st.lists(st.sampled_from(PIECES_OF_JSON), max_size=8).map("".join))
def test_it_takes_for_json_what_python_does(lasting_station: Station, text: str) -> None:
    frame = f'{{"id":1,"method":"Echo","params":{text}}}'
    assume('"""' not in frame)  # a separator wherever it stands
    expected: list[JsonValue] = []
    if is_json(frame):
        expected = [{"id": 1, "src": "own-rpc", "result": json.loads(frame)["params"]}]

    output = lasting_station.exchange(b"\n" + frame.encode() + b"\n")

    assert frames_in(output) == expected


@settings(max_examples=100)
@given(
    portions=st.lists(
        st.binary(max_size=40)
        | st.sampled_from([b'"""', b'{"id":1', b'"method":"Echo"', b"}", b"{", b"\x04", b'""'])
        | st.integers(200, 600).map(lambda size: b"{" + b"x" * size),
        max_size=6,
    )
)
def test_no_bytes_stop_it(lasting_station: Station, portions: list[bytes]) -> None:
    safe = [re.sub(rb"(?i)reboot|hang|fault", b"", portion) for portion in portions]
    lasting_station.exchange(*safe, duration_ns=0)
    output = lasting_station.exchange(b'\n"""' + with_crc(b'{"id":9,"method":"Echo"}') + b"\n")
    assert with_crc(b'{"id":9,"src":"own-rpc","result":null}') in output


# --- with the bridge -------------------------------------------------------------------------


def results(answers: Sequence[list[JsonValue]]) -> list[JsonValue]:
    """The one answer that each request has got."""
    assert [len(got) for got in answers] == [1] * len(answers)
    return [got[0] for got in answers]


def test_a_hundred_clients_with_the_same_id(station: Station) -> None:
    answers = [
        station.ask({"id": 1, "src": "me", "method": "Echo", "params": {"n": n, "x": "x" * 200}})
        for n in range(100)
    ]
    station.run(2_500 * NS_PER_MS)
    assert results(answers) == [
        {"id": 1, "src": "own-rpc", "dst": "me", "result": {"n": n, "x": "x" * 200}}
        for n in range(100)
    ]
    assert station.log == []


def test_numbers_and_strings_as_ids_and_methods_that_are_not_there(station: Station) -> None:
    requests: list[tuple[JsonValue, str]] = [(7, "Echo"), ("7", "Echo"), (7, "Nope")]
    answers = [station.ask({"id": own_id, "method": method}) for own_id, method in requests]
    notified = station.ask({"method": "Echo"})
    station.run(200 * NS_PER_MS)
    error: JsonValue = {"code": 404, "message": "No handler for Nope"}
    assert results(answers) == [
        {"id": 7, "src": "own-rpc", "result": None},
        {"id": "7", "src": "own-rpc", "result": None},
        {"id": 7, "src": "own-rpc", "error": error},
    ]
    assert notified == []


def test_a_client_on_the_serial_line_at_the_same_time(station: Station) -> None:
    station.output.clear()
    answers: list[list[JsonValue]] = []
    direct = [b'{"id":%d,"method":"Echo","params":["%s"]}' % (n, b"y" * 50) for n in range(10)]
    for chunk in in_chunks(b"".join(map(quoted, direct))):
        answers.append(station.ask({"id": len(answers) % 3, "method": "Echo", "params": [1]}))
        station.serial(chunk)
        station.run(5 * NS_PER_MS)
    station.run(2_000 * NS_PER_MS)

    assert results(answers) == [
        {"id": n % 3, "src": "own-rpc", "result": [1]} for n in range(len(answers))
    ]
    on_the_line = bytes(station.output)
    for n in range(10):
        answer = b'{"id":%d,"src":"own-rpc","result":["%s"]}' % (n, b"y" * 50)
        assert on_the_line.count(quoted(answer)) == 1
    assert b"rpc: frame dropped" not in on_the_line
    assert len(frames_in(on_the_line)) == len(answers) + 10


def test_a_client_that_vanishes_in_mid_frame(station: Station) -> None:
    station.serial(b'{"id":1,"met')
    answers = station.ask({"id": 1, "method": "Echo"})
    station.run(HOST_SILENCE_NS - 100 * NS_PER_MS)
    assert answers == []
    station.run(200 * NS_PER_MS)
    assert answers == [{"id": 1, "src": "own-rpc", "result": None}]


def test_what_waits_at_a_reset_is_dropped_and_the_next_boot_answers(station: Station) -> None:
    answers = station.ask({"id": 1, "method": "Echo"})
    station.output.clear()
    station.machine.reset(ResetCause.PIN)
    station.run_until(b"ready\n")
    again = station.ask({"id": 1, "method": "Echo"})
    station.run(100 * NS_PER_MS)
    assert answers == []
    assert again == [{"id": 1, "src": "own-rpc", "result": None}]


def test_firmware_that_hangs_answers_nobody(station: Station) -> None:
    station.serial(b"hang\n")
    station.run(100 * NS_PER_MS)
    answers = station.ask({"id": 1, "method": "Echo"})
    station.run(1_000 * NS_PER_MS)
    assert answers == []


@needs_mos
def test_mos_on_the_serial_line_while_others_call_by_the_bridge(
    station: Station, tmp_path: Path
) -> None:
    answers: list[list[JsonValue]] = []
    with PtyLink() as link:
        send = station.machine.uart_output

        def to_both(data: bytes) -> None:
            link.write(data)
            send(data)

        station.machine.uart_output = to_both
        with subprocess.Popen(
            [MOS or "mos", "--port", link.port, "call", "Echo", json.dumps({"x": "y" * 200})],
            env=mos_environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as mos:
            while mos.poll() is None:
                # No sooner than `mos` can write: virtual time must not run away from it.
                select.select([link.fileno()], [], [], 0.001)
                link.flush()
                if heard := link.read():
                    station.serial(heard)
                if all(answers):
                    answers.append(station.ask({"id": 1, "method": "RPC.Ping"}))
                station.run(STEP_NS)
            stdout, stderr = mos.communicate()
        station.run(100 * NS_PER_MS)
    assert json.loads(stdout) == {"x": "y" * 200}, stderr
    pong: JsonValue = {"id": 1, "src": "own-rpc", "result": {"channel_info": "UART2"}}
    assert results(answers) == [pong] * len(answers)
    assert answers
