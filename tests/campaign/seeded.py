"""The seeded bugs: what each one is caught by, and the real-world failure that it resembles.

A bug breaks one rule, in a few lines (`bugs`, `application_bugs`). It is caught by its own reason:
a kind of finding, in a step of a scenario, at a flash operation that is cut there, and words of the
finding or of the boot that failed. No two have all of that in common.

Where a public thread tells of a failure like it, it is named, with its title: in the code of
others, and not always from a cut of power. No thread is named where none was found.

Some bugs are not here because no cut of power makes them do harm, and campaigns of power cuts find
nothing:

- the CRC of an image is not checked before it is copied or started, a copy is not checked, nothing
  is started where no record can be written: these need flash that fails or forgets, and are in
  `test_faults`;
- an update is on record before its last bytes are written: the loader, which checks, goes back;
- the watchdog is not fed during a long copy: images of campaigns are copied in a moment.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from bootloader_model.loader import MosLoader
from campaign.boot import LoaderFactory
from campaign.images import NEW, OLD, make_image
from campaign.judge import Kind
from campaign.scenario import (
    SCENARIOS,
    Boot,
    Call,
    Expectation,
    Scenario,
    Step,
    Wait,
    commit,
    keeps,
    roll_back,
    steady,
    take_update,
)
from platforms.devices.reset_cause import ResetCause
from tests.campaign import application_bugs, bugs
from tests.campaign.application_bugs import Patched

FACTORY = make_image("factory", 1000)

_POWER_ON = steady("power-on", Boot(ResetCause.POWER_ON), OLD)
_TO_FACTORY = Call("OTA.SetBootState", {"active_slot": 3})


def _fill(times: int) -> Step:
    """So many records."""
    return steady("fill the journal", Call("OTA.SetBootState", {"commit_timeout": 60}, times), OLD)


def _committed_later() -> tuple[Step, ...]:
    done, booted = commit(NEW, OLD)
    return done, steady("a second later", Wait(1), NEW, OLD), booted


SPECIAL = (
    Scenario(
        "snapshot-only",
        "A snapshot becomes the way back",
        (
            steady("boot", Boot(ResetCause.PIN), OLD),
            steady("snapshot", Call("OTA.CreateSnapshot", {"set_as_revert": True}), OLD),
        ),
    ),
    Scenario(
        "full-area",
        "An update whose record is the last one in its area",
        (_POWER_ON, _fill(29), *take_update(NEW, OLD)),
    ),
    Scenario(
        "over-the-wrap",
        "An update when both areas have been filled",
        (_POWER_ON, _fill(66), *take_update(NEW, OLD)),
    ),
    Scenario(
        "many-resets",
        "A board that is reset again and again",
        (_POWER_ON, *(steady(f"reset {number}", Boot(ResetCause.PIN), OLD) for number in range(5))),
    ),
    Scenario(
        "commit-and-wait",
        "Time passes between a commit and the reset",
        (_POWER_ON, *take_update(NEW, OLD), *_committed_later()),
    ),
    Scenario(
        "factory-reset",
        "An update is rolled back, and the factory image is started instead",
        (
            _POWER_ON,
            *take_update(NEW, OLD),
            *roll_back(NEW, OLD, ResetCause.WATCHDOG),
            Step(
                "factory reset",
                _TO_FACTORY,
                keeps(OLD),
                Expectation(((OLD, keeps(OLD)), (FACTORY, keeps(FACTORY)))),
                keeps(FACTORY),
            ),
            steady("boot after factory reset", Boot(ResetCause.PIN), FACTORY),
        ),
        factory=FACTORY,
    ),
)
KNOWN = {scenario.name: scenario for scenario in (*SCENARIOS, *SPECIAL)}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a finding tells.

    Attributes:
        kind: what is wrong.
        step: the step in which the power goes first, or that goes wrong without.
        cut: the flash operation at which it goes, and the partition; empty without a cut.
        words: the finding's text, and the console of the boot that failed.
    """

    kind: Kind
    step: str
    cut: str
    words: str


@dataclass(frozen=True, slots=True)
class Caught:
    """What is expected; as `Evidence`, but of the words only some, a regular expression."""

    kind: Kind
    step: str
    cut: str = ""
    words: str = ""

    def fits(self, found: Evidence) -> bool:
        """Whether this is it."""
        is_there = (self.kind, self.step, self.cut) == (found.kind, found.step, found.cut)
        return is_there and re.search(self.words, found.words) is not None


@dataclass(frozen=True, slots=True)
class Thread:
    """An issue or a pull request on GitHub.

    Attributes:
        number: the repository, and the number in it.
        title: as found.
    """

    number: str
    title: str


@dataclass(frozen=True, slots=True)
class SeededBug:
    """A bug, and how it is caught.

    Attributes:
        rule: what the bug is, in its docstring.
        scenario: in which it is caught; a name of `KNOWN`.
        caught: by what.
        resembles: a failure like it in the real world; None = none known.
        loader: the boot loader.
        application: what is wrong with the application.
        depth: how many cuts are needed.
    """

    rule: Callable[[], object]
    scenario: str
    caught: Caught
    resembles: Thread | None
    loader: LoaderFactory = MosLoader
    application: Callable[[], Patched] = Patched
    depth: int = 1

    @property
    def name(self) -> str:
        """What tests call it."""
        return self.rule.__name__


def _in_loader(
    bug: LoaderFactory, scenario: str, caught: Caught, resembles: Thread | None = None
) -> SeededBug:
    return SeededBug(bug, scenario, caught, resembles, loader=bug)


def _in_application(
    bug: Callable[[], Patched],
    scenario: str,
    caught: Caught,
    resembles: Thread | None = None,
    depth: int = 1,
) -> SeededBug:
    return SeededBug(bug, scenario, caught, resembles, application=bug, depth=depth)


BUGS: tuple[SeededBug, ...] = (
    # -- the swap --
    _in_loader(
        bugs.record_before_copy,
        "update-watchdog",
        Caught(Kind.BRICK, "rollback", "program bcfg0", "slot 0: its image has CRC32"),
        Thread("particle-iot/device-os#2176", "Clear OTA slots after updating firmware modules"),
    ),
    _in_loader(
        bugs.no_backup,
        "update-watchdog",
        Caught(Kind.WAY_BACK_LOST, "rollback", words="slot 2: its image has CRC32"),
        Thread(
            "adafruit/Adafruit_nRF52_Bootloader#338",
            "Is there a way to rollback to previous firmware if OTA DFU fails?",
        ),
    ),
    _in_loader(
        bugs.backup_not_recorded,
        "update-watchdog",
        Caught(Kind.NOT_ROLLED_BACK, "first boot", "erase app0", "no revert slot is set"),
        Thread(
            "mcu-tools/mcuboot#829",
            "Brick when using BOOT_SWAP_USING_MOVE and reset happens during images swap",
        ),
    ),
    _in_loader(
        bugs.way_back_over_the_update,
        "update-watchdog",
        Caught(Kind.UPDATE_LOST, "first boot", words="keeping slot 0 in slot 1"),
    ),
    _in_loader(
        bugs.way_back_over_the_factory_image,
        "factory-reset",
        Caught(Kind.FORBIDDEN_WRITE, "first boot", words="nor 0x1f0000"),
    ),
    _in_loader(
        bugs.started_where_it_arrived,
        "update-watchdog",
        Caught(Kind.WRONG_ENTRY, "first boot", words="starting slot 1"),
    ),
    _in_loader(
        bugs.started_copy_trusted,
        "update-watchdog",
        Caught(Kind.WRONG_IMAGE, "first boot", "program app0", "none of the images"),
        Thread("wolfSSL/wolfBoot#409", "DISABLE_BACKUP is now powerfail-safe."),
    ),
    _in_loader(
        bugs.copy_not_erased,
        "update-watchdog",
        Caught(Kind.MARGINAL_IMAGE, "first boot", "erase app0"),
        Thread("Duet3D/RepRapFirmware#1082", "SAME70 - Firmware update failures"),
    ),
    _in_loader(
        bugs.length_of_the_old_image,
        "update-watchdog",
        Caught(Kind.UPDATE_LOST, "first boot", words="copying app1 to app0: CRC32"),
        Thread("mcu-tools/mcuboot#1347", "boot_copy_region() trying to read past secondary slot"),
    ),
    _in_loader(
        bugs.interrupted_swap_is_a_failure,
        "update-watchdog",
        Caught(Kind.UPDATE_LOST, "first boot", "program bcfg0", "rolling back to slot 2"),
        Thread("wolfSSL/wolfBoot#301", "Delta update power fix inverse"),
    ),
    # -- trial and rollback --
    _in_loader(
        bugs.first_boot_noted_too_early,
        "update-watchdog",
        Caught(Kind.UPDATE_LOST, "first boot", "program bcfg0", "rolling back to slot 0"),
        Thread("mcu-tools/mcuboot#855", "Fix upgrade issue in swap-move"),
    ),
    _in_loader(
        bugs.first_boot_never_noted,
        "update-commit",
        Caught(Kind.NOT_ROLLED_BACK, "commit", "program bcfg0", "not committed, not started yet"),
    ),
    _in_loader(
        bugs.tried_twice,
        "update-watchdog",
        Caught(Kind.NOT_ROLLED_BACK, "rollback", words="first boot of the new firmware"),
        Thread("rauc/rauc#398", "Partition is always marked good"),
    ),
    _in_loader(
        bugs.committed_by_the_loader,
        "update-no-timeout",
        Caught(Kind.NOT_ROLLED_BACK, "update", "program bcfg0", "revert none, committed"),
        Thread(
            "espressif/esp-idf#7859",
            "Firmware image being automatically set to valid after OTA update, rollback not being"
            " possible. (IDFGH-6182)",
        ),
    ),
    _in_loader(
        bugs.never_rolls_back,
        "update-watchdog",
        Caught(
            Kind.NOT_ROLLED_BACK,
            "rollback",
            words="revert 2, not committed\nboot: slot 0 is active",
        ),
        Thread(
            "mcu-tools/mcuboot#1966",
            "swap-move: Power failure during the writing of the magic could brick the device",
        ),
    ),
    _in_loader(
        bugs.OnlyTheWatchdogRollsBack,
        "update-commit",
        Caught(
            Kind.NOT_ROLLED_BACK, "commit", "program bcfg0", "not committed\nboot: first boot of"
        ),
    ),
    _in_loader(
        bugs.rollback_not_recorded,
        "second-update",
        Caught(Kind.CANNOT_UPDATE, "update"),
        Thread(
            "ruuvi/ruuvi.gateway_esp.c#1280",
            "otadata corruption after bootloader fallback from a failed firmware update",
        ),
    ),
    _in_loader(
        bugs.rolled_back_to_the_factory_image,
        "factory-reset",
        Caught(Kind.WRONG_VERSION, "rollback", words="image factory runs"),
    ),
    _in_loader(
        bugs.installed_again,
        "update-watchdog",
        Caught(Kind.NOT_ROLLED_BACK, "rollback", "program bcfg0", "copying slot 1 to slot 0"),
        Thread("mcu-tools/mcuboot#480", "Watchdog reset during bootloader stage breaks image swap"),
    ),
    _in_loader(
        bugs.way_back_erased_before_the_record,
        "update-watchdog",
        Caught(Kind.BRICK, "rollback", "erase appT", "slot 2: its image has CRC32"),
        Thread(
            "mcu-tools/mcuboot#1307",
            "Image integrity is not calculated after upgrade using OVERWRITE mode",
        ),
    ),
    _in_loader(
        bugs.commit_ignored,
        "update-commit",
        Caught(Kind.COMMIT_LOST, "boot after commit", words="rolling back to slot 2"),
        Thread(
            "mcu-tools/mcuboot#2811",
            "MCUBOOT_BOOTSTRAP-installed image is never confirmed, triggering a spurious (and"
            " potentially destructive) REVERT on the next boot",
        ),
    ),
    _in_loader(
        bugs.boot_count_never_reset,
        "many-resets",
        Caught(Kind.BRICK, "reset 2", words="booted too often"),
        Thread(
            "p2pool-starter-stack/pithead#793",
            "Nothing marks the booted slot good — RAUC reports both slots bad on a healthy"
            " appliance",
        ),
    ),
    # -- the journal --
    _in_loader(
        bugs.torn_record_accepted,
        "many-resets",
        Caught(Kind.BRICK, "power-on", "program bcfg0", "slot 0: no partition"),
        Thread(
            "oltaco/Adafruit_nRF52_Bootloader_OTAFIX#21",
            "Restore OTA CRC integrity check and add hard reset after BLE DFU",
        ),
    ),
    _in_loader(
        bugs.marginal_record_trusted,
        "update-commit",
        Caught(Kind.COMMIT_LOST, "commit", "program bcfg0", "rolling back to slot 2"),
        Thread(
            "zephyrproject-rtos/zephyr#103452",
            "fs: nvs: fix data loss after power loss during close ATE programming",
        ),
    ),
    _in_loader(
        bugs.sequence_not_compared,
        "over-the-wrap",
        Caught(Kind.UPDATE_LOST, "first boot", words="state seq 64 in bcfg1"),
        Thread(
            "xoseperez/eeprom32_rotate#2",
            "Addition/Removing of sectors to existing pool malfunctions latest sector selection.",
        ),
    ),
    _in_loader(
        bugs.sequence_wraps,
        "over-the-wrap",
        Caught(Kind.UPDATE_LOST, "first boot", words="state seq 63 in bcfg1"),
        Thread(
            "zephyrproject-rtos/zephyr-testing#135",
            "flash circular buffer is limited to 65536 calls to fcb_new_sector()",
        ),
    ),
    _in_loader(
        bugs.sequence_starts_anew,
        "update-commit",
        Caught(Kind.CANNOT_UPDATE, "commit", words="slot 1 is to be booted"),
    ),
    _in_loader(
        bugs.newest_erased_first,
        "update-watchdog",
        Caught(Kind.UPDATE_LOST, "first boot", "erase bcfg0", "no boot state"),
        Thread("wolfSSL/wolfBoot#309", "NVM_FLASH_WRITEONCE Fixed wrong partition erase"),
    ),
    _in_loader(
        bugs.full_area_refused,
        "full-area",
        Caught(Kind.UPDATE_LOST, "first boot", words="the area is full"),
        Thread(
            "zephyrproject-rtos/zephyr#103029",
            "NVS startup fails after power loss during final ATE write",
        ),
    ),
    _in_loader(
        bugs.ReadsUntilItIsGood,
        "many-resets",
        Caught(Kind.HANG, "power-on", "program bcfg0"),
        Thread(
            "zephyrproject-rtos/zephyr#17891", "fs/nvs: nvs_init can hang if no nvs_ate available"
        ),
    ),
    _in_loader(
        bugs.ExpectsNoTornRecord,
        "many-resets",
        Caught(Kind.RAISED, "power-on", "program bcfg0", "RecordError"),
        Thread("mcu-tools/mcuboot#414", "Set pending: don't crash when image slot corrupt"),
    ),
    # -- the start --
    _in_loader(
        bugs.OldStart,
        "update-watchdog",
        Caught(Kind.UPDATE_LOST, "first boot", words="slot 0, whatever there is"),
        Thread("mcu-tools/mcuboot#616", "Firmware update not working using OVERWRITE_ONLY option"),
    ),
    _in_loader(
        bugs.WrongEntry,
        "update-watchdog",
        Caught(Kind.WRONG_ENTRY, "power-on", words="with stack pointer 0x20000400"),
        Thread(
            "sfyip/STM32F103_MSD_BOOTLOADER#2",
            "Moved jump code from jmp_to_appcode to int main()",
        ),
    ),
    _in_loader(
        bugs.StackAndEntrySwapped,
        "update-watchdog",
        Caught(Kind.WRONG_ENTRY, "power-on", words="image old is entered at 0x2001"),
    ),
    _in_loader(
        bugs.vectors_of_the_update,
        "update-watchdog",
        Caught(Kind.WRONG_ENTRY, "rollback", words="image old is entered at 0x0801"),
        Thread("ARMmbed/mbed-os#3798", "Fix vector table bug when using bootloader on ST"),
    ),
    _in_loader(
        bugs.NoWatchdog,
        "update-watchdog",
        Caught(Kind.NO_WATCHDOG, "power-on", words="started without a watchdog"),
        Thread(
            "lupyuen/pinetime-rust-mynewt#20",
            "Configure and enable watchdog just before jumping to the application firmware",
        ),
    ),
    _in_loader(
        bugs.WatchdogStartedLate,
        "update-watchdog",
        Caught(Kind.NO_WATCHDOG, "power-on", words="before the watchdog is started: 1"),
        Thread("apache/mynewt-core#1760", "boot: Init watchdog"),
    ),
    _in_loader(
        bugs.WaitsForever,
        "update-watchdog",
        Caught(Kind.HANG, "first boot"),
        Thread("mcu-tools/mcuboot#2830", "boot: serial: end serial recovery on inactivity"),
    ),
    _in_loader(
        bugs.WaitsLongerThanTheWatchdog,
        "update-watchdog",
        Caught(Kind.BRICK, "power-on"),
        Thread("lujji/stm8-bootloader#5", "Are you using some auto bootload entry logic?"),
    ),
    _in_loader(
        bugs.original,
        "update-watchdog",
        Caught(Kind.BRICK, "update", "program bcfg0", "verifying slot 0 failed"),
    ),
    # -- the application: updates --
    _in_application(
        application_bugs.update_over_the_running_image,
        "update-commit",
        Caught(Kind.BRICK, "update", "erase app0", "slot 0: its image has CRC32"),
        Thread(
            "crosspoint-reader/crosspoint-reader#1281",
            "fix: use esp_ota partition API for SD card OTA flash (both paths)",
        ),
    ),
    _in_application(
        application_bugs.update_not_erased,
        "second-update",
        Caught(Kind.CANNOT_UPDATE, "update", "program app1", "does not read back as written"),
        Thread("mcu-tools/mcuboot#553", "FW update problem"),
    ),
    _in_application(
        application_bugs.checksum_of_whole_pages,
        "update-watchdog",
        Caught(Kind.UPDATE_LOST, "first boot", words="slot 1: its image has CRC32"),
        Thread(
            "autosportlabs/RaceCapture-Pro_firmware#764",
            "Align firmeware in linker to prevent CRC errors in Bootloader",
        ),
    ),
    _in_application(
        application_bugs.way_back_is_the_update,
        "update-watchdog",
        Caught(Kind.WAY_BACK_LOST, "rollback", words="rolling back to slot 1"),
    ),
    _in_application(
        application_bugs.committed_when_received,
        "update-watchdog",
        Caught(Kind.NOT_ROLLED_BACK, "rollback", words="revert 2, committed, not started yet"),
        Thread(
            "intercreate/smpclient#135",
            "Zephyr permits confirming an untested image by default"
            " (CONFIG_MCUMGR_GRP_IMG_ALLOW_CONFIRM_NON_ACTIVE_SLOT=y)",
        ),
    ),
    _in_application(
        application_bugs.timeout_kept_in_ram,
        "update-watchdog",
        Caught(Kind.NOT_ROLLED_BACK, "rollback", words="revert none, committed"),
        Thread(
            "dalathegreat/Battery-Emulator#2881",
            "OTA: confirm a new image only after the system has actually run",
        ),
    ),
    # -- the application: commit and rollback --
    _in_application(
        application_bugs.commit_timer_not_armed,
        "update-timeout",
        Caught(Kind.NOT_RESET, "rollback"),
        Thread("cesanta/mongoose#3641", "Add ESP32 OTA rollback support"),
    ),
    _in_application(
        application_bugs.commit_answered_first,
        "commit-and-wait",
        Caught(Kind.COMMIT_LOST, "a second later", "program bcfg0"),
        Thread("rauc/rauc#1140", "Invalid confirmation of slot marked as good"),
    ),
    _in_application(
        application_bugs.wrong_slot_committed,
        "update-commit",
        Caught(Kind.COMMIT_LOST, "boot after commit", words="slot 2 is active and committed"),
        Thread("JuulLabs-OSS/mcumgr-android#18", "Confirm slot0; check slot0 hash on response"),
    ),
    _in_application(
        application_bugs.way_back_erased_before_the_commit,
        "update-commit",
        Caught(Kind.WAY_BACK_LOST, "commit", "erase appT", "nothing to roll back to"),
        Thread(
            "apache/mynewt-mcumgr#11",
            "image erase: allow only when slot image is not backup/pending...",
        ),
    ),
    _in_application(
        application_bugs.snapshot_recorded_too_early,
        "snapshot-only",
        Caught(Kind.BRICK, "snapshot", "program app1", "slot 1: its image has CRC32"),
        Thread("espressif/esp-idf#14808", "Invalidate specific OTA slot. (IDFGH-13982)"),
        depth=2,
    ),
    # -- the journal, in the application and in the loader --
    _in_application(
        application_bugs.area_begun_without_erase,
        "over-the-wrap",
        Caught(Kind.CANNOT_UPDATE, "fill the journal", words="does not read back as written"),
        Thread(
            "raspberrypi/pico-sdk#650",
            "flash_range_program will not work if flash is not erased",
        ),
    ),
    _in_application(
        application_bugs.record_not_read_back,
        "update-watchdog",
        Caught(
            Kind.CANNOT_UPDATE,
            "update",
            "program bcfg0",
            "the next update, image probe, does not start",
        ),
        Thread("openthread/openthread#4710", "[flash] improve robustness to power failure"),
    ),
    _in_application(
        application_bugs.full_area_forgotten,
        "over-the-wrap",
        Caught(
            Kind.UPDATE_LOST, "first boot", words=r"(?s)state seq 32 in bcfg0(?!.*area is full)"
        ),
    ),
)
