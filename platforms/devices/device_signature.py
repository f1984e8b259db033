"""The read-only words in system memory that tell one STM32F4 from another; RM0090 section 39.

Every virtual board has the same unique id, so that runs are repeatable. One-time programmable
memory reads as that of a new chip: all ones.
"""

from platforms.devices.peripheral import UnsupportedRegisterError, mask_of

# Offsets from 0x1FFF7000.
SYSTEM_MEMORY_END = 0x800
OTP, OTP_SIZE = 0x800, 0x210  # RM0090 table 5: 0x1FFF7800 to 0x1FFF7A0F
UNIQUE_ID, FLASH_SIZE = 0xA10, 0xA22

# Wafer coordinates, wafer number and lot number in ASCII, as RM0090 39.1 lays them out.
UNIQUE_ID_BYTES = bytes((0x2A, 0x00, 0x1F, 0x00, 0x07)) + b"OTASIM0"


class DeviceSignature:
    """The page of system memory from 0x1FFF7000, as far as firmware reads it."""

    name = "device signature"

    def __init__(self, flash_size: int) -> None:
        """`flash_size` is that of the internal flash, in bytes; the register shows KB."""
        self._contents = {
            OTP: b"\xff" * OTP_SIZE,
            UNIQUE_ID: UNIQUE_ID_BYTES,
            FLASH_SIZE: (flash_size // 1024).to_bytes(2, "little"),
        }

    def read(self, offset: int, width: int) -> int:
        """The bytes at `offset`; UnsupportedRegisterError where RM0090 names none."""
        for start, content in self._contents.items():
            if start <= offset and offset + width <= start + len(content):
                place = offset - start
                return int.from_bytes(content[place : place + width], "little") & mask_of(width)
        hint = "the boot loader in system memory is not modelled"
        raise UnsupportedRegisterError(
            self.name, offset, "read", hint if offset < SYSTEM_MEMORY_END else ""
        )

    def write(self, offset: int, width: int, value: int) -> None:  # noqa: ARG002 - bus signature
        """Nothing can be stored here."""
        hint = "it is read-only; programming one-time programmable memory is not modelled"
        raise UnsupportedRegisterError(self.name, offset, "write", hint)

    def reset(self) -> None:
        """Nothing changes."""
