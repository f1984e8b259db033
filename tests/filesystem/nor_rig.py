"""The board's file system partition on the real chip model and driver, with a supply that fails."""

from bootloader_model.layout import DEFAULT_LAYOUT
from bootloader_model.partition import OpenPartition
from platforms.clock import Clock
from platforms.devices import w25q32jv
from platforms.devices.flash_memory import FlashOperation, Moment
from platforms.devices.nor_flash import SpiNorFlash
from platforms.devices.torn import TornShape
from platforms.drivers.nor_flash import NorFlashDriver
from platforms.flash import FlashDevice, FlashGeometry
from platforms.machine import ResetAsserted
from rpc_shim.filesystem import TEMPORARY_SUFFIX, FileSystem
from tests.devices.memories import nor_memory, operations_of

Contents = dict[str, bytes | None]
"""Every file with its content and every directory with None, by path."""


class NorRig:
    """A chip, and drivers that lose their processor when the power goes.

    Attributes:
        operations: every program and erase there was.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.memory = nor_memory(self.clock)
        self.chip = SpiNorFlash(self.memory, self.clock)
        self.operations = operations_of(self.memory)
        self._powered = True

    def driver(self) -> NorFlashDriver:
        """A new driver, as a new boot makes one."""
        return NorFlashDriver(self.chip, self._wait)

    def partition(self, name: str = "fs0") -> OpenPartition:
        return OpenPartition(DEFAULT_LAYOUT.partition(name), self.driver())

    def format(self, name: str = "fs0") -> FileSystem:
        return FileSystem.format(self.partition(name))

    def mount(self, name: str = "fs0") -> FileSystem:
        return FileSystem.mount(self.partition(name))

    def cells(self, name: str = "fs0") -> bytes:
        """What is in a partition, with no time passing."""
        partition = DEFAULT_LAYOUT.partition(name)
        return bytes(self.memory.storage[partition.offset : partition.offset + partition.size])

    def restore(self, cells: bytes) -> None:
        """Give fs0 back what `cells` returned, with no bit weak any more."""
        self.set_cells(0, cells)
        self.memory.weak_bits.clear()

    def set_cells(self, offset: int, data: bytes, name: str = "fs0") -> None:
        """Change a partition behind everybody's back."""
        start = DEFAULT_LAYOUT.partition(name).offset + offset
        self.memory.storage[start : start + len(data)] = data

    def protect(self) -> None:
        """Write-protect the whole chip."""
        self._write_status(0x1C)

    def unprotect(self) -> None:
        """Take the write protection away."""
        self._write_status(0x00)

    def cut_at(self, number: int, progress: float, shape: TornShape, seed: int) -> None:
        """Cut the power in the `number`th operation from now, at that share of its time."""
        number += len(self.operations)

        def cut() -> None:
            self.chip.power_lost(shape, seed)
            self._powered = False

        def intercept(operation: FlashOperation, moment: Moment) -> None:
            if moment is Moment.DURING and len(self.operations) == number + 1:
                self.clock.call_at(operation.start_ns + int(operation.duration_ns * progress), cut)

        self.memory.interceptor = intercept

    def power_on(self) -> None:
        """The supply comes back."""
        self.memory.interceptor = None
        self._powered = True
        self.chip.power_on()

    def _wait(self, duration_ns: int) -> None:
        self.clock.advance_to(self.clock.now_ns + duration_ns)
        if not self._powered:
            raise ResetAsserted

    def _write_status(self, value: int) -> None:
        self._command(0x06)
        self._command(0x01, value)
        self._wait(w25q32jv.WRITE_STATUS_TIME.typical_ns)

    def _command(self, *data: int) -> None:
        self.chip.chip_select(active=True)
        self.chip.exchange(bytes(data))
        self.chip.chip_select(active=False)


def contents(files: FileSystem, path: str = "/") -> Contents:
    """What is in a file system."""
    found: Contents = {}
    for entry in files.entries(path):
        name = path + entry.name
        if entry.is_directory:
            found[name] = None
            found |= contents(files, name + "/")
        else:
            found[name] = files.read(name)
            assert len(found[name] or b"") == entry.size
    return found


def without_unfinished(found: Contents) -> Contents:
    """What `contents` found, but for files that a cut left unfinished."""
    return {name: data for name, data in found.items() if not name.endswith(TEMPORARY_SUFFIX)}


class FailingFlash:
    """A flash device that passes calls on, until one fails. Every call after that is remembered.

    Attributes:
        calls: how many there were, the failing one included.
        failure: what the call number `fail_at`, counted from 0, raises.
        calls_after_failure: must stay 0 until the code under test has raised it.
    """

    def __init__(self, flash: FlashDevice) -> None:
        self._flash = flash
        self.calls = 0
        self.fail_at: int | None = None
        self.failure: BaseException | None = None
        self.calls_after_failure = 0

    @property
    def name(self) -> str:
        return self._flash.name

    @property
    def geometry(self) -> FlashGeometry:
        return self._flash.geometry

    def read(self, address: int, length: int) -> bytes:
        self._count()
        return self._flash.read(address, length)

    def program(self, address: int, data: bytes) -> None:
        self._count()
        self._flash.program(address, data)

    def erase(self, address: int, length: int) -> None:
        self._count()
        self._flash.erase(address, length)

    def fail(self, fail_at: int, failure: BaseException) -> None:
        """Let the `fail_at`th call from now raise `failure`."""
        self.calls = self.calls_after_failure = 0
        self.fail_at, self.failure = fail_at, failure

    def repair(self) -> None:
        self.fail_at = None

    def _count(self) -> None:
        number = self.calls
        self.calls += 1
        if self.fail_at is None or number < self.fail_at:
            return
        if number > self.fail_at:
            self.calls_after_failure += 1
        assert self.failure is not None
        raise self.failure
