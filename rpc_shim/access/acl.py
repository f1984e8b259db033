"""Access rules: patterns, lists of who may and who may not, and the rules for methods.

The formats are the device's: patterns as mongoose's `mg_match_prefix`, lists as
`mgos_conf_check_access`, rules as `mgos_rpc_check_authz` in mongoose-os-libs/rpc-common. Stricter
than the device: rules that are not understood to the last key allow nothing, nor do rules for a
kind of channel that this board does not know, and a pattern with alternatives is matched by each of
them, not only by the first that fits a beginning.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

from platforms.errors import OtasimError
from rpc_shim.dispatch import ChannelKind
from rpc_shim.frame import FrameError, JsonValue, decode_json, describe

_ALTERNATIVES = re.compile(r"[|,]")
_PIECE = re.compile(r"\*\*|.", re.DOTALL)
_RULE_KEYS = frozenset({"method", "ch_type", "acl"})
_CHANNELS: dict[str, ChannelKind] = {kind: kind for kind in get_args(ChannelKind)} | {"WS": "WS_in"}
_UPPER_TO_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

ALLOW_ALL = "*"
DENY_ALL = "-*"


class AclError(OtasimError):
    """Access rules are malformed: nobody may be let through by them."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the access rules. It applies when all that is given matches.

    Attributes:
        acl: who may call: a list of users for `may_access`, or one of `ALLOW_ALL` and `DENY_ALL`.
        method: pattern of method names, None for all of them.
        channel: kind of channel, None for all of them.
    """

    acl: str
    method: str | None = None
    channel: ChannelKind | None = None

    def applies(self, method: str, channel: ChannelKind) -> bool:
        """Whether the rule is about this method on a channel of this kind."""
        return (self.channel is None or self.channel == channel) and (
            self.method is None or matches(self.method, method)
        )


def matches(pattern: str, text: str) -> bool:
    """Whether all of `text` matches `pattern`, ASCII letters in either case.

    `*` stands for any characters but a slash, `**` for any at all, `?` for one; `|` and `,` divide
    alternatives, and a `$` at the end is where the text ends anyway.
    """
    folded = _fold(text)
    return any(
        _matches_one(alternative.removesuffix("$"), folded)
        for alternative in _ALTERNATIVES.split(_fold(pattern))
    )


def may_access(name: str, acl: str) -> bool:
    """Whether the first entry of `acl` that matches `name` allows it; none at all denies.

    Args:
        name: a user, or the key of a setting.
        acl: patterns with commas between, each with `-` to deny or an optional `+` to allow.
    """
    for entry in map(str.strip, acl.split(",")):
        if entry and matches(entry.removeprefix("-" if entry[0] == "-" else "+"), name):
            return entry[0] != "-"
    return False


@lru_cache(maxsize=8)
def parse_rules(text: str) -> tuple[Rule, ...]:
    """Read rules such as `[{"method": "FS.*", "ch_type": "HTTP", "acl": "+alice,-*"}]`.

    `ch_type` is a `ChannelKind`, or `WS` for `WS_in`.

    Raises:
        AclError: saying which rule is wrong and how.
    """
    try:
        rules = decode_json(text.encode("utf-8", "surrogatepass"))
    except FrameError as error:
        raise AclError(f"access rules: {error}") from error
    if not isinstance(rules, list):
        raise AclError(f"access rules must be a list of objects, got {describe(rules)}")
    return tuple(_parse_rule(number, rule) for number, rule in enumerate(rules, start=1))


def find_rule(rules: tuple[Rule, ...], method: str, channel: ChannelKind) -> Rule | None:
    """The first rule that applies; None means that the call is denied."""
    return next((rule for rule in rules if rule.applies(method, channel)), None)


def _parse_rule(number: int, rule: JsonValue) -> Rule:
    if not isinstance(rule, dict):
        raise AclError(f"access rule {number} must be an object, got {describe(rule)}")
    for name, value in rule.items():
        if name not in _RULE_KEYS:
            raise AclError(
                f"access rule {number} has an unknown key {describe(name)}: "
                "expected method, ch_type and acl"
            )
        if not isinstance(value, str) or not value:
            raise AclError(
                f"access rule {number}: {name} must be a non-empty string, got {describe(value)}"
            )
    if "acl" not in rule or len(rule) == 1:
        raise AclError(f"access rule {number} must have acl, and method or ch_type or both")
    if "ch_type" in rule and rule["ch_type"] not in _CHANNELS:
        raise AclError(
            f"access rule {number} has an unknown ch_type {describe(rule['ch_type'])}: "
            f"expected one of {', '.join(_CHANNELS)}"
        )
    channel = _CHANNELS[rule["ch_type"]] if "ch_type" in rule else None
    return Rule(rule["acl"], rule.get("method"), channel)


def _fold(text: str) -> str:
    # Not str.lower(): that takes letters outside ASCII for ASCII ones.
    return text.translate(_UPPER_TO_LOWER)


def _matches_one(pattern: str, text: str) -> bool:
    """Follow all ways through the text at once: no pattern makes it slow."""
    reached = {0}
    for piece in _PIECE.findall(pattern):
        reached = {place for start in reached for place in _next_places(piece, text, start)}
    return len(text) in reached


def _next_places(piece: str, text: str, start: int) -> Iterator[int]:
    if piece == "**":
        yield from range(start, len(text) + 1)
    elif piece == "*":
        slash = text.find("/", start)
        yield from range(start, (len(text) if slash < 0 else slash) + 1)
    elif start < len(text) and piece in ("?", text[start]):
        yield start + 1
