"""Ctrl-C, where it may not strike just anywhere.

Python raises KeyboardInterrupt between any two of its instructions. While the board runs that is
often inside a callback of the engine, which cannot pass it on: it would be printed and lost. And
while modules are loaded nobody can deal with it.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 130


def _raises_keyboard_interrupt() -> bool:
    """Whether Ctrl-C raises KeyboardInterrupt in this thread: nobody has other plans for it."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


class HeldInterrupt:
    """Keeps KeyboardInterrupt back until `check`, or the end of the `with` block, raises it.

    Ctrl-C pressed again strikes at once: who waits for `check` may be stuck.
    """

    def __init__(self) -> None:
        self._in_charge = False
        self._pressed = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if it is due."""
        if self._pressed:
            self._pressed = False
            raise KeyboardInterrupt

    def __enter__(self) -> "HeldInterrupt":
        if _raises_keyboard_interrupt():
            self._in_charge = True
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._in_charge:
            self._in_charge = False
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.check()

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        if self._pressed:
            raise KeyboardInterrupt
        self._pressed = True


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Ctrl-C ends the process at once and quietly: there is nothing yet to be put in order."""
    if not _raises_keyboard_interrupt():
        yield
        return
    signal.signal(signal.SIGINT, lambda _signal, _frame: os._exit(EXIT_INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: who stops jobs sends it, and what is done is to be told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(
        signal.SIGTERM, lambda _signal, _frame: os.kill(os.getpid(), signal.SIGINT)
    )
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
