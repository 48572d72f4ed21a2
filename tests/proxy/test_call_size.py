"""What a call costs does not grow with the number of providers and prices: bytecodes are counted,
since time on a shared machine would not tell."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from msgspec.structs import replace

from bench import call_path
from pricing.table import TABLES_DIR, PriceTable, list_tables, write_table
from proxy.config_loader import load
from proxy.control.snapshots import build
from proxy.providers.registry import HOSTS
from proxy.wire import PricesEntry, ProviderEntry

CALLS = 20
FEW = ("openai", "anthropic", "gemini")


def providers(directory: Path, *names: str) -> tuple[ProviderEntry, ...]:
    lines = [f"  {name}: {{base_url: 'http://127.0.0.1:9', api_key: k}}" for name in names]
    path = directory / f"{len(names)}.yaml"
    path.write_text("\n".join(["providers:", *lines, ""]))
    config = load(path, {})
    return build(1, 1, ((), (), ()), PricesEntry("v", "p", "s"), config).providers


def few_prices(directory: Path) -> PricesEntry:
    """A table of three models."""
    whole = PriceTable.open(list_tables(TABLES_DIR)[-1].path)
    models = ("gpt-4o-mini", "claude-sonnet-4-6", "gemini-2.5-flash")
    wanted = set(zip(FEW, models, strict=True))
    entries = {(item[0], item[1]): item[2] for item in whole.items() if item[:2] in wanted}
    assert len(entries) == len(FEW)
    about = {"source": "s", "source_sha256": "0", "effective_from": "2026-01-01"}
    info = write_table(directory, entries, table_id="few", **about)
    return PricesEntry(info.id, str(info.path), info.sha256)


class Counter:
    """Bytecodes executed in Python between `start` and `stop`, in this thread."""

    def __init__(self) -> None:
        self.bytecodes = 0

    def start(self) -> None:
        sys.settrace(self._traced)

    def stop(self) -> None:
        sys.settrace(None)

    def _traced(self, frame: FrameType, event: str, _argument: object) -> Any:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        self.bytecodes += event == "opcode"
        return self._traced


async def bytecodes_of(call: Callable[[], Awaitable[None]]) -> int:
    """The least of some calls: timers of the loop may run in one or another."""
    for _ in range(3):  # caches
        await call()
    least = sys.maxsize
    for _ in range(CALLS):
        counter = Counter()
        counter.start()
        await call()
        counter.stop()
        least = min(least, counter.bytecodes)
    return least


@pytest.mark.skipif(sys.gettrace() is not None, reason="something else traces, coverage perhaps")
async def test_a_call_costs_the_same_with_every_provider_and_price(tmp_path: Path) -> None:
    whole = call_path.snapshot()
    small = replace(whole, prices=few_prices(tmp_path), providers=providers(tmp_path, *FEW))
    large = replace(whole, providers=providers(tmp_path, *HOSTS))
    counts = []
    for name, snapshot in (("small", small), ("large", large)):
        (tmp_path / name).mkdir()
        gate = call_path.gateway(tmp_path / name, snapshot)
        counts.append(await bytecodes_of(call_path.caller(gate)))
    few, many = counts
    assert few > 1_000
    assert many == pytest.approx(few, rel=0.01)
