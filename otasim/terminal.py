"""The terminal that a board runs on: its console on standard output, the keyboard its input."""

import errno
import os
from collections.abc import Callable

import click

_READ_SIZE = 4096


class ConsoleDisplay:
    """Shows the board's console on standard output."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def show(self, data: bytes) -> None:
        """Take console text."""
        self._waiting += data

    def flush(self) -> None:
        """Print what has gathered."""
        if self._waiting:
            click.echo(bytes(self._waiting), nl=False)
            self._waiting.clear()


class Keyboard:
    """A terminal's input, for as long as it is ours to read.

    A shell lends the terminal to one process group at a time. Whoever reads without having it is
    stopped (SIGTTIN), and takes what is typed for others: in the background the keyboard rests.

    It opens the terminal anew, to read it without ever blocking: Ctrl-C throws away what was typed
    before, also between the moment when there is something to read and the reading. The descriptor
    that was handed in is shared with the shell, which must not find it changed.

    Args:
        descriptor: the terminal.
        take: takes what is typed.
    """

    def __init__(self, descriptor: int, take: Callable[[bytes], None]) -> None:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        self._descriptor = os.open(os.ttyname(descriptor), flags)
        self._take = take
        self._ended = False

    def fileno(self) -> int:
        """For `select`."""
        return self._descriptor

    @property
    def is_ours(self) -> bool:
        """Whether what is typed is for this process."""
        if self._ended:
            return False
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError as error:
            # A terminal that does not control this session is lent to nobody.
            return error.errno == errno.ENOTTY

    def read(self) -> None:
        """Take what was typed; with SIGTTIN ignored it never stops this process."""
        try:
            data = os.read(self._descriptor, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return  # the shell has just taken the terminal back
        if data:
            self._take(data)
        else:
            self._ended = True

    def close(self) -> None:
        """Let the terminal go."""
        os.close(self._descriptor)
