"""Drivers that reach the flash devices as firmware does: by commands, waiting while busy."""
