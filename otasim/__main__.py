"""`otasim`, and `python -m otasim`."""

from typing import NoReturn

from otasim.interrupts import ending_at_once


def main() -> NoReturn:
    """Run the command line."""
    with ending_at_once():
        from otasim import cli  # noqa: PLC0415 - what is loaded up here may be interrupted
    cli.main()


if __name__ == "__main__":
    main()
