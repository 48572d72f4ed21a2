"""How the whole suite runs.

`HYPOTHESIS_PROFILE=deep` searches for long, `ci` (the default where CI is set) tries the same
examples every time.
"""

import os
import sys
from pathlib import Path

from hypothesis import settings

from proxy.heap import look_rarely
from tests.statements import keep_compiled

# Hundreds of processes are started: none should have to compile what another has compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A process with all tests and SDKs loaded has a million objects, and little garbage with cycles.
look_rarely(50_000)
keep_compiled()
# Each client of each SDK reads all authorities there are, for 40 ms. No test needs one of them.
if "TOLLKEEPER_LIVE" not in os.environ:
    os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("authority.pem"))

# A slow machine is no failure, so there is no deadline per example.
settings.register_profile("fast", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("deep", deadline=None, max_examples=10_000)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "fast")
)
