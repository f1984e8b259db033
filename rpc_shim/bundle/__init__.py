"""Firmware bundles: the zip archives by which firmware reaches a device.

`manifest` says what a bundle holds, `stream` reads one as a device does, `image_file` reads what
tool chains make, `create` packs it, `check` finds what is wrong with a bundle. `signature` says
who vouches for one, `key_file` reads and makes the keys for that.
"""
