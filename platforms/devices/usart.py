"""A USART of the STM32F4; RM0090 section 30.

Characters move in zero virtual time, as they do in Renode's models, so the transmitter is always
empty; received characters wait in a queue until the firmware has read the one before.
"""

from collections import deque
from collections.abc import Callable

from platforms.devices.peripheral import StorageRegisters, UnsupportedRegisterError

SR, DR, BRR, CR1, CR2, CR3, GTPR = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18
SR_RXNE, SR_TC, SR_TXE = 1 << 5, 1 << 6, 1 << 7
CR1_RE, CR1_TE, CR1_IDLEIE, CR1_RXNEIE, CR1_TCIE, CR1_TXEIE, CR1_UE = (
    1 << n for n in (2, 3, 4, 5, 6, 7, 13)
)
CR3_DMAR, CR3_DMAT = 1 << 6, 1 << 7

RECEIVE_QUEUE_LIMIT = 4096


class Usart:
    """Registers, receive queue and interrupt line.

    Attributes:
        on_transmit: called with each byte the firmware sends.
        set_interrupt: called with the level of the interrupt line when it may have changed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.on_transmit: Callable[[int], None] = lambda _byte: None
        self.set_interrupt: Callable[[bool], None] = lambda _level: None
        self._registers = StorageRegisters(
            name, {SR: 0, DR: 0, BRR: 0, CR1: 0, CR2: 0, CR3: 0, GTPR: 0}
        )
        self._received: deque[int] = deque()
        self._last_received = 0

    @property
    def receiving(self) -> bool:
        """Whether the firmware has switched the receiver on."""
        return self._registers.values[CR1] & (CR1_UE | CR1_RE) == CR1_UE | CR1_RE

    def receive(self, data: bytes) -> int:
        """Characters arrive; returns how many were taken: none while the receiver is off."""
        if not self.receiving:
            return 0
        taken = data[: RECEIVE_QUEUE_LIMIT - len(self._received)]
        self._received.extend(taken)
        self._update_interrupt()
        return len(taken)

    def reset(self) -> None:
        """A system reset switches the USART off and forgets what was received."""
        self._registers.reset()
        self._received.clear()
        self._last_received = 0
        self._update_interrupt()

    def read(self, offset: int, width: int) -> int:
        """Reading DR takes the next received character."""
        if offset == SR:
            return self._status()
        if offset == DR:
            if self._received:
                self._last_received = self._received.popleft()
                self._update_interrupt()
            return self._last_received
        return self._registers.read(offset, width)

    def write(self, offset: int, width: int, value: int) -> None:
        """Writing DR sends a character when the transmitter is on."""
        if offset == SR:
            return  # its flags are cleared by hardware here: nothing lingers in zero time
        if offset == DR:
            if self._registers.values[CR1] & (CR1_UE | CR1_TE) == CR1_UE | CR1_TE:
                self.on_transmit(value & 0xFF)
            return
        if offset == CR1 and value & CR1_IDLEIE:
            raise UnsupportedRegisterError(
                self.name, offset, "write", "the IDLE interrupt is not modelled; use RXNEIE"
            )
        if offset == CR3 and value & (CR3_DMAR | CR3_DMAT):
            raise UnsupportedRegisterError(
                self.name, offset, "write", "USART DMA is not modelled; move bytes through DR"
            )
        self._registers.write(offset, width, value)
        self._update_interrupt()

    def _status(self) -> int:
        return SR_TXE | SR_TC | (SR_RXNE if self._received else 0)

    def _update_interrupt(self) -> None:
        control = self._registers.values[CR1]
        # RXNE, TC and TXE stand at the same bit positions in SR as their enables in CR1.
        enabled = control & (CR1_RXNEIE | CR1_TCIE | CR1_TXEIE)
        self.set_interrupt(bool(control & CR1_UE and self._status() & enabled))
