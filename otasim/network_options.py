"""The options of `otasim run` that open a board to the network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import click

from rpc_shim.links.network import LinkSettings
from rpc_shim.links.sockets import DEFAULT_HOST, LARGEST_PORT

CommandT = TypeVar("CommandT", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 is any free one."""

    host: str
    port: int


class _AddressType(click.ParamType[Address]):
    """A port on the loopback, or HOST:PORT."""

    name = "[HOST:]PORT"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        host, _, port = str(value).rpartition(":")
        if not port.isascii() or not port.isdigit() or int(port) > LARGEST_PORT:
            self.fail(
                f"expected a port from 0 to {LARGEST_PORT}, or HOST:PORT, got {value!r}",
                param,
                ctx,
            )
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            self.fail(
                f"an IPv6 address stands in brackets: write [::]:0, not ::0; got {value!r}",
                param,
                ctx,
            )
        return Address(host.removeprefix("[").removesuffix("]") or DEFAULT_HOST, int(port))


def network_options(command: CommandT) -> CommandT:
    """Adds the options `--tcp`, `--http`, `--udp` and `--mqtt` to a command."""
    address = _AddressType()
    for name, what in (
        ("udp", "Answer RPC over UDP"),
        ("http", "Answer RPC over HTTP and WebSocket, and take updates by POST to /update"),
        ("tcp", "Answer RPC over TCP"),
    ):
        command = click.option(
            f"--{name}", type=address, help=f"{what}, on the loopback unless HOST says otherwise."
        )(command)
    return click.option("--mqtt", metavar="URL", help="Answer RPC by way of this MQTT broker.")(
        command
    )


def link_settings(
    tcp: Address | None, http: Address | None, udp: Address | None, mqtt: str | None
) -> list[LinkSettings]:
    """The links that were asked for. Their libraries are loaded only then."""
    links: list[LinkSettings] = []
    if tcp is not None:
        from rpc_shim.links.tcp import TcpSettings  # noqa: PLC0415 - see above

        links.append(TcpSettings(tcp.port, tcp.host))
    if http is not None:
        from rpc_shim.links.http import HttpSettings  # noqa: PLC0415

        links.append(HttpSettings(http.port, http.host))
    if udp is not None:
        from rpc_shim.links.udp import UdpSettings  # noqa: PLC0415

        links.append(UdpSettings(udp.port, udp.host))
    if mqtt is not None:
        from rpc_shim.links.mqtt import MqttSettings  # noqa: PLC0415

        links.append(MqttSettings(mqtt))
    return links
