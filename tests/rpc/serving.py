"""An RPC service: as a dispatcher alone, and on a real pseudo terminal, served by a thread."""

import json
import os
import select
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rpc_shim.dispatch import Call, Channel, Dispatcher, Guard, PendingReply, allow_everything
from rpc_shim.frame import JsonValue
from rpc_shim.framing import DEFAULT_MAX_FRAME_SIZE
from rpc_shim.links.pty import PtyLink
from rpc_shim.services.rpc import register_rpc_service
from rpc_shim.uart import HostOutput, UartChannel


def call_dispatcher(
    dispatcher: Dispatcher, method: str, params: Mapping[str, JsonValue] | None = None
) -> JsonValue:
    """The result of a call from the UART, or the error as [code, message]."""
    answers: list[bytes] = []
    frame = json.dumps({"id": 1, "method": method, "params": params}).encode()
    dispatcher.handle(frame, answers.append, Channel("UART", "UART2"))
    (text,) = answers
    answer: dict[str, dict[str, JsonValue]] = json.loads(text)
    if "error" in answer:
        return [answer["error"]["code"], answer["error"]["message"]]
    return answer["result"]


@dataclass
class ServedDevice:
    """What the device heard, for tests to look at when they have got their answers."""

    port: str
    console: bytearray = field(default_factory=bytearray)
    waiting: list[PendingReply] = field(default_factory=list)

    def echo(self, call: Call) -> JsonValue:
        params = call.request.params
        return dict(params) if isinstance(params, dict) else None


@contextmanager
def serve(
    symlink: Path | None = None,
    *,
    guard: Guard = allow_everything,
    register: Callable[[Dispatcher], None] = register_rpc_service,
    max_frame_size: int = DEFAULT_MAX_FRAME_SIZE,
) -> Iterator[ServedDevice]:
    """A device that answers and talks on its console between any two answers until the end."""
    wake, stop = os.pipe()
    with PtyLink(symlink) as link:
        device = ServedDevice(link.port)
        output = HostOutput(link.write)
        dispatcher = Dispatcher("dev", output.write_line, guard)
        register(dispatcher)
        dispatcher.register("Echo", device.echo)
        dispatcher.register("Later", lambda call: device.waiting.append(call.defer()))
        channel = UartChannel(
            dispatcher, output, device.console.extend, max_frame_size=max_frame_size
        )

        def main_loop() -> None:
            while True:
                writable = [link.fileno()] if link.output_waiting else []
                if wake in select.select([link.fileno(), wake], writable, [])[0]:
                    return
                link.flush()
                channel.host_bytes(link.read())
                output.write_console(b'busy {"not":"a frame"} "')
                channel.turn()
                output.write_line("{log text}")
                for pending in device.waiting:
                    pending.error(0, "done")
                device.waiting.clear()

        thread = threading.Thread(target=main_loop)
        thread.start()
        try:
            yield device
        finally:
            os.write(stop, b"x")
            thread.join()
            os.close(wake)
            os.close(stop)
