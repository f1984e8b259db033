"""`otasim call`: a small client for those without `mos`."""

import json
import secrets

import click

from otasim.cli import EXIT_FAILED
from rpc_shim.client import DEFAULT_TIMEOUT_S, RpcClient, RpcClientError
from rpc_shim.frame import FrameError, JsonValue, decode_json

_FIRST_IDS = 1 << 40


@click.command()
@click.argument("method")
@click.argument("params", required=False)
@click.option("--port", required=True, metavar="PATH", help="Serial port of the board.")
@click.option(
    "--timeout", default=DEFAULT_TIMEOUT_S, show_default=True, metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True), help="How long to wait for the answer.",
)  # fmt: skip
def call(method: str, params: str | None, port: str, timeout: float) -> None:
    """Call METHOD with PARAMS, a JSON object, and print its result."""
    arguments = None if params is None else _parse(params)
    # Ids that no earlier client used: its late answers must not be taken for ours.
    first_id = secrets.randbelow(_FIRST_IDS) + 1
    with RpcClient.open(port, first_id=first_id) as client:
        try:
            result = client.call(method, arguments, timeout_s=timeout)
        except RpcClientError as error:
            click.echo(f"error {error.code}: {error.message}", err=True)
            raise SystemExit(EXIT_FAILED) from None
    click.echo(json.dumps(result, indent=2))


def _parse(params: str) -> dict[str, JsonValue]:
    try:
        value = decode_json(params.encode())
    except FrameError as error:
        raise click.BadParameter(f"no JSON: {error}", param_hint="PARAMS") from None
    if not isinstance(value, dict):
        raise click.BadParameter(
            'expected a JSON object such as \'{"url": "http://..."}\'', param_hint="PARAMS"
        )
    return value
