"""What arguments a method takes: checked in one place, described to hosts from the same source.

An `Argument` is a constant that a handler both declares and reads its value with, so that the
value's type is known to the type checker:

    URL = text("url", required=True)
    COMMIT_TIMEOUT = seconds("commit_timeout", maximum=86_400)
    dispatcher.register("OTA.Update", update, Arguments(URL, COMMIT_TIMEOUT))

    def update(call: Call) -> JsonValue:
        url: str = call.arguments.require(URL)
        timeout_s: int | None = call.arguments.get(COMMIT_TIMEOUT)
"""

import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from platforms.errors import OtasimError
from rpc_shim.frame import JsonValue, describe

ValueT = TypeVar("ValueT")
ValueT_co = TypeVar("ValueT_co", covariant=True)

INT32_MAX = 2**31 - 1
"""The largest number of the device's `%d`."""

_MAX_DIGITS = 20


class ArgumentError(OtasimError):
    """A call's arguments are not what the method takes.

    Attributes:
        argument: the name of the one at fault, empty when the arguments are as a whole.
    """

    def __init__(self, message: str, argument: str = "") -> None:
        super().__init__(message)
        self.argument = argument


@dataclass(frozen=True, slots=True)
class Argument(Generic[ValueT_co]):
    """One argument of a method.

    Attributes:
        name: its key in `params`.
        conversion: how the device's JSON scanner reads it (`%T` any token, `%Q` string, `%d`
            integer, `%B` boolean, `%V` bytes in base64); hosts see it in the answer of
            `RPC.Describe`.
        expected: what a value must be, to complete the sentence "NAME must be ...".
        parse: the value, or None when it is not what is expected.
        required: whether a call without it is refused. A null counts as absent.
    """

    name: str
    conversion: str
    expected: str
    parse: Callable[[JsonValue], ValueT_co | None]
    required: bool = False

    def value(self, given: JsonValue) -> ValueT_co:
        """Check and convert one value; ArgumentError says what was expected and what came."""
        parsed = self.parse(given)
        if parsed is None:
            message = f"{self.name} must be {self.expected}, got {describe(given)}"
            raise ArgumentError(message, self.name)
        return parsed


def text(
    name: str, *, required: bool = False, max_length: int = 1024, conversion: str = "%T"
) -> Argument[str]:
    """A string of 1 to `max_length` characters."""

    def parse(given: JsonValue) -> str | None:
        return given if isinstance(given, str) and 0 < len(given) <= max_length else None

    expected = f"a string of 1 to {max_length:,} characters"
    return Argument(name, conversion, expected, parse, required)


def flag(name: str, *, required: bool = False) -> Argument[bool]:
    """True or false, and nothing that merely looks like it."""

    def parse(given: JsonValue) -> bool | None:
        return given if isinstance(given, bool) else None

    return Argument(name, "%B", "true or false", parse, required)


def integer(
    name: str, *, minimum: int, maximum: int, required: bool = False, conversion: str = "%d"
) -> Argument[int]:
    """A whole number from `minimum` to `maximum`."""

    def parse(given: JsonValue) -> int | None:
        number = whole_number(given)
        return number if number is not None and minimum <= number <= maximum else None

    expected = f"a whole number ({minimum:,} to {maximum:,})"
    return Argument(name, conversion, expected, parse, required)


def seconds(name: str, *, maximum: int, required: bool = False) -> Argument[int]:
    """A time of 0 to `maximum` whole seconds, as a number or a numeric string.

    The device's documentation shows the commit timeout both ways, `300` and `"300"`.
    """

    def parse(given: JsonValue) -> int | None:
        if isinstance(given, str) and given.isascii() and given.isdigit():
            number = int(given) if len(given) <= _MAX_DIGITS else None
        else:
            number = whole_number(given)
        return number if number is not None and 0 <= number <= maximum else None

    expected = f"a number of seconds (0 to {maximum:,}) or a numeric string"
    return Argument(name, "%d", expected, parse, required)


def base64_bytes(name: str, *, required: bool = False) -> Argument[bytes]:
    """Bytes in base64 with the standard alphabet and its padding; may be empty."""

    def parse(given: JsonValue) -> bytes | None:
        if not isinstance(given, str) or not given.isascii():
            return None
        try:
            return binascii.a2b_base64(given, strict_mode=True)
        except binascii.Error:
            return None

    return Argument(name, "%V", "bytes in base64, padded with =", parse, required)


def whole_number(given: JsonValue) -> int | None:
    """The whole number that a JSON value is, with a decimal point or not; None when it is none."""
    if isinstance(given, bool):
        return None
    if isinstance(given, float) and given.is_integer():
        return int(given)
    return given if isinstance(given, int) else None


class ArgumentValues:
    """The arguments of one call, every declared one already checked."""

    def __init__(self, given: Mapping[str, JsonValue]) -> None:
        self._given = given

    def get(self, argument: Argument[ValueT]) -> ValueT | None:
        """The value, or None when the call leaves it out."""
        given = self._given.get(argument.name)
        return None if given is None else argument.value(given)

    def require(self, argument: Argument[ValueT]) -> ValueT:
        """The value of an argument that must be there; ArgumentError when it is not."""
        value = self.get(argument)
        if value is None:
            raise ArgumentError(f"{argument.name} is required", argument.name)
        return value


class Arguments:
    """The arguments a method takes, in the order in which they are described."""

    def __init__(self, *declared: Argument[object]) -> None:
        self._declared = declared

    @property
    def format(self) -> str:
        """The device's `args_fmt`, such as `{url: %T, commit_timeout: %d}`; empty for none."""
        if not self._declared:
            return ""
        return "{" + ", ".join(f"{item.name}: {item.conversion}" for item in self._declared) + "}"

    def check(self, params: Mapping[str, JsonValue] | Sequence[JsonValue] | None) -> ArgumentValues:
        """Check a call's `params`; arguments nobody declared are let pass, as on the device.

        Raises:
            ArgumentError: for the first declared argument that is missing or wrong.
        """
        given: Mapping[str, JsonValue] = {}
        if isinstance(params, Mapping):
            given = params
        elif params and self._declared:
            raise ArgumentError(f"params must be an object such as {self.format}, got a list")
        values = ArgumentValues(given)
        for argument in self._declared:
            if argument.required:
                values.require(argument)
            else:
                values.get(argument)
        return values

    def undeclared(self, params: Mapping[str, JsonValue] | Sequence[JsonValue] | None) -> list[str]:
        """Names in `params` that the method does not know, perhaps for a misspelling."""
        if not isinstance(params, Mapping):
            return []
        names = {argument.name for argument in self._declared}
        return [name for name in params if name not in names]


NO_ARGUMENTS = Arguments()
