"""The serial line as a pseudo terminal: host tools open it like any serial port."""

import fcntl
import os
import termios
import tty
from collections import deque
from pathlib import Path

from platforms.errors import OtasimError

DEFAULT_OUTPUT_LIMIT = 64 * 1024
_READ_SIZE = 65536


class LinkError(OtasimError):
    """The link cannot be set up.

    Attributes:
        path: the file that is in the way, None when it is the pseudo terminal itself.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class PtyLink:
    """A pseudo terminal whose other end programs open by `slave_name` or by a symbolic link.

    The far end is kept open here as well, so that programs may come and go: without that, reading
    fails with EIO from the moment the last program closes the port. It is made raw, without echo;
    an echo would feed the board's output back to it. As on a real line there is no telling whether
    anybody listens: what nobody reads is kept up to `output_limit` bytes, then the oldest goes.

    Args:
        symlink: where to put a symbolic link to the port. One that no living `PtyLink` holds is
            replaced, anything else is left alone. The link is removed by `close`, unless it leads
            elsewhere by then. A locked file beside it, `.NAME.lock`, says that the link is in use;
            a killed process leaves the file, but not the lock.
        output_limit: bytes to keep, besides what the system buffers, while nobody reads.

    Raises:
        LinkError: no pseudo terminal to be had, or the symbolic link is in use or cannot be made.
    """

    def __init__(
        self, symlink: Path | None = None, *, output_limit: int = DEFAULT_OUTPUT_LIMIT
    ) -> None:
        try:
            self._master, self._slave = os.openpty()
        except OSError as error:
            raise LinkError(
                f"no pseudo terminal: {error.strerror}; close programs that hold some "
                "(sysctl kernel.pty.max is the limit)"
            ) from error
        tty.setraw(self._slave, termios.TCSANOW)
        os.set_blocking(self._master, False)
        self._slave_name = os.ttyname(self._slave)
        self._output: deque[bytes] = deque()
        self._output_size = 0
        self._sent_of_first = 0
        self._output_limit = output_limit
        self._dropped = 0
        self._closed = False
        self._symlink: _Symlink | None = None
        if symlink is not None:
            try:
                self._symlink = _Symlink(symlink, self._slave_name)
            except LinkError:
                self.close()
                raise

    @property
    def slave_name(self) -> str:
        """The port's own name, such as `/dev/pts/3`; a new one each time."""
        return self._slave_name

    @property
    def port(self) -> str:
        """What to tell people: the symbolic link where there is one, else the port's own name."""
        return self._slave_name if self._symlink is None else str(self._symlink.path)

    @property
    def dropped(self) -> int:
        """Bytes of output lost so far because nobody read them."""
        return self._dropped

    @property
    def output_waiting(self) -> bool:
        """Whether `flush` has something to send as soon as `fileno` is writable."""
        return bool(self._output)

    def fileno(self) -> int:
        """For `select`: readable when the host has sent something."""
        return self._master

    def read(self) -> bytes:
        """What the host has sent since the last time, perhaps nothing; never blocks."""
        try:
            return os.read(self._master, _READ_SIZE)
        except BlockingIOError:
            return b""

    def write(self, data: bytes) -> None:
        """Send `data`, or keep it until it can be sent; never blocks.

        What one call brings stays together: should it have to be dropped, it is dropped whole. So
        an answer that is written in one call is never cut.
        """
        if not data:
            return
        self._output.append(data)
        self._output_size += len(data)
        self.flush()
        self._drop_oldest()

    def flush(self) -> None:
        """Send what waits, as far as the system takes it now; never blocks."""
        while self._output:
            first = self._output[0]
            try:
                self._sent_of_first += os.write(self._master, first[self._sent_of_first :])
            except BlockingIOError:
                return
            if self._sent_of_first == len(first):
                self._forget(0)
                self._sent_of_first = 0

    def close(self) -> None:
        """Give the pseudo terminal back and remove the symbolic link if it is still ours."""
        if self._closed:
            return
        self._closed = True
        if self._symlink is not None:
            self._symlink.remove()
        os.close(self._master)
        os.close(self._slave)

    def __enter__(self) -> "PtyLink":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _drop_oldest(self) -> None:
        while self._output_size > self._output_limit:
            # What is half sent must be completed: its beginning is with the host already.
            victim = 1 if self._sent_of_first else 0
            if victim == len(self._output):
                return
            self._dropped += len(self._output[victim])
            self._forget(victim)

    def _forget(self, index: int) -> None:
        self._output_size -= len(self._output[index])
        del self._output[index]


class _Symlink:
    """A symbolic link that is ours alone, until `remove`; LinkError when it cannot be had."""

    def __init__(self, path: Path, target: str) -> None:
        self.path = path
        self._target = target
        self._lock_path = path.with_name(f".{path.name}.lock")
        self._lock = _lock(self._lock_path, path)
        try:
            _point_symlink(path, target)
        except LinkError:
            self._unlock()
            raise

    def remove(self) -> None:
        """Remove the link if it is still ours, and let others have its name."""
        _remove_symlink(self.path, self._target)
        self._unlock()

    def _unlock(self) -> None:
        # Removed while it is locked: whoever has opened it by then finds it gone, and looks again.
        if _is_at(self._lock, self._lock_path):
            self._lock_path.unlink()
        os.close(self._lock)


def _lock(path: Path, link: Path) -> int:
    """Lock the file at `path`, made if need be; returns the descriptor that holds the lock."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LinkError(
                f"cannot make the symbolic link {link}: {error.strerror}", link
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise LinkError(
                f"{link} is in use by another otasim: stop it or choose another path", link
            ) from error
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _point_symlink(link: Path, target: str) -> None:
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        if link.exists() and not link.is_symlink():
            raise LinkError(
                f"{link} is there and no symbolic link: choose another path or move it away", link
            )
        # Renaming is atomic: a program that opens the link meets the old or the new port.
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(link)
    except OSError as error:
        raise LinkError(f"cannot make the symbolic link {link}: {error.strerror}", link) from error


def _remove_symlink(link: Path, target: str) -> None:
    try:
        if str(link.readlink()) == target:
            link.unlink()
    except FileNotFoundError:
        return
    except OSError:
        # Somebody has put something else there: not ours to remove.
        return
