"""The command line: one group, whose commands are loaded when they are asked for.

Exit codes: 0 done; 1 what was asked for failed; 2 wrong use; 3 something this machine lacks;
130 interrupted.
"""

import contextlib
import errno
import importlib
import os
import sys
from typing import NoReturn

import click

from otasim.interrupts import EXIT_INTERRUPTED, ending_at_once
from platforms.engines.renode import library
from platforms.errors import OtasimError

EXIT_FAILED, EXIT_MISSING = 1, 3

_OUTPUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What writing standard output fails with, besides a closed pipe, which click deals with."""

# Name of the command -> one line for `otasim --help`. The module otasim.commands.NAME has it.
_COMMANDS = {
    "demo": "Watch a board take updates, commit one, and roll back the bad ones.",
    "run": "Keep a board running for host tools.",
    "call": "Call an RPC method of a board.",
    "state": "Show the boot state in a flash image.",
    "bundle": "Make, sign, show or check a firmware bundle.",
    "campaign": "Prove that no power cut bricks a boot loader, or show the one that does.",
    "doctor": "Say what is there and how to get what is not.",
}


class _LazyGroup(click.Group):
    """Imports a command's module only when it is used, so that start-up stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        with ending_at_once():
            module = importlib.import_module(f"otasim.commands.{cmd_name}")
        command = getattr(module, cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"otasim.commands.{cmd_name} has no command of that name")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 what was asked for failed, 2 wrong use, "
    "3 something this machine lacks, 130 interrupted.",
)
@click.version_option(package_name="otasim")
def group() -> None:
    """A virtual STM32 that takes firmware updates like a real one."""


def main() -> NoReturn:
    """Run the command line; a user's mistake ends in one line, never in a traceback."""
    code = _run()
    if library.is_loaded():
        # Renode takes seconds to leave in an orderly way, and has nothing to save.
        with contextlib.suppress(OSError):  # nobody reads any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    try:
        result = group.main(standalone_mode=False)
    except click.exceptions.Abort:
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except library.RenodeError as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_MISSING
    except OtasimError as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_FAILED
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        _give_output_up()
        with contextlib.suppress(OSError):  # there may be no other output to say it on
            click.echo(f"error: output cannot be written: {error.strerror}", err=True)
        return EXIT_FAILED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else EXIT_FAILED
    return result if isinstance(result, int) else 0


def _give_output_up() -> None:
    """Let what is still in the buffer go nowhere: writing it at the end would fail once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
