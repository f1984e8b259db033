"""From a request's frame to the handler of its method, and back to the answer.

A dispatcher lives in the RAM of one boot of the application: it is made anew at every boot, and
calls that wait for their answer die with it. It keeps no table of ids: two requests with the same
id are two calls and get two answers, as on the device.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from platforms.errors import OtasimError
from rpc_shim.arguments import NO_ARGUMENTS, ArgumentError, Arguments, ArgumentValues
from rpc_shim.frame import (
    FrameError,
    JsonValue,
    ReplyAddress,
    Request,
    describe,
    encode_error,
    encode_result,
    parse_request,
)

BAD_REQUEST = 400
UNAUTHENTICATED = 401
FORBIDDEN = 403
NOT_FOUND = 404
INTERNAL_ERROR = 500
FAILED = -1
"""What the device answers when a method could not do its work."""

Reply = Callable[[bytes], None]
"""Takes the JSON of an answer, now or later."""

ChannelKind: TypeAlias = Literal["UART", "TCP", "WS_in", "HTTP", "UDP", "MQTT"]
"""What requests come over, by the device's names for it; `WS_in` is a WebSocket that a client has
opened. `TCP` and `UDP` are this board's own names."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class HttpAuthorization:
    """The `Authorization` header of a request that came over HTTP, and what it is made over.

    One object stands for one HTTP request, also when that makes several calls, as an upload does. A
    WebSocket has none, whatever opened it: it would stay logged in for as long as it lives.

    Attributes:
        method: the HTTP method, such as `POST`.
        uri: the request's target as it stands in the request line.
        header: the header's value.
    """

    method: str
    uri: str
    header: str


@dataclass(frozen=True, slots=True)
class Channel:
    """What a request came over.

    Attributes:
        kind: as access rules name it.
        info: which one of that kind, as `RPC.Ping` tells it; empty when there is nothing to tell.
        authorization: what HTTP says about who is asking, None when it says nothing.
    """

    kind: ChannelKind
    info: str = ""
    authorization: HttpAuthorization | None = None


class RpcError(OtasimError):
    """The answer to a call is this error.

    Attributes:
        code: the device's code: 400 for a bad request, 404 for something unknown, -1 for failed.
        message: what was wrong and what to do.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class PendingReply:
    """The one answer a call gets. A notification's goes nowhere."""

    def __init__(self, address: ReplyAddress, device_id: str, reply: Reply) -> None:
        self._address = address
        self._device_id = device_id
        self._reply = reply
        self._answered = False

    @property
    def answered(self) -> bool:
        """Whether the answer has been given."""
        return self._answered

    def result(self, value: JsonValue) -> None:
        """Answer with a result; RuntimeError when the call has had its answer."""
        self._answer_once()
        if self._address.request_id is not None:
            self._reply(encode_result(self._address, self._device_id, value))

    def error(self, code: int, message: str) -> None:
        """Answer with an error; RuntimeError when the call has had its answer.

        Code 0 is a success with words to it: the device ends `OTA.Update` that way.
        """
        self._answer_once()
        if self._address.request_id is not None:
            self._reply(encode_error(self._address, self._device_id, code, message))

    def _answer_once(self) -> None:
        if self._answered:
            raise RuntimeError(f"request {self._address.request_id} has been answered already")
        self._answered = True


def read_request(
    frame: bytes, reply: Reply, device_id: str, log: Callable[[str], None]
) -> Request | None:
    """The request in `frame`; None when it is none, which has been logged and answered then.

    The answer is error 400; a frame that does not say whom to answer gets none.
    """
    try:
        return parse_request(frame)
    except FrameError as error:
        log(f"rpc: request refused: {error}")
        if error.address is not None:
            PendingReply(error.address, device_id, reply).error(BAD_REQUEST, str(error))
        return None


@dataclass(slots=True)
class Call:
    """One call of a method, as its handler sees it.

    Attributes:
        method: the name it was called by.
        arguments: the declared arguments, checked.
        channel: what the request came over.
        request: the request as it came.
    """

    method: str
    arguments: ArgumentValues
    channel: Channel
    request: Request
    _pending: PendingReply
    _deferred: bool = field(default=False, init=False)

    def defer(self) -> PendingReply:
        """Answer later: what the handler returns is not used, the returned object answers."""
        self._deferred = True
        return self._pending

    @property
    def deferred(self) -> bool:
        """Whether the handler took the answer upon itself."""
        return self._deferred


Handler = Callable[[Call], JsonValue]
"""Carries a call out: returns the result, raises, or defers the answer.

An `RpcError` becomes the answer as it is, an `ArgumentError` the code 400 and any other
`OtasimError` the code -1 with its message.
Everything else, a bug as well as a reset of the board, passes through the dispatcher.
"""


Guard = Callable[[Request, Channel], None]
"""Decides whether a request may be carried out; one that may not is answered with the `RpcError`
that this raises. It is asked before anything else, so that it tells nobody which methods exist."""


def allow_everything(_request: Request, _channel: Channel) -> None:
    """The guard of a device without access rules."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method hosts can call."""

    name: str
    handler: Handler
    arguments: Arguments


class Dispatcher:
    """Knows the methods of the device and calls them.

    Args:
        device_id: the device's name, `src` of every answer; requests to another are ignored.
        log: takes one line of text without its newline.
        guard: decides which requests may be carried out.
    """

    def __init__(
        self, device_id: str, log: Callable[[str], None], guard: Guard = allow_everything
    ) -> None:
        self._device_id = device_id
        self._log = log
        self._guard = guard
        self._methods: dict[str, Method] = {}

    @property
    def device_id(self) -> str:
        """The device's name."""
        return self._device_id

    @property
    def methods(self) -> tuple[Method, ...]:
        """All methods in alphabetical order of their names."""
        return tuple(self._methods[name] for name in sorted(self._methods))

    def method(self, name: str) -> Method | None:
        """The method of that name, if there is one."""
        return self._methods.get(name)

    def register(self, method: str, handler: Handler, arguments: Arguments = NO_ARGUMENTS) -> None:
        """Offer a method; ValueError when there is one of that name."""
        if method in self._methods:
            raise ValueError(f"{method} is registered already")
        self._methods[method] = Method(method, handler, arguments)

    def handle(self, frame: bytes, reply: Reply, channel: Channel) -> None:
        """Carry out the request in `frame`.

        A frame that is no request is answered with error 400 as far as it says whom to answer, and
        only logged otherwise. One addressed to another device is only logged.

        Args:
            frame: the JSON of the request.
            reply: takes the answer's JSON, at once or later; never called for a notification.
            channel: what the frame came over.
        """
        request = read_request(frame, reply, self._device_id, self._log)
        if request is None:
            return
        if request.destination not in {"", self._device_id}:
            self._log(
                f"rpc: request ignored: it is for {describe(request.destination)}, "
                f"this is {describe(self._device_id)}"
            )
            return
        self._call(request, PendingReply(request.address, self._device_id, reply), channel)

    def _call(self, request: Request, pending: PendingReply, channel: Channel) -> None:
        try:
            self._guard(request, channel)
        except RpcError as error:
            self._log(f"rpc: {describe(request.method)} refused: {error}")
            pending.error(error.code, error.message)
            return
        method = self._methods.get(request.method)
        if method is None:
            self._log(f"rpc: no handler for {describe(request.method)}")
            pending.error(NOT_FOUND, f"No handler for {request.method}")
            return
        try:
            arguments = method.arguments.check(request.params)
        except ArgumentError as error:
            self._log(f"rpc: {method.name} refused: {error}")
            pending.error(BAD_REQUEST, str(error))
            return
        if undeclared := method.arguments.undeclared(request.params):
            # One line however many there are: the log must not drown in one frame's keys.
            self._log(
                f"rpc: {method.name} ignores {len(undeclared)} unknown arguments, "
                f"the first is {describe(undeclared[0])}"
            )
        self._run(method, Call(method.name, arguments, channel, request, pending), pending)

    def _run(self, method: Method, call: Call, pending: PendingReply) -> None:
        try:
            result = method.handler(call)
        except OtasimError as error:
            code = _error_code(error)
            self._log(f"rpc: {method.name} failed with code {code}: {error}")
            pending.error(code, str(error))
            return
        if not call.deferred:
            pending.result(result)


def _error_code(error: OtasimError) -> int:
    if isinstance(error, RpcError):
        return error.code
    return BAD_REQUEST if isinstance(error, ArgumentError) else FAILED
