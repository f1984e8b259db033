"""Text that XML and HTML can hold: a loader's log may have any character in it."""

import re

# What XML 1.0 (section 2.2) has no way to write, not even as a reference, and HTML forbids as well.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    """The same with U+FFFD, the replacement character, for what cannot be written."""
    return _FORBIDDEN.sub("\ufffd", text)
