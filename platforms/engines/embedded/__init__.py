"""The embedded engine: a Cortex-M4 on Unicorn, with everything Unicorn leaves to its host."""
