"""Platform files with mistakes in them, and the check that every engine makes."""

import re
from pathlib import Path

from otasim.engines import engine_factory
from platforms.clock import Clock
from platforms.description import BOARD_FILE, DescriptionError, parse_description
from platforms.engines.entries import check
from platforms.engines.protocol import EngineEvents
from platforms.models import make_models
from platforms.storage import in_memory

PATH = Path("board.repl")
TEXT = BOARD_FILE.read_text(encoding="utf-8")
MODELS = make_models(Clock(), in_memory()).wiring()
MEMORY = "x: Memory.MappedMemory @ "
UART = "x: UART.STM32_UART @ sysbus <0x40004800, +0x400>"


def refusal(text: str, path: Path = PATH) -> DescriptionError | None:
    """What the shared check says about a platform file; None when it accepts it."""
    try:
        check(parse_description(text, path), MODELS)
    except DescriptionError as error:
        return error
    return None


def build(engine: str, text: str, folder: Path) -> None:
    """An engine from a platform file."""
    path = folder / "board.repl"
    path.write_bytes(text.encode())
    clock = Clock()
    events = EngineEvents(lambda _data: None, lambda _cause: None, lambda _fault: None)
    models = make_models(clock, in_memory()).wiring()
    engine_factory(engine, path)(models, clock, events).close()


def added(entry: str) -> str:
    """The board's file with one more entry."""
    return f"{TEXT}\n{entry}\n"


def changed(old: str, new: str) -> str:
    """The board's file with something else in it."""
    assert len(re.findall(re.escape(old), TEXT)) == 1, old
    return TEXT.replace(old, new)


GOOD = {
    "as it is": TEXT,
    "more memory": added(f"{MEMORY}sysbus 0x60000000\n    size: 0x10000"),
    "memory at two places": added(
        f"{MEMORY}{{ sysbus 0x60000000; sysbus 0x61000000 }}\n    size: 0x10000"
    ),
    "decimal numbers": added(f"{MEMORY}sysbus 1610612736\n    size: 65536"),
    "the last memory": added(f"{MEMORY}sysbus 0xDFFFF000\n    size: 0x1000"),
    "a large memory": added(f"{MEMORY}sysbus 0x60000000\n    size: 0x4000000"),
    "another UART": added(f"{UART}\n    IRQ -> nvic@39"),
    "a UART without an interrupt": added(UART),
    "another SPI controller": added("x: SPI.STM32SPI @ sysbus 0x40003800\n    IRQ -> nvic@36"),
    "an SPI controller with a size": changed("0x40013000", "<0x40013000, +0x400>"),
    "a controller with a size": changed("sysbus 0xE000E000", "sysbus <0xE000E000, +0x1000>"),
    "the last peripheral": added(UART.replace("0x40004800", "0x5FFFFC00")),
    "a faster processor": changed("PerformanceInMips: 16", "PerformanceInMips: 168"),
    "a slower timer": changed("systickFrequency: 16000000", "systickFrequency: 1"),
    "a port without reset values": changed("    modeResetValue: 0xA8000000\n", ""),
    "other names": TEXT.replace("nvic", "lines").replace("lines: lines", "nvic: lines")
    .replace("cpu:", "core:").replace("cpu@0", "core@0"),
    "line ends of another system": TEXT.replace("\n", "\r\n"),
    "no end of the last line": TEXT.rstrip("\n"),
    "braces on one line": re.sub(r"\{\s+sysbus 0x08000000;\s+sysbus 0x00000000\s+\}",
                                 "{ sysbus 0x08000000; sysbus 0x0 }", TEXT),
    "comments and blank lines": TEXT.replace("    size", "// it's \"here\"\n\n    size"),
    "spaces at the end": TEXT.replace("\n", "  \n"),
}  # fmt: skip

# What is wrong, the file, the entry that it is about, and words of the message.
BAD = [
    ("no address", added(f"{MEMORY}sysbus\n    size: 0x1000"), "x", "has no address"),
    ("range", added(f"{MEMORY}sysbus <0x60000000, +0x20000>\n    size: 0x10000"), "x", "'size'"),
    ("on the CPU", added(f"{MEMORY}cpu 0x60000000\n    size: 0x1000"), "x", "attached to 'cpu'"),
    ("on nothing", added(f"{MEMORY}nothing 0x60000000\n    size: 0x1000"), "x", "'nothing'"),
    ("beyond", added(f"{MEMORY}sysbus 0x100000000\n    size: 0x1000"), "x", "0xffffffff"),
    ("wrapping", added(f"{MEMORY}sysbus 0xFFFFF000\n    size: 0x2000"), "x", "0xffffffff"),
    ("huge", added(f"{MEMORY}sysbus 0x60000000\n    size: 0x40000000"), "x", "0x4000000 in steps"),
    ("empty", added(f"{MEMORY}sysbus 0x60000000\n    size: 0"), "x", "0x1000"),
    ("no size", added(f"{MEMORY}sysbus 0x60000000"), "x", "has no 'size'"),
    ("odd place", added(f"{MEMORY}sysbus 0x60000800\n    size: 0x1000"), "x", "0x1000 bounds"),
    ("among peripherals", added(f"{MEMORY}sysbus 0x5FFFF000\n    size: 0x2000"), "x", "only"),
    ("in the system", added(f"{MEMORY}sysbus 0xE0200000\n    size: 0x1000"), "x", "only"),
    ("on the signature", added(f"{MEMORY}sysbus 0x1FFF7000\n    size: 0x1000"), "x", "only"),
    ("unknown attribute", changed("cpuType:", "cpuKind: 1\n    cpuType:"), "cpu", "'cpuKind'"),
    ("no attribute of it", added(f"{UART}\n    frequency: 1"), "x", "'frequency'"),
    ("type is a number", changed('"cortex-m4f"', "5"), "cpu", "'cpuType' is 5"),
    ("other processor", changed('"cortex-m4f"', '"pentium"'), "cpu", "expected 'cortex-m4f'"),
    ("bare word", changed("PerformanceInMips: 16", "PerformanceInMips: fast"), "cpu", "'fast'"),
    ("true", changed("PerformanceInMips: 16", "PerformanceInMips: true"), "cpu", "is true"),
    ("no speed", changed("PerformanceInMips: 16", "PerformanceInMips: 0"), "cpu", "from 1"),
    ("no frequency", changed("quency: 16000000", "quency: 0"), "nvic", "from 1"),
    ("other mask", changed("priorityMask: 0xF0", "priorityMask: 0xE0"), "nvic", "'priorityMask'"),
    ("no mask", changed("    priorityMask: 0xF0\n", ""), "nvic", "'priorityMask'"),
    ("twice", changed("    size: 0x20000", "    size: 1\n    size: 0x20000"), "sram", "second"),
    ("wide", changed("0xA8000000", "0x1A8000000"), "gpioPortA", "'modeResetValue'"),
    ("unknown output", changed("    -> nvic@38", "    BOGUS -> nvic@38"), "usart2", "'BOGUS'"),
    ("output of an SPI", changed("    IRQ -> nvic@35", "    -> nvic@35"), "spi1", "IRQ ->"),
    ("two lines", changed("-> nvic@38", "-> nvic@38\n    IRQ -> nvic@39"), "usart2", "twice"),
    ("one line for two", added(f"{UART}\n    -> nvic@38"), "x", "'usart2'"),
    ("no such line", added(f"{UART}\n    -> nvic@82"), "x", "interrupt line 82"),
    ("wired to the CPU", changed("    -> nvic@38", "    -> cpu@0"), "usart2", "expected 'nvic'"),
    ("not wired", changed("    IRQ -> cpu@0\n", ""), "nvic", "IRQ -> cpu@0"),
    ("wired elsewhere", changed("IRQ -> cpu@0", "IRQ -> cpu@1"), "nvic", "IRQ -> cpu@0"),
    ("wired to itself", changed("IRQ -> cpu@0", "IRQ -> nvic@0"), "nvic", "IRQ -> cpu@0"),
    ("a pin's interrupt", changed("    modeResetValue: 0xA8000000", "    0 -> nvic@6"), "gpioPortA",
     "expected none"),
    ("no controller", changed("    nvic: nvic\n", ""), "cpu", "has no 'nvic'"),
    ("wrong controller", changed("    nvic: nvic\n", "    nvic: sram\n"), "cpu", "expected 'nvic'"),
    ("text for a name", changed("    nvic: nvic\n", "    nvic: 1\n"), "cpu", "expected 'nvic'"),
    ("CPU on the controller", changed("CortexM @ sysbus", "CortexM @ nvic"), "cpu", "'nvic'"),
    ("CPU at an address", changed("CortexM @ sysbus", "CortexM @ sysbus 0"), "cpu", "without"),
    ("controller moved", changed("0xE000E000", "0xE000F000"), "nvic", "0xE000E000"),
    ("a UART without a size", added("x: UART.STM32_UART @ sysbus 0x40004800"), "x", "+0x400"),
    ("a small UART", added(UART.replace("+0x400", "+0x200")), "x", "+0x400"),
    ("a UART at two places", added(UART.replace("@ sysbus <0x40004800, +0x400>",
     "@ { sysbus <0x40004800, +0x400>; sysbus <0x40004C00, +0x400> }")), "x", "several places"),
    ("a crooked UART", added(UART.replace("0x40004800", "0x40004900")), "x", "0x400 bounds"),
    ("a UART in the RAM", added(UART.replace("0x40004800", "0x30000000")), "x", "from 0x40000000"),
    ("a tab", changed("    size: 0x20000", "\tsize: 0x20000"), "sram", "no tabs"),
    ("two spaces", changed("    size: 0x20000", "  size: 0x20000"), "sram", "four spaces"),
    ("eight spaces", changed("    size: 0x20000", "        size: 0x20000"), "sram", "four spaces"),
    ("a tight comment", changed("    size: 0x20000", "    size: 0x20000//"), "sram", "expected"),
    ("a word of Renode's", added(UART.replace("x:", "using:")), "using", "Renode's own"),
    ("a flash of another size", changed("size: 0x100000", "size: 0x80000"), "flash", "its model"),
    ("a flash of another type", changed("flash: Memory.MappedMemory @ {",
     "rom: Memory.MappedMemory @ {") + f"\n{UART.replace('x:', 'flash:')}\n", "flash", "Memory"),
    ("two processors", added('x: CPU.CortexM @ sysbus\n    cpuType: "cortex-m4f"'), "x", "found 2"),
]  # fmt: skip
