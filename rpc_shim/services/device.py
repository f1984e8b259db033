"""The board as the services of an application see it."""

from typing import Protocol

from bootloader_model.partition import Partitions
from platforms.clock import Clock


class Device(Protocol):
    """What a service may do with the board besides answering calls."""

    @property
    def partitions(self) -> Partitions:
        """The partitions, by drivers that take virtual time."""
        ...

    @property
    def clock(self) -> Clock:
        """Virtual time."""
        ...

    def log(self, text: str) -> None:
        """One line on the console."""
        ...

    def reboot_after(self, delay_ms: int) -> None:
        """Reset by software when `delay_ms` of virtual time have passed.

        Must return before it does, so that the call is answered first, even for a delay of 0.
        """
        ...

    def feed_watchdog(self) -> None:
        """Keep the watchdog quiet in the middle of work that takes long."""
        ...

    def record(self, kind: str, **details: int | str | bool | None) -> None:
        """Put an event on record, for the trace."""
        ...
