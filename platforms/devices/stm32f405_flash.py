"""The facts of the internal flash of the STM32F405/F407 (1 MB), in one place.

Sources: RM0090 section 3 (organisation, registers) and data sheet DS8626, table "Flash memory
programming" (times).
"""

from platforms.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from platforms.flash import FlashGeometry

_KB = 1024
SIZE = 1024 * _KB

# One burst of word programs that the model runs as a single operation. The chip itself programs
# words one by one; a traced operation and a wait for each would make copying an image slow.
BURST_SIZE = 1024
ROW_SIZE = 16
"""Bytes of a flash row; no single program access may cross its end."""

GEOMETRY = FlashGeometry.of(*[16 * _KB] * 4, 64 * _KB, *[128 * _KB] * 7, page_size=BURST_SIZE)

PROGRAM_TIME_NS = 16 * NS_PER_US
"""tprog, typical, for one access of whatever width."""
PROGRAM_TIME_MAXIMUM_NS = 100 * NS_PER_US

# CR.PSIZE: 0 = x8, 1 = x16, 2 = x32, 3 = x64. The last needs 8 to 9 V on VPP, which this board
# does not have; what an erase then does is not specified, and the model takes the time of x32.
PSIZE_X32 = 2

# tERASE16KB, tERASE64KB, tERASE128KB, typical, by sector size and PSIZE.
ERASE_TIME_NS = {
    16 * _KB: (400 * NS_PER_MS, 300 * NS_PER_MS, 250 * NS_PER_MS, 250 * NS_PER_MS),
    64 * _KB: (1200 * NS_PER_MS, 700 * NS_PER_MS, 550 * NS_PER_MS, 550 * NS_PER_MS),
    128 * _KB: (2 * NS_PER_S, 1300 * NS_PER_MS, 1 * NS_PER_S, 1 * NS_PER_S),
}
MASS_ERASE_TIME_NS = (16 * NS_PER_S, 11 * NS_PER_S, 8 * NS_PER_S, 8 * NS_PER_S)
"""tME, typical, by PSIZE."""
ERASE_TIME_MAXIMUM_FACTOR = 2
"""The table's maxima are twice its typical times."""

# The option bytes as shipped, in the layout of OPTCR: no write protection, no read protection, no
# brown-out reset level, software watchdog. RM0090 3.9 gives OPTCR's reset value 0x0FFFAAED, whose
# lowest bit is OPTLOCK and no option.
FACTORY_OPTIONS = (0x0FFFAAEC).to_bytes(4, "little")
