"""Host tools as the tests drive them: the real ones, and clients that send exactly the same."""

import base64
import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import ClientSession
from paho.mqtt.client import Client as MqttClient
from paho.mqtt.enums import CallbackAPIVersion

from rpc_shim.client import Framing, RpcClient, SerialPort
from rpc_shim.frame import JsonValue
from tests.links.fake_board import WAIT_S, wait_until
from tests.rpc.mos import MOS

Params = dict[str, JsonValue]
CURL = shutil.which("curl")
MOSQUITTO_RR = shutil.which("mosquitto_rr")
CHUNK_SIZE = 512


class ToolError(Exception):
    """What a tool was asked for has failed."""


class Tool(Protocol):
    """What a host tool can do with a board."""

    def call(self, method: str, params: Params | None = None) -> JsonValue: ...

    def push(self, bundle: Path, commit_timeout: int) -> None: ...

    def names(self) -> list[str]: ...

    def put(self, file: Path) -> None: ...

    def get(self, name: str) -> bytes: ...

    def remove(self, name: str) -> None: ...

    def configure(self, key: str, value: str) -> None: ...

    def configured(self, key: str) -> JsonValue: ...


@dataclass(frozen=True)
class Mos:
    """The real `mos`, with its default settings."""

    port: str

    def call(self, method: str, params: Params | None = None) -> JsonValue:
        arguments = [] if params is None else [json.dumps(params)]
        value: JsonValue = json.loads(self.run("call", method, *arguments))
        return value

    def push(self, bundle: Path, commit_timeout: int) -> None:
        self.run("ota", str(bundle), "--commit-timeout", f"{commit_timeout}s")

    def names(self) -> list[str]:
        return self.run("ls").split()

    def put(self, file: Path) -> None:
        self.run("put", str(file))

    def get(self, name: str) -> bytes:
        return self.run("get", name).encode()

    def remove(self, name: str) -> None:
        self.run("rm", name)

    def configure(self, key: str, value: str) -> None:
        self.run("config-set", "--no-reboot", f"{key}={value}")

    def configured(self, key: str) -> JsonValue:
        value: JsonValue = json.loads(self.run("config-get", key))
        return value

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [MOS or "mos", "--port", self.port, *arguments],
            env={**os.environ, "MOS_MIGRATE": "false"},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        if done.returncode:
            raise ToolError(done.stderr)
        return done.stdout


@dataclass(frozen=True)
class Frames:
    """A client that makes the calls that `mos` makes for each of its commands.

    Attributes:
        exchange: sends a method with its params and returns the result.
    """

    exchange: Callable[[str, Params | None], JsonValue]

    def call(self, method: str, params: Params | None = None) -> JsonValue:
        return self.exchange(method, params)

    def push(self, bundle: Path, commit_timeout: int) -> None:
        content = bundle.read_bytes()
        status = self.call("OTA.Status")
        assert isinstance(status, dict)
        assert status["state"] in (0, 2)
        begin: Params = {"timeout": 600, "commit_timeout": commit_timeout, "size": len(content)}
        self.call("OTA.Begin", begin)
        for offset in range(0, len(content), CHUNK_SIZE):
            data = base64.b64encode(content[offset : offset + CHUNK_SIZE]).decode()
            self.call("OTA.Write", {"offset": offset, "data": data})
        self.call("OTA.End")

    def names(self) -> list[str]:
        listed = self.call("FS.List")
        assert isinstance(listed, list)
        return [str(name) for name in listed]

    def put(self, file: Path) -> None:
        data = base64.b64encode(file.read_bytes()).decode()
        self.call("FS.Put", {"filename": file.name, "offset": 0, "append": False, "data": data})

    def get(self, name: str) -> bytes:
        answer = self.call("FS.Get", {"filename": name, "offset": 0, "len": CHUNK_SIZE})
        assert isinstance(answer, dict)
        assert answer["left"] == 0
        return base64.b64decode(str(answer["data"]))

    def remove(self, name: str) -> None:
        self.call("FS.Remove", {"filename": name})

    def configure(self, key: str, value: str) -> None:
        tree: JsonValue = int(value)
        for part in reversed(key.split(".")):
            tree = {part: tree}
        self.call("Config.Set", {"config": tree, "save": True, "reboot": False})

    def configured(self, key: str) -> JsonValue:
        tree = self.call("Config.Get")
        for part in key.split("."):
            assert isinstance(tree, dict)
            tree = tree[part]
        return tree


def exact_client(transport: str, url: str) -> Frames:
    """A client for one of the transports that `mos` speaks, framing as `mos` does."""
    ids = iter(range(1, 1_000_000))

    def frame(method: str, params: Params | None, **members: JsonValue) -> bytes:
        request: Params = {"src": "mos", "id": next(ids), "method": method, **members}
        return json.dumps(request if params is None else {**request, "params": params}).encode()

    def over_serial(method: str, params: Params | None) -> JsonValue:
        with RpcClient(SerialPort(url), framing=Framing.QUOTES, first_id=next(ids)) as client:
            return client.call(method, params, timeout_s=WAIT_S)

    def over_tcp(method: str, params: Params | None) -> JsonValue:
        with socket.create_connection(_address(url), timeout=WAIT_S) as connection:
            connection.sendall(b'\n"""' + frame(method, params) + b'"""\n')
            received = b""
            while received.count(b'"""') < 2:
                part = connection.recv(65536)
                if not part:
                    raise ToolError("the connection has ended")
                received += part
        return _result(received.split(b'"""')[1].rpartition(b"}")[0] + b"}")

    def over_udp(method: str, params: Params | None) -> JsonValue:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            connection.settimeout(WAIT_S)
            connection.connect(_address(url))
            connection.send(frame(method, params))
            return _result(connection.recv(65536))

    def over_http(method: str, params: Params | None) -> JsonValue:
        request = urllib.request.Request(  # noqa: S310 - our own http URL
            url, frame(method, params), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=WAIT_S) as response:  # noqa: S310
            return _result(response.read())

    def over_mqtt(method: str, params: Params | None) -> JsonValue:
        device = urlsplit(url).path.strip("/")
        source = f"{device}/rpc-resp/mos-{next(ids)}"
        answers: list[bytes] = []
        subscribed: list[int] = []
        client = MqttClient(CallbackAPIVersion.VERSION2)
        client.on_message = lambda _client, _data, message: answers.append(bytes(message.payload))
        client.on_subscribe = lambda _client, _data, number, _codes, _more: subscribed.append(
            number
        )
        client.connect(*_address(url))
        client.loop_start()
        try:
            client.subscribe(f"{source}/rpc", qos=1)
            wait_until(lambda: bool(subscribed), "the subscription")
            client.publish(f"{device}/rpc", frame(method, params, src=source), qos=1)
            wait_until(lambda: bool(answers), f"an answer to {method}")
        finally:
            client.disconnect()
            client.loop_stop()
        return _result(answers[0])

    exchanges = {
        "serial": over_serial,
        "tcp": over_tcp,
        "udp": over_udp,
        "http": over_http,
        "ws": lambda method, params: websocket_call(url, frame(method, params)),
        "mqtt": over_mqtt,
    }
    return Frames(exchanges[transport])


def websocket_call(url: str, request: bytes) -> JsonValue:
    """One call over a WebSocket, as a page in a browser makes it."""
    import asyncio  # noqa: PLC0415 - for this one alone

    async def talk() -> bytes:
        async with (
            asyncio.timeout(WAIT_S),
            ClientSession() as session,
            session.ws_connect(url, protocols=["clubby.cesanta.com"]) as connection,
        ):
            await connection.send_str(request.decode())
            return (await connection.receive_str()).encode()

    return _result(asyncio.run(talk()))


def curl(url: str, *arguments: str) -> JsonValue:
    """What the real `curl` prints."""
    done = subprocess.run(
        [CURL or "curl", "--silent", "--show-error", "--fail-with-body", *arguments, url],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    if done.returncode:
        raise ToolError(f"{done.stderr}{done.stdout}")
    try:
        value: JsonValue = json.loads(done.stdout)
    except ValueError:
        return done.stdout
    return value


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 1883


def _result(answer: bytes) -> JsonValue:
    members = json.loads(answer)
    if "error" in members:
        raise ToolError(str(members["error"]))
    value: JsonValue = members["result"]
    return value
