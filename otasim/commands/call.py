"""`otasim call`: a small client for those without `mos`."""

import json
import secrets
from pathlib import Path

import click

from otasim.cli import EXIT_FAILED
from rpc_shim.client import DEFAULT_TIMEOUT_S, Credentials, RpcClient, RpcClientError
from rpc_shim.dispatch import UNAUTHENTICATED
from rpc_shim.frame import FrameError, JsonValue, decode_json, escape_to_ascii

_FIRST_IDS = 1 << 40
_HINTS = {
    False: "the board wants to know who is calling: use --rpc-creds USER:PASSWORD",
    True: "the board does not know this user with this password",
}
_MAX_TIMEOUT_S = 24 * 3600.0


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
@click.option(
    "--rpc-creds", metavar="USER:PASSWORD",
    help="Who is calling, where the board wants to know. @FILE reads it from a file.",
)  # fmt: skip
def call(method: str, params: str | None, port: str, timeout: float, rpc_creds: str | None) -> None:
    """Call METHOD with PARAMS, a JSON object, and print its result."""
    arguments = None if params is None else _parse(params)
    credentials = None if rpc_creds is None else _credentials(rpc_creds)
    # Ids that no earlier client used: its late answers must not be taken for ours.
    first_id = secrets.randbelow(_FIRST_IDS) + 1
    with RpcClient.open(port, credentials=credentials, first_id=first_id) as client:
        try:
            result = client.call(method, arguments, timeout_s=timeout)
        except RpcClientError as error:
            click.echo(f"error {error.code}: {error.message}", err=True)
            if error.code == UNAUTHENTICATED:
                click.echo(_HINTS[credentials is not None], err=True)
            raise SystemExit(EXIT_FAILED) from None
    click.echo(json.dumps(result, indent=2))


def _credentials(text: str) -> Credentials:
    if text.startswith("@"):
        try:
            text = Path(text.removeprefix("@")).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(str(error), param_hint="--rpc-creds") from None
    credentials = Credentials.parse(text)
    if credentials is None:
        raise click.BadParameter(
            "expected USER:PASSWORD, or @FILE that holds it", param_hint="--rpc-creds"
        )
    return credentials


def _parse(params: str) -> dict[str, JsonValue]:
    try:
        value = decode_json(escape_to_ascii(params))
    except FrameError as error:
        raise click.BadParameter(f"no JSON: {error}", param_hint="PARAMS") from None
    if not isinstance(value, dict):
        raise click.BadParameter(
            'expected a JSON object such as \'{"url": "http://..."}\'', param_hint="PARAMS"
        )
    return value
