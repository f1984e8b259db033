"""The manifest of a firmware bundle: what the firmware is, and which files make it up.

Source of the facts: the public Mongoose OS host tool (`common/fwbundle/fw_bundle.go`, `fw_part.go`)
and the public device-side updater (`mgos_updater_common.c`, `stm32_updater.c`). The members of a
part are all optional there, and both sides carry members they do not know along; so does this one.

One member has a second meaning here: `addr` of the part `app` is the flash address of the first
byte of its file. A real STM32 device ignores it and takes the flash base, so both readings agree
for a bundle in the layout of a device; a compact bundle (application only) needs ours.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from platforms.errors import OtasimError

FLASH_BASE = 0x0800_0000
"""Where the internal flash of an STM32 begins (RM0090, section 2.3)."""

APP_PART = "app"
FS_PART = "fs"

_UINT32_MAX = 0xFFFF_FFFF
_SHA1_DIGITS = 40
_SHA256_DIGITS = 64
_TEXT_LIMIT = 128
_DESCRIPTION_LIMIT = 1024
_LONGEST_SHOWN = 64
_LONGEST_SHOWN_BITS = 64


class BundleError(OtasimError):
    """A firmware bundle is not what a device can take.

    Attributes:
        offset: where in the archive, in bytes from its start; None when it is no single place.
    """

    def __init__(self, message: str, *, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset

    def __str__(self) -> str:
        place = "" if self.offset is None else f" (at byte {self.offset:,} of the archive)"
        return super().__str__() + place


class ManifestError(BundleError):
    """The manifest is not JSON, or a member of it is missing or of the wrong kind.

    Attributes:
        member: the member at fault as a dotted path (`parts.app.src`); empty when it is all of it.
    """

    def __init__(self, message: str, *, member: str = "") -> None:
        super().__init__(f"Bad manifest.json: {message}")
        self.member = member


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the firmware. A member that the manifest does not have is None.

    Attributes:
        name: its key in `parts`: `app`, `fs`, ...
        type: what it is for, for instance `app0` or `fs`.
        src: name of its file in the archive, without folders.
        addr: flash address of the file's first byte (see the module's text).
        size: length of the file in bytes.
        cs_sha1: SHA-1 of the file, 40 hexadecimal digits.
        cs_sha256: SHA-256 of the file, 64 hexadecimal digits.
        fs_size: bytes of file system inside the file (`app`), or of the file system itself (`fs`).
        bl_size: bytes of boot loader at the start of the file.
        bl_cfg_size: bytes of boot configuration behind the boot loader.
        update_bl: whether the device is to replace its boot loader, too.
        fill: the byte that fills a part of `size` bytes that has no file.
        extra: every other member, as read from JSON.
    """

    name: str
    type: str | None = None
    src: str | None = None
    addr: int | None = None
    size: int | None = None
    cs_sha1: str | None = None
    cs_sha256: str | None = None
    fs_size: int | None = None
    bl_size: int | None = None
    bl_cfg_size: int | None = None
    update_bl: bool | None = None
    fill: int | None = None
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)

    @property
    def app_offset(self) -> int:
        """Bytes of boot loader, boot configuration and file system before the application."""
        return (self.bl_size or 0) + (self.bl_cfg_size or 0) + (self.fs_size or 0)

    @property
    def app_org(self) -> int:
        """The flash address that the application in this file is made for."""
        base = FLASH_BASE if self.addr is None else self.addr
        return base + self.app_offset

    def to_json(self) -> dict[str, object]:
        """The part as it stands in the manifest; absent members stay absent."""
        known = {
            "type": self.type,
            "src": self.src,
            "addr": self.addr,
            "size": self.size,
            "cs_sha1": self.cs_sha1,
            "cs_sha256": self.cs_sha256,
            "fs_size": self.fs_size,
            "bl_size": self.bl_size,
            "bl_cfg_size": self.bl_cfg_size,
            "update_bl": self.update_bl,
            "fill": self.fill,
        }
        return {key: value for key, value in known.items() if value is not None} | dict(self.extra)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        platform: the chip family it is for; compare with `is_for`.
        version: version of the firmware.
        build_id: what tells two builds of a version apart.
        parts: the parts by name, in the manifest's order; never empty.
        name: name of the firmware, or None.
        description: one line for people, or None.
        build_timestamp: when it was built, RFC 3339, or None.
        extra: every other member, as read from JSON.
    """

    platform: str
    version: str
    build_id: str
    parts: Mapping[str, Part] = field(hash=False)
    name: str | None = None
    description: str | None = None
    build_timestamp: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)

    @property
    def title(self) -> str:
        """Name, version and build in one line, for logs."""
        name = "firmware" if self.name is None else self.name
        return f"{name} {self.version} (build {self.build_id})"

    @property
    def app(self) -> Part | None:
        """The part that holds the application."""
        return self.parts.get(APP_PART)

    @property
    def fs(self) -> Part | None:
        """The part that holds a file system of its own."""
        return self.parts.get(FS_PART)

    def is_for(self, platform: str) -> bool:
        """Whether the bundle is for `platform`; upper and lower case are the same."""
        return self.platform.casefold() == platform.casefold()

    def to_json(self) -> dict[str, object]:
        """The manifest as a JSON object; absent members stay absent, unknown ones are kept."""
        known = {
            "name": self.name,
            "platform": self.platform,
            "description": self.description,
            "version": self.version,
            "build_id": self.build_id,
            "build_timestamp": self.build_timestamp,
            "parts": {name: part.to_json() for name, part in self.parts.items()},
        }
        return {key: value for key, value in known.items() if value is not None} | dict(self.extra)

    def to_bytes(self) -> bytes:
        """The text of `manifest.json`, in ASCII, indented as the host tool does."""
        return json.dumps(self.to_json(), indent=1).encode("ascii")


class _Members:
    """Takes the known members out of a JSON object, checking each; `rest` is what was not known."""

    def __init__(self, members: Mapping[str, object], path: str) -> None:
        self.rest = dict(members)
        self._path = path

    def text(self, key: str, limit: int = _TEXT_LIMIT) -> str | None:
        """A string of at most `limit` printable characters, or None when absent."""
        if key not in self.rest:
            return None
        value = self.rest.pop(key)
        if not isinstance(value, str):
            raise self._error(key, f"must be a string, got {_kind(value)}")
        if len(value) > limit:
            raise self._error(key, f"has {len(value):,} characters, the limit is {limit:,}")
        # A control character would let a bundle forge lines of the device's log.
        if not value.isprintable():
            raise self._error(key, f"has characters that cannot be printed: {_quoted(value)}")
        return value

    def required_text(self, key: str) -> str:
        """A printable string that is there and not empty."""
        value = self.text(key)
        if not value:
            raise self._error(key, "is a required member and is missing or empty")
        return value

    def number(self, key: str, maximum: int = _UINT32_MAX) -> int | None:
        """A whole number from 0 to `maximum`, or None when absent."""
        if key not in self.rest:
            return None
        value = self.rest.pop(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._error(key, f"must be a whole number, got {_kind(value)}")
        if not 0 <= value <= maximum:
            raise self._error(key, f"must be from 0 to 0x{maximum:x}, got {_quoted(value)}")
        return value

    def flag(self, key: str) -> bool | None:
        """True or false, or None when absent."""
        if key not in self.rest:
            return None
        value = self.rest.pop(key)
        if not isinstance(value, bool):
            raise self._error(key, f"must be true or false, got {_kind(value)}")
        return value

    def checksum(self, key: str, digits: int) -> str | None:
        """A digest of `digits` hexadecimal digits in either case, or None when absent."""
        value = self.text(key)
        if value is not None and not (
            len(value) == digits and set(value.lower()) <= set("0123456789abcdef")
        ):
            raise self._error(key, f"must be {digits} hexadecimal digits, got {_quoted(value)}")
        return value

    def _error(self, key: str, problem: str) -> ManifestError:
        member = f"{self._path}{key}"
        return ManifestError(f'"{member}" {problem}', member=member)


def parse_manifest(text: bytes) -> Manifest:
    """The manifest in `text`, the bytes of a `manifest.json`.

    Raises:
        ManifestError: it is not a JSON object, or a member is missing, repeated or of a wrong kind.
    """
    try:
        document = parse_json_object(text)
    except ValueError as error:
        raise ManifestError(str(error)) from error
    members = _Members(document, "")
    parts = members.rest.pop("parts", None)
    if not isinstance(parts, dict) or not parts:
        raise ManifestError('"parts" must be an object with at least one part', member="parts")
    return Manifest(
        name=members.text("name"),
        platform=members.required_text("platform"),
        description=members.text("description", _DESCRIPTION_LIMIT),
        version=members.required_text("version"),
        build_id=members.required_text("build_id"),
        build_timestamp=members.text("build_timestamp"),
        parts={name: _parse_part(name, part) for name, part in parts.items()},
        extra=members.rest,
    )


def parse_json_object(text: bytes) -> dict[str, object]:
    """The JSON object in `text`, in UTF-8. What readers could understand in two ways is refused.

    Raises:
        ValueError: it is something else, or an object in it has two members of one name.
    """
    try:
        document: object = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_object_without_repeats,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        problem = f"it must be a JSON object, got {_kind(document)}"
        raise ValueError(problem)  # noqa: TRY004 - the text is wrong, not the caller
    return document


def _parse_part(name: str, value: object) -> Part:
    if not name.isprintable() or not 0 < len(name) <= _TEXT_LIMIT:
        raise ManifestError(
            f"the name of a part must have 1 to {_TEXT_LIMIT} printable characters, "
            f"got {_quoted(name)}",
            member="parts",
        )
    if not isinstance(value, dict):
        member = f"parts.{name}"
        raise ManifestError(f'"{member}" must be an object, got {_kind(value)}', member=member)
    members = _Members(value, f"parts.{name}.")
    return Part(
        name=name,
        type=members.text("type"),
        src=members.text("src"),
        addr=members.number("addr"),
        size=members.number("size"),
        cs_sha1=members.checksum("cs_sha1", _SHA1_DIGITS),
        cs_sha256=members.checksum("cs_sha256", _SHA256_DIGITS),
        fs_size=members.number("fs_size"),
        bl_size=members.number("bl_size"),
        bl_cfg_size=members.number("bl_cfg_size"),
        update_bl=members.flag("update_bl"),
        fill=members.number("fill", maximum=0xFF),
        extra=members.rest,
    )


def _object_without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"member {_quoted(repeated)} is there more than once")
    return members


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {_quoted(text)} is too large")
    return value


def _quoted(value: str | int) -> str:
    """A value from the manifest as it can stand in a message: in ASCII and not too long."""
    if isinstance(value, int) and value.bit_length() <= _LONGEST_SHOWN_BITS:
        return f"{value:#x}"
    text = ascii(value) if isinstance(value, str) else f"a number of {value.bit_length()} bits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _kind(value: object) -> str:
    """What a JSON value is, in the words of JSON."""
    kinds: dict[type[object], str] = {
        bool: "true or false",
        int: "a number",
        float: "a number with a fraction",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return kinds.get(type(value), "null")
