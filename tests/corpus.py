"""Recorded traffic: `TOLLKEEPER_CORPUS`, else beside the checkout; skipped where absent."""

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "dev.jsonl.gz"


@cache
def _load(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def records(*apis: str) -> list[dict[str, Any]]:
    """The records of these wire shapes."""
    path = Path(os.environ.get("TOLLKEEPER_CORPUS", _BESIDE))
    if not path.exists():
        pytest.skip(f"no recorded traffic at {path}: set TOLLKEEPER_CORPUS")
    return [record for record in _load(path) if record["api"] in apis]
