"""A virtual STM32 that takes firmware updates like a real one.

from otasim import Board

with Board() as board:
    board.run(1)
    print(board.version, board.call("OTA.GetBootState"))
"""

from otasim.board import Board
from platforms.devices.reset_cause import ResetCause
from platforms.devices.torn import TornShape
from platforms.errors import OtasimError

__all__ = ["Board", "OtasimError", "ResetCause", "TornShape"]
