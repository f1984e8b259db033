"""The board's own peripheral bus, for every engine: which model answers at which address."""

from dataclasses import dataclass

from platforms.devices.peripheral import (
    BusPeripheral,
    ModelError,
    UnsupportedHardwareError,
    UnsupportedRegisterError,
    mask_of,
)
from platforms.engines.protocol import BusModel, EngineError

SLOT_SHIFT = 10  # peripherals of the STM32F4 stand 1 KB apart; RM0090 table 1

# Boundary addresses of RM0090 table 1, for naming what is not modelled.
_KNOWN_PERIPHERALS = {
    0x4000_0000: "TIM2", 0x4000_0400: "TIM3", 0x4000_0800: "TIM4", 0x4000_0C00: "TIM5",
    0x4000_1000: "TIM6", 0x4000_1400: "TIM7", 0x4000_1800: "TIM12", 0x4000_1C00: "TIM13",
    0x4000_2000: "TIM14", 0x4000_2800: "RTC", 0x4000_2C00: "WWDG", 0x4000_3000: "IWDG",
    0x4000_3400: "I2S2ext", 0x4000_3800: "SPI2", 0x4000_3C00: "SPI3", 0x4000_4000: "I2S3ext",
    0x4000_4400: "USART2", 0x4000_4800: "USART3", 0x4000_4C00: "UART4", 0x4000_5000: "UART5",
    0x4000_5400: "I2C1", 0x4000_5800: "I2C2", 0x4000_5C00: "I2C3", 0x4000_6400: "CAN1",
    0x4000_6800: "CAN2", 0x4000_7000: "PWR", 0x4000_7400: "DAC", 0x4001_0000: "TIM1",
    0x4001_0400: "TIM8", 0x4001_1000: "USART1", 0x4001_1400: "USART6", 0x4001_2000: "ADC1-3",
    0x4001_2C00: "SDIO", 0x4001_3000: "SPI1", 0x4001_3800: "SYSCFG", 0x4001_3C00: "EXTI",
    0x4001_4000: "TIM9", 0x4001_4400: "TIM10", 0x4001_4800: "TIM11", 0x4002_0000: "GPIOA",
    0x4002_0400: "GPIOB", 0x4002_0800: "GPIOC", 0x4002_0C00: "GPIOD", 0x4002_1000: "GPIOE",
    0x4002_1400: "GPIOF", 0x4002_1800: "GPIOG", 0x4002_1C00: "GPIOH", 0x4002_2000: "GPIOI",
    0x4002_3000: "CRC", 0x4002_3800: "RCC", 0x4002_3C00: "FLASH", 0x4002_4000: "BKPSRAM",
    0x4002_6000: "DMA1", 0x4002_6400: "DMA2", 0x4002_8000: "ETH", 0x4004_0000: "USB OTG HS",
    0x5000_0000: "USB OTG FS", 0x5005_0000: "DCMI", 0x5006_0800: "RNG", 0xE000_0000: "ITM",
    0xE000_2000: "FPB", 0xE004_2000: "DBGMCU",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Slot:
    base: int
    size: int
    peripheral: BusPeripheral


class PeripheralBus:
    """Finds the peripheral behind an address; every miss is an error that names the address."""

    def __init__(self) -> None:
        self._slots: dict[int, _Slot] = {}
        self.peripherals: list[BusPeripheral] = []

    def attach(self, model: BusModel) -> None:
        """Let `model` answer from its address on; EngineError where something answers already."""
        slot = _Slot(model.address, model.size, model.peripheral)
        last = model.address + model.size - 1
        for key in range(model.address >> SLOT_SHIFT, (last >> SLOT_SHIFT) + 1):
            taken = self._slots.get(key)
            if taken is not None:
                raise EngineError(
                    f"{model.peripheral.name} at 0x{model.address:08x} overlaps "
                    f"{taken.peripheral.name} at 0x{taken.base:08x}: move one of them"
                )
            self._slots[key] = slot
        self.peripherals.append(model.peripheral)

    def read(self, address: int, width: int) -> int:
        """Load from a peripheral: what its model says, as wide as the access.

        Raises:
            UnsupportedHardwareError: nothing is modelled there.
            ModelError: the model answers with something that is no number.
        """
        slot = self._slots.get(address >> SLOT_SHIFT)
        if slot is None:
            raise _not_modelled(address, width, "read")
        offset = address - slot.base
        try:
            # A model is the user's code: what its signature says is not what it does.
            value: object = slot.peripheral.read(offset, width)
        except UnsupportedRegisterError as error:
            raise _no_register(address, error) from error
        if not isinstance(value, int):
            raise ModelError(slot.peripheral.name, f"register 0x{offset:02x}", value, "an integer")
        return value & mask_of(width)

    def write(self, address: int, width: int, value: int) -> None:
        """Store to a peripheral; UnsupportedHardwareError where nothing is modelled."""
        slot = self._slots.get(address >> SLOT_SHIFT)
        if slot is None:
            raise _not_modelled(address, width, f"write of 0x{value:x}")
        try:
            slot.peripheral.write(address - slot.base, width, value)
        except UnsupportedRegisterError as error:
            raise _no_register(address, error) from error


def _name_of(address: int) -> str:
    base = max((base for base in _KNOWN_PERIPHERALS if base <= address), default=None)
    if base is None or address - base >= 0x1_0000:
        return "no peripheral of an STM32F405"
    return f"{_KNOWN_PERIPHERALS[base]}+0x{address - base:02x}"


def _not_modelled(address: int, width: int, access: str) -> UnsupportedHardwareError:
    return UnsupportedHardwareError(
        f"firmware made a {8 * width}-bit {access} at 0x{address:08x} ({_name_of(address)}), "
        "which this board does not model: leave it out of the firmware, or add a model "
        "(CONTRIBUTING.md, 'Add a device')",
        address=address,
    )


def _no_register(address: int, error: UnsupportedRegisterError) -> UnsupportedHardwareError:
    advice = error.hint or "leave it out of the firmware, or extend the model"
    return UnsupportedHardwareError(
        f"{error} (bus address 0x{address:08x}): {advice}", address=address
    )
