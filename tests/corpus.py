"""Recorded traffic: `TOLLKEEPER_CORPUS`, else beside the checkout; skipped where absent."""

import base64
import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pricing.names import canonical_provider
from proxy.providers.registry import DIALECT_NAMES, HOSTS

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "dev.jsonl.gz"


@cache
def _load(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def body_of(record: dict[str, Any], side: str) -> bytes:
    """The bytes of a recorded request or response."""
    text = record.get(f"{side}_body") or ""
    if record.get(f"{side}_body_base64"):
        return base64.b64decode(text)
    return str(text).encode()


def dialect_of(record: dict[str, Any]) -> str:
    """The wire format of the provider, else the one its API is like."""
    name: str = canonical_provider(record["provider"]).removesuffix("_ai")
    if name in HOSTS:
        return HOSTS[name].dialect
    if name in DIALECT_NAMES:
        return name
    return str(record["api"].split("_")[0])


def records(*apis: str) -> list[dict[str, Any]]:
    """The records of these wire shapes; of all if none is named."""
    path = Path(os.environ.get("TOLLKEEPER_CORPUS", _BESIDE))
    if not path.exists():
        pytest.skip(f"no recorded traffic at {path}: set TOLLKEEPER_CORPUS")
    return [record for record in _load(path) if not apis or record["api"] in apis]
