"""`otasim call`: a small client for those without `mos`."""

import json
import re
import secrets

import click

from otasim.cli import EXIT_FAILED
from rpc_shim.client import DEFAULT_TIMEOUT_S, RpcClient, RpcClientError
from rpc_shim.frame import FrameError, JsonValue, decode_json

_FIRST_IDS = 1 << 40
_MAX_TIMEOUT_S = 24 * 3600.0
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


class _Seconds(click.ParamType[float]):
    """A time to wait."""

    name = "SECONDS"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            seconds = float(str(value))
        except ValueError:
            self.fail(f"expected seconds, got {value!r}", param, ctx)
        if not 0 < seconds <= _MAX_TIMEOUT_S:
            self.fail(f"expected more than 0 and up to {_MAX_TIMEOUT_S:g} seconds", param, ctx)
        return seconds


@click.command()
@click.argument("method")
@click.argument("params", required=False)
@click.option("--port", required=True, metavar="PATH", help="Serial port of the board.")
@click.option(
    "--timeout", default=DEFAULT_TIMEOUT_S, show_default=True, type=_Seconds(),
    help="How long to wait for the answer.",
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
    # Frames are ASCII, in which JSON can say every character.
    ascii_only = _NOT_ASCII.sub(lambda character: json.dumps(character[0])[1:-1], params)
    try:
        value = decode_json(ascii_only.encode("ascii"))
    except FrameError as error:
        raise click.BadParameter(f"no JSON: {error}", param_hint="PARAMS") from None
    if not isinstance(value, dict):
        raise click.BadParameter(
            'expected a JSON object such as \'{"url": "http://..."}\'', param_hint="PARAMS"
        )
    return value
