"""The fixtures `board` and `make_board`."""

import pytest

from otasim.engines import RENODE, missing_engine


def test_fixtures_and_markers_say_what_a_board_is_like(project: pytest.Pytester) -> None:
    project.makepyfile(
        own="""
        import struct

        from bootloader_model.protocol import BootTarget

        class Own:
            def boot(self, hardware):
                hardware.start_watchdog(10)
                hardware.log("own loader\\\\n")
                head = hardware.internal_flash.read(0x10000, 8)
                return BootTarget(0x08010000, *struct.unpack("<II", head))
        """,
        test_boards="""
        import pytest
        from own import Own

        from otasim import Board, DeviceSettings
        from otasim.board import BoardClosedError

        OWN = Own()
        boards = []

        @pytest.fixture
        def board_options():
            return {"image": "sample-2.0", "settings": DeviceSettings(device_id="x")}

        def started(board):
            boards.append(board)
            assert isinstance(board, Board)
            board.run(0.5)
            return board.version, board.call("Sys.GetInfo")["id"]

        def test_fixture(board):
            assert started(board) == ("2.0", "x")

        def test_it_is_closed_afterwards():
            with pytest.raises(BoardClosedError):
                boards[-1].run(1)

        @pytest.mark.board(image="sample-1.0")
        class TestMarked:
            def test_marker(self, board):
                assert started(board) == ("1.0", "x")

            @pytest.mark.board(image="hang-2.1", settings=DeviceSettings(device_id="y"))
            def test_nearer_marker(self, board):
                assert started(board) == ("2.1", "y")

            def test_call(self, make_board):
                assert started(make_board(image="hang-2.1")) == ("2.1", "x")

        @pytest.mark.parametrize("boot_loader", [Own, "own:Own"])
        def test_loader(board):
            started(board)
            assert board.console.startswith("own loader")

        @pytest.mark.board(loader=OWN)
        def test_loader_that_is_made(board):
            started(board)
            assert board.console.startswith("own loader")

        def test_seed(board):
            board.run(0.5)
            board.power_cycle()
            board.cut_power(seed=3)
            assert [e.details["seed"] for e in board.trace.of_kind("power-cut")] == [9, 3]
        """,
    )
    project.syspathinsert()
    project.runpytest_inprocess("--otasim-seed=9").assert_outcomes(passed=9)


def test_an_engine_that_is_not_there_skips_with_the_reason(installed: pytest.Pytester) -> None:
    installed.makepyfile(
        """
        def test_board(board):
            board.run(0.5)
            assert board.engine == "renode"
        """
    )
    result = installed.runpytest_subprocess("--otasim-engine=renode", "-rs")
    if reason := missing_engine(RENODE):
        result.assert_outcomes(skipped=1)
        assert reason in str(result.stdout)
    else:
        result.assert_outcomes(passed=1)


def test_a_marker_without_keywords_is_refused(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.board("sample-2.0")
        def test_board(board):
            pass
        """
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["@pytest.mark.board takes keywords, such as image=..., found *"])


def test_each_board_of_a_failed_test_is_shown_whatever_failed(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        def test_two(make_board):
            first, second = make_board(), make_board(image="sample-2.0")
            first.run(0.5)
            first.type("help\\n")
            first.run(0.1)
            with pytest.raises(Exception):
                first.call("No.Such")
            first.cut_power()
            assert second.running

        @pytest.fixture
        def updated(board):
            board.run(0.5)
            raise RuntimeError

        def test_set_up(updated):
            pass

        @pytest.fixture
        def torn_down(board):
            yield
            raise RuntimeError

        def test_torn_down(torn_down, board):
            board.run(0.5)

        def test_good(board):
            board.run(0.5)
        """
    )
    result = project.runpytest_inprocess("-rP")
    result.assert_outcomes(passed=2, failed=1, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*- board: at the end -*",
            "boot state: seq 2, active 0, revert none, committed",
            "again: pytest *::test_set_up --otasim-engine embedded --otasim-seed 0",
            "again: pytest *::test_torn_down --otasim-engine embedded --otasim-seed 0",
            "*- board 1: UART transcript -*",
            "* s > types 'help?n'",
            "* s > No.Such",
            "* s < error {*404*",
            "*- board 1: at the end -*",
            "no application, without power, after * virtual seconds",
            "*- board 2: UART transcript -*",
            "nothing",
            "*- board 2: at the end -*",
            "no application, after 0.000 virtual seconds",
        ]
    )
    assert str(result.stdout).count(" board: at the end ") == 2
