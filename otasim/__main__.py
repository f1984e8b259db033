"""`python -m otasim`."""

from otasim.cli import main

main()
