"""A virtual STM32 that takes firmware updates like a real one.

from otasim import Board

with Board() as board:
    board.run(1)
    print(board.version, board.call("OTA.GetBootState"))
"""

import importlib
from typing import TYPE_CHECKING

__all__ = ["Board", "DeviceSettings", "OtasimError", "ResetCause", "TornShape"]

if TYPE_CHECKING:
    from otasim.board import Board
    from otasim.settings import DeviceSettings
    from platforms.devices.reset_cause import ResetCause
    from platforms.devices.torn import TornShape
    from platforms.errors import OtasimError
else:
    _HOMES = {
        "Board": "otasim.board",
        "DeviceSettings": "otasim.settings",
        "OtasimError": "platforms.errors",
        "ResetCause": "platforms.devices.reset_cause",
        "TornShape": "platforms.devices.torn",
    }

    def __getattr__(name):  # noqa: ANN001, ANN202 - type checkers see the imports above
        """Load what is asked for when it is asked for: the command line starts quickly."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)
