"""How hard hypothesis searches: `HYPOTHESIS_PROFILE=deep` searches for long."""

import os

from hypothesis import settings

# A slow machine is no failure, so there is no deadline per example.
settings.register_profile("fast", deadline=None)
settings.register_profile("deep", deadline=None, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))
