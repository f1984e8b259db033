"""The board: its hardware models, the engines that run its processor, and the machine they make."""
