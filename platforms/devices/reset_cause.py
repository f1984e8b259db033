"""Why the processor starts over, and how an STM32F4 shows it.

Source: RM0090 section 7.3.21 (RCC clock control and status register, RCC_CSR) for the flags, and
section 7.1 for what pulls what: every internal reset also pulls the NRST pin low for a moment, so
PINRSTF is set beside the flag of the real cause. Flags pile up until software sets RMVF; code that
names a cause must therefore ask for the rarer ones first.
"""

from enum import Enum, IntFlag


class ResetFlag(IntFlag):
    """The reset flags of RCC_CSR, bits 31 to 25 (RM0090 7.3.21)."""

    BORRSTF = 1 << 25
    PINRSTF = 1 << 26
    PORRSTF = 1 << 27
    SFTRSTF = 1 << 28
    IWDGRSTF = 1 << 29
    WWDGRSTF = 1 << 30
    LPWRRSTF = 1 << 31


class ResetCause(Enum):
    """What reset the processor; the value is the name people read in logs."""

    POWER_ON = "power-on"
    PIN = "pin"
    SOFTWARE = "software"
    WATCHDOG = "watchdog"
    BROWN_OUT = "brown-out"

    @property
    def rcc_csr_flags(self) -> ResetFlag:
        """The flags that this cause sets in RCC_CSR, beside those of earlier resets."""
        return _FLAGS[self]

    @classmethod
    def from_rcc_csr(cls, value: int) -> "ResetCause | None":
        """The cause that RCC_CSR shows, the rarest first; None when every flag has been cleared.

        Args:
            value: the 32-bit register as read.
        """
        for flag, cause in _PRIORITY:
            if value & flag:
                return cause
        return None


_FLAGS = {
    # A supply that rises crosses the brown-out threshold on its way, so both flags show.
    ResetCause.POWER_ON: ResetFlag.PORRSTF | ResetFlag.PINRSTF | ResetFlag.BORRSTF,
    ResetCause.PIN: ResetFlag.PINRSTF,
    ResetCause.SOFTWARE: ResetFlag.SFTRSTF | ResetFlag.PINRSTF,
    ResetCause.WATCHDOG: ResetFlag.IWDGRSTF | ResetFlag.PINRSTF,
    ResetCause.BROWN_OUT: ResetFlag.BORRSTF | ResetFlag.PINRSTF,
}

_PRIORITY = (
    (ResetFlag.IWDGRSTF, ResetCause.WATCHDOG),
    (ResetFlag.SFTRSTF, ResetCause.SOFTWARE),
    (ResetFlag.PORRSTF, ResetCause.POWER_ON),
    (ResetFlag.BORRSTF, ResetCause.BROWN_OUT),
    (ResetFlag.PINRSTF, ResetCause.PIN),
)
