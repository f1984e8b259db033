"""What every peripheral on the bus looks like, and the errors of touching what is not modelled."""

from typing import Protocol

from platforms.errors import OtasimError


class UnsupportedHardwareError(OtasimError):
    """Firmware touched hardware that this board does not model.

    Attributes:
        address: the bus address of the access.
        program_counter: where the instruction stands, or None outside the processor.
    """

    def __init__(self, message: str, *, address: int, program_counter: int | None = None) -> None:
        super().__init__(message)
        self.address = address
        self.program_counter = program_counter


class UnsupportedRegisterError(OtasimError):
    """A register that the model of a peripheral does not have; the bus adds address and PC.

    Attributes:
        peripheral: the name of the peripheral.
        offset: the register's offset from the peripheral's base, in bytes.
        access: "read" or "write".
        hint: what the user can do about it.
    """

    def __init__(self, peripheral: str, offset: int, access: str, hint: str = "") -> None:
        super().__init__(f"{access} of {peripheral}+0x{offset:02x}, a register it does not have")
        self.peripheral = peripheral
        self.offset = offset
        self.access = access
        self.hint = hint


class ModelError(OtasimError):
    """A model answered with what is no answer.

    Attributes:
        model: the name of the model.
        place: what was read from it.
        value: what it answered.
    """

    def __init__(self, model: str, place: str, value: object, expected: str) -> None:
        super().__init__(
            f"the model of {model} answered the read of {place} with {value!r}: "
            f"expected {expected}; mend the model"
        )
        self.model = model
        self.place = place
        self.value = value


class BusPeripheral(Protocol):
    """Registers on the bus. Offsets count in bytes from the base; widths are 1, 2 or 4 bytes."""

    @property
    def name(self) -> str:
        """The reference manual's name, for logs and errors."""
        ...

    def read(self, offset: int, width: int) -> int:
        """The register's value; raises UnsupportedRegisterError where there is none."""
        ...

    def write(self, offset: int, width: int, value: int) -> None:
        """Store into the register; raises UnsupportedRegisterError where there is none."""
        ...

    def reset(self) -> None:
        """Return to the state after a system reset."""
        ...


class StorageRegisters:
    """Registers that only remember what was written: clock enables, pin modes, speeds.

    `reset_values` maps the offset of each register (32 bits wide, word aligned) to its value after
    reset. Narrow accesses reach the bytes they name, as on the real bus.
    """

    def __init__(self, name: str, reset_values: dict[int, int]) -> None:
        self.name = name
        self._reset_values = reset_values
        self.values = dict(reset_values)

    def reset(self) -> None:
        """Put every register back to its reset value."""
        self.values = dict(self._reset_values)

    def read(self, offset: int, width: int) -> int:
        """The bytes named by `offset` and `width`, in bytes."""
        register = self._register(offset, "read")
        return (self.values[register] >> (8 * (offset - register))) & mask_of(width)

    def write(self, offset: int, width: int, value: int) -> int:
        """Store and return the whole register's new value."""
        register = self._register(offset, "write")
        merged = merge(self.values[register], offset - register, width, value)
        self.values[register] = merged
        return merged

    def _register(self, offset: int, access: str) -> int:
        register = offset & ~3
        if register not in self.values:
            raise UnsupportedRegisterError(self.name, offset, access)
        return register


def mask_of(width: int) -> int:
    """All ones over `width` bytes."""
    return (1 << (8 * width)) - 1


def merge(old: int, byte_offset: int, width: int, value: int) -> int:
    """`old` with `width` bytes from `byte_offset` replaced by `value`."""
    shift = 8 * byte_offset
    mask = mask_of(width) << shift
    return (old & ~mask) | ((value << shift) & mask)
