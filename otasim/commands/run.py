"""`otasim run`: keeps a board running for host tools."""

import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from click.core import ParameterSource

from otasim.board import DEFAULT_IMAGE, Board, TimeLimitError
from otasim.engines import AUTO, ENGINES, choose_engine
from otasim.network_options import Address, link_settings, network_options
from otasim.pacing import Pacer
from otasim.ready_file import ReadyFile
from otasim.settings import DeviceSettings, RpcMode
from otasim.terminal import ConsoleDisplay, Keyboard
from platforms.clock import NS_PER_S
from platforms.description import BOARD_FILE
from platforms.engines.protocol import DebugTools
from platforms.errors import OtasimError
from platforms.trace import TraceEvent
from rpc_shim.config.schema import DEVICE_ID
from rpc_shim.links.pty import PtyLink

_READY_LIMIT_S = 60
_NONCE_SEED_BITS = 128
_MIN_SPEED, _MAX_SPEED = 1e-6, 1000.0


class _Speed(click.ParamType["float | str"]):
    """A factor, or `max` for as fast as it goes."""

    name = "N|max"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> "float | str":
        if value == "max":
            return "max"
        try:
            speed = float(str(value))
        except ValueError:
            self.fail(f"expected a number or 'max', got {value!r}", param, ctx)
        if not _MIN_SPEED <= speed <= _MAX_SPEED:
            self.fail(
                f"expected a number from {_MIN_SPEED:f} to {_MAX_SPEED:g}, or 'max'", param, ctx
            )
        return speed


class _Stop(Exception):  # noqa: N818 - it is control flow, not an error
    """Somebody wants the board to end."""


@click.command()
@click.option(
    "--image", default=DEFAULT_IMAGE, show_default=True, metavar="FILE",
    help="Application that slot 0 of a fresh board holds, committed: .zip, .hex, .elf or .bin, "
    "or the name of a sample.",
)  # fmt: skip
@click.option(
    "--engine", type=click.Choice((AUTO, *ENGINES)), default=AUTO, show_default=True,
    help="What runs the processor.",
)  # fmt: skip
@click.option(
    "--platform", type=click.Path(path_type=Path), default=BOARD_FILE, metavar="FILE",
    help="The .repl file that describes the board; without it the STM32F405 of this project.",
)  # fmt: skip
@click.option("--loader", metavar="MODULE:CLASS", help="Your own boot loader.")
@click.option(
    "--poll-service",
    type=click.IntRange(1, 1000),
    metavar="MS",
    help="For firmware that feeds no watchdog: serve RPC every so many ms instead of at each feed.",
)
@click.option(
    "--strict-original",
    is_flag=True,
    help="Boot as the original loader does, endless loop on a bad image included.",
)
@click.option(
    "--state", "state_directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Keep the flash contents here; a board that is there already goes on.",
)  # fmt: skip
@click.option(
    "--serial-link", type=click.Path(path_type=Path), metavar="PATH",
    help="Make a symbolic link to the serial port here.",
)  # fmt: skip
@click.option(
    "--speed", type=_Speed(), default=1.0, show_default=True,
    help="Virtual seconds per real second, or max.",
)  # fmt: skip
@click.option(
    "--ready-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write a JSON object with pid, engine and serial here when the board can be talked to.",
)  # fmt: skip
@click.option(
    "--monitor", type=click.IntRange(1, 65535), metavar="PORT",
    help="Open Renode's monitor on a TCP port (telnet).",
)  # fmt: skip
@click.option(
    "--gdb", type=click.IntRange(1, 65535), metavar="PORT",
    help="Start Renode's GDB server on a TCP port.",
)  # fmt: skip
@click.option(
    "--renode-log", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write Renode's log here.",
)  # fmt: skip
@click.option(
    "--device-id", default=DEVICE_ID.default, show_default=True, metavar="NAME",
    help="Name of the device, until its configuration says otherwise; part of its MQTT topics.",
)  # fmt: skip
@network_options
@click.option(
    "--rpc", type=click.Choice([mode.value for mode in RpcMode]), default=RpcMode.SERVICE.value,
    show_default=True,
    help="Who answers RPC: this board's service, or the firmware itself on its UART.",
)  # fmt: skip
@click.pass_context
def run(  # noqa: PLR0913, PLR0917 - one parameter for each option
    context: click.Context,
    image: str,
    engine: str,
    platform: Path,
    loader: str | None,
    poll_service: int | None,
    strict_original: bool,
    state_directory: Path | None,
    serial_link: Path | None,
    speed: float | str,
    ready_file: Path | None,
    monitor: int | None,
    gdb: int | None,
    renode_log: Path | None,
    tcp: Address | None,
    http: Address | None,
    udp: Address | None,
    mqtt: str | None,
    device_id: str,
    rpc: str,
) -> None:
    """Keep a board running for host tools until Ctrl-C.

    Its console is this terminal, and the serial port that is named at the start.
    """
    engine = choose_engine(engine)
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    def check_stop() -> None:
        if stopping:
            raise _Stop

    with ExitStack() as cleanup:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            cleanup.callback(signal.signal, number, signal.signal(number, stop))
        ready = None if ready_file is None else ReadyFile(ready_file)
        board = cleanup.enter_context(
            Board(
                image,
                engine=engine,
                platform=platform,
                loader=loader,
                state_directory=state_directory,
                settings=DeviceSettings(
                    device_id=device_id,
                    strict_original=strict_original,
                    service_poll_ms=poll_service,
                    rpc=RpcMode(rpc),
                    nonce_seed=secrets.randbits(_NONCE_SEED_BITS),
                ),
                links=link_settings(tcp, http, udp, mqtt),
            )
        )
        _open_tools(board, monitor, gdb, renode_log, check_stop)
        if context.get_parameter_source("image") is not ParameterSource.DEFAULT and board.is_kept:
            click.echo(
                f"otasim: {state_directory} holds a board already, --image is not used", err=True
            )
        link = cleanup.enter_context(PtyLink(serial_link))
        display = ConsoleDisplay()
        board.outputs.append(link.write)
        board.console_outputs.append(display.show)
        board.trace.listeners.append(_tell_bridge_news)
        keyboard = _open_keyboard(board, cleanup)

        def look_outside() -> None:
            link.flush()
            display.flush()
            check_stop()
            if keyboard is not None:
                if keyboard.is_ours:
                    pacer.watch(keyboard, keyboard.read)
                else:
                    pacer.forget(keyboard)

        pacer = Pacer(
            board.machine.clock,
            None if isinstance(speed, str) else speed,
            {link: lambda: board.send(link.read())},
            look_outside,
        )
        if board.network is not None:
            pacer.watch(board.network, board.network.acknowledge)
        click.echo(f"otasim: {engine} engine, serial port {link.port}, Ctrl-C ends it", err=True)
        try:
            board.machine.outside_world = look_outside
            _wait_until_running(board)
            board.paced = speed != "max"
            board.machine.outside_world = pacer
            if ready is not None:
                cleanup.callback(ready.remove)

            def tell_ready(urls: Mapping[str, str]) -> None:
                if ready is not None:
                    ready.write(engine, link.port, urls)

            _run_and_tell_urls(board, tell_ready)
        except _Stop:
            display.flush()
            click.echo("\notasim: stopped", err=True)


def _run_and_tell_urls(board: Board, tell: Callable[[Mapping[str, str]], None]) -> NoReturn:
    """Run for ever; a new `device.id` is part of a URL, so say again when one has changed."""
    told: Mapping[str, str] | None = None
    while True:
        if board.urls != told:
            told = dict(board.urls)
            for name, url in told.items():
                click.echo(f"otasim: {name} {url}", err=True)
            tell(told)
        board.machine.run_until(board.machine.clock.now_ns + NS_PER_S)


def _open_keyboard(board: Board, cleanup: ExitStack) -> Keyboard | None:
    """What is typed on the terminal, if there is one, goes to the board."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    ignored = signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    cleanup.callback(signal.signal, signal.SIGTTIN, ignored)
    keyboard = Keyboard(sys.stdin.fileno(), board.send)
    cleanup.callback(keyboard.close)
    return keyboard


def _tell_bridge_news(event: TraceEvent) -> None:
    """With `--rpc passthrough` the console is the firmware's alone."""
    if event.kind == "bridge":
        click.echo(f"otasim: {event.details['text']}", err=True)


def _wait_until_running(board: Board) -> None:
    try:
        board.run_until(lambda: board.running, timeout_s=_READY_LIMIT_S)
    except TimeLimitError:
        raise OtasimError(
            f"the boot loader has started no application in {_READY_LIMIT_S} virtual seconds, its "
            "log above says why: use another --state directory, or remove this one for a fresh "
            "board with --image"
        ) from None


def _open_tools(
    board: Board,
    monitor: int | None,
    gdb: int | None,
    log: Path | None,
    attention: Callable[[], None],
) -> None:
    engine = board.machine.engine
    if monitor is None and gdb is None and log is None:
        return
    if not isinstance(engine, DebugTools):
        raise click.UsageError(
            f"--monitor, --gdb and --renode-log are Renode's, and this board runs on the "
            f"{engine.name} engine: add --engine renode"
        )
    engine.attention = attention
    if log is not None:
        engine.log_to(log)
    if monitor is not None:
        engine.open_monitor(monitor)
    if gdb is not None:
        engine.start_gdb_server(gdb)
