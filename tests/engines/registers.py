"""Registers that the code of these tests uses, and the code that sets them up.

Sources: ARMv7-M ARM, chapter B3; RM0090 for the flash, the watchdog and the UART.
"""

from tests.engines.thumb import BARRIERS, store

SYST_CTRL, SYST_LOAD, SYST_VAL = 0xE000_E010, 0xE000_E014, 0xE000_E018
NVIC_ISER, NVIC_ISPR, NVIC_ICPR = 0xE000_E100, 0xE000_E200, 0xE000_E280
ICSR, VTOR, AIRCR, SCR, CCR = 0xE000_ED04, 0xE000_ED08, 0xE000_ED0C, 0xE000_ED10, 0xE000_ED14
SHPR2, SHPR3, SHCSR = 0xE000_ED1C, 0xE000_ED20, 0xE000_ED24
CFSR, HFSR, DFSR, BFAR = 0xE000_ED28, 0xE000_ED2C, 0xE000_ED30, 0xE000_ED38
CPACR = 0xE000_ED88
DWT_CTRL, DWT_CYCCNT = 0xE000_1000, 0xE000_1004
IWDG_KR, IWDG_RLR, IWDG_SR = 0x4000_3000, 0x4000_3008, 0x4000_300C
USART_DR, USART_CR1 = 0x4000_4404, 0x4000_440C
FLASH_KEYR, FLASH_SR, FLASH_CR = 0x4002_3C04, 0x4002_3C0C, 0x4002_3C10

PENDSVSET = 1 << 28
SYSRESETREQ = 0x05FA_0004
"""With the key that AIRCR wants."""

PEND = store(PENDSVSET, ICSR)
"""PendSV becomes pending."""

ENABLE_FPU = store(0xF << 20, CPACR) + BARRIERS
UNLOCK = store(0x4567_0123, FLASH_KEYR) + store(0xCDEF_89AB, FLASH_KEYR)
PROGRAM_WORDS = store(0x0000_0201, FLASH_CR)
"""PG, PSIZE x32."""


def systick_every(cycles: int) -> bytes:
    """SysTick and its exception every so many cycles, of which there are 16 in a microsecond."""
    return store(cycles - 1, SYST_LOAD) + store(0, SYST_VAL) + store(7, SYST_CTRL)
