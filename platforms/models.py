"""What a .repl file cannot name: the board's Python models, and where they are wired.

This stands beside stm32f405.repl and is read by every engine. Addresses: RM0090 table 1.
"""

from dataclasses import dataclass

from platforms.clock import Clock
from platforms.devices import stm32f405_flash, w25q32jv
from platforms.devices.flash_memory import FlashMemory
from platforms.devices.internal_flash import InternalFlash
from platforms.devices.nor_flash import SpiNorFlash
from platforms.devices.power_control import PowerControl
from platforms.devices.reset_clock_control import ResetClockControl
from platforms.devices.watchdog import IndependentWatchdog
from platforms.engines.protocol import BoardModels, BusModel, FlashImage, SpiModel
from platforms.storage import FlashStorage

FLASH_BASE = 0x0800_0000
RAM_BASE = 0x2000_0000

_PERIPHERAL_SIZE = 0x400
_WATCHDOG, _POWER_CONTROL = 0x4000_3000, 0x4000_7000
_RESET_CLOCK_CONTROL, _FLASH_INTERFACE = 0x4002_3800, 0x4002_3C00

_FLASH_ENTRY = "flash"
_CONSOLE_ENTRY = "usart2"
_NOR_CONTROLLER, _NOR_SELECT_PORT, _NOR_SELECT_PIN = "spi1", "gpioPortA", 4


@dataclass(frozen=True, slots=True)
class Models:
    """The Python models of one board; they outlive every reset, as hardware does."""

    nor: SpiNorFlash
    internal_flash: InternalFlash
    watchdog: IndependentWatchdog
    reset_clock: ResetClockControl
    power_control: PowerControl

    def wiring(self) -> BoardModels:
        """Where each of them is attached."""
        models = (
            (_WATCHDOG, self.watchdog),
            (_POWER_CONTROL, self.power_control),
            (_RESET_CLOCK_CONTROL, self.reset_clock),
            (_FLASH_INTERFACE, self.internal_flash),
        )
        memory = self.internal_flash.memory
        return BoardModels(
            bus=tuple(BusModel(address, _PERIPHERAL_SIZE, model) for address, model in models),
            spi=(SpiModel(self.nor, _NOR_CONTROLLER, _NOR_SELECT_PORT, _NOR_SELECT_PIN),),
            flash=FlashImage(
                memory=_FLASH_ENTRY,
                cells=memoryview(memory.storage),
                program=self.internal_flash.program_word,
                programming=lambda: self.internal_flash.programming,
                busy_until_ns=lambda: memory.busy_until_ns,
            ),
            console=_CONSOLE_ENTRY,
        )


def make_models(clock: Clock, storage: FlashStorage) -> Models:
    """All models of a board, their cells in `storage`."""

    def stall(duration_ns: int) -> None:
        clock.advance_to(clock.now_ns + duration_ns)

    nor = FlashMemory(
        "nor",
        w25q32jv.GEOMETRY,
        clock,
        storage.nor,
        status_cells=storage.nor_status,
        wear=storage.nor_wear,
    )
    internal = FlashMemory(
        "internal",
        stm32f405_flash.GEOMETRY,
        clock,
        storage.internal,
        status_cells=storage.internal_options,
        wear=storage.internal_wear,
    )
    return Models(
        nor=SpiNorFlash(nor, clock),
        internal_flash=InternalFlash(internal, stall),
        watchdog=IndependentWatchdog(clock),
        reset_clock=ResetClockControl(),
        power_control=PowerControl(),
    )
