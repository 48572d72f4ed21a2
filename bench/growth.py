"""What a call costs as providers and prices are added: bytecodes, and time in the worker.

    python -m bench.growth

The same call through the worker without sockets (`call_path.py`), in a deployment of three
providers with a price each, and in one of every known provider with the whole price table.
Bytecodes are counted, so they are the same on a busy machine; the time is the least of many
batches.
"""

import asyncio
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace

from bench import call_path
from pricing.table import TABLES_DIR, list_tables
from proxy.providers.registry import HOSTS
from proxy.wire import Snapshot
from tests.proxy.test_call_size import FEW, bytecodes_of, few_prices, providers


async def measured(directory: Path, snapshot: Snapshot) -> tuple[int, float]:
    """Bytecodes and microseconds of a call."""
    gate = call_path.gateway(directory, snapshot)
    call = call_path.caller(gate)
    bytecodes = await bytecodes_of(call)
    least = float("inf")
    for _ in range(call_path.BATCHES):
        start = time.process_time()
        for _ in range(call_path.BATCH):
            await call()
        least = min(least, (time.process_time() - start) / call_path.BATCH * 1e6)
        await asyncio.sleep(0)
    return bytecodes, least


async def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        whole = call_path.snapshot()
        few = replace(whole, prices=few_prices(directory), providers=providers(directory, *FEW))
        many = replace(whole, providers=providers(directory, *HOSTS))
        print("| providers | prices | bytecodes | us |\n|---|---|---|---|")
        entries = list_tables(TABLES_DIR)[-1].entries
        for snapshot, prices in ((few, len(FEW)), (many, entries)):
            journal = tempfile.mkdtemp(dir=directory)
            bytecodes, us = await measured(Path(journal), snapshot)
            print(f"| {len(snapshot.providers)} | {prices:,} | {bytecodes:,} | {us:.0f} |")


if __name__ == "__main__":
    asyncio.run(main())
