"""A GPIO port of the STM32F4; RM0090 section 8."""

from collections.abc import Callable

from platforms.devices.peripheral import StorageRegisters

MODER, OTYPER, OSPEEDR, PUPDR, IDR, ODR, BSRR, LCKR, AFRL, AFRH = range(0x00, 0x28, 4)
_MODE_OUTPUT = 0b01
PIN_COUNT = 16


class GpioPort:
    """Pin modes are remembered; output pins drive the lines that the board connects to them.

    A line that no pin drives is pulled up, as chip selects are on a board.
    """

    def __init__(self, name: str, reset_values: dict[int, int] | None = None) -> None:
        self.name = name
        registers = dict.fromkeys((MODER, OTYPER, OSPEEDR, PUPDR, ODR, LCKR, AFRL, AFRH), 0)
        self._registers = StorageRegisters(name, registers | (reset_values or {}))
        self._lines: dict[int, Callable[[bool], None]] = {}
        self._levels: dict[int, bool] = {}

    def connect(self, pin: int, line: Callable[[bool], None]) -> None:
        """Call `line` with the level of `pin` whenever it changes; it starts out high."""
        self._lines[pin] = line
        self._levels[pin] = True

    def reset(self) -> None:
        """A system reset turns the pins into inputs (analogue or debug pins as documented)."""
        self._registers.reset()
        self._drive()

    def read(self, offset: int, width: int) -> int:
        """IDR shows what each pin carries."""
        if offset & ~3 == IDR:
            levels = sum(self._level(pin) << pin for pin in range(PIN_COUNT))
            return (levels >> 8 * (offset & 3)) & ((1 << 8 * width) - 1)
        if offset & ~3 == BSRR:
            return 0
        return self._registers.read(offset, width)

    def write(self, offset: int, width: int, value: int) -> None:
        """BSRR sets its low half's pins and clears its high half's; set wins."""
        register = offset & ~3
        if register == IDR:
            return
        if register == BSRR:
            bits = value << 8 * (offset & 3)
            output = self._registers.values[ODR]
            self._registers.values[ODR] = (output & ~(bits >> 16) & 0xFFFF) | (bits & 0xFFFF)
        else:
            self._registers.write(offset, width, value)
        if register in (MODER, ODR, BSRR):
            self._drive()

    def _level(self, pin: int) -> bool:
        if self._registers.values[MODER] >> 2 * pin & 0b11 == _MODE_OUTPUT:
            return bool(self._registers.values[ODR] >> pin & 1)
        return True

    def _drive(self) -> None:
        for pin, line in self._lines.items():
            level = self._level(pin)
            if level != self._levels[pin]:
                self._levels[pin] = level
                line(level)
