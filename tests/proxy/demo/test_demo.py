"""The whole demo, as CI and a first user run it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_once_ends_by_itself_and_every_claim_holds(tmp_path: Path) -> None:
    for sdk in ("openai", "anthropic", "google.genai"):
        pytest.importorskip(sdk)
    result = subprocess.run(
        [sys.executable, "-m", "proxy", "demo", "--once"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("✓") == 5
    assert "openai.RateLimitError: 429 budget_exceeded" in result.stdout
    assert not list(tmp_path.iterdir())  # nothing is left behind
