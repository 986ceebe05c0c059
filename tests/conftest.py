"""Settings for all tests: no time limits on single examples, as shared machines stall."""

from hypothesis import settings

settings.register_profile("umbel", deadline=None, print_blob=True)
settings.load_profile("umbel")
