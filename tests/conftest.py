"""Settings for the whole suite."""

from hypothesis import settings

# No test depends on timing: the machines are shared and slow at times.
settings.register_profile("otasim", deadline=None)
settings.load_profile("otasim")
