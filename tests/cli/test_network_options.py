"""How the options that open a board to the network are written."""

import click
import pytest
from click.testing import CliRunner, Result

from otasim.network_options import Address, network_options


def given(*arguments: str) -> Result:
    @click.command
    @network_options
    def show(tcp: Address, http: Address, udp: Address, mqtt: str) -> None:  # noqa: ARG001
        click.echo(f"{tcp.host} {tcp.port}")

    return CliRunner().invoke(show, arguments)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("0", "127.0.0.1 0"),
        (":80", "127.0.0.1 80"),
        ("localhost:65535", "localhost 65535"),
        ("0.0.0.0:80", "0.0.0.0 80"),
        ("[::]:0", ":: 0"),
        ("[fe80::1%eth0]:80", "fe80::1%eth0 80"),
    ],
)
def test_an_address(text: str, place: str) -> None:
    assert given("--tcp", text).output == f"{place}\n"


@pytest.mark.parametrize("text", ["::0", "::1:80", "fe80::5", "[::1:80", "::1]:80", "a:b:80"])
def test_an_ipv6_address_without_brackets_is_refused(text: str) -> None:
    result = given("--tcp", text)
    assert result.exit_code == click.UsageError.exit_code
    assert f"write [::]:0, not ::0; got '{text}'" in result.output


@pytest.mark.parametrize("text", ["", "x", "-1", "65536", "host:", "[::1]", "host:\u0663"])
def test_what_has_no_port_is_refused(text: str) -> None:
    result = given("--tcp", text)
    assert result.exit_code == click.UsageError.exit_code
    assert "expected a port from 0 to 65535, or HOST:PORT" in result.output
