"""I4: every hold a journal tells of ended as exactly one cost row, at the cost it was settled at.

Only what was drained must be there: of a journal in use, the records before the committed offset;
of a finished one all of it, where holds still open became rows `lost`.
"""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.journal_files import segments
from db.journal_reader import JournalReader
from db.journal_records import Settle
from db.models import JournalOffset, UsageCost
from db.retention import first_id, read_horizon
from db.verify_types import Finding, call_name
from pricing.money import usd_from_nano

CALLS_PER_QUERY = 1_000


async def check_journals(
    connection: AsyncConnection, directory: Path
) -> AsyncGenerator[Finding, None]:
    bound = first_id(await read_horizon(connection))
    for row in (await connection.execute(select(JournalOffset.__table__))).all():
        numbers = segments(directory, row.journal_id)
        if not numbers:
            continue  # of another host, or read long ago and deleted
        settled: dict[bytes, int | None] = {}
        for call_id, nano in _drained(directory, row, numbers[0]):
            if call_id < bound:
                continue  # removed long ago
            settled[call_id] = nano
            if len(settled) == CALLS_PER_QUERY:
                async for finding in _compare(connection, row.journal_id, settled):
                    yield finding
                settled.clear()
        async for finding in _compare(connection, row.journal_id, settled):
            yield finding


def _drained(directory: Path, row: Any, first_segment: int) -> Iterator[tuple[bytes, int | None]]:
    """(call, cost) of each hold that must have its row; cost None: charged as lost."""
    reader = JournalReader(directory, row.journal_id, first_segment)
    reader.sealed = row.finished
    committed = (row.segment, row.offset)
    try:
        while entries := reader.read():
            for entry in entries:
                if not row.finished and (entry.segment, entry.end) > committed:
                    return
                if isinstance(entry.record, Settle) and entry.hold is not None:
                    yield entry.record.call_id, entry.record.cost_nano
                yield from ((hold.call_id, None) for hold in entry.lost)
        if row.finished:
            yield from ((call_id, None) for call_id in reader.open_holds)
    finally:
        reader.close()


async def _compare(
    connection: AsyncConnection, journal_id: bytes, settled: dict[bytes, int | None]
) -> AsyncGenerator[Finding, None]:
    query = select(UsageCost.call_id, UsageCost.cost_nano).where(
        UsageCost.call_id.in_(list(settled))
    )
    rows = {row.call_id: row.cost_nano for row in await connection.execute(query)}
    for call_id, nano in settled.items():
        if call_id not in rows:
            yield Finding(
                "I4", call_name(call_id), f"journal {journal_id.hex()} has it, but no cost row"
            )
        elif nano is not None and rows[call_id] != nano:
            costs = f"{usd_from_nano(rows[call_id])} USD, in its journal {usd_from_nano(nano)}"
            yield Finding("I4", call_name(call_id), f"costs {costs}")
