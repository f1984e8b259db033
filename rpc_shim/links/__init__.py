"""What carries the bytes of the board's serial line to programs on the host."""
