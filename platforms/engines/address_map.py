"""What an address means where nothing is mapped; ARMv7-M ARM B3.1, RM0090 section 2.3.

Reserved addresses are bus faults, as on silicon: firmware may probe them. Addresses at which the
real chip has something that is not modelled are errors instead, also for firmware that would have
caught the bus fault: it would draw a wrong conclusion from it.
"""

from dataclasses import dataclass

from platforms.devices.peripheral import UnsupportedHardwareError

SIGNATURE_PAGE = 0x1FFF_7000  # unique id and flash size stand in this page

# The default memory map forbids execution from peripherals, devices and the system's own region.
_EXECUTE_NEVER = ((0x4000_0000, 0x6000_0000), (0xA000_0000, 1 << 32))


@dataclass(frozen=True, slots=True)
class Region:
    """A range of the real chip that is not modelled: `start` to `end` - 1, and what to do."""

    start: int
    end: int
    name: str
    advice: str


_UNMODELLED = (
    Region(
        0x1FFF_0000, 0x1FFF_8000, "the boot loader in system memory",
        "start over with a system reset (AIRCR.SYSRESETREQ) instead of calling it",
    ),
    Region(
        0x1FFF_C000, 0x1FFF_C008, "the option bytes",
        "read FLASH_OPTCR at 0x40023c14 instead",
    ),
    Region(
        0x2200_0000, 0x2240_0000, "the bit-band alias of the RAM",
        "change the bit in the RAM itself (compilers do not use the alias on their own)",
    ),
    Region(
        0x4200_0000, 0x4400_0000, "the bit-band alias of the peripherals",
        "read, change and write the whole register instead",
    ),
    Region(
        0x6000_0000, 0xA000_1000, "the external memory controller FSMC",
        "leave external memory out of the firmware, or add a Memory.MappedMemory to the platform "
        "file at this address",
    ),
)  # fmt: skip


def is_executable(address: int) -> bool:
    """Whether an instruction may be fetched from `address` if there is memory."""
    return not any(start <= address < end for start, end in _EXECUTE_NEVER)


def unmodelled_region(address: int) -> Region | None:
    """The part of the real chip that `address` belongs to and that is not modelled."""
    for region in _UNMODELLED:
        if region.start <= address < region.end:
            return region
    return None


def refusal(address: int) -> UnsupportedHardwareError:
    """The error for an access to an unmodelled region."""
    return UnsupportedHardwareError(
        f"firmware accessed 0x{address:08x}, which this board does not model", address=address
    )


def located(error: UnsupportedHardwareError, program_counter: int) -> UnsupportedHardwareError:
    """`error` with the place in the code, and what the address is on the real chip."""
    region = unmodelled_region(error.address)
    about = f" (this is {region.name}: {region.advice})" if region else ""
    return UnsupportedHardwareError(
        f"at PC 0x{program_counter:08x}: {error}{about}",
        address=error.address,
        program_counter=program_counter,
    )
