"""An SPI master of the STM32F4; RM0090 section 28. One frame moves in zero virtual time."""

from collections.abc import Callable
from typing import Protocol

from platforms.devices.peripheral import ModelError, StorageRegisters, UnsupportedRegisterError

CR1, CR2, SR, DR, CRCPR, RXCRCR, TXCRCR, I2SCFGR, I2SPR = range(0x00, 0x24, 4)
CR1_CPHA, CR1_CPOL, CR1_MSTR, CR1_SPE, CR1_LSBFIRST, CR1_SSI, CR1_SSM = (
    1 << n for n in (0, 1, 2, 6, 7, 8, 9)
)
CR1_RXONLY, CR1_DFF, CR1_CRCEN, CR1_BIDIMODE = (1 << n for n in (10, 11, 13, 15))
CR2_SSOE, CR2_RXNEIE, CR2_TXEIE = 1 << 2, 1 << 6, 1 << 7
SR_RXNE, SR_TXE, SR_OVR = 1 << 0, 1 << 1, 1 << 6


class SpiSlave(Protocol):
    """A chip on the SPI bus."""

    def chip_select(self, active: bool) -> None:
        """The chip select line changes; active means selected (low on the wire)."""
        ...

    def exchange(self, data: bytes) -> bytes:
        """Shift `data` in and the same number of bytes out."""
        ...


def exchange(slave: SpiSlave, frame: bytes) -> bytes:
    """Shift `frame` through a slave; ModelError when its model does not answer byte for byte."""
    # A model is the user's code: what its signature says is not what it does.
    answer: object = slave.exchange(frame)
    if not isinstance(answer, bytes | bytearray) or len(answer) != len(frame):
        raise ModelError(
            f"the SPI chip {type(slave).__name__}",
            f"{len(frame)} bytes",
            answer,
            f"{len(frame)} bytes",
        )
    return bytes(answer)


class SpiMaster:
    """Registers of an SPI master with one slave behind it.

    The slave's chip select is a GPIO that the board wires up, or this controller's own NSS output
    when SSOE is set: selected then for as long as the controller is enabled.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.slave: SpiSlave | None = None
        self.set_interrupt: Callable[[bool], None] = lambda _level: None
        self._registers = StorageRegisters(
            name, {CR1: 0, CR2: 0, CRCPR: 7, RXCRCR: 0, TXCRCR: 0, I2SCFGR: 0, I2SPR: 2}
        )
        self._received: int | None = None
        self._last_received = 0
        self._overrun = False
        self._slave_selected = False

    def reset(self) -> None:
        """A system reset disables the controller."""
        self._registers.reset()
        self._received = None
        self._last_received = 0
        self._overrun = False
        self._update_slave_select()
        self._update_interrupt()

    def read(self, offset: int, width: int) -> int:
        """Reading DR takes the received frame; reading SR after DR clears an overrun."""
        if offset == SR:
            status = self._status()
            if self._received is None:
                self._overrun = False
            return status
        if offset == DR:
            if self._received is not None:
                self._last_received = self._received
                self._received = None
                self._update_interrupt()
            return self._last_received
        return self._registers.read(offset, width)

    def write(self, offset: int, width: int, value: int) -> None:
        """Writing DR shifts one frame out and one in."""
        if offset == SR:
            return
        if offset == DR:
            self._transfer(value)
        else:
            if offset == CR1:
                self._check_mode(value)
            if offset == CR2 and value & 0x3:
                raise UnsupportedRegisterError(
                    self.name, offset, "write", "SPI DMA is not modelled; move bytes through DR"
                )
            self._registers.write(offset, width, value)
            self._update_slave_select()
        self._update_interrupt()

    def _check_mode(self, control: int) -> None:
        hint = ""
        if control & (CR1_RXONLY | CR1_CRCEN | CR1_BIDIMODE):
            hint = "RXONLY, CRCEN and BIDIMODE are not modelled; use full duplex without CRC"
        elif control & CR1_SPE and bool(control & CR1_CPOL) != bool(control & CR1_CPHA):
            hint = "the chips on this board work in SPI modes 0 and 3: CPOL and CPHA must be equal"
        if hint:
            raise UnsupportedRegisterError(self.name, CR1, "write", hint)

    def _transfer(self, value: int) -> None:
        control = self._registers.values[CR1]
        if control & (CR1_SPE | CR1_MSTR) != CR1_SPE | CR1_MSTR:
            return
        size = 2 if control & CR1_DFF else 1
        frame = (value & ((1 << 8 * size) - 1)).to_bytes(size, "big")
        if control & CR1_LSBFIRST:
            frame = bytes(_reverse_bits(byte) for byte in reversed(frame))
        # With nobody driving MISO the line is pulled up.
        answer = exchange(self.slave, frame) if self.slave is not None else b"\xff" * size
        if control & CR1_LSBFIRST:
            answer = bytes(_reverse_bits(byte) for byte in reversed(answer))
        if self._received is not None:
            self._overrun = True  # the frame that was not read stays; the new one is lost
        else:
            self._received = int.from_bytes(answer, "big")

    def _update_slave_select(self) -> None:
        control = self._registers.values[CR1]
        driven = (
            control & (CR1_SPE | CR1_MSTR | CR1_SSM) == CR1_SPE | CR1_MSTR
            and self._registers.values[CR2] & CR2_SSOE != 0
        )
        if driven != self._slave_selected and self.slave is not None:
            self._slave_selected = driven
            self.slave.chip_select(driven)

    def _status(self) -> int:
        received = SR_RXNE if self._received is not None else 0
        return SR_TXE | received | (SR_OVR if self._overrun else 0)

    def _update_interrupt(self) -> None:
        enables = self._registers.values[CR2]
        received = enables & CR2_RXNEIE and self._received is not None
        self.set_interrupt(bool(received or enables & CR2_TXEIE))


def _reverse_bits(byte: int) -> int:
    return int(f"{byte:08b}"[::-1], 2)
