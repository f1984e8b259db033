"""The pytest plugin: boards and power-cut campaigns as fixtures.

def test_an_update_without_a_commit_is_rolled_back(board, bundle_url):
    board.run(1)
    board.call("OTA.Update", {"url": bundle_url, "commit_timeout": 30})
    board.run(120)
    assert board.version == "1.0"

def test_no_power_cut_bricks_my_loader(campaign):
    campaign("update-commit", loader=MyLoader)

pytest loads this module wherever otasim is installed, whether or not a test uses it. So it imports
nothing of otasim that takes time before a fixture is asked for. And as nothing is asserted here,
pytest need not wonder who has imported it before: PYTEST_DONT_REWRITE
"""

import os
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import pytest

from otasim.pytest_plugin.options import Options, add_options, read_options

if TYPE_CHECKING:
    from otasim.pytest_plugin.boards import BoardOptions, BoardUnderTest, MakeBoard
    from otasim.pytest_plugin.campaigns import Campaign, LoaderSource

Sections = Callable[[], Iterator[tuple[str, str]]]
"""Tells what a failed test has to say, when it has failed: title and text of each section."""

_OPTIONS = pytest.StashKey[Options]()
_SECTIONS = pytest.StashKey[list[Sections]]()

_MARKER = (
    "board(**options): the board of this test; image, factory_image, loader, engine, platform,"
    " settings, links and state_directory are those of otasim.Board"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Check what was chosen before anything runs."""
    config.addinivalue_line("markers", _MARKER)
    config.stash[_OPTIONS] = read_options(config)


def pytest_report_header(config: pytest.Config) -> str:
    """What has to be given again to have the same run again."""
    options = config.stash[_OPTIONS]
    number, shards = options.shard
    return (
        f"otasim: engine {options.engine}, seed {options.seed}, depth {options.depth_name},"
        f" shard {number}/{shards}"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its boards and campaigns have to say."""
    report = yield
    if report.failed:
        for sections in item.stash.get(_SECTIONS, []):
            report.sections.extend(sections())
    return report


@pytest.fixture
def boot_loader() -> "LoaderSource":
    """The boot loader of boards and campaigns, to be overridden: what makes one, or module:Class.

    None is the one that comes with otasim.
    """
    return None


@pytest.fixture
def board_options() -> "BoardOptions":
    """Arguments of `otasim.Board` for all boards, to be overridden; the marker `board` adds to it.

    They may depend on other fixtures: {"state_directory": tmp_path}.
    """
    return {}


@pytest.fixture
def make_board(
    request: pytest.FixtureRequest, board_options: "BoardOptions", boot_loader: "LoaderSource"
) -> Iterator["MakeBoard"]:
    """A function that makes boards, with the arguments of `otasim.Board`; all are closed."""
    from otasim.pytest_plugin.boards import BoardMaker, options_of  # noqa: PLC0415 - only when used

    options = request.config.stash[_OPTIONS]
    own: BoardOptions = {"loader": boot_loader, "engine": options.engine, **board_options}
    maker = BoardMaker(own | options_of(request.node), options.seed, _again(request))
    _add_sections(request, maker.sections)
    yield maker
    maker.close()


@pytest.fixture
def board(make_board: "MakeBoard") -> "BoardUnderTest":
    """A fresh virtual board, an `otasim.Board`; the marker `board` says what is different about it.

    A test that fails shows its UART transcript, the decisions of the loader, and the boot state.
    """
    return make_board()


@pytest.fixture
def campaign(request: pytest.FixtureRequest, boot_loader: "LoaderSource") -> "Campaign":
    """A function that proves a boot loader: `campaign("update-commit", loader=MyLoader)`.

    Where a power cut bricks it, the test fails with the shortest story, its boot log, the decisions
    of the loader, and the command that replays it.
    """
    from otasim.pytest_plugin.campaigns import Campaign  # noqa: PLC0415 - only when used

    options, directory = request.config.stash[_OPTIONS], request.config.invocation_params.dir
    made = Campaign(options, boot_loader, request.module, directory)
    _add_sections(request, made.sections)
    return made


def _again(request: pytest.FixtureRequest) -> list[str]:
    """The words of the command that runs this test again."""
    node: pytest.Item = request.node
    file = os.path.relpath(node.path, request.config.invocation_params.dir)
    return ["pytest", "::".join([file, *node.nodeid.split("::")[1:]])]


def _add_sections(request: pytest.FixtureRequest, sections: Sections) -> None:
    node: pytest.Item = request.node
    node.stash.setdefault(_SECTIONS, []).append(sections)
