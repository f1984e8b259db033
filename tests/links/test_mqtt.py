import asyncio
import contextlib
import json
import os
import select
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc_shim.frame import FrameError, ReplyAddress, parse_request
from rpc_shim.links.mqtt import Broker, MqttSettings, is_topic, parse_broker, read_request
from rpc_shim.links.network import Network
from rpc_shim.links.sockets import NetworkLinkError
from rpc_shim.links.tcp import TcpSettings
from scripts.processes import MOSQUITTO, Mosquitto
from tests.links.clients import call, connect, talk
from tests.links.fake_board import (
    MAX_FRAME_SIZE,
    WAIT_S,
    FakeBoard,
    frame,
    running,
    wait_until,
)
from tests.rpc.mos import needs_mos, run_mos

needs_broker = pytest.mark.skipif(
    MOSQUITTO is None, reason="mosquitto is not installed (apt install mosquitto)"
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        broker.start()
        yield broker


@pytest.fixture
def board(broker: Mosquitto) -> Iterator[FakeBoard]:
    with running(MqttSettings(broker.url)) as board:
        wait_until(lambda: board.logged("mqtt: connected"), "the connection")
        yield board


@contextlib.asynccontextmanager
async def client(broker: Mosquitto, *topics: str, **login: str) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client("127.0.0.1", broker.port, **login) as client:  # type: ignore[arg-type]
        for topic in topics:
            await client.subscribe(topic, qos=1)
        yield client


async def receive(client: aiomqtt.Client) -> dict[str, object]:
    message = await anext(client.messages)
    assert isinstance(message.payload, bytes)
    assert message.qos == 1
    answer: dict[str, object] = json.loads(message.payload)
    return answer


def call_once(broker: Mosquitto, topic: str = "dev/rpc", payload: bytes = frame("Echo")) -> object:
    """One call there and back."""
    answers = []

    async def conversation() -> None:
        async with client(broker, "test/rpc") as host:
            await host.publish(topic, payload, qos=1)
            answers.append(await receive(host))

    talk(conversation)
    return answers[0]


@needs_broker
def test_an_answer_goes_to_the_sender(board: FakeBoard, broker: Mosquitto) -> None:
    payload = '{"id":1,"src":"test","method":"Echo","params":{"a":"\u00e4"}}'.encode()
    answer = call_once(broker, payload=payload)
    assert answer == {"id": 1, "src": "dev", "dst": "test", "result": {"a": "\u00e4"}}
    assert board.device is not None
    (channel,) = board.device.channels
    assert (channel.kind, channel.info, channel.authorization) == ("MQTT", "", None)


@needs_broker
def test_the_topic_may_name_the_method(board: FakeBoard, broker: Mosquitto) -> None:
    payload = b'{"id":1,"src":"test","method":"ignored","args":{"a":1}}'
    answer = call_once(broker, "dev/rpc/Echo", payload)
    assert answer == {"id": 1, "src": "dev", "dst": "test", "result": {"a": 1}}
    assert board.device is not None
    assert len(board.device.channels) == 1  # though two subscriptions could match


@needs_broker
def test_what_cannot_be_answered_is_dropped_and_harms_nothing(
    board: FakeBoard, broker: Mosquitto
) -> None:
    async def conversation() -> None:
        async with client(broker, "test/rpc", "#") as host:
            for topic, payload in [
                ("dev/rpc", b'{"id":1,"method":"Echo"}'),
                ("dev/rpc", b'{"id":1,"src":"a/+/b","method":"Echo"}'),
                ("dev/rpc", b'{"id":1,"src":"#","method":"Echo"}'),
                ("dev/rpc", b'{"id":1,"src":"a\\u0000b","method":"Echo"}'),
                ("dev/rpc", b'{"id":1,"src":"a\\ud800b","method":"Echo"}'),
                ("dev/rpc", b'{"id":1,"src":"%s","method":"Echo"}' % (b"x" * 300)),
                ("dev/rpc", b'{"id":1,"src":"%s","method":"Echo"}' % (b"x" * MAX_FRAME_SIZE)),
                ("dev/rpc", b""),
                ("dev/rpc", b"\xff\x00"),
                ("dev/rpc", b"[" * 4000),
                ("dev/rpc/Echo", b"5"),
                ("dev/rpc/Echo", b""),
                ("dev/rpc/" + "x" * 300, b'{"id":1}'),
                ("dev/rpc//", b'{"id":1}'),
            ]:
                await host.publish(topic, payload, qos=1)
            await host.publish("dev/rpc", frame("Echo", 99), qos=1)
            async for message in host.messages:
                if not message.topic.matches("dev/#"):
                    assert message.topic.value == "test/rpc"
                    assert isinstance(message.payload, bytes)
                    assert json.loads(message.payload)["id"] == 99
                    return

    talk(conversation)
    assert board.logged("it has no src, so there is nowhere to answer to")
    assert board.logged("its src is no topic")
    assert board.logged("a frame has up to 4096 bytes")


@needs_broker
def test_what_the_broker_has_retained_is_no_request(broker: Mosquitto) -> None:
    async def leave_behind() -> None:
        async with client(broker) as host:
            await host.publish("dev/rpc", frame("Commit", 5), qos=1, retain=True)

    talk(leave_behind)
    with running(MqttSettings(broker.url)) as board:
        wait_until(lambda: board.logged("mqtt: message to dev/rpc dropped: it is retained"), "it")
        assert call_once(broker, payload=frame("Echo", 6)) == {
            "id": 6, "src": "dev", "dst": "test", "result": None,
        }  # fmt: skip
        assert board.device is not None
        assert len(board.device.channels) == 1


@needs_broker
def test_a_malformed_request_with_a_sender_is_told(board: FakeBoard, broker: Mosquitto) -> None:
    assert board.device is not None
    answer = call_once(broker, payload=b'{"id":1,"src":"test","method":"Echo","params":5}')
    assert isinstance(answer, dict)
    assert answer["error"]["code"] == 400


@needs_broker
def test_a_notification_needs_no_sender(board: FakeBoard, broker: Mosquitto) -> None:
    async def conversation() -> None:
        async with client(broker) as host:
            await host.publish("dev/rpc", b'{"method":"Echo","params":{"a":1}}', qos=1)

    talk(conversation)
    device = board.device
    assert device is not None
    wait_until(lambda: device.done == [{"a": 1}], "the notification")


@needs_broker
def test_a_device_that_hears_itself_falls_silent(board: FakeBoard, broker: Mosquitto) -> None:
    async def conversation() -> None:
        async with client(broker, "dev/rpc") as host:
            await host.publish("dev/rpc", b'{"id":1,"src":"dev","method":"Echo"}', qos=1)
            await receive(host)  # the request
            assert "result" in await receive(host)

    talk(conversation)
    wait_until(lambda: board.logged("the frame is an answer"), "the answer to be dropped")
    call_once(broker)
    device = board.device
    assert device is not None
    assert len(device.channels) == 2


@needs_broker
def test_a_hundred_calls_at_once(board: FakeBoard, broker: Mosquitto) -> None:
    assert board.device is not None

    async def one(number: int) -> None:
        async with client(broker, f"host{number}/rpc") as host:
            request = {"id": number, "src": f"host{number}", "method": "Echo"}
            await host.publish("dev/rpc", json.dumps(request).encode(), qos=1)
            assert (await receive(host))["id"] == number

    async def conversation() -> None:
        for start in range(0, 100, 25):
            await asyncio.gather(*(one(number) for number in range(start, start + 25)))

    talk(conversation)


@needs_broker
def test_a_broker_that_restarts_is_connected_again(board: FakeBoard, broker: Mosquitto) -> None:
    for _ in range(3):
        call_once(broker)
        board.log.clear()
        broker.stop()
        wait_until(lambda: board.logged("trying again"), "the loss to be noticed")
        broker.start()
        wait_until(lambda: board.logged("mqtt: connected"), "the new connection")
    call_once(broker)


@needs_broker
def test_two_boards_of_the_same_id_are_told_what_is_the_matter(broker: Mosquitto) -> None:
    hint = "Is there another client with the id 'dev'? Give this board another one"
    with running(MqttSettings(broker.url)) as first, running(MqttSettings(broker.url)) as second:
        for board in (first, second):
            wait_until(partial(board.logged, hint), "the hint")
    for board in (first, second):
        connections = sum(line.startswith("mqtt: connected") for line in board.log)
        assert sum(hint in line for line in board.log) <= connections


@needs_broker
def test_a_broker_that_comes_later(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, running(MqttSettings(broker.url), TcpSettings()) as board:
        wait_until(lambda: board.logged("Connection refused; trying again"), "the log line")
        with connect(board) as host:
            assert call(host)["id"] == 1  # the other links do not wait
        broker.start()
        wait_until(lambda: board.logged("mqtt: connected"), "the connection")
        told = [line for line in board.log if line.startswith("mqtt")]
        assert len(told) == 2  # one line for each change, however often it has tried
        call_once(broker)


@needs_broker
def test_resets_disconnect_and_the_next_boot_connects(board: FakeBoard, broker: Mosquitto) -> None:
    for _ in range(5):
        board.reset()
        board.log.clear()
        board.start()
        wait_until(lambda: board.logged("mqtt: connected"), "the connection")
        call_once(broker)


@needs_broker
def test_an_answer_given_right_before_a_reset_arrives(board: FakeBoard, broker: Mosquitto) -> None:
    async def conversation() -> None:
        async with client(broker, "test/rpc") as host:
            await host.publish("dev/rpc", frame("Later"), qos=1)
            board.wait_for_call()
            board.answer_and_reset()
            assert (await receive(host))["result"] == "at last"

    for _ in range(5):
        board.log.clear()
        board.start()
        wait_until(lambda: board.logged("mqtt: connected"), "the connection")
        talk(conversation)


@needs_broker
def test_nothing_is_answered_while_the_firmware_hangs(board: FakeBoard, broker: Mosquitto) -> None:
    async def conversation() -> None:
        async with client(broker, "test/rpc") as host:
            board.hang()
            for number in range(200):  # more than may wait
                await host.publish("dev/rpc", frame("Echo", number), qos=1)
            wait_until(lambda: board.pending == 64, "requests")
            assert len(host.messages) == 0
            board.go_on()
            assert (await receive(host))["id"] == 0

    talk(conversation)


@needs_broker
def test_user_and_password(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "me", "se cret"], check=True)
    rules = f"allow_anonymous false\npassword_file {passwords}"
    with Mosquitto(tmp_path, rules) as broker:
        broker.start()
        with running(MqttSettings(broker.url.replace("//", "//me:se%20cret@"))) as board:
            wait_until(lambda: board.logged("mqtt: connected"), "the connection")
            assert "cret" not in board.url("mqtt")
        with running(MqttSettings(broker.url)) as board:
            wait_until(lambda: board.logged("; trying again"), "the refusal")
            assert "authori" in board.log[-1]


@needs_broker
@needs_mos
def test_mos(board: FakeBoard, broker: Mosquitto, tmp_path: Path) -> None:
    assert board.url("mqtt") == f"{broker.url}/dev"
    done = run_mos(tmp_path, board.url("mqtt"), "call", "Echo", '{"a": 1}')
    assert json.loads(done.stdout) == {"a": 1}, done.stderr


# --- brokers that are none ------------------------------------------------------------------


@contextlib.contextmanager
def strange_broker(*said: bytes) -> Iterator[int]:
    """Takes connections, says these things after each thing it hears, then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop_read, stop_write = os.pipe()

        def serve() -> None:
            while stop_read not in select.select([listening.fileno(), stop_read], [], [])[0]:
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(WAIT_S)
                    for each in said:
                        if connection.recv(1000):
                            connection.sendall(each)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            os.write(stop_write, b"!")
            thread.join()
            os.close(stop_read)
            os.close(stop_write)


ACCEPTED = b"\x20\x02\x00\x00"


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ([], "trying again"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "trying again"),
        ([b"\xff" * 100], "trying again"),
        ([ACCEPTED, b"\x90\x03\x00\x01\x80"], "refuses the subscription to dev/rpc/#"),
        ([b"\x20\x02\x00\x05"], "Not authorized"),
    ],
)
def test_a_broker_that_is_none(
    said: list[bytes],
    part: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rpc_shim.links.mqtt._TIMEOUT_S", 0.5)  # it is sure to be over
    with (
        strange_broker(*said) as port,
        running(MqttSettings(f"mqtt://127.0.0.1:{port}"), TcpSettings()) as board,
    ):
        wait_until(lambda: board.logged(part), part)
        with connect(board) as host:
            assert call(host)["id"] == 1
        board.reset()
        board.start()
        with connect(board) as host:
            assert call(host)["id"] == 1
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_a_name_that_nobody_knows_is_no_error_at_start() -> None:
    with running(MqttSettings("mqtt://no.such.host.invalid")) as board:
        wait_until(lambda: board.logged("no.such.host.invalid:1883: "), "the log line")


def test_a_device_id_that_is_no_topic() -> None:
    board = FakeBoard(MqttSettings("mqtt://127.0.0.1:1"))
    try:
        board.do(lambda: board.network.application_started("dev/+", MAX_FRAME_SIZE))
        wait_until(lambda: board.logged("mqtt: off, because the device's id is no topic"), "it")
    finally:
        board.close()


# --- decisions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtt://host", Broker("host", 1883, None, None)),
        ("mqtt://host:5/", Broker("host", 5, None, None)),
        ("mqtt://me@host", Broker("host", 1883, "me", None)),
        ("mqtt://m%40:p%3A@[::1]:5", Broker("::1", 5, "m@", "p:")),
    ],
)
def test_broker_urls(url: str, broker: Broker) -> None:
    assert parse_broker(url) == broker


@pytest.mark.parametrize(
    "url",
    [
        "", "host", "mqtts://host", "http://host", "mqtt://", "mqtt://host:x", "mqtt://host:99999",
        "mqtt://me:secret@host/topic", "mqtt://[::1", "mqtt://me:secret@host?x=1",
    ],
)  # fmt: skip
def test_what_is_no_broker_url(url: str) -> None:
    with pytest.raises(NetworkLinkError, match="expected mqtt://") as caught:
        Network([MqttSettings(url)])
    assert caught.value.transport == "mqtt"
    assert "secret" not in str(caught.value)


@given(
    st.sampled_from(["dev/rpc", "dev/rpc/", "dev/rpc/M", "dev/rpc/a/b"]),
    st.binary(max_size=100)
    | st.fixed_dictionaries(
        {},
        optional={
            "id": st.sampled_from([1, None, "x"]),
            "src": st.text(max_size=5) | st.just("a" * 300) | st.none(),
            "method": st.sampled_from(["M", "", 5]),
            "params": st.sampled_from([{}, 5]),
        },
    ).map(lambda members: json.dumps(members).encode()),
)
def test_a_message_is_a_request_that_can_be_answered_or_refused(topic: str, payload: bytes) -> None:
    try:
        request = read_request(topic, payload, "dev")
    except FrameError:
        return
    assert is_topic(request.answer_topic)
    method = topic.removeprefix("dev/rpc").removeprefix("/")
    try:
        parsed = parse_request(request.frame)
        address: ReplyAddress | None = parsed.address
        assert not method or parsed.method == method
    except FrameError as error:
        address = error.address
    assert address is not None
    assert address.source or address.request_id is None
    assert request.answer_topic == f"{address.source}/rpc"
