"""RPC over HTTP and WebSocket on one port, and firmware uploads.

| request | answer |
| --- | --- |
| `POST /rpc` with a frame | a frame |
| `POST /rpc/METHOD` with params, `GET /rpc/METHOD?a=1` | the bare result, or the error |
| `GET /rpc` that asks for a WebSocket | one text message a frame, both ways |
| `POST /update` with a firmware bundle | see `rpc_shim.links.upload` |
| `POST /update/commit`, `POST /update/revert` | `OTA.Commit`, `OTA.Revert` |

Facts are from mongoose-os-libs/rpc-common (`mg_rpc_channel_http.c`), the README of ota-http-server,
and what `mos` and `curl` send. As on the device any web page may call: protect a board that matters
with access rules. As there, an `Authorization` header counts for one HTTP request only: one that
opens a WebSocket counts for nothing, and each frame brings its own proof.
"""

import asyncio
import logging
import socket
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader

from rpc_shim.dispatch import UNAUTHENTICATED, Channel, HttpAuthorization, RpcError
from rpc_shim.frame import FrameError, JsonValue, ascii_json, parse_request
from rpc_shim.links.mailbox import Boot, drop_answer
from rpc_shim.links.rest import (
    Params,
    body_params,
    call_frame,
    challenge,
    encode_body,
    http_status,
    query_params,
    result_of,
    will_be_answered,
)
from rpc_shim.links.sockets import (
    MAX_UNSENT,
    Connections,
    PortLink,
    PortSettings,
    authority,
    peer_name,
    serve_clients,
)
from rpc_shim.links.upload import receive_bundle

WEBSOCKET_PROTOCOL = "clubby.cesanta.com"

_HINT = "This is an otasim board: POST /rpc/METHOD, for instance /rpc/RPC.List, or POST /update.\n"
_UPDATE_METHODS = {"/update/commit": "OTA.Commit", "/update/revert": "OTA.Revert"}
_CORS_HEADERS = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
_SERVER_HEADER = {"Server": "otasim"}
_ENDING_TIMEOUT_S = 1.0


class _BugsOnly(logging.Filter):
    """What clients send is their affair: only errors of this program are worth a log record.

    Neither is a client that has left while it was being answered.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(
            error, HttpProcessingError | web.RequestPayloadError | ConnectionError
        )


_LOGGER = logging.getLogger("otasim.http")
_LOGGER.addFilter(_BugsOnly())
# It warns of clients that offer other protocols; unless somebody wants to know, nobody is told.
logging.getLogger("aiohttp.websocket").addHandler(logging.NullHandler())


class HttpSettings(PortSettings):
    """A TCP port to be reached on with HTTP and WebSocket."""

    def open(self) -> "HttpLink":
        """Take the port; NetworkLinkError when it is not to be had."""
        return HttpLink(self.bind("http", socket.SOCK_STREAM))


class HttpLink(PortLink):
    """A TCP port that speaks HTTP and WebSocket."""

    def urls(self, _device_id: str) -> Mapping[str, str]:
        """What `mos --port` takes."""
        place = authority(self._socket)
        return {"ws": f"ws://{place}/rpc", "http": f"http://{place}/rpc"}

    async def serve(self, boot: Boot) -> None:
        """Serve clients until the boot has ended."""
        connections = Connections()
        server = _Server(boot, connections)
        try:
            await serve_clients(self._socket, server, connections, boot)
        finally:
            await server.shutdown(_ENDING_TIMEOUT_S)


class _Server(web.Server):
    """aiohttp's server during one boot, which tells `connections` who comes and goes."""

    def __init__(self, boot: Boot, connections: Connections) -> None:
        super().__init__(
            _Handler(boot, connections).handle,
            request_factory=partial(_make_request, boot.max_frame_size),
            handler_cancellation=True,
            access_log=None,
            logger=_LOGGER,
            auto_decompress=False,
        )
        self._registry = connections
        self._transports: dict[web.RequestHandler, asyncio.Transport] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._transports[handler] = transport
        self._registry.add(transport)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        self._registry.remove(self._transports.pop(handler))


def _make_request(
    max_body: int,
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=max_body)


class _Handler:
    """Answers the requests of one boot, none of them while the application hangs."""

    def __init__(self, boot: Boot, connections: Connections) -> None:
        self._boot = boot
        self._connections = connections

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        try:
            if request.path == "/rpc" and request.method == "GET":
                return await self._websocket(request, transport)
            with self._connections.owing(transport):
                return await self._answer(request, _http_channel(request, transport))
        except web.HTTPException as refusal:
            refusal.headers.update(_SERVER_HEADER)
            await self._boot.turn()
            raise

    async def _answer(self, request: web.BaseRequest, channel: Channel) -> web.StreamResponse:
        path, method = request.path, request.method
        if path == "/rpc" or path.startswith("/rpc/"):
            if method == "OPTIONS":
                await self._boot.turn()
                return _response(b"")
            if path == "/rpc":
                _allow(request, "POST", "OPTIONS")
                return await self._frame(await self._body(request), channel)
            _allow(request, "GET", "POST", "OPTIONS")
            return await self._rest_call(request, channel)
        if path == "/update":
            if not self._boot.takes_uploads:
                raise web.HTTPForbidden(text="update.enable_post is off on this device\n")
            _allow(request, "POST")
            await self._continue(request)
            return await self._told(receive_bundle(request, self._boot, channel))
        if path in _UPDATE_METHODS:
            _allow(request, "POST")
            return await self._told(self._plain_call(_UPDATE_METHODS[path], channel))
        if path != "/":
            raise web.HTTPNotFound(text=_HINT)
        _allow(request, "GET")
        await self._boot.turn()
        return web.Response(text=_HINT, headers=_SERVER_HEADER)

    async def _frame(self, body: bytes, channel: Channel) -> web.Response:
        """A whole frame; errors are in the frame that answers it, except for the one of HTTP."""
        frame = ascii_json(body)
        if not will_be_answered(frame, self._boot.answers_to):
            await self._boot.submit(frame, channel, drop_answer)
            with _bad_request():
                parse_request(frame)
            return _response(b"")
        answer = await self._boot.call(frame, channel)
        try:
            result_of(answer)
        except RpcError as error:
            if header := challenge(error):
                return _unauthorized(header)
        return _response(answer + b"\r\n")

    async def _rest_call(self, request: web.BaseRequest, channel: Channel) -> web.Response:
        body = await self._body(request)
        is_query = request.method == "GET" and not body
        with _bad_request():
            params = (
                (query_params(request.rel_url.raw_query_string) or None)
                if is_query
                else body_params(body)
            )
        try:
            result = await self._call(request.path.removeprefix("/rpc/"), params, channel)
        except RpcError as error:
            if header := challenge(error):
                return _unauthorized(header)
            body = encode_body({"code": error.code, "message": error.message})
            return _response(body, http_status(error.code))
        return _response(encode_body(result))

    async def _plain_call(self, method: str, channel: Channel) -> str:
        await self._call(method, None, channel)
        return "Ok"

    async def _told(self, work: Coroutine[object, object, str]) -> web.Response:
        """The outcome of `work` in words."""
        try:
            status, text = 200, await work
        except RpcError as error:
            if header := challenge(error):
                return _unauthorized(header)
            status, text = http_status(error.code), error.message
        return web.Response(status=status, text=f"{text}\r\n", headers=_SERVER_HEADER)

    async def _call(self, method: str, params: Params, channel: Channel) -> JsonValue:
        frame = call_frame(next(self._boot.ids), method, params)
        return result_of(await self._boot.call(frame, channel))

    async def _body(self, request: web.BaseRequest) -> bytes:
        await self._continue(request)
        return await request.read()

    async def _continue(self, request: web.BaseRequest) -> None:
        """Tell a client that asks first that it may send its body."""
        expected = request.headers.get("Expect", "").lower()
        if expected == "100-continue" and request.version == HttpVersion11:
            await self._boot.turn()
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer itself has not begun

    async def _websocket(
        self, request: web.BaseRequest, transport: asyncio.Transport
    ) -> web.StreamResponse:
        websocket = web.WebSocketResponse(
            protocols=[WEBSOCKET_PROTOCOL],
            autoping=False,
            compress=False,
            max_msg_size=self._boot.max_frame_size + 1,
        )
        websocket.headers.update(_SERVER_HEADER)
        if not websocket.can_prepare(request):
            raise web.HTTPBadRequest(text=_HINT)
        await self._boot.turn()
        await websocket.prepare(request)
        client = _WebSocketClient(self._boot, self._connections, websocket, transport)
        await client.serve(Channel("WS_in", peer_name(transport)))
        return websocket


class _WebSocketClient:
    """One client. At most one request of it waits in the mailbox; until then no more is read."""

    def __init__(
        self,
        boot: Boot,
        connections: Connections,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
    ) -> None:
        self._boot = boot
        self._connections = connections
        self._websocket = websocket
        self._transport = transport
        self._sending: set[asyncio.Task[None]] = set()

    async def serve(self, channel: Channel) -> None:
        """Hand requests on until the client leaves or breaks the rules."""
        async for message in self._websocket:
            self._connections.used(self._transport)
            if message.type is WSMsgType.TEXT:
                frame = ascii_json(message.data.encode("utf-8"))
                if will_be_answered(frame, self._boot.answers_to):
                    self._connections.used(self._transport, owed=1)
                await self._boot.submit(frame, channel, self._answer)
            elif message.type is WSMsgType.PING:
                await self._boot.turn()
                await self._websocket.pong(message.data)
            elif message.type is WSMsgType.BINARY:
                await self._websocket.close(
                    code=WSCloseCode.UNSUPPORTED_DATA, message=b"frames are text"
                )

    def _answer(self, json: bytes) -> None:
        if self._websocket.closed or self._transport.is_closing():
            return
        self._connections.used(self._transport, owed=-1)
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            self._boot.log("ws: a client does not read its answers: disconnected")
            self._transport.abort()
            return
        task = asyncio.create_task(self._send(json.decode("ascii")))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, text: str) -> None:
        with suppress(ConnectionError):
            await self._websocket.send_str(text)


def _http_channel(request: web.BaseRequest, transport: asyncio.Transport) -> Channel:
    header = request.headers.get("Authorization")
    authorization = (
        None if header is None else HttpAuthorization(request.method, request.raw_path, header)
    )
    return Channel("HTTP", peer_name(transport), authorization)


def _allow(request: web.BaseRequest, *methods: str) -> None:
    if request.method not in methods:
        raise web.HTTPMethodNotAllowed(request.method, methods)


@contextmanager
def _bad_request() -> Iterator[None]:
    try:
        yield
    except FrameError as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from error


def _response(body: bytes, status: int = 200) -> web.Response:
    return web.Response(
        body=body,
        status=status,
        content_type="application/json",
        headers=_CORS_HEADERS | _SERVER_HEADER,
    )


def _unauthorized(header: str) -> web.Response:
    headers = _CORS_HEADERS | _SERVER_HEADER | {"WWW-Authenticate": header}
    return web.Response(status=UNAUTHENTICATED, headers=headers)
