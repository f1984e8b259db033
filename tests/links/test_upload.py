import contextlib
import random
import select
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpc_shim.dispatch import RpcError
from rpc_shim.links.http import HttpSettings
from tests.links.clients import connect, reset_on_close
from tests.links.fake_board import WAIT_S, FakeBoard, running, wait_until
from tests.links.test_http import Answer, ask, curl, digest_guard, needs_curl

BUNDLE = random.Random(1).randbytes(50_001)  # noqa: S311 - test data
BOUNDARY = b"----------------------------d74496d66958873e"
APPLIED = "Update applied, finalizing"


@pytest.fixture
def board() -> Iterator[FakeBoard]:
    with running(HttpSettings()) as board:
        yield board


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "fw.zip"
    path.write_bytes(BUNDLE)
    return path


def update_url(board: FakeBoard) -> str:
    return board.url("http").removesuffix("/rpc") + "/update"


def field(name: str, value: bytes, disposition: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"{disposition}\r\n\r\n'
    return b"--" + BOUNDARY + b"\r\n" + head.encode() + value + b"\r\n"


def file(content: bytes, name: str = "file") -> bytes:
    return field(name, content, '; filename="fw.zip"')


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def upload(board: FakeBoard, body: bytes, query: str = "") -> Answer:
    kind = f"multipart/form-data; boundary={BOUNDARY.decode()}"
    return ask(board, "POST", f"/update{query}", body, **{"Content-Type": kind})


def assert_done(board: FakeBoard, content: bytes = BUNDLE) -> None:
    assert board.ota.data == content
    writes = -(-len(content) // 2048)
    assert board.ota.calls == ["Begin", *["Write"] * writes, "End"]
    assert all(size == 2048 for size in board.ota.chunk_sizes[:-1])


@needs_curl
@pytest.mark.parametrize("name", ["file", "filedata"])
def test_curl_with_a_form(board: FakeBoard, bundle: Path, name: str) -> None:
    done = curl("-i", "-F", f"{name}=@{bundle}", update_url(board))
    head, body = done.stdout.split("\n\n", 1)
    assert "200 OK" in head
    assert "Content-Type: text/plain" in head
    assert body == f"{APPLIED}\n"
    assert_done(board)
    assert board.ota.begun == [{}]


@needs_curl
@pytest.mark.parametrize("kind", [None, "application/zip", "application/octet-stream"])
def test_curl_with_a_body(board: FakeBoard, bundle: Path, kind: str | None) -> None:
    header = [] if kind is None else ["-H", f"Content-Type: {kind}"]
    done = curl(*header, "--data-binary", f"@{bundle}", update_url(board) + "?commit_timeout=60")
    assert done.stdout == f"{APPLIED}\n"
    assert_done(board)
    assert board.ota.begun == [{"commit_timeout": 60, "size": len(BUNDLE)}]


@needs_curl
def test_curl_that_does_not_tell_the_size(board: FakeBoard, bundle: Path) -> None:
    with bundle.open("rb") as source:
        done = subprocess.run(
            ["curl", "-s", "--noproxy", "*", "-X", "POST", "-T", "-", update_url(board)],
            stdin=source,
            capture_output=True,
            check=False,
            timeout=WAIT_S,
        )
    assert done.stdout.decode() == f"{APPLIED}\r\n"
    assert_done(board)
    assert board.ota.begun == [{}]


@needs_curl
def test_curl_with_a_password(bundle: Path) -> None:
    with running(HttpSettings(), guard=digest_guard) as board:
        refused = curl("-w", "%{http_code}", "-F", f"file=@{bundle}", update_url(board))
        assert refused.stdout == "401"
        assert board.ota.calls == []
        secret = ("--digest", "-u", "joe:secret")
        for way in (("-F", f"file=@{bundle}"), ("--data-binary", f"@{bundle}")):
            board.ota.calls.clear()
            board.ota.chunk_sizes.clear()
            assert curl(*secret, *way, update_url(board)).stdout == f"{APPLIED}\n"
            assert_done(board)
        board.ota.calls.clear()
        assert curl(*secret, "-X", "POST", update_url(board) + "/commit").stdout == "Ok\n"
        assert board.ota.calls == ["Commit"]


def test_options_in_the_form_or_in_the_query(board: FakeBoard) -> None:
    options = (field("commit_timeout", b"60"), field("timeout", b"30"))
    assert upload(board, form(*options, file(BUNDLE)), "?other=1").status == 200
    assert upload(board, form(file(BUNDLE)), "?commit_timeout=5&timeout=6").status == 200
    assert upload(board, form(options[0], file(BUNDLE)), "?commit_timeout=5").status == 200
    assert board.ota.begun == [
        {"commit_timeout": 60, "timeout": 30},
        {"commit_timeout": 5, "timeout": 6},
        {"commit_timeout": 60},
    ]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.lists(
        st.sampled_from([b"\r\n", b"\r\n--", b"--" + BOUNDARY[:-1], b"x" * 2047, b"\0", BOUNDARY])
        | st.binary(max_size=100),
        min_size=1,
    ).map(b"".join)
)
def test_bytes_that_look_like_the_form_itself(board: FakeBoard, content: bytes) -> None:
    if not content or b"\r\n--" + BOUNDARY in b"\r\n" + content:
        return
    board.ota.calls.clear()
    board.ota.chunk_sizes.clear()
    assert upload(board, form(file(content))).status == 200
    assert_done(board, content)


@pytest.mark.parametrize("step", ["Begin", "Write", "End"])
@pytest.mark.parametrize(("code", "status"), [(400, 400), (-1, 500), (403, 403)])
def test_what_the_device_says_is_told(board: FakeBoard, step: str, code: int, status: int) -> None:
    board.ota.fail[step] = RpcError(code, f"no {step}")
    answer = upload(board, form(file(BUNDLE)))
    assert (answer.status, answer.body.decode()) == (status, f"no {step}\r\n")
    assert answer.headers["Content-Type"].startswith("text/plain")
    wait_until(lambda: ("Abort" in board.ota.calls) == (step == "Write"), "the end")
    board.ota.fail.clear()
    board.ota.running = False
    board.ota.calls.clear()
    board.ota.chunk_sizes.clear()
    assert upload(board, form(file(BUNDLE))).status == 200
    assert_done(board)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "no firmware bundle"),
        (form(), "no firmware bundle"),
        (form(field("timeout", b"5")), "no firmware bundle"),
        (form(file(b"")), "no firmware bundle"),
        (b"nothing of a form", "malformed upload"),
        (form(file(BUNDLE)).replace(BOUNDARY, b"another"), "malformed upload"),
        (form(file(BUNDLE))[:-100], "malformed upload"),
        (form(file(BUNDLE), field("commit_timeout", b"60")), "fields before it"),
        (form(file(BUNDLE), file(BUNDLE)), "one file only"),
        (form(field("timeout", b"5" * 100), file(BUNDLE)), "longer than 32"),
        (form(field("timeout", b"\xff"), file(BUNDLE)), "malformed upload"),
        (b"--" + BOUNDARY + b"\r\nX: " + b"x" * 20000 + b"\r\n\r\n", "malformed upload"),
        (form(field("_charset_", b"x" * 100), file(BUNDLE)), "malformed upload"),
    ],
)
def test_requests_without_a_proper_bundle(board: FakeBoard, body: bytes, part: str) -> None:
    answer = upload(board, body)
    assert (answer.status, part in answer.body.decode()) == (400, True), answer.body
    wait_until(lambda: not board.ota.running, "an update that has begun to be aborted")
    assert "End" not in board.ota.calls


def test_an_option_that_is_there_twice(board: FakeBoard) -> None:
    assert upload(board, form(file(BUNDLE)), "?timeout=1&timeout=2").status == 400
    assert board.ota.calls == []


def test_a_form_within_the_form(board: FakeBoard) -> None:
    inner = b"--" + BOUNDARY + b"\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x--\r\n"
    assert upload(board, form(inner)).status == 400


def test_commit_and_revert(board: FakeBoard) -> None:
    for step in ("commit", "revert"):
        answer = ask(board, "POST", f"/update/{step}")
        assert (answer.status, answer.body) == (200, b"Ok\r\n")
    assert board.ota.calls == ["Commit", "Revert"]
    board.ota.fail["Commit"] = RpcError(-1, "nothing to commit")
    answer = ask(board, "POST", "/update/commit")
    assert (answer.status, answer.body) == (500, b"nothing to commit\r\n")


# --- clients that are slow, or leave --------------------------------------------------------


def begin_upload(board: FakeBoard, sent: int) -> socket.socket:
    body = form(file(BUNDLE))
    client = connect(board, "http")
    client.sendall(
        b"POST /update HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
        b"Content-Type: multipart/form-data; boundary=%s\r\n\r\n"
        % (len(body), BOUNDARY)
        + body[:sent]
    )
    return client


@pytest.mark.parametrize("abruptly", [False, True])
@pytest.mark.parametrize("sent", [300, 10_000, 50_100])
def test_an_upload_that_is_left_half_done_is_aborted(
    board: FakeBoard, abruptly: bool, sent: int
) -> None:
    with begin_upload(board, sent) as client:
        wait_until(lambda: board.ota.running, "the beginning")
        if abruptly:
            reset_on_close(client)
    wait_until(lambda: board.ota.calls[-1] == "Abort", "the abort")
    assert "End" not in board.ota.calls
    assert not board.ota.running


def test_an_upload_that_is_left_before_it_has_begun_never_begins(board: FakeBoard) -> None:
    board.hang()
    with begin_upload(board, 10_000):
        assert select.select([board.network], [], [], WAIT_S)[0]
    wait_until(lambda: board.pending == 0, "it to be withdrawn")
    board.go_on()
    assert ask(board, "GET", "/rpc/Echo").status == 200
    assert board.ota.calls == []


def test_an_upload_that_is_left_while_the_device_begins_is_aborted(board: FakeBoard) -> None:
    board.hang()
    with begin_upload(board, 10_000):
        assert select.select([board.network], [], [], WAIT_S)[0]
        (begin,) = board.do(board.network.take)
    # The server has noticed that its client has gone when it has dropped the connection.
    with connect(board, "http") as other:
        other.sendall(b"GET /rpc/Echo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert select.select([board.network], [], [], WAIT_S)[0]
    device = board.device
    assert device is not None
    board.do(lambda: device.dispatcher.handle(begin.frame, begin.reply, begin.channel))
    board.go_on()
    wait_until(lambda: board.ota.calls[-1:] == ["Abort"], "the abort")
    assert "End" not in board.ota.calls


def test_an_upload_that_could_not_begin_aborts_nobody_elses(board: FakeBoard) -> None:
    with begin_upload(board, 10_000):
        wait_until(lambda: board.ota.running, "the first upload")
        assert upload(board, form(file(BUNDLE))).body == b"Update already in progress\r\n"
        with begin_upload(board, 10_000):
            wait_until(lambda: board.ota.calls.count("Begin") == 3, "the third one")
        assert ask(board, "GET", "/rpc/Echo").status == 200
        assert board.ota.running
        assert "Abort" not in board.ota.calls


def test_an_upload_that_somebody_else_has_aborted_leaves_the_next_update_alone(
    board: FakeBoard,
) -> None:
    with begin_upload(board, 10_000) as client:
        wait_until(lambda: len(board.ota.data) == 4 * 2048, "what has been sent")
        assert ask(board, "POST", "/rpc/OTA.Abort").status == 200
        assert ask(board, "POST", "/rpc/OTA.Begin").status == 200
        client.sendall(b"x" * 4096)
        with client.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 500 Internal Server Error\r\n"
            assert b"another update\r\n" in iter(answer.readline, b"")
    wait_until(lambda: board.ota.calls[-2:] == ["Write", "Abort"], "the upload to clean up")
    assert board.ota.running
    assert board.ota.data == b""


def test_each_upload_is_a_session_of_its_own(board: FakeBoard) -> None:
    sessions = []
    for _ in range(3):
        assert upload(board, form(file(BUNDLE))).status == 200
        sessions.append(board.ota.session)
    assert None not in sessions
    assert len(set(sessions)) == 3


def test_the_next_chunk_waits_for_the_answer_to_the_one_before(board: FakeBoard) -> None:
    with begin_upload(board, 40_000):
        wait_until(lambda: board.ota.running, "the beginning")
        board.hang()
        taken = board.do(board.network.take)
        written = len(board.ota.data)
        assert len(taken) <= 1
        assert board.pending <= 1 - len(taken)
        board.go_on()
        device = board.device
        assert device is not None
        for request in taken:
            assert written == len(board.ota.data)
            board.do(
                lambda: device.dispatcher.handle(request.frame, request.reply, request.channel)  # noqa: B023
            )
        wait_until(lambda: len(board.ota.data) >= 38 * 1024, "what has been sent")


def test_a_reset_during_an_upload(board: FakeBoard) -> None:
    with begin_upload(board, 10_000) as client:
        wait_until(lambda: len(board.ota.data) >= 8192, "some chunks")
        board.reset()
        with contextlib.suppress(ConnectionError):
            assert client.recv(1000) == b""
    board.ota.running = False
    board.ota.calls.clear()
    board.ota.chunk_sizes.clear()
    board.start()
    assert upload(board, form(file(BUNDLE))).status == 200
    assert_done(board)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_large_upload_is_not_kept_in_memory(board: FakeBoard, tmp_path: Path) -> None:
    large = tmp_path / "large.zip"
    with large.open("wb") as target:
        target.truncate(4 * 1024 * 1024)
    assert curl("-F", f"file=@{large}", update_url(board)).stdout == f"{APPLIED}\n"
    assert len(board.ota.data) == 4 * 1024 * 1024
