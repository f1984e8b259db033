"""Files on a board, by its methods and behind its back."""

import base64

from otasim import Board


def put(board: Board, name: str, content: bytes) -> None:
    board.call("FS.Put", {"filename": name, "data": base64.b64encode(content).decode()})


def get(board: Board, name: str) -> bytes:
    answer = board.call("FS.Get", {"filename": name})
    assert isinstance(answer, dict)
    return base64.b64decode(str(answer["data"]))


def damage_files(board: Board) -> None:
    """Overwrite the beginning of fs0 while the power is off, and start again."""
    board.cut_power()
    board.machine.models.nor.memory.storage[0x36_0000:0x36_2000] = bytes(0x2000)
    board.power_on()
    board.run(1)
