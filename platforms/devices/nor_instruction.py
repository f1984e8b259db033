"""One instruction on the SPI bus of the NOR flash: what it consists of and how far it has come."""

from collections.abc import Callable
from dataclasses import dataclass

from platforms.devices import w25q32jv as chip


@dataclass(slots=True)
class Transaction:
    """What has gone over the bus since chip select fell.

    Attributes:
        opcode: the first byte, or None before it.
        instruction: what the opcode means, or None when the chip ignores it.
        header: the address and dummy bytes so far.
        data: what came in behind the header; only the last page of it is kept.
        data_count: how many bytes have passed behind the header.
    """

    opcode: int | None = None
    instruction: "Instruction | None" = None
    header: bytes = b""
    data: bytes = b""
    data_count: int = 0

    @property
    def address(self) -> int:
        """The address sent; the chip decodes 22 of its 24 bits."""
        return int.from_bytes(self.header[:3], "big") % chip.SIZE


@dataclass(frozen=True, slots=True)
class Instruction:
    """What follows an opcode.

    Attributes:
        header: how many address and dummy bytes come behind the opcode.
        respond: gives the next bytes, as many as asked for, behind the header.
        execute: called when chip select is released after the whole header.
        while_busy: whether it is accepted during an operation.
    """

    header: int = 0
    respond: Callable[[Transaction, int], bytes] | None = None
    execute: Callable[[Transaction], None] | None = None
    while_busy: bool = False
