"""The network links of a board: all of them in one thread, with one event loop.

The board lives in its own thread and in virtual time; it takes requests in its application's turn,
by `Network.take`. So whatever clients do, a slow, dead or hostile one costs the board nothing but
the requests it has taken, and firmware that hangs answers nobody.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Protocol, Self

from rpc_shim.links.mailbox import Boot, Mailbox, NetworkRequest


class Link(Protocol):
    """One way to reach the board over the network, from the moment its port is taken."""

    def urls(self, device_id: str) -> Mapping[str, str]:
        """What `mos --port` takes, by name of the transport.

        Args:
            device_id: the device's name, empty as long as no application has run.
        """
        ...

    async def serve(self, boot: Boot) -> None:
        """Serve clients until the boot has ended, then leave none of them connected."""
        ...

    def close(self) -> None:
        """Give the port back."""
        ...


class LinkSettings(Protocol):
    """What a link is to be."""

    def open(self) -> Link:
        """Take the port, so that clients may connect; NetworkLinkError when it is not to be had."""
        ...


class Network:
    """The network links of one board, and the board's view of them.

    While no application runs, clients can connect, as the operating system lets them, but what they
    send waits for the next boot; datagrams are lost.

    All methods are for the board's thread.

    Args:
        links: the ways to reach it, such as `TcpSettings(port=0)`.

    Raises:
        NetworkLinkError: one of them cannot be opened.
    """

    def __init__(self, links: Iterable[LinkSettings]) -> None:
        self._links: list[Link] = []
        with ExitStack() as opened:
            for settings in links:
                link = settings.open()
                opened.callback(link.close)
                self._links.append(link)
            self._release_links = opened.pop_all()
        self._device_id = ""
        self._boot: Boot | None = None
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._boots: asyncio.Queue[Boot | None] = asyncio.Queue()
        self._mailbox = Mailbox(self._call_in_loop)
        self._thread = threading.Thread(target=self._run, name="otasim-network", daemon=True)
        self._thread.start()

    @property
    def urls(self) -> Mapping[str, str]:
        """What `mos --port` takes: by name of the transport, `tcp`, `ws`, `http`, `udp`, `mqtt`.

        The last is there once an application has run, because the device's name is part of it.
        """
        return {
            name: url for link in self._links for name, url in link.urls(self._device_id).items()
        }

    def fileno(self) -> int:
        """For `select`: readable when requests have come that nobody has seen yet."""
        return self._mailbox.fileno()

    def acknowledge(self) -> None:
        """Requests have been seen: `fileno` is readable again when more come.

        For a loop that watches `fileno` while the application may not be able to take them.
        """
        self._mailbox.acknowledge()

    def application_started(
        self,
        device_id: str,
        max_frame_size: int,
        *,
        takes_uploads: bool = True,
        answers_to_any_name: bool = False,
    ) -> None:
        """The application runs: its RPC service can be reached.

        Args:
            device_id: the device's name.
            max_frame_size: longest accepted frame in bytes.
            takes_uploads: whether a firmware bundle may be posted to `/update`.
            answers_to_any_name: whether requests are answered that are addressed to somebody else,
                as firmware may do that has a name of its own.
        """
        self.application_ended()
        self._device_id = device_id
        self._boot = Boot(
            self._mailbox,
            self._call_in_loop,
            device_id,
            max_frame_size,
            takes_uploads=takes_uploads,
            answers_to_any_name=answers_to_any_name,
        )
        self._mailbox.let_in(self._boot)
        self._call_in_loop(self._boots.put_nowait, self._boot)

    def application_ended(self) -> None:
        """The RAM is gone: requests are forgotten, connections break."""
        if self._boot is None:
            return
        self._mailbox.let_in(None)
        self._boot.end()
        self._boot = None

    def take(self) -> list[NetworkRequest]:
        """Requests to carry out in this turn of the application, not too many at once."""
        return self._mailbox.take()

    def take_lines(self) -> list[str]:
        """Log lines for the console."""
        return self._mailbox.take_lines()

    def close(self) -> None:
        """End everything: threads, tasks, connections, ports."""
        if self._closed:
            return
        self.application_ended()
        self._call_in_loop(self._boots.put_nowait, None)
        self._closed = True
        self._thread.join()
        self._release_links.close()
        self._mailbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _call_in_loop(self, function: Callable[..., None], /, *arguments: object) -> None:
        # An answer may come after the end: nobody is there to get it.
        if not self._closed:
            self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        # A boot does not wait for the one before: that one may still have a slow broker to leave.
        async with asyncio.TaskGroup() as serving:
            while (boot := await self._boots.get()) is not None:
                for link in self._links:
                    serving.create_task(link.serve(boot))
