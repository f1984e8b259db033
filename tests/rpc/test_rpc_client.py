import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc_shim.client import (
    Credentials,
    Framing,
    PortError,
    RpcClient,
    RpcClientError,
    RpcTimeoutError,
    SerialPort,
)
from rpc_shim.frame import JsonValue
from rpc_shim.links.pty import PtyLink
from tests.rpc.serving import ServedDevice, serve


@dataclass
class ScriptedStream:
    """Gives the portions one by one, then silence; time passes in silence only."""

    portions: list[bytes]
    written: bytearray = field(default_factory=bytearray)
    now_s: float = 0.0
    closed: bool = False

    def read(self, timeout_s: float) -> bytes:
        if self.portions:
            return self.portions.pop(0)
        self.now_s += timeout_s
        return b""

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True


def framed(text: str) -> bytes:
    return text.encode() + b"%08x" % zlib.crc32(text.encode())


def answered(*portions: bytes, framing: Framing = Framing.LINES) -> tuple[RpcClient, bytearray]:
    stream = ScriptedStream(list(portions))
    return RpcClient(stream, framing=framing, monotonic=lambda: stream.now_s), stream.written


def test_request_is_a_line_of_json_with_its_crc() -> None:
    client, written = answered(b'{"id":1,"result":null}\n')
    client.call("A.B", {"x": [1]})
    assert written == framed('{"src":"otasim","id":1,"method":"A.B","params":{"x":[1]}}') + b"\n"


CHALLENGE = {"auth_type": "digest", "nonce": 5, "nc": 1, "realm": "RPC", "algorithm": "MD5"}


def test_a_challenge_is_answered_by_the_same_request_with_a_proof() -> None:
    message = json.dumps(CHALLENGE)
    refused = json.dumps({"id": 1, "error": {"code": 401, "message": message}}).encode() + b"\n"
    stream = ScriptedStream([refused, b'{"id":1,"result":5}\n'])
    client = RpcClient(
        stream, credentials=Credentials("alice", "secret"), monotonic=lambda: stream.now_s
    )
    assert client.call("A", {"x": 1}) == 5
    first, second = (json.loads(line[:-8]) for line in stream.written.splitlines())
    auth = second.pop("auth")
    assert first == second
    assert auth.keys() == {"realm", "username", "nonce", "cnonce", "algorithm", "response"}
    assert b"secret" not in stream.written


@pytest.mark.parametrize("credentials", [None, Credentials("alice", "secret")])
@pytest.mark.parametrize(
    "error", [{"code": 401, "message": "who?"}, {"code": 403, "message": json.dumps(CHALLENGE)}]
)
def test_other_refusals_are_not_answered(
    credentials: Credentials | None, error: dict[str, JsonValue]
) -> None:
    refused = json.dumps({"id": 1, "error": error}).encode() + b"\n"
    stream = ScriptedStream([refused, b'{"id":1,"result":5}\n'])
    client = RpcClient(stream, credentials=credentials, monotonic=lambda: stream.now_s)
    with pytest.raises(RpcClientError) as caught:
        client.call("A")
    assert caught.value.code == error["code"]


def test_a_challenge_is_answered_once() -> None:
    message = json.dumps(CHALLENGE)
    refused = json.dumps({"id": 1, "error": {"code": 401, "message": message}}).encode() + b"\n"
    stream = ScriptedStream([refused, refused, b'{"id":1,"result":5}\n'])
    client = RpcClient(
        stream, credentials=Credentials("alice", "wrong"), monotonic=lambda: stream.now_s
    )
    with pytest.raises(RpcClientError, match="error 401"):
        client.call("A")
    assert len(stream.written.splitlines()) == 2


def test_ids_count_up() -> None:
    stream = ScriptedStream([b'{"id":7,"result":"a"}\n', b'{"id":8,"result":"b"}\n'])
    client = RpcClient(stream, first_id=7, monotonic=lambda: stream.now_s)
    assert [client.call("A"), client.call("A")] == ["a", "b"]
    assert b"params" not in stream.written


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"log text\n",
        b'{"log":"text"}\n{not json}\n{]\n{\n',
        b'\n{"id":2,"result":"another"}\n',
        b'\n{"id":"1","result":"another"}\n',
        b'\n{"id":1,"method":"A"}\n',
        b'\n{"id":1,"result":"damaged"}00000000\n',
        b'\n{"id":1,"result":"dama\xffged"}\n',
        b'a console line with {"id":1,"result":"text"}\n',
        b'\n"""\x04"""\n\n',
        b"\x00\x01\xfe\xff\x04\r\n",
        b'unfinished "',
    ],
)
@pytest.mark.parametrize(
    "answer",
    [b'\n{"id":1,"result":5}\n', b'\n"""' + framed('{"id":1,"result":5}') + b'"""\n'],
)
def test_only_the_answer_counts(noise: bytes, answer: bytes) -> None:
    for portions in ([noise + answer], [bytes([byte]) for byte in noise + answer]):
        client, _ = answered(*portions)
        assert client.call("A") == 5


@given(st.binary(max_size=100), st.data())
def test_random_noise_never_raises_and_hides_no_answer(noise: bytes, data: st.DataObject) -> None:
    sent = noise + b'\n{"id":1,"result":5}\n'
    cut = data.draw(st.integers(0, len(sent) - 1))
    client, _ = answered(*[portion for portion in (sent[:cut], sent[cut:]) if portion])
    assert client.call("A") == 5


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"code": 404, "message": "No handler for A"}, 404, "No handler for A"),
        ({"code": -1}, -1, "no reason given"),
        ({"code": 5, "message": 7}, 5, "no reason given"),
        ({"message": "x"}, -1, "an error without a code: an object"),
        ("broken", -1, "an error without a code: 'broken'"),
    ],
)
def test_error(error: JsonValue, code: int, message: str) -> None:
    client, _ = answered(json.dumps({"id": 1, "error": error}).encode() + b"\n")
    with pytest.raises(RpcClientError) as caught:
        client.call("A")
    assert (caught.value.code, caught.value.message) == (code, message)


def test_error_code_0_is_success() -> None:
    client, _ = answered(b'{"id":1,"error":{"code":0,"message":"update applied"}}\n')
    assert client.call("OTA.Update") is None


@pytest.mark.parametrize("framing", Framing)
@pytest.mark.parametrize("portions", [[], [b"log text\n"] * 3, [b'{"id":1,"result":5}']])
def test_timeout(framing: Framing, portions: list[bytes]) -> None:
    stream = ScriptedStream(list(portions))
    client = RpcClient(stream, framing=framing, monotonic=lambda: stream.now_s)
    with pytest.raises(RpcTimeoutError, match=r"no answer to A.B within 1.5 s") as caught:
        client.call("A.B", timeout_s=1.5)
    assert stream.now_s == pytest.approx(1.5)
    assert (caught.value.method, caught.value.timeout_s) == ("A.B", 1.5)


def test_mos_framing_byte_for_byte() -> None:
    client, written = answered(
        b"", b'\n"""\x04"""', b"\n", b'{"id":1,"result":5}\n', framing=Framing.QUOTES
    )
    assert client.call("A") == 5
    handshake = b'"""\x04"""\n\n'
    request = framed('{"src":"otasim","id":1,"method":"A"}')
    assert written == handshake * 2 + b'"""' + b'\n"""' + request + b'"""\n'


def test_closing() -> None:
    stream = ScriptedStream([])
    with RpcClient(stream):
        pass
    assert stream.closed


# --- over a real pseudo terminal ------------------------------------------------------------


@pytest.fixture
def device(tmp_path: Path) -> Iterator[ServedDevice]:
    with serve(tmp_path / "port") as device:
        yield device


@pytest.mark.parametrize("framing", Framing)
def test_calls_over_a_port(device: ServedDevice, framing: Framing) -> None:
    for _ in range(2):
        with RpcClient.open(device.port, framing=framing, first_id=1 << 40) as client:
            assert client.call("RPC.Ping") == {"channel_info": "UART2"}
            assert client.call("Later") is None
            assert client.call("Echo", {"text": "\u00e9\n"}) == {"text": "\u00e9\n"}
            large: dict[str, JsonValue] = {"data": "x" * 3900}
            assert client.call("Echo", large) == large
            with pytest.raises(RpcClientError, match="No handler for Nope"):
                client.call("Nope")
    assert not device.console


def test_port_in_use(device: ServedDevice) -> None:
    with (
        RpcClient.open(device.port),
        pytest.raises(PortError, match="another program uses it") as caught,
    ):
        RpcClient.open(device.port)
    assert caught.value.port == device.port


@pytest.mark.parametrize(
    ("port", "problem"),
    [
        ("missing", "No such file or directory"),
        (".", "Is a directory"),
        ("file", "it is no serial port"),
    ],
)
def test_no_port(tmp_path: Path, port: str, problem: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PortError, match=problem):
        SerialPort(str(tmp_path / port))


def test_port_that_goes_away() -> None:
    link = PtyLink()
    port = SerialPort(link.slave_name)
    link.close()
    with pytest.raises(PortError, match="is gone"):
        port.read(1.0)
    with pytest.raises(PortError, match="is gone"):
        port.write(b"x")
    port.close()


def test_a_port_that_says_nothing() -> None:
    with PtyLink() as link:
        port = SerialPort(link.slave_name)
        assert port.read(0.01) == b""
        port.close()
