"""What campaigns take from command lines, as text: those of `otasim campaign` and of pytest.

pytest reads its options wherever otasim is installed, so nothing at all is imported here.
"""

CLOSURE = "closure"
"""The depth that ends where no new state appears."""


def parse_depth(text: str) -> int | None:
    """How often the power may go in one story; None = until closure.

    Raises ValueError when it is neither a number from 1 on nor `closure`.
    """
    if text == CLOSURE:
        return None
    if not (text.isdecimal() and int(text) >= 1):
        raise ValueError(f"expected a number of cuts from 1 on, or {CLOSURE}, got {text!r}")
    return int(text)


def parse_shard(text: str) -> tuple[int, int]:
    """K and N of `K/N`, the K-th of N parts; ValueError when it is something else."""
    number, _, shards = text.partition("/")
    if not (number.isdecimal() and shards.isdecimal() and 1 <= int(number) <= int(shards)):
        raise ValueError(f"expected K/N with K from 1 to N, such as 1/4, got {text!r}")
    return int(number), int(shards)
