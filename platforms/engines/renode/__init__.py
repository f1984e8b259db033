"""The board on Renode, through pyrenode3."""
