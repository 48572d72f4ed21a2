"""How hard hypothesis searches: `HYPOTHESIS_PROFILE=deep` searches for long, `ci` (the default
where CI is set) tries the same examples every time."""

import os

from hypothesis import settings

# A slow machine is no failure, so there is no deadline per example.
settings.register_profile("fast", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("deep", deadline=None, max_examples=10_000)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "fast")
)
