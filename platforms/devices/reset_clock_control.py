"""Reset and clock control (RCC) of the STM32F4; RM0090 section 7.

Oscillators are ready as soon as they are switched on. The processor's speed on this board is what
the platform file says, whatever PLL the firmware chooses: virtual time is not derived from CFGR.
"""

from platforms.devices.peripheral import StorageRegisters, merge
from platforms.devices.reset_cause import ResetCause

CR, PLLCFGR, CFGR, BDCR, CSR = 0x00, 0x04, 0x08, 0x70, 0x74
CSR_LSION, CSR_LSIRDY, CSR_RMVF = 1 << 0, 1 << 1, 1 << 24

# Reset values of the registers of the STM32F405; RM0090 table 34.
_RESET_VALUES = {
    CR: 0x0000_0083,
    PLLCFGR: 0x2400_3010,
    CFGR: 0,
    0x0C: 0,  # CIR
    0x10: 0,  # AHB1RSTR
    0x14: 0,  # AHB2RSTR
    0x18: 0,  # AHB3RSTR
    0x20: 0,  # APB1RSTR
    0x24: 0,  # APB2RSTR
    0x30: 0x0010_0000,  # AHB1ENR
    0x34: 0,  # AHB2ENR
    0x38: 0,  # AHB3ENR
    0x40: 0,  # APB1ENR
    0x44: 0,  # APB2ENR
    0x50: 0x7E67_91FF,  # AHB1LPENR
    0x54: 0x0000_00F1,  # AHB2LPENR
    0x58: 0x0000_0001,  # AHB3LPENR
    0x60: 0x36FE_C9FF,  # APB1LPENR
    0x64: 0x0007_5F33,  # APB2LPENR
    BDCR: 0,
    CSR: 0,
    0x80: 0,  # SSCGR
    0x84: 0x2400_3000,  # PLLI2SCFGR
}

# (enable bit, ready bit) pairs of the oscillators: HSI, HSE, PLL, PLLI2S.
_CR_READY = ((0, 1), (16, 17), (24, 25), (26, 27))
# The same for what SW in CFGR can choose: HSI, HSE, PLL.
_SYSTEM_CLOCKS = {0: _CR_READY[0], 1: _CR_READY[1], 2: _CR_READY[2]}
_SWS_SHIFT = 2


class ResetClockControl:
    """Clock enables are remembered, ready flags follow switches, CSR shows why it was reset."""

    name = "RCC"

    def __init__(self) -> None:
        self._registers = StorageRegisters(self.name, _RESET_VALUES)
        self._reset_flags = 0

    @property
    def reset_flags(self) -> int:
        """The reset flags of RCC_CSR as they stand, at their register positions."""
        return self._reset_flags

    def note_reset(self, cause: ResetCause) -> None:
        """Show `cause` in RCC_CSR. Flags add up until RMVF; power-on clears the earlier ones."""
        if cause is ResetCause.POWER_ON:
            self._reset_flags = 0
        self._reset_flags |= int(cause.rcc_csr_flags)

    def reset(self) -> None:
        """A system reset restores every register but the reset flags."""
        self._registers.reset()

    def read(self, offset: int, width: int) -> int:
        """The register's value."""
        if offset & ~3 == CSR:
            whole = self._registers.values[CSR] | self._reset_flags
            return (whole >> (8 * (offset & 3))) & ((1 << (8 * width)) - 1)
        return self._registers.read(offset, width)

    def write(self, offset: int, width: int, value: int) -> None:
        """Store the value and let the ready flags follow."""
        if offset & ~3 == CSR:
            written = merge(0, offset & 3, width, value)
            if written & CSR_RMVF:
                self._reset_flags = 0
            switched_on = written & CSR_LSION
            self._registers.values[CSR] = CSR_LSION | CSR_LSIRDY if switched_on else 0
            return
        register = offset & ~3
        self._registers.write(offset, width, value)
        values = self._registers.values
        if register == BDCR:
            values[BDCR] = values[BDCR] & ~0b10 | (values[BDCR] & 1) << 1  # LSERDY follows LSEON
        elif register in (CR, CFGR):
            self._switch_clocks(values)

    @staticmethod
    def _switch_clocks(values: dict[int, int]) -> None:
        """Ready flags follow their switches, and SWS follows SW to a clock that is ready.

        The clock that the system runs on cannot be switched off (RM0090 7.2.6 and 7.3.1).
        """
        in_use = (values[CFGR] >> _SWS_SHIFT) & 0b11
        values[CR] |= 1 << _SYSTEM_CLOCKS[in_use][0]
        for enable, ready in _CR_READY:
            on = values[CR] >> enable & 1
            values[CR] = values[CR] & ~(1 << ready) | on << ready
        wanted = values[CFGR] & 0b11
        if wanted in _SYSTEM_CLOCKS and values[CR] >> _SYSTEM_CLOCKS[wanted][1] & 1:
            in_use = wanted
        values[CFGR] = values[CFGR] & ~(0b11 << _SWS_SHIFT) | in_use << _SWS_SHIFT
