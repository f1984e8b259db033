"""RPC over MQTT, as a client of somebody's broker.

Requests come to the topic `DEVICE_ID/rpc`, or to `DEVICE_ID/rpc/METHOD` without a method in the
frame; the answer goes to `SRC/rpc`, where SRC is the request's `src`. Everything has QoS 1. Facts
are from mongoose-os-libs/rpc-mqtt (`mgos_rpc_channel_mqtt.c`) and from what `mos` sends. Stricter
than there: what the broker has retained is no request.
"""

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote, unquote, urlsplit

import aiomqtt

from rpc_shim.dispatch import Channel
from rpc_shim.frame import FrameError, ascii_json, decode_json, encode_object, parse_request
from rpc_shim.links.mailbox import Boot
from rpc_shim.links.sockets import NetworkLinkError, name_of

DEFAULT_PORT = 1883

_TIMEOUT_S = 5.0
_LEAVING_TIMEOUT_S = 1.0
_FIRST_DELAY_S, _LARGEST_DELAY_S = 0.1, 5.0
_MAX_WAITING = 64
_MAX_UNSENT = 256
_QOS = 1
_LARGEST_TOPIC = 65535
_REFUSED = 0x80
_EXPECTED = "expected mqtt://[USER[:PASSWORD]@]HOST[:PORT]"
_CHANNEL = Channel("MQTT")

# The state of the connection is told on the board's console, once for each change.
_LOGGER = logging.getLogger("otasim.mqtt")
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """A broker to be reached through.

    Attributes:
        url: `mqtt://[USER[:PASSWORD]@]HOST[:PORT]`.
    """

    url: str

    def open(self) -> "MqttLink":
        """Take the URL apart; NetworkLinkError when it is none. The broker may come later."""
        return MqttLink(parse_broker(self.url))


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker is, and as whom to connect."""

    host: str
    port: int
    username: str | None
    password: str | None

    @property
    def place(self) -> str:
        """Host and port as URLs have them."""
        return name_of(self.host, self.port)


def parse_broker(url: str) -> Broker:
    """Take `mqtt://[USER[:PASSWORD]@]HOST[:PORT]` apart; NetworkLinkError says what is wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise NetworkLinkError(f"mqtt: {error}; {_EXPECTED}", "mqtt", "", 0) from error
    if parts.scheme != "mqtt" or not parts.hostname or parts.path.strip("/") or parts.query:
        # The URL is not repeated: there may be a password in it.
        raise NetworkLinkError(f"mqtt: this is no broker; {_EXPECTED}", "mqtt", "", 0)
    return Broker(
        parts.hostname,
        DEFAULT_PORT if port is None else port,
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
    )


def is_topic(text: str) -> bool:
    """Whether messages can be published to a topic of this name."""
    return (
        bool(text)
        and not any(character in text for character in "+#\0")
        and len(text.encode("utf-8", "surrogatepass")) <= _LARGEST_TOPIC
    )


@dataclass(frozen=True, slots=True)
class MqttRequest:
    """A request, and where its answer goes."""

    frame: bytes
    answer_topic: str


def read_request(topic: str, payload: bytes, device_id: str) -> MqttRequest:
    """The request in a message.

    Args:
        topic: `DEVICE_ID/rpc` or `DEVICE_ID/rpc/METHOD`.
        payload: the frame; in the second case its method, if any, does not count.
        device_id: the device's name.

    Raises:
        FrameError: there is none, or none that could be answered where an answer is expected.
    """
    frame = ascii_json(payload)
    if method := topic.removeprefix(f"{device_id}/rpc").removeprefix("/"):
        members = decode_json(frame)
        if not isinstance(members, Mapping):
            raise FrameError("the payload is no JSON object")
        frame = encode_object({**members, "method": method})
    try:
        address = parse_request(frame).address
    except FrameError as error:
        if error.address is None:
            raise
        address = error.address
    answer_topic = f"{address.source}/rpc"
    if address.request_id is not None and not address.source:
        raise FrameError("it has no src, so there is nowhere to answer to")
    if not is_topic(answer_topic):
        raise FrameError("its src is no topic, so there is nowhere to answer to")
    return MqttRequest(frame, answer_topic)


class MqttLink:
    """A broker.

    Args:
        broker: where it is.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def urls(self, device_id: str) -> Mapping[str, str]:
        """What `mos --port` takes, without user and password, which are nobody else's affair."""
        if not device_id:
            return {}
        return {"mqtt": f"mqtt://{self._broker.place}/{quote(device_id)}"}

    async def serve(self, boot: Boot) -> None:
        """Be connected, as far as there is a broker, until the boot has ended."""
        if not is_topic(boot.device_id):
            boot.log("mqtt: off, because the device's id is no topic: change device.id")
            return
        clock = asyncio.get_running_loop().time
        delay_s, told = _FIRST_DELAY_S, ""
        while not boot.ended.is_set():
            session = _Session(boot, self._broker)
            began_s = clock()
            try:
                await session.run()
            except aiomqtt.MqttError as error:
                hint = ""
                if session.was_connected:
                    told = ""
                    if clock() - began_s > _LARGEST_DELAY_S:
                        delay_s = _FIRST_DELAY_S
                    else:
                        hint = _same_id_hint(boot.device_id)
                if told != str(error):
                    told = str(error)
                    boot.log(
                        f"mqtt: no connection to {self._broker.place}: {error}; trying again{hint}"
                    )
            with suppress(TimeoutError):
                await asyncio.wait_for(boot.ended.wait(), delay_s)
            delay_s = min(2 * delay_s, _LARGEST_DELAY_S)

    def close(self) -> None:
        """There is no port to give back."""


class _Session:
    """One connection to the broker."""

    def __init__(self, boot: Boot, broker: Broker) -> None:
        self._boot = boot
        self._broker = broker
        self._client = aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password,
            identifier=boot.device_id,
            timeout=_TIMEOUT_S,
            max_queued_incoming_messages=_MAX_WAITING,
            logger=_LOGGER,
            # Acknowledgements would wait for each other otherwise, 40 ms each time.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        self._room = asyncio.Semaphore(_MAX_WAITING)
        self._publishing: set[asyncio.Task[None]] = set()
        self.was_connected = False

    async def run(self) -> None:
        """Connect and serve until the boot has ended; MqttError when that cannot be.

        Connecting is not cut short when the boot ends: paho does it in a thread of its own.
        """
        try:
            await self._client.__aenter__()
            await self._serve()
        finally:
            # Also after failing to connect, which leaves a socket open when the broker is silent.
            self._client.timeout = _LEAVING_TIMEOUT_S
            with suppress(aiomqtt.MqttError):
                await self._client.__aexit__(None, None, None)
                # Why the connection was lost is no news, but asyncio complains if nobody asks.
                async for _ in self._client.messages:
                    pass
            await _cancel(*self._publishing)

    async def _serve(self) -> None:
        # Receiving notices the loss of the connection, so it begins before anything else.
        receiving = asyncio.create_task(self._receive())
        ending = asyncio.create_task(self._boot.until_ended())
        try:
            await self._subscribe()
            self.was_connected = True
            self._boot.log(f"mqtt: connected to {self._broker.place}")
            await asyncio.wait({receiving, ending}, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                receiving.result()
        finally:
            await _cancel(receiving, ending)

    async def _subscribe(self) -> None:
        # It includes DEVICE_ID/rpc itself. With both, as the device has it, a broker may bring
        # every message twice.
        topics = f"{self._boot.device_id}/rpc/#"
        for code in await self._client.subscribe(topics, qos=_QOS):
            if (code if isinstance(code, int) else code.value) >= _REFUSED:
                raise aiomqtt.MqttError(f"the broker refuses the subscription to {topics}")

    async def _receive(self) -> None:
        async for message in self._client.messages:
            topic, payload = message.topic.value, message.payload
            assert isinstance(payload, bytes)  # noqa: S101 - what is received always is
            try:
                if message.retain:
                    # The broker would send it again at every start: one OTA.Commit that somebody
                    # has left there would commit every update, one Sys.Reboot reboot for ever.
                    raise FrameError("it is retained, and a request is for this moment only")
                if len(payload) > self._boot.max_frame_size:
                    raise FrameError(f"a frame has up to {self._boot.max_frame_size} bytes")
                request = read_request(topic, payload, self._boot.device_id)
            except FrameError as error:
                self._boot.log(f"mqtt: message to {topic} dropped: {error}")
                continue
            await self._room.acquire()
            answered = partial(self._answer, request.answer_topic)
            self._boot.post(request.frame, _CHANNEL, answered, self._room.release)

    def _answer(self, topic: str, json: bytes) -> None:
        if len(self._publishing) >= _MAX_UNSENT:
            self._boot.log("mqtt: answer dropped: the broker does not take the earlier ones")
            return
        task = asyncio.create_task(self._publish(topic, json))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _publish(self, topic: str, json: bytes) -> None:
        with suppress(aiomqtt.MqttError):
            await self._client.publish(topic, json, qos=_QOS)


def _same_id_hint(device_id: str) -> str:
    """What is likely when a connection breaks as soon as it is there.

    A broker hangs up on a client when another one of the same id comes, and two that come again and
    again do that to each other for ever.
    """
    return (
        f". Is there another client with the id '{device_id}'? Give this board another one: "
        "otasim run --device-id NAME"
    )


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    """End tasks; what they raise meanwhile is nothing to anybody."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
