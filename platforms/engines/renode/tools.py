"""Renode's own tools on a running board: its monitor, its GDB server, its log."""

from pathlib import Path

import System
from Antmicro.Renode.Logging import FileBackend, Logger, LogLevel
from Antmicro.Renode.UserInterface import ShellProvider
from Antmicro.Renode.Utilities import SequencedFilePath, SocketIOSource
from AntShell.Terminal import IOProvider, NavigableTerminalEmulator
from pyrenode3.wrappers import Emulation, Monitor

from platforms.engines.protocol import EngineError

_LOG_NAME = "otasim"


def open_monitor(machine_name: str, port: int) -> None:
    """Let people talk to Renode's monitor on a TCP port, with the board's machine selected.

    Renode chooses the addresses it listens on: all of this host's, in version 1.16.
    """
    monitor = Monitor()
    monitor.execute(f'mach set "{machine_name}"')
    provider = IOProvider()
    try:
        provider.Backend = SocketIOSource(port)
    except System.Exception as error:
        raise _port_error("monitor", port, error) from error
    shell = ShellProvider.GenerateShell(monitor.internal, True)
    shell.Terminal = NavigableTerminalEmulator(provider, True)
    monitor.internal.Interaction = shell.Writer
    thread = System.Threading.Thread(System.Threading.ThreadStart(lambda: shell.Start(True)))
    thread.IsBackground = True
    thread.Name = "otasim: monitor"
    thread.Start()


def start_gdb_server(machine: "System.Object", port: int) -> None:
    """Let debuggers attach on a TCP port; they see the processor stop when they do."""
    try:
        machine.StartGdbServer(port, False)
    except System.Exception as error:
        raise _port_error("GDB server", port, error) from error


def log_to(machine: "System.Object", path: Path) -> None:
    """Write Renode's log to a file, from now on; an existing file is replaced."""
    try:
        path.write_bytes(b"")
        backend = FileBackend(SequencedFilePath(str(path)), True)
    except OSError as error:
        raise EngineError(f"Renode's log {path} cannot be written: {error.strerror}") from error
    Logger.AddBackend(backend, _LOG_NAME, True)
    # The machine tells at every start and end of a run, a hundred times a second, and nothing else.
    source = Emulation().internal.CurrentLogger.GetOrCreateSourceId(machine)
    backend.SetLogLevel(LogLevel.Warning, source)


def _port_error(what: str, port: int, error: "System.Exception") -> EngineError:
    return EngineError(
        f"Renode's {what} cannot listen on port {port}: {error.Message}; choose another port"
    )
