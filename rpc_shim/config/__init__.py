"""The device's configuration: what can be set, and the levels of files that set it."""
