import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rpc_shim.access.acl import AclError, Rule, find_rule, matches, may_access, parse_rules


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("FS.*", "FS.List", True),
        ("fs.list", "FS.List", True),
        ("FS.*", "FS.", True),
        ("FS.*", "FSX.List", False),
        ("FS.List", "FS.ListExt", False),
        ("*", "Sys.GetInfo", True),
        ("*", "a/b", False),
        ("**", "a/b", True),
        ("*/b", "a/b", True),
        ("a*f", "abcdef", True),
        ("a*f", "abcdefgh", False),
        ("a*f|de*,xy", "defgh", True),
        ("a*f|de*,xy", "xy", True),
        ("FS|FS.List", "FS.List", True),
        ("?*", "abc", True),
        ("?*", "", False),
        ("a?c", "a/c", True),
        ("FS.List$", "FS.List", True),
        ("FS.List$", "FS.ListExt", False),
        ("FS.*$", "FS.ListExt", True),
        ("", "", True),
        ("", "a", False),
        ("k", "\u212a", False),  # the kelvin sign, a k to those who fold Unicode
        ("[a]", "a", False),
        ("a.c", "abc", False),
    ],
)
def test_pattern(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected


@given(st.text("abB.*?/|$", max_size=8), st.text("abB./", max_size=8))
@example("*a*b", "ab/ab")
def test_patterns_are_what_they_are_as_regular_expressions(pattern: str, text: str) -> None:
    pieces = {"**": ".*", "*": "[^/]*", "?": "."}
    expected = any(
        re.fullmatch(
            "".join(
                pieces.get(piece, re.escape(piece))
                for piece in re.findall(r"\*\*|.", alternative.removesuffix("$"))
            ),
            text,
            re.IGNORECASE,
        )
        for alternative in pattern.split("|")
    )
    assert matches(pattern, text) is expected


def test_no_pattern_takes_forever() -> None:
    assert not matches("*a" * 100 + "b", "a" * 255)


@pytest.mark.parametrize(
    ("acl", "allowed", "denied"),
    [
        ("*", ["alice", "bob"], []),
        ("", [], ["alice"]),
        ("+alice,-*", ["alice", "ALICE"], ["bob"]),
        ("alice", ["alice"], ["bob"]),
        ("-bob,+*", ["alice"], ["bob"]),
        ("+*,-bob", ["alice", "bob"], []),
        ("-bob", [], ["alice", "bob"]),
        (",,+alice, -bob, +*", ["alice", "carol"], ["bob"]),
        ("+a*|b*", ["alice", "bob"], ["carol"]),
        ("+", [], ["alice", "+"]),
        ("++x", ["+x"], ["x"]),
    ],
)
def test_list_of_users(acl: str, allowed: list[str], denied: list[str]) -> None:
    assert [user for user in allowed + denied if may_access(user, acl)] == allowed


def test_rules() -> None:
    text = '[{"method": "FS.*", "ch_type": "HTTP", "acl": "-*"}, {"ch_type": "UART", "acl": "*"},\n'
    text += ' {"method": "Sys.*", "acl": "+alice"}]'
    rules = parse_rules(text)
    assert rules == (Rule("-*", "FS.*", "HTTP"), Rule("*", None, "UART"), Rule("+alice", "Sys.*"))
    assert find_rule(rules, "FS.List", "HTTP") is rules[0]
    assert find_rule(rules, "FS.List", "UART") is rules[1]
    assert find_rule(rules, "Sys.GetInfo", "UART") is rules[1]
    assert find_rule(rules, "Sys.GetInfo", "TCP") is rules[2]
    assert find_rule(rules, "FS.List", "TCP") is None
    assert find_rule(rules, "FS.List", "WS_in") is None
    assert find_rule((), "FS.List", "TCP") is None


@pytest.mark.parametrize("name", ["WS_in", "WS"])
def test_a_rule_for_websockets(name: str) -> None:
    rules = parse_rules(json.dumps([{"ch_type": name, "acl": "-*"}, {"method": "*", "acl": "*"}]))
    assert find_rule(rules, "FS.List", "WS_in") is rules[0]
    assert find_rule(rules, "FS.List", "HTTP") is rules[1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("[", "not JSON"),
        ('[{"method": "*", "acl": "*"}] x', "not JSON"),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}", "is not ASCII"),
        ("\udc80", "is not ASCII"),
        ("{}", "must be a list of objects, got an object"),
        ("null", "must be a list of objects, got null"),
        ('[{"method": "*", "acl": "*"}, 5]', "rule 2 must be an object, got 5"),
        ("[{}]", "rule 1 must have acl, and method or ch_type"),
        ('[{"acl": "*"}]', "rule 1 must have acl, and method or ch_type"),
        ('[{"method": "*", "ch_type": "UART"}]', "rule 1 must have acl"),
        ('[{"method": 5, "acl": "*"}]', "rule 1: method must be a non-empty string, got 5"),
        ('[{"method": "*", "acl": ""}]', "rule 1: acl must be a non-empty string, got ''"),
        ('[{"method": "*", "acl": ["*"]}]', "rule 1: acl must be a non-empty string, got a list"),
        ('[{"method": "*", "ch_type": null, "acl": "*"}]', "ch_type must be a non-empty string"),
        ('[{"ch_type": "ws_in", "acl": "-*"}]', "unknown ch_type 'ws_in': expected one of UART"),
        ('[{"ch_type": "uart", "acl": "-*"}]', "unknown ch_type 'uart'"),
        ('[{"method": "*", "channel": "UART", "acl": "*"}]', "unknown key 'channel'"),
        ('[{"method": "*", "acl": "-*", "acl": "*"}]', "there twice"),
    ],
)
def test_malformed_rules(text: str, problem: str) -> None:
    with pytest.raises(AclError, match=problem):
        parse_rules(text)


_KEYS = st.sampled_from(["method", "ch_type", "acl", "other"])
_VALUES = st.none() | st.text() | st.integers() | st.sampled_from(["UART", "HTTP", "WS", "WS_in"])
_RULES = st.lists(st.dictionaries(_KEYS, _VALUES) | st.text())


@given(st.text() | _RULES.map(json.dumps))
def test_only_rules_that_are_whole_are_taken(text: str) -> None:
    try:
        rules = parse_rules(text)
    except AclError:
        return
    entries = json.loads(text)
    assert [(rule.acl, rule.method) for rule in rules] == [
        (entry["acl"], entry.get("method")) for entry in entries
    ]
    assert [rule.channel for rule in rules] == [
        "WS_in" if entry.get("ch_type") == "WS" else entry.get("ch_type") for entry in entries
    ]
    assert all(rule.acl and (rule.method or rule.channel) for rule in rules)
