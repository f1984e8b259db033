"""The engines that run the board's processor, behind one protocol."""
