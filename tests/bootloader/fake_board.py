"""A small board for the loader: two fake flash memories, a watchdog that counts, a console."""

import random
import struct
from collections.abc import Callable
from dataclasses import replace

from bootloader_model.boot_state import BootState
from bootloader_model.journal import Journal
from bootloader_model.layout import APP0_ADDRESS, DEFAULT_LAYOUT, FlashName, Layout, Partition
from bootloader_model.loader import LoaderSettings, MosLoader
from bootloader_model.partition import Partitions
from bootloader_model.protocol import BootTarget
from bootloader_model.provisioning import describe_image, provision
from bootloader_model.slot_access import SlotAccess
from bootloader_model.slots import find_update_slot
from platforms.clock import NS_PER_S
from platforms.devices.reset_cause import ResetCause
from platforms.flash import FlashDevice, FlashGeometry
from tests.bootloader.fake_flash import FakeFlash, PowerSupply

SMALL_APP_SIZE = 0x4000
SMALL_LAYOUT = Layout(
    {
        partition.name: partition
        for partition in (
            Partition("app0", FlashName.INTERNAL, 0x1000, SMALL_APP_SIZE),
            Partition("bcfg0", FlashName.NOR, 0x0000, 0x2000),
            Partition("bcfg1", FlashName.NOR, 0x2000, 0x2000),
            Partition("app1", FlashName.NOR, 0x4000, SMALL_APP_SIZE),
            Partition("appT", FlashName.NOR, 0x8000, SMALL_APP_SIZE),
            Partition("appF", FlashName.NOR, 0xC000, SMALL_APP_SIZE),
        )
    }
)
_SMALL_NOR = FlashGeometry.of(*[0x1000] * 16, page_size=256)
_SMALL_INTERNAL = FlashGeometry.of(*[0x1000] * 5, page_size=512)
FULL_NOR = FlashGeometry.of(*[0x1000] * 1024, page_size=256)
FULL_INTERNAL = FlashGeometry.of(*[0x4000] * 4, 0x1_0000, *[0x2_0000] * 7, page_size=1024)


class WatchdogResetError(Exception):
    """The watchdog was not fed in time. Not for the code under test to catch."""


def make_image(
    name: str,
    size: int = 1000,
    *,
    stack_pointer: int = 0x2002_0000,
    reset_vector: int = APP0_ADDRESS + 0x41,
) -> bytes:
    """An image with a vector table, an application descriptor, and content that is all its own."""
    info = struct.pack("<8sI16s16s32s", b"OTASIMAI", 76, b"sample", name.encode(), b"")
    head = struct.pack("<II", stack_pointer, reset_vector) + info
    return head + random.Random(name).randbytes(size - len(head))  # noqa: S311


class FakeHardware:
    """What a loader sees of the board in one boot."""

    def __init__(self, board: "FakeBoard", reset_cause: ResetCause) -> None:
        self._board = board
        self._cause = reset_cause
        self.text = ""
        self.decisions: list[tuple[str, dict[str, int | str]]] = []
        self.watchdog_timeout_s = 0.0
        self.feeds = 0
        self.unfed_ns = 0

    @property
    def nor(self) -> FlashDevice:
        return self._board.nor

    @property
    def internal_flash(self) -> FlashDevice:
        return self._board.internal

    @property
    def reset_cause(self) -> ResetCause:
        return self._cause

    @property
    def reasons(self) -> list[str]:
        return [reason for reason, _ in self.decisions]

    def start_watchdog(self, timeout_s: float) -> None:
        self.watchdog_timeout_s = timeout_s

    def feed_watchdog(self) -> None:
        self.feeds += 1
        self.unfed_ns = 0

    def log(self, text: str) -> None:
        self.text += text

    def wait(self, duration_ns: int) -> None:
        self.unfed_ns += duration_ns
        if self._board.has_watchdog and self.unfed_ns > self.watchdog_timeout_s * NS_PER_S:
            raise WatchdogResetError

    def record_decision(self, reason: str, **details: int | str) -> None:
        self.decisions.append((reason, details))


class FakeBoard:
    """Flash memories that survive, and the acts of a loader and an application on them."""

    def __init__(
        self,
        *,
        settings: LoaderSettings | None = None,
        layout: Layout = SMALL_LAYOUT,
        full_size: bool = False,
    ) -> None:
        self.power = PowerSupply()
        self.layout = DEFAULT_LAYOUT if full_size else layout
        nor, internal = (FULL_NOR, FULL_INTERNAL) if full_size else (_SMALL_NOR, _SMALL_INTERNAL)
        self.nor = FakeFlash("nor", nor, self.power)
        self.internal = FakeFlash("internal", internal, self.power)
        self.settings = settings or LoaderSettings()
        self.partitions = Partitions(self.layout, nor=self.nor, internal_flash=self.internal)
        self.has_watchdog = True
        self.hardware = FakeHardware(self, ResetCause.POWER_ON)
        if self.settings.strict_original:
            self.nor.allow_overwrite = True

    def copy(self) -> "FakeBoard":
        """Another board with the same content in its flash memories."""
        other = FakeBoard(settings=self.settings, layout=self.layout)
        other.nor.cells[:] = self.nor.cells
        other.internal.cells[:] = self.internal.cells
        return other

    def provision(self, image: bytes, factory_image: bytes | None = None) -> None:
        provision(self.nor, self.internal, image, factory_image=factory_image, layout=self.layout)

    def boot(self, reset_cause: ResetCause = ResetCause.POWER_ON) -> BootTarget:
        """One reset; the hardware of this boot stays in `hardware` to be looked at."""
        self.hardware = FakeHardware(self, reset_cause)
        return MosLoader(self.settings, layout=self.layout).boot(self.hardware)

    def journal(self) -> Journal:
        journal = Journal(
            self.partitions.journal_areas, strict_original=self.settings.strict_original
        )
        journal.load()
        return journal

    def state(self) -> BootState:
        newest = self.journal().newest
        assert newest is not None
        return newest.state

    def change(self, transition: Callable[[BootState], BootState]) -> BootState:
        """The application changes the boot state."""
        journal = self.journal()
        assert journal.newest is not None
        return journal.append(transition(journal.newest.state))

    def update(self, image: bytes, commit_timeout: int | None = None) -> int:
        """The application takes an update; the slot it went to."""
        state = self.state()
        slot = find_update_slot(state, APP0_ADDRESS)
        assert slot is not None, f"no slot for an update in {state}"
        self.write_image(slot, image)
        facts = describe_image(image)
        self.change(
            lambda current: current.update_finished(
                slot,
                length=facts.app_len,
                origin=facts.app_org,
                crc32=facts.app_crc32,
                commit_timeout=commit_timeout,
            )
        )
        return slot

    def write_image(self, slot: int, image: bytes) -> None:
        partition = self.partitions.open(self.state().slots[slot].configuration.app_dev)
        for offset, length in partition.erase_runs(len(image), 0x1_0000):
            partition.erase(offset, length)
        partition.program(0, image)

    def damage(self, slot: int, offset: int = 500) -> None:
        """Flip a bit of the image in a slot."""
        partition = self.layout.partition(self.state().slots[slot].configuration.app_dev)
        flash = self.nor if partition.flash is FlashName.NOR else self.internal
        flash.cells[partition.offset + offset] ^= 0x10

    def image_in(self, slot: int) -> bytes:
        """What the slot holds, as its state says."""
        return self.access().read_image(self.state().slots[slot])

    def access(self) -> SlotAccess:
        return SlotAccess(self.partitions, lambda: None)

    def running_image(self, length: int) -> bytes:
        """What the processor sees where applications are started."""
        return self.partitions.open("app0").read(0, length)

    def set_fields(self, **fields: int) -> None:
        """Change the boot state in any way, sensible or not."""
        self.change(lambda state: replace(state, **fields))  # type: ignore[arg-type]
