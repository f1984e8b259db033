"""The root of every error that otasim raises on purpose."""


class OtasimError(Exception):
    """Something went wrong that the message explains: what, what was expected, and what to do."""


class InvalidArgumentError(OtasimError):
    """A value handed to otasim is outside what it accepts."""
