"""What a user of the pytest plugin chooses on the command line or in the ini file."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest

from otasim.campaign_values import CLOSURE, parse_depth, parse_shard

T = TypeVar("T")

ENGINE_NAMES = ("auto", "embedded", "renode")
"""Those of `otasim.engines`, which imports the engines."""

_DEFAULTS = {"engine": "embedded", "seed": "0", "depth": "1"}
"""Of the ini file, where each is called otasim_NAME."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was chosen.

    Attributes:
        engine: what runs the processor of boards: embedded, renode, or auto.
        seed: chooses among the outcomes of power cuts, on boards and in campaigns.
        depth: how often the power may go in one story of a campaign; None = until closure.
        shard: K and N: campaigns take the K-th of N parts of the first cuts.
    """

    engine: str
    seed: int
    depth: int | None
    shard: tuple[int, int]

    @property
    def depth_name(self) -> str:
        """The depth as it is written on the command line."""
        return CLOSURE if self.depth is None else str(self.depth)


def _engine(text: str) -> str:
    if text not in ENGINE_NAMES:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(ENGINE_NAMES)}, got {text!r}")
    return text


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text!r}")
    return int(text)


def _depth(text: str) -> str:
    """Not None for closure: that is what is not chosen."""
    return text if _parsed(parse_depth, text) else CLOSURE


def _shard(text: str) -> tuple[int, int]:
    return _parsed(parse_shard, text)


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_options(parser: pytest.Parser) -> None:
    """Make the options and the values of the ini file known."""
    group = parser.getgroup("otasim", "virtual boards and power-cut campaigns (otasim)")
    group.addoption(
        "--otasim-engine", type=_engine, metavar="NAME",
        help="what runs the processor of boards: embedded (default), renode, or auto",
    )  # fmt: skip
    group.addoption(
        "--otasim-seed", type=_seed, metavar="N",
        help="chooses among the outcomes of power cuts (default: 0)",
    )  # fmt: skip
    group.addoption(
        "--otasim-depth", type=_depth, metavar="N|closure",
        help="how often the power may go in one story of a campaign (default: 1)",
    )  # fmt: skip
    group.addoption(
        "--otasim-shard", type=_shard, default=(1, 1), metavar="K/N",
        help="do only the K-th of N parts of every campaign, for N machines",
    )  # fmt: skip
    for name, default in _DEFAULTS.items():
        parser.addini(f"otasim_{name}", f"default of --otasim-{name}", default=default)


def read_options(config: pytest.Config) -> Options:
    """What was chosen; pytest.UsageError when the ini file says something that cannot be."""
    return Options(
        engine=_chosen(config, "engine", _engine),
        seed=_chosen(config, "seed", _seed),
        depth=parse_depth(_chosen(config, "depth", _depth)),
        shard=config.getoption("otasim_shard"),
    )


def _chosen(config: pytest.Config, name: str, parse: Callable[[str], T]) -> T:
    """The option, or else what the ini file says."""
    value: T | None = config.getoption(f"otasim_{name}")
    if value is not None:
        return value
    try:
        return parse(str(config.getini(f"otasim_{name}")))
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"otasim_{name} in {config.inipath}: {error}") from error
