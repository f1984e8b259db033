import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.errors import OtasimError
from rpc_shim.arguments import ArgumentError, Arguments, integer, text
from rpc_shim.dispatch import Call, Channel, Dispatcher, PendingReply, RpcError
from rpc_shim.frame import JsonValue, Request

UART = Channel("UART", "UART2")
NAME = text("name", required=True)
COUNT = integer("count", minimum=0, maximum=9)


@dataclass
class Device:
    """A dispatcher with a few methods, and what it answers and logs."""

    answers: list[dict[str, JsonValue]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    waiting: list[PendingReply] = field(default_factory=list)
    greeted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher("dev", self.log.append)
        self.dispatcher.register("Greet", self.greet, Arguments(NAME, COUNT))
        self.dispatcher.register("Later", lambda call: self.waiting.append(call.defer()))
        self.dispatcher.register("Fail", self.fail, Arguments(COUNT))

    def greet(self, call: Call) -> JsonValue:
        self.greeted.append(call.arguments.require(NAME))
        return {"hello": call.arguments.require(NAME), "over": call.channel.info}

    def fail(self, call: Call) -> JsonValue:
        match call.arguments.get(COUNT):
            case 0:
                raise RpcError(418, "I am a teapot")
            case 1:
                raise OtasimError("the flash is worn out")
            case 2:
                raise ArgumentError("count and name do not go together")
            case 3:
                call.defer()
                raise RpcError(500, "deferred, then failed")
            case _:
                raise ZeroDivisionError

    def handle(self, frame: str | dict[str, JsonValue]) -> None:
        raw = frame if isinstance(frame, str) else json.dumps(frame)
        self.dispatcher.handle(raw.encode(), self._answered, UART)

    def _answered(self, answer: bytes) -> None:
        self.answers.append(json.loads(answer))


@pytest.fixture
def device() -> Device:
    return Device()


def test_call(device: Device) -> None:
    device.handle({"id": 3, "src": "mos", "tag": "t", "method": "Greet", "params": {"name": "x"}})
    assert device.answers == [
        {
            "id": 3,
            "src": "dev",
            "dst": "mos",
            "tag": "t",
            "result": {"hello": "x", "over": "UART2"},
        }
    ]
    assert device.log == []


def test_notification_is_carried_out_and_not_answered(device: Device) -> None:
    device.handle({"method": "Greet", "params": {"name": "x"}})
    device.handle({"method": "Greet"})
    device.handle({"method": "Fail", "params": {"count": 0}})
    device.handle({"method": "Nope"})
    device.handle({"method": "Later"})
    device.waiting[0].result(1)
    assert device.greeted == ["x"]
    assert device.answers == []


@pytest.mark.parametrize(
    ("request_members", "code", "message"),
    [
        ({"method": "No.Such"}, 404, "No handler for No.Such"),
        ({"method": "greet"}, 404, "No handler for greet"),
        ({"method": "Greet"}, 400, "name is required"),
        ({"method": "Greet", "params": [1]}, 400, "params must be an object"),
        ({"method": "Greet", "params": {"name": 1}}, 400, "name must be a string"),
        ({"method": "Greet", "params": {"name": "x", "count": 10}}, 400, "count must be"),
        ({"method": "Greet", "params": 5}, 400, "params must be an object or a list"),
        ({"method": 5}, 400, "method must be a name"),
        ({"method": "Fail", "params": {"count": 0}}, 418, "I am a teapot"),
        ({"method": "Fail", "params": {"count": 1}}, -1, "the flash is worn out"),
        ({"method": "Fail", "params": {"count": 2}}, 400, "count and name do not go together"),
        ({"method": "Fail", "params": {"count": 3}}, 500, "deferred, then failed"),
    ],
)
def test_errors(
    device: Device, request_members: dict[str, JsonValue], code: int, message: str
) -> None:
    device.handle({"id": 1, "src": "mos", **request_members})
    (answer,) = device.answers
    assert {key: answer[key] for key in ("id", "src", "dst")} == {
        "id": 1,
        "src": "dev",
        "dst": "mos",
    }
    error = answer["error"]
    assert isinstance(error, dict)
    assert error["code"] == code
    assert message in str(error["message"])
    assert len(device.log) == 1
    assert device.greeted == []


def test_frame_that_cannot_be_answered_is_logged(device: Device) -> None:
    device.handle("{]")
    device.handle('{"id":true,"method":"Greet"}')
    assert device.answers == []
    assert [line.split(":")[:2] for line in device.log] == [["rpc", " request refused"]] * 2


@pytest.mark.parametrize(("destination", "answered"), [("", True), ("dev", True), ("Dev", False)])
def test_destination(device: Device, destination: str, answered: bool) -> None:
    device.handle({"id": 1, "dst": destination, "method": "Greet", "params": {"name": "x"}})
    assert bool(device.answers) is answered
    assert bool(device.log) is not answered


def test_a_bug_in_a_handler_is_not_hidden(device: Device) -> None:
    with pytest.raises(ZeroDivisionError):
        device.handle({"id": 1, "method": "Fail"})
    assert device.answers == []


def test_answer_that_comes_later(device: Device) -> None:
    device.handle({"id": 1, "method": "Later"})
    device.handle({"id": 2, "method": "Greet", "params": {"name": "x"}})
    assert [answer["id"] for answer in device.answers] == [2]
    assert not device.waiting[0].answered
    device.waiting[0].error(0, "done")
    assert device.answers[1] == {"id": 1, "src": "dev", "error": {"code": 0, "message": "done"}}
    assert device.waiting[0].answered


def test_a_second_answer_is_a_bug(device: Device) -> None:
    device.handle({"id": 1, "method": "Later"})
    device.waiting[0].result(None)
    with pytest.raises(RuntimeError, match="answered already"):
        device.waiting[0].error(-1, "no")
    assert len(device.answers) == 1


def test_two_requests_with_one_id_get_two_answers(device: Device) -> None:
    device.handle({"id": 1, "method": "Later"})
    device.handle({"id": 1, "method": "Later"})
    for number, pending in enumerate(device.waiting):
        pending.result(number)
    assert [(answer["id"], answer["result"]) for answer in device.answers] == [(1, 0), (1, 1)]


def test_unknown_arguments_are_ignored_with_one_line_in_the_log(device: Device) -> None:
    params: dict[str, JsonValue] = {"name": "x", "nmae\n": 1, "b": 2}
    device.handle({"id": 1, "method": "Greet", "params": params})
    assert device.greeted == ["x"]
    assert device.log == [r"rpc: Greet ignores 2 unknown arguments, the first is 'nmae\n'"]


def test_registering_twice_is_a_bug(device: Device) -> None:
    with pytest.raises(ValueError, match="Greet is registered already"):
        device.dispatcher.register("Greet", device.greet)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_random_frames_raise_nothing(frame: bytes) -> None:
    Device().dispatcher.handle(frame, lambda _answer: None, UART)


def test_a_guard_is_asked_before_anything_else() -> None:
    asked: list[tuple[str, Channel]] = []

    def guard(request: Request, channel: Channel) -> None:
        asked.append((request.method, channel))
        if request.key is None:
            raise RpcError(403, "unauthorized")

    answers: list[bytes] = []
    dispatcher = Dispatcher("dev", lambda _line: None, guard)
    dispatcher.register("Greet", lambda _call: "hello")
    for request in ({"method": "No.Such"}, {"method": "Greet"}, {"method": "Greet", "key": "k"}):
        dispatcher.handle(json.dumps({"id": 1, **request}).encode(), answers.append, UART)
    assert asked == [("No.Such", UART), ("Greet", UART), ("Greet", UART)]
    refused = {"id": 1, "src": "dev", "error": {"code": 403, "message": "unauthorized"}}
    assert [json.loads(answer) for answer in answers] == [
        refused,
        refused,
        {"id": 1, "src": "dev", "result": "hello"},
    ]
