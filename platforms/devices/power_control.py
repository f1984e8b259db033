"""The power controller (PWR) of the STM32F4 as start-up code touches it; RM0090 section 5."""

from platforms.devices.peripheral import StorageRegisters

CR, CSR = 0x00, 0x04
CR_RESET = 0x0000_4000  # VOS: scale 1
CSR_VOSRDY = 1 << 14


class PowerControl:
    """PWR_CR remembers what is written; PWR_CSR says that the regulator is ready."""

    name = "PWR"

    def __init__(self) -> None:
        self._registers = StorageRegisters(self.name, {CR: CR_RESET, CSR: CSR_VOSRDY})

    def reset(self) -> None:
        """Restore the reset values."""
        self._registers.reset()

    def read(self, offset: int, width: int) -> int:
        """The register's value."""
        return self._registers.read(offset, width)

    def write(self, offset: int, width: int, value: int) -> None:
        """Store the value; the flags of CSR are read-only."""
        self._registers.write(offset, width, value)
        self._registers.values[CSR] |= CSR_VOSRDY
