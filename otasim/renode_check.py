"""What `otasim doctor` runs in a process of its own: does Renode load, and does a board run on it?

Prints one line for each step that went well; a failure is the last line and exit code 1.
"""

import os
import sys

from otasim.board import Board
from otasim.engines import RENODE
from platforms.engines.renode import library
from platforms.errors import OtasimError


def main() -> int:
    """Go through the steps; returns the exit code."""
    try:
        print(f"version {library.load()}", flush=True)
        with Board(engine=RENODE) as board:
            board.run(1)
            works = "ready" in board.console
    except OtasimError as error:
        print(error, flush=True)
        return 1
    print("the sample firmware runs on it" if works else "the sample firmware does not start on it")
    return 0 if works else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Renode takes seconds to leave in an orderly way, for nothing.
    os._exit(code)
