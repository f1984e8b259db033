"""What a campaign says: to people at a terminal, in a page, and to machines in their formats.

Each report is a pure function of a `Report`, which holds all that is known.
"""
