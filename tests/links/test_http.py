import contextlib
import hashlib
import json
import logging
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path

import pytest
from aiohttp import ClientConnectionResetError
from aiohttp.http import HttpProcessingError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpc_shim.dispatch import Channel, HttpAuthorization, RpcError
from rpc_shim.frame import Request
from rpc_shim.links.http import HttpSettings
from tests.links.clients import connect, reset_on_close
from tests.links.fake_board import MAX_FRAME_SIZE, WAIT_S, FakeBoard, frame, running, wait_until
from tests.rpc.mos import needs_mos, run_mos

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

REALM = "dev"
NONCE = 0xABC


def digest_guard(_request: Request, channel: Channel) -> None:
    """Lets nobody in but joe with the password secret."""
    given = channel.authorization
    if given is not None and is_joe(given):
        return
    message = {"auth_type": "digest", "nonce": NONCE, "realm": REALM, "algorithm": "SHA-256"}
    raise RpcError(401, json.dumps(message))


def is_joe(given: HttpAuthorization) -> bool:
    fields = {name: quoted or bare for name, quoted, bare in _FIELDS.findall(given.header)}

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    ha1, ha2 = digest(f"joe:{REALM}:secret"), digest(f"{given.method}:{given.uri}")
    nonce = f"{fields.get('nonce')}:{fields.get('nc')}:{fields.get('cnonce')}:auth"
    return (
        fields.get("response") == digest(f"{ha1}:{nonce}:{ha2}")
        and fields.get("uri") == given.uri
        and fields.get("nonce") == f"{NONCE:x}"
    )


_FIELDS = re.compile(r'(\w+)=(?:"([^"]*)"|([^",\s]+))')


@dataclass
class Answer:
    status: int
    body: bytes
    headers: HTTPMessage

    @property
    def json(self) -> object:
        return json.loads(self.body)


@pytest.fixture(scope="module")
def board() -> Iterator[FakeBoard]:
    with running(HttpSettings()) as board:
        ask(board, "GET", "/rpc/Echo")  # from now on it has all the files open that it needs
        yield board


@pytest.fixture
def fresh() -> Iterator[FakeBoard]:
    with running(HttpSettings()) as board:
        yield board


@pytest.fixture
def guarded() -> Iterator[FakeBoard]:
    with running(HttpSettings(), guard=digest_guard) as board:
        yield board


def ask(board: FakeBoard, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
    connection = HTTPConnection(*board.address("http"), timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request(method, target, body or None, headers)
        response = connection.getresponse()
        return Answer(response.status, response.read(), response.headers)


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "*", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )


# --- calls ----------------------------------------------------------------------------------


def test_a_whole_frame(board: FakeBoard) -> None:
    answer = ask(board, "POST", "/rpc", frame("Echo", 2**40, params={"a": "\u00e4"}))
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == {
        "id": 2**40, "src": "dev", "dst": "test", "result": {"a": "\u00e4"},
    }  # fmt: skip
    error = ask(board, "POST", "/rpc", frame("Missing"))
    assert error.status == 200  # the error is in the frame
    assert b'"code":404' in error.body


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        (b'{"method":"Echo"}', 200, b""),
        (b'{"id":1,"method":"Echo","dst":"other"}', 200, b""),
        (b"", 400, b"not JSON"),
        (b"{", 400, b"not JSON"),
        (b'{"id":1,"result":1}', 400, b"the frame is an answer"),
    ],
)
def test_a_frame_that_gets_no_answer_is_not_waited_for(
    board: FakeBoard, body: bytes, status: int, part: bytes
) -> None:
    answer = ask(board, "POST", "/rpc", body)
    assert answer.status == status
    assert part in answer.body


def test_params_in_the_body_and_the_bare_result(board: FakeBoard) -> None:
    answer = ask(board, "POST", "/rpc/Echo", '{"a": ["\u00e4", 1.5]}'.encode())
    assert (answer.status, answer.body) == (200, b'{"a":["\\u00e4",1.5]}\r\n')
    assert ask(board, "POST", "/rpc/Echo").body == b"null\r\n"
    assert ask(board, "POST", "/rpc/Echo?a=1").body == b"null\r\n"  # as on the device


def test_params_in_the_query(board: FakeBoard) -> None:
    assert ask(board, "GET", "/rpc/Echo?a=1&url=http://x").json == {"a": 1, "url": "http://x"}
    assert ask(board, "GET", "/rpc/Echo?a=%26b%3D%2B+%22").json == {"a": '&b=+ "'}
    assert ask(board, "GET", "/rpc/Echo").json is None
    assert ask(board, "GET", "/rpc/Echo?a=1", b'{"b":2}').json == {"b": 2}


@pytest.mark.parametrize(
    ("code", "status"), [(400, 400), (403, 403), (404, 404), (500, 500), (-1, 500)]
)
def test_errors_have_a_status(board: FakeBoard, code: int, status: int) -> None:
    answer = ask(board, "GET", f"/rpc/Fail{code}")
    assert answer.status == status
    assert answer.json == {"code": code, "message": f"error {code}"}


def test_error_code_0_is_a_success(board: FakeBoard) -> None:
    answer = ask(board, "GET", "/rpc/Zero")
    assert (answer.status, answer.json) == (200, "done")


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("GET", "/rpc/Echo?a=1&a=2", b"", 400),
        ("POST", "/rpc/Echo", b"{", 400),
        ("POST", "/rpc/Echo", b"5", 400),
        ("POST", "/rpc/Echo", b"[" * 4000, 400),
        ("POST", "/rpc/" + "M" * 300, b"", 400),
        ("POST", "/rpc/Missing", b"", 404),
        ("POST", "/rpc/", b"", 400),
        ("GET", "/missing", b"", 404),
        ("GET", "/rpc", b"", 400),
        ("GET", "/rpcx", b"", 404),
        ("PUT", "/rpc", b"", 405),
        ("DELETE", "/rpc/Echo", b"", 405),
        ("HEAD", "/rpc/Echo", b"", 405),
        ("POST", "/", b"", 405),
        ("GET", "/update", b"", 405),
        ("GET", "/update/commit", b"", 405),
        ("GET", "/update/revert", b"", 405),
        ("POST", "/rpc", b"x" * (MAX_FRAME_SIZE + 1), 413),
        ("POST", "/rpc/Echo", b"x" * (MAX_FRAME_SIZE + 1), 413),
    ],
)
def test_requests_that_are_refused(
    board: FakeBoard, method: str, target: str, body: bytes, status: int
) -> None:
    assert ask(board, method, target, body).status == status


def test_web_pages_may_call_as_on_the_device(board: FakeBoard) -> None:
    preflight = ask(board, "OPTIONS", "/rpc/Echo", Origin="http://x")
    answers = [ask(board, "GET", "/rpc/Echo"), ask(board, "GET", "/rpc/Missing"), preflight]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Access-Control-Allow-Headers"] == "*"
    assert (preflight.status, preflight.body) == (200, b"")


def test_no_more_is_told_of_the_server_than_its_name(board: FakeBoard) -> None:
    for target in ("/", "/rpc/Echo", "/missing", "/update"):
        assert ask(board, "GET", target).headers["Server"] == "otasim"
    hint = ask(board, "GET", "/")
    assert (hint.status, hint.body.count(b"\n")) == (200, 1)


def test_the_channel_tells_who_asks_and_how(fresh: FakeBoard) -> None:
    ask(fresh, "POST", "/rpc/Echo?x=%41", Authorization="Digest whatever")
    ask(fresh, "GET", "/rpc/Echo")
    assert fresh.device is not None
    with_header, without = fresh.device.channels
    assert with_header.kind == without.kind == "HTTP"
    assert with_header.info.startswith("127.0.0.1:")
    authorization = with_header.authorization
    assert authorization is not None
    assert (authorization.method, authorization.uri) == ("POST", "/rpc/Echo?x=%41")
    assert authorization.header == "Digest whatever"
    assert without.authorization is None


def test_requests_on_one_connection(board: FakeBoard) -> None:
    with connect(board, "http") as client:
        request = b"GET /rpc/Echo?n=%d HTTP/1.1\r\nHost: x\r\n\r\n"
        client.sendall(b"".join(request % number for number in range(200)))
        received = b""
        while b'{"n":199}' not in received:
            received += client.recv(65536)
    assert re.findall(rb'{"n":(\d+)}', received) == [b"%d" % number for number in range(200)]


def test_a_client_that_asks_before_it_sends(board: FakeBoard) -> None:
    with connect(board, "http") as client:
        client.sendall(
            b"POST /rpc/Echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Length: 7\r\n\r\n"
        )
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b'{"a":1}')
        assert client.recv(1000).endswith(b'{"a":1}\r\n')


# --- clients that misbehave -----------------------------------------------------------------


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=2000), prefix=st.sampled_from([b"", b"POST /rpc HTTP/1.1\r\n"]))
def test_whatever_a_client_sends_the_next_one_is_served(
    board: FakeBoard, garbage: bytes, prefix: bytes
) -> None:
    with connect(board, "http") as client:
        client.sendall(prefix + garbage)
    assert ask(board, "GET", "/rpc/Echo?a=1").json == {"a": 1}


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /rpc/Echo?a=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /rpc/Ec\xffho HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_400_and_nothing_is_logged(
    board: FakeBoard, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(board, "http") as client:
        client.sendall(head)
        assert client.recv(65536).startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert [r for r in caplog.records if r.levelname in {"WARNING", "ERROR"}] == []


def test_only_bugs_are_logged_with_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("otasim.http")
    bug = RuntimeError("a bug")
    for error in (
        bug,
        ClientConnectionResetError("it has left"),
        HttpProcessingError(message="no HTTP"),
    ):
        logger.error("Error handling request", exc_info=error)
    told = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert told == [bug]


def test_a_client_that_vanishes_while_it_waits(fresh: FakeBoard) -> None:
    for _ in range(20):
        with connect(fresh, "http") as client:
            client.sendall(b"GET /rpc/Later HTTP/1.1\r\nHost: x\r\n\r\n")
            fresh.wait_for_call()
            reset_on_close(client)
        fresh.answer_all()
    assert ask(fresh, "GET", "/rpc/Echo?a=1").json == {"a": 1}


def test_requests_of_clients_that_left_while_the_application_hung(fresh: FakeBoard) -> None:
    fresh.hang()
    for number in range(300):
        with connect(fresh, "http") as client:
            client.sendall(b"GET /rpc/Echo?n=%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            reset_on_close(client)
    wait_until(lambda: fresh.pending == 0, "them to be forgotten")
    fresh.go_on()
    assert ask(fresh, "GET", "/rpc/Echo?a=1").json == {"a": 1}


# --- authentication -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/rpc", frame("Echo")),
        ("POST", "/rpc/Echo", b""),
        ("GET", "/rpc/Echo?a=1", b""),
        ("POST", "/update", b""),
        ("POST", "/update", b"PK" * 5000),
        ("POST", "/update/commit", b""),
        ("POST", "/update/revert", b""),
    ],
)
def test_the_challenge(guarded: FakeBoard, method: str, target: str, body: bytes) -> None:
    answer = ask(guarded, method, target, body)
    assert (answer.status, answer.body) == (401, b"")
    expected = f'Digest qop="auth", realm="{REALM}", nonce="abc", algorithm=SHA-256'
    assert answer.headers["WWW-Authenticate"] == expected
    wrong = ask(guarded, method, target, body, Authorization='Digest username="joe"')
    assert wrong.status == 401
    assert guarded.ota.calls == []


@needs_curl
def test_curl_with_a_password(guarded: FakeBoard) -> None:
    url = guarded.url("http")
    assert curl("--digest", "-u", "joe:secret", f"{url}/Echo?a=1").stdout == '{"a":1}\n'
    posted = curl("--digest", "-u", "joe:secret", "-d", '{"b": 2}', f"{url}/Echo")
    assert posted.stdout == '{"b":2}\n'
    wrong = curl("--digest", "-u", "joe:wrong", "-w", "%{http_code}", f"{url}/Echo")
    assert wrong.stdout == "401"


@needs_mos
def test_mos(board: FakeBoard, guarded: FakeBoard, tmp_path: Path) -> None:
    def mos(target: FakeBoard, *options: str) -> subprocess.CompletedProcess[str]:
        return run_mos(tmp_path, target.url("http"), *options, "call", "Echo", '{"a": 1}')

    assert json.loads(mos(board).stdout) == {"a": 1}
    allowed = mos(guarded, "--rpc-creds", "joe:secret")
    assert json.loads(allowed.stdout) == {"a": 1}, allowed.stderr
    assert mos(guarded, "--rpc-creds", "joe:wrong").returncode != 0


@needs_curl
def test_curl_right_after_a_reset_waits(fresh: FakeBoard) -> None:
    url = fresh.url("http")
    fresh.reset()
    with subprocess.Popen(
        ["curl", "--silent", "--noproxy", "*", f"{url}/Echo?a=1"], stdout=subprocess.PIPE
    ) as waiting:
        fresh.start()
        output, _ = waiting.communicate(timeout=WAIT_S)
    assert output == b'{"a":1}\r\n'
