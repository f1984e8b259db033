"""The board's description: a documented subset of Renode's platform files (.repl).

What is understood, and all that is:

    // a comment to the end of the line, at its start or behind a space
    name: Namespace.Type @ sysbus 0x40004400          an entry with its place on the bus
    name: Namespace.Type @ sysbus <0x40004400, +0x400>    ... with its size
    name: Namespace.Type @ { sysbus 0x0; sysbus 0x08000000 }    ... at several places
    name: Namespace.Type @ sysbus                     ... registered without an address
        attribute: 0x100                              a number, a "text", true, false or a name
        -> nvic@38                                    the default interrupt goes to line 38
        IRQ -> nvic@35                                a named output goes to line 35

Names begin with a letter, what belongs to an entry is indented by four spaces, numbers are decimal
or begin with 0x. Which types, attributes and places there are: `platforms/engines/entries.py`.
Anything else is a DescriptionError that names file, line and entry, on every engine.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from platforms.errors import OtasimError

BOARD_FILE = Path(__file__).parent / "stm32f405.repl"

_NAME = r"[A-Za-z][A-Za-z0-9_]*"
_NUMBER = r"0x[0-9A-Fa-f]+|0|[1-9][0-9]*"
_INDENT = "    "
# What Renode's own syntax takes, and the names it has given already.
_RESERVED = frozenset(
    (
        "using", "new", "as", "preinit", "init", "reset", "local", "prefixed", "true", "false",
        "none", "empty", "sysbus", "machine",
    )
)  # fmt: skip
_ENTRY = re.compile(
    rf"(?P<name>{_NAME})\s*:\s*(?P<type>{_NAME}(?:\.{_NAME})*)\s*@\s*(?P<places>.+)"
)
_PLACE = re.compile(
    rf"(?P<parent>{_NAME})"
    rf"(?:\s+(?:(?P<address>{_NUMBER})|<\s*(?P<start>{_NUMBER})\s*,\s*\+\s*(?P<size>{_NUMBER})\s*>))?"
)
_ATTRIBUTE = re.compile(rf"(?P<name>{_NAME})\s*:\s*(?P<value>.+)")
_CONNECTION = re.compile(
    rf"(?:(?P<source>{_NAME}|[0-9]+)\s*)?->\s*(?P<target>{_NAME})\s*@\s*(?P<line>{_NUMBER})"
)
_TEXT = re.compile(r'"(?P<text>[^"\\]*)"')

AttributeValue = int | str | bool


class DescriptionError(OtasimError):
    """A platform file cannot be used.

    Attributes:
        path: the file.
        line: the line number, from 1; 0 when the file as a whole is meant.
        entry: name of the entry it is about, empty outside one.
    """

    def __init__(self, message: str, *, path: Path, line: int = 0, entry: str = "") -> None:
        place = f"{path}:{line}" if line else f"{path}"
        about = f" (entry {entry!r})" if entry else ""
        super().__init__(f"{place}: {message}{about}")
        self.path = path
        self.line = line
        self.entry = entry


@dataclass(frozen=True, slots=True)
class Registration:
    """Where an entry is attached: `parent`, and `address` and `size` in bytes where given."""

    parent: str
    address: int | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """An output of an entry wired to line `line` of `target`; `source` is empty for the default."""

    source: str
    target: str
    line: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One peripheral, memory or processor of the board."""

    name: str
    type: str
    registrations: tuple[Registration, ...]
    attributes: dict[str, AttributeValue]
    connections: tuple[Connection, ...]
    path: Path
    line: int

    def error(self, message: str) -> DescriptionError:
        """An error about this entry, with its place."""
        return DescriptionError(message, path=self.path, line=self.line, entry=self.name)

    def number(self, attribute: str) -> int:
        """A numeric attribute; DescriptionError when it is missing or no number."""
        value = self.attributes.get(attribute)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"expected a number for {attribute!r}, found {value!r}")
        return value

    def address(self) -> int:
        """The one bus address; DescriptionError when there is not exactly one."""
        if len(self.registrations) != 1 or self.registrations[0].address is None:
            raise self.error("expected one address on sysbus")
        return self.registrations[0].address


@dataclass(frozen=True, slots=True)
class BoardDescription:
    """All entries of a platform file, in order."""

    path: Path
    entries: tuple[Entry, ...]

    def of_type(self, type_name: str) -> list[Entry]:
        """The entries of one type."""
        return [entry for entry in self.entries if entry.type == type_name]

    def named(self, name: str) -> Entry:
        """The entry called `name`; DescriptionError when there is none."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise DescriptionError(f"there is no entry {name!r}", path=self.path)

    def only(self, type_name: str) -> Entry:
        """The one entry of a type; DescriptionError when there is none or more than one."""
        found = self.of_type(type_name)
        if not found:
            raise DescriptionError(f"expected one {type_name}, found none", path=self.path)
        if len(found) > 1:
            raise found[1].error(f"expected one {type_name}, found {len(found)}")
        return found[0]


def load_description(path: Path = BOARD_FILE) -> BoardDescription:
    """Read a platform file; DescriptionError when it is missing or outside the subset."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DescriptionError(f"cannot be read: {error}", path=path) from error
    return parse_description(text, path)


def parse_description(text: str, path: Path) -> BoardDescription:
    """Parse the text of a platform file; `path` is for error messages."""
    entries: list[Entry] = []
    blocks = _blocks(text, path)
    for line, header, body in blocks:
        entry = _parse_entry(line, header, body, path)
        if entry.name in _RESERVED:
            raise entry.error("is a word of Renode's own: give it another name")
        if any(other.name == entry.name for other in entries):
            raise entry.error("is described a second time: keep one of them")
        entries.append(entry)
    if not entries:
        raise DescriptionError("describes nothing", path=path)
    description = BoardDescription(path, tuple(entries))
    _check_connections(description)
    return description


Block = tuple[int, str, list[tuple[int, str]]]


def _blocks(text: str, path: Path) -> list[Block]:
    """Entries as (line, header, [(line, indented line)]); a header may span lines inside braces."""
    blocks: list[Block] = []
    open_braces = False
    for number, raw in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        content = _without_comment(raw)
        if not content.strip(" "):
            continue
        if not content.isprintable() or "'''" in raw:
            raise DescriptionError(
                "expected plain text: no tabs, no control characters, no three quotes in a row",
                path=path,
                line=number,
                entry=_name_of(blocks[-1]) if blocks else "",
            )
        if open_braces:
            line, header, body = blocks[-1]
            blocks[-1] = (line, f"{header} {content.strip()}", body)
        elif content.startswith(" "):
            if not blocks:
                raise DescriptionError("an indented line before any entry", path=path, line=number)
            if not content.startswith(_INDENT) or content.startswith(_INDENT + " "):
                raise DescriptionError(
                    "expected an indent of four spaces",
                    path=path,
                    line=number,
                    entry=_name_of(blocks[-1]),
                )
            blocks[-1][2].append((number, content.strip()))
            continue
        else:
            blocks.append((number, content.strip(), []))
        open_braces = blocks[-1][1].count("{") > blocks[-1][1].count("}")
    if open_braces:
        raise DescriptionError(
            "a { is never closed", path=path, line=blocks[-1][0], entry=_name_of(blocks[-1])
        )
    return blocks


def _name_of(block: Block) -> str:
    """What a block is called, as far as one can tell before it is understood."""
    header = re.match(rf"({_NAME})\s*:", block[1])
    return header[1] if header else ""


def _without_comment(line: str) -> str:
    in_text = False
    for index, character in enumerate(line):
        if character == '"':
            in_text = not in_text
        elif not in_text and line.startswith("//", index) and line[:index][-1:] in ("", " "):
            return line[:index]
    return line


def _parse_entry(line: int, header: str, body: list[tuple[int, str]], path: Path) -> Entry:
    match = _ENTRY.fullmatch(header)
    if match is None:
        raise DescriptionError(
            f"expected 'name: Type @ sysbus address', found {header!r}",
            path=path,
            line=line,
            entry=_name_of((line, header, body)),
        )
    name = match["name"]
    try:
        registrations = tuple(_parse_place(place) for place in _split_places(match["places"]))
    except ValueError as error:
        raise DescriptionError(str(error), path=path, line=line, entry=name) from None
    attributes: dict[str, AttributeValue] = {}
    connections = []
    for number, text in body:
        try:
            if connection := _CONNECTION.fullmatch(text):
                source, target = connection["source"] or "", connection["target"]
                connections.append(Connection(source, target, int(connection["line"], 0)))
            elif attribute := _ATTRIBUTE.fullmatch(text):
                if attribute["name"] in attributes:
                    raise ValueError(f"{attribute['name']!r} is given a second time: keep one")
                attributes[attribute["name"]] = _parse_value(attribute["value"].strip())
            else:
                raise ValueError(f"expected 'attribute: value' or '-> target@line', found {text!r}")
        except ValueError as error:
            raise DescriptionError(str(error), path=path, line=number, entry=name) from None
    return Entry(name, match["type"], registrations, attributes, tuple(connections), path, line)


def _split_places(text: str) -> list[str]:
    text = text.strip()
    if not text.startswith("{"):
        return [text]
    if not text.endswith("}"):
        raise ValueError(f"expected '{{ place; place }}', found {text!r}")
    return [part.strip() for part in text[1:-1].split(";")]


def _parse_place(text: str) -> Registration:
    place = _PLACE.fullmatch(text)
    if place is None:
        raise ValueError(
            f"expected 'sysbus', 'sysbus 0x...' or 'sysbus <0x..., +0x...>', found {text!r}"
        )
    address = place["address"] or place["start"]
    return Registration(
        place["parent"],
        int(address, 0) if address else None,
        int(place["size"], 0) if place["size"] else None,
    )


def _parse_value(text: str) -> AttributeValue:
    if re.fullmatch(_NUMBER, text):
        return int(text, 0)
    if quoted := _TEXT.fullmatch(text):
        return quoted["text"]
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(_NAME, text):
        return text
    raise ValueError(f'expected a number, a "text", true, false or a name, found {text!r}')


def _check_connections(description: BoardDescription) -> None:
    names = {entry.name for entry in description.entries}
    for entry in description.entries:
        for connection in entry.connections:
            if connection.target not in names:
                raise entry.error(f"is wired to {connection.target!r}, which is not described")
