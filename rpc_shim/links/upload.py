"""`POST /update`: a firmware bundle over plain HTTP, handed to the device's own update service.

    curl -F file=@fw.zip 'http://127.0.0.1:8080/update?commit_timeout=60'
    curl --data-binary @fw.zip http://127.0.0.1:8080/update

The bundle becomes `OTA.Begin`, an `OTA.Write` for each chunk and `OTA.End`, each sent when the one
before has been answered. So it is never in memory as a whole, access rules hold for it as for any
other update, and one that a client leaves half done is aborted. All of them name the session, so
that none of them means an update that somebody else has begun meanwhile.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import ExitStack, aclosing, contextmanager

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http import HttpProcessingError

from rpc_shim.dispatch import Channel, RpcError
from rpc_shim.frame import FrameError, JsonValue
from rpc_shim.links.mailbox import Boot, do_nothing, drop_answer
from rpc_shim.links.rest import call_frame, json_or_text, query_params, result_of

CHUNK_SIZE = 2048
"""Bytes in one `OTA.Write`."""

_OPTIONS = ("commit_timeout", "timeout")
_LONGEST_OPTION = 32


async def receive_bundle(request: web.BaseRequest, boot: Boot, channel: Channel) -> str:
    """Carry an upload out; returns what to tell the client.

    The bundle is the file of a form, or else the body. `commit_timeout` and `timeout`, in seconds,
    are fields of the form before the file, or in the query.

    Raises:
        RpcError: the device refuses it, or gives up.
        web.HTTPBadRequest: the request holds no bundle, or is malformed.
    """
    with _refuse_malformed():
        given = query_params(request.rel_url.raw_query_string)
        options = {name: given[name] for name in _OPTIONS if name in given}
        size: int | None = None
        if not request.can_read_body:
            # `curl --digest` sends no body before it knows the challenge, so the board is asked.
            chunks = _nothing()
        elif request.content_type.startswith("multipart/"):
            form = await request.multipart()
            file = await _find_file(form, options)
            chunks = _nothing() if file is None else _read_file(form, file)
        else:
            size = request.content_length
            chunks = _read_body(request)
    if size is not None:
        options["size"] = size
    async with aclosing(chunks):
        await _Upload(boot, channel).carry_out(options, chunks)
    return "Update applied, finalizing"


class _Upload:
    """What the board is told of one upload."""

    def __init__(self, boot: Boot, channel: Channel) -> None:
        self._boot = boot
        self._channel = channel
        self._session = f"POST /update {next(boot.ids)}"

    async def carry_out(
        self, options: Mapping[str, JsonValue], chunks: AsyncGenerator[bytes, None]
    ) -> None:
        await self._begin(options)
        with ExitStack() as unless_complete:
            unless_complete.callback(self._abort)
            offset = 0
            async for chunk in chunks:
                data = base64.b64encode(chunk).decode("ascii")
                await self._call("OTA.Write", {"offset": offset, "data": data})
                offset += len(chunk)
            if not offset:
                raise web.HTTPBadRequest(
                    text="no firmware bundle in the request: send it with -F file=@fw.zip\n"
                )
            unless_complete.pop_all()
        await self._call("OTA.End", {})

    async def _begin(self, options: Mapping[str, JsonValue]) -> None:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def answered(json: bytes) -> None:
            if not answer.cancelled():
                answer.set_result(json)
            elif _succeeded(json):
                self._abort()  # the client has left since the board took the request

        frame = self._frame("OTA.Begin", options)
        entry = self._boot.post(frame, self._channel, answered, do_nothing)
        try:
            result_of(await answer)
        except asyncio.CancelledError:
            self._boot.withdraw(entry)
            raise

    def _abort(self) -> None:
        frame = self._frame("OTA.Abort", {})
        self._boot.post(frame, self._channel, drop_answer, do_nothing)

    async def _call(self, method: str, params: Mapping[str, JsonValue]) -> None:
        result_of(await self._boot.call(self._frame(method, params), self._channel))

    def _frame(self, method: str, params: Mapping[str, JsonValue]) -> bytes:
        params = {**params, "session": self._session}
        return call_frame(next(self._boot.ids), method, params)


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""


async def _read_body(request: web.BaseRequest) -> AsyncGenerator[bytes, None]:
    chunk = bytearray()
    while True:
        with _refuse_malformed():
            data = await request.content.read(CHUNK_SIZE - len(chunk))
        chunk += data
        if chunk and (not data or len(chunk) == CHUNK_SIZE):
            yield bytes(chunk)
            chunk.clear()
        if not data:
            return


async def _find_file(form: MultipartReader, options: dict[str, JsonValue]) -> BodyPartReader | None:
    """The file of the form; fields before it that are options are added to `options`."""
    while (part := await form.next()) is not None:
        if not isinstance(part, BodyPartReader):
            raise FrameError("a form within the form")
        if part.filename is not None or part.name not in _OPTIONS:
            return part
        text = bytes(await part.read_chunk(CHUNK_SIZE))
        if len(text) > _LONGEST_OPTION:
            raise ValueError(f"{part.name} is longer than {_LONGEST_OPTION} characters")
        options[part.name] = json_or_text(text.decode("utf-8"))
    return None


async def _read_file(form: MultipartReader, file: BodyPartReader) -> AsyncGenerator[bytes, None]:
    chunk = bytearray()
    while True:
        with _refuse_malformed():
            data = await file.read_chunk(CHUNK_SIZE)
        chunk += data
        while len(chunk) >= CHUNK_SIZE or (chunk and not data):
            yield bytes(chunk[:CHUNK_SIZE])
            del chunk[:CHUNK_SIZE]
        if not data:
            break
    with _refuse_malformed():
        if await form.next() is not None:
            # Nothing is lost silently: an option that comes now is too late to count.
            raise ValueError("one file only, and fields before it")


@contextmanager
def _refuse_malformed() -> Iterator[None]:
    """What aiohttp and this module raise for a malformed request becomes status 400."""
    try:
        yield
    except (
        AssertionError, FrameError, HttpProcessingError, RuntimeError, ValueError,
        web.RequestPayloadError,
    ) as error:  # fmt: skip
        raise web.HTTPBadRequest(text=f"malformed upload: {error}\n") from error


def _succeeded(answer: bytes) -> bool:
    try:
        result_of(answer)
    except RpcError:
        return False
    return True
