"""Who changed what: the audit log, for admins."""

from functools import partial
from typing import Any

from starlette.responses import Response

from db.audit import AuditRow, audit_rows
from proxy.control.dashboard.site import Visit

ROWS_MAX = 50
VALUE_CHARS_MAX = 300
NOWHERE = object()


async def listed(visit: Visit) -> Response:
    below = visit.request.query_params.get("before", "")
    number = int(below) if below.isdecimal() and len(below) < 18 else None
    look = partial(audit_rows, limit=ROWS_MAX, below=number)
    rows = await visit.backend.read(lambda connection: connection.run_sync(look))
    return visit.page(
        "audit.html",
        rows=[(row, changes(row)) for row in rows],
        older=rows[-1].id if len(rows) == ROWS_MAX else None,
    )


def changes(row: AuditRow) -> list[tuple[str, str, str]]:
    """What is different, as (name, before, after)."""
    before, after = row.before or {}, row.after or {}
    return [
        (name, _text(before.get(name)), _text(after.get(name)))
        for name in sorted(before.keys() | after.keys())
        if before.get(name, NOWHERE) != after.get(name, NOWHERE)
        and not (row.before is None and after.get(name) in (None, "", [], {}))
    ]


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:VALUE_CHARS_MAX]
