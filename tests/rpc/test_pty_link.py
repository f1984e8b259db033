import contextlib
import errno
import fcntl
import os
import select
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from rpc_shim.links.pty import LinkError, PtyLink

WAIT_S = 10.0


@pytest.fixture
def link() -> Iterator[PtyLink]:
    with PtyLink() as link:
        yield link


def read(link: PtyLink, length: int) -> bytes:
    """`length` bytes from the host; the system may hand them over in any portions."""
    data = b""
    while len(data) < length and select.select([link], [], [], WAIT_S)[0]:
        data += link.read()
    return data


def read_all_that_waits(link: PtyLink) -> bytes:
    """What a program gets that opens the port without discarding what is in it."""
    end = unsent = b"<end of test>"
    received = b""
    with Path(link.slave_name).open("rb", buffering=0) as port:
        while not received.endswith(end):
            link.flush()
            if not link.output_waiting and unsent:
                # Past the link, which would drop it where its limit says so.
                with contextlib.suppress(BlockingIOError):
                    unsent = unsent[os.write(link.fileno(), unsent) :]
            wanted = [link] if link.output_waiting or unsent else []
            readable, writable, _ = select.select([port], wanted, [], WAIT_S)
            assert readable or writable, f"nothing more came after {len(received)} bytes"
            if readable:
                received += port.read(65536)
    return received.removesuffix(end)


def test_bytes_pass_unchanged_both_ways(link: PtyLink) -> None:
    every_byte = bytes(range(256))
    with serial.Serial(link.slave_name, timeout=WAIT_S) as port:
        port.write(every_byte)
        assert read(link, 256) == every_byte
        link.write(every_byte)
        assert port.read(256) == every_byte


def test_raw_even_for_a_program_that_sets_nothing(link: PtyLink) -> None:
    with Path(link.slave_name).open("r+b", buffering=0) as port:
        port.write(b"\x03\x04\r\n\x11\x13")
        assert read(link, 6) == b"\x03\x04\r\n\x11\x13"
        link.write(b"answer\r\n")
        assert port.read(8) == b"answer\r\n"
    assert link.read() == b""  # no echo of what was written


def test_reading_never_blocks_nor_fails_while_nobody_has_the_port_open(link: PtyLink) -> None:
    assert link.read() == b""
    for _ in range(3):
        with serial.Serial(link.slave_name, timeout=WAIT_S) as port:
            port.write(b"x")
            assert read(link, 1) == b"x"
        assert link.read() == b""


def test_control_lines_flushes_and_speeds_do_no_harm(link: PtyLink) -> None:
    link.write(b"stale")
    with serial.Serial(link.slave_name, 115200, timeout=WAIT_S) as port:
        port.baudrate = 921600
        port.reset_input_buffer()
        port.reset_output_buffer()
        for request in (termios.TIOCMBIC, termios.TIOCMBIS):
            with pytest.raises(OSError, match=r"ioctl|argument"):
                fcntl.ioctl(port.fileno(), request, b"\x06\x00\x00\x00")
        link.write(b"fresh")
        assert port.read(5) == b"fresh"


def test_output_that_nobody_reads_is_bounded_and_writing_never_blocks() -> None:
    with PtyLink(output_limit=1000) as link:
        for number in range(20000):
            link.write(b"%09d\n" % number)
        assert link.output_waiting
        assert link._output_size <= 1000
        assert link.dropped > 0
        lines = [int(line) for line in read_all_that_waits(link).split()]
        assert link.dropped == (20000 - len(lines)) * 10
        assert lines == sorted(set(lines))
        assert lines[-1] == 19999
        assert not link.output_waiting


def test_what_is_written_at_once_is_dropped_whole_or_not_at_all() -> None:
    answer = b"<" + b"a" * 300 + b">"
    with PtyLink(output_limit=1000) as link:
        for _ in range(1000):
            link.write(answer)
        received = read_all_that_waits(link)
        assert link.dropped == len(answer) * 1000 - len(received)
    assert received == answer * (len(received) // len(answer))


def test_more_than_the_limit_in_one_write_is_sent_as_far_as_it_has_begun() -> None:
    data = bytes(range(256)) * 1024
    with PtyLink(output_limit=10) as link:
        link.write(data)
        link.write(b"console")
        assert read_all_that_waits(link) == data
    assert link.dropped == len(b"console")


def test_empty_write_is_nothing(link: PtyLink) -> None:
    link.write(b"")
    assert not link.output_waiting


# --- the symbolic link ----------------------------------------------------------------------


def test_symbolic_link_leads_to_the_port_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "port"
    with PtyLink(path) as link:
        assert str(path.readlink()) == link.slave_name
        assert link.port == str(path)
        with serial.Serial(str(path), timeout=WAIT_S) as port:
            port.write(b"x")
            assert read(link, 1) == b"x"
    assert not list(tmp_path.iterdir())
    link.close()


@pytest.mark.parametrize("target", ["/dev/pts/999999", "elsewhere"])
def test_a_link_left_behind_is_replaced(tmp_path: Path, target: str) -> None:
    path = tmp_path / "port"
    (tmp_path / "elsewhere").write_text("untouched")
    path.symlink_to(target)
    with PtyLink(path) as link:
        assert str(path.readlink()) == link.slave_name
    assert (tmp_path / "elsewhere").read_text() == "untouched"


def test_a_link_has_one_owner_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "port"
    with PtyLink(path) as first:
        open_files = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(LinkError, match="in use by another otasim") as caught:
            PtyLink(path)
        assert caught.value.path == path
        assert str(path.readlink()) == first.slave_name
        assert len(list(Path("/proc/self/fd").iterdir())) == open_files
    with PtyLink(path) as second:
        assert str(path.readlink()) == second.slave_name
    assert not list(tmp_path.iterdir())


def test_a_lock_file_without_a_lock_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".port.lock").touch()
    with PtyLink(tmp_path / "port"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_file_that_somebody_removed_is_not_taken_from_the_next(tmp_path: Path) -> None:
    path = tmp_path / "port"
    first = PtyLink(path)
    (tmp_path / ".port.lock").unlink()
    with PtyLink(path) as newer:
        first.close()
        assert str(path.readlink()) == newer.slave_name
        with pytest.raises(LinkError, match="in use"):
            PtyLink(path)
    assert not list(tmp_path.iterdir())


def test_a_lock_that_its_owner_gives_up_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "port"
    first = PtyLink(path)
    really_flock = fcntl.flock

    def flock_after_the_end(descriptor: int, operation: int) -> None:
        first.close()
        really_flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_the_end)
    with PtyLink(path):
        monkeypatch.undo()
        with pytest.raises(LinkError, match="in use"):
            PtyLink(path)


def test_a_link_that_somebody_has_replaced_or_removed_is_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "port"
    with PtyLink(path):
        path.unlink()
    with PtyLink(path):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_only_a_symbolic_link_is_replaced(tmp_path: Path, make: object) -> None:
    path = tmp_path / "port"
    assert callable(make)
    make(path)
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(LinkError, match="is there and no symbolic link") as caught:
        PtyLink(path)
    assert caught.value.path == path
    assert path.exists()
    assert not path.is_symlink()
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


def test_a_link_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="No such file or directory"):
        PtyLink(tmp_path / "missing" / "port")


def test_no_pseudo_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[int, int]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "openpty", refuse)
    with pytest.raises(LinkError, match="No space left on device"):
        PtyLink()
