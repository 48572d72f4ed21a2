"""What comparisons with providers' own figures have found."""

from functools import partial

from msgspec import Struct

from db.validations import Validation, validations
from pricing.money import usd_from_nano
from proxy.control.api.backend import Backend
from proxy.control.api.paging import id_of, page_of
from proxy.control.api.table import Caller, Endpoint, Page, PageRequest
from proxy.control.figures import moment
from proxy.control.identity import Role


class Reconciled(Struct, frozen=True, kw_only=True):
    """One line: a model on a day, or all of a day."""

    id: int
    at: str | None
    source: str
    file_sha256: str
    day: str
    model: str  # "": all of the day
    calls: int
    ledger_usd: str
    provider_usd: str
    drift_usd: str
    threshold_percent: str
    exceeds: bool


class ListReconciled(PageRequest, frozen=True, kw_only=True):
    exceeding: bool = False  # only lines that drift by more than their threshold


def _line(row: Validation) -> Reconciled:
    return Reconciled(
        id=row.id,
        at=moment(row.validated_at_ms),
        source=row.source,
        file_sha256=row.file_sha256,
        day=row.day,
        model=row.model,
        calls=row.calls,
        ledger_usd=usd_from_nano(row.ledger_nano),
        provider_usd=usd_from_nano(row.provider_nano),
        drift_usd=usd_from_nano(row.ledger_nano - row.provider_nano),
        threshold_percent=row.threshold_percent,
        exceeds=row.exceeds,
    )


async def list_reconciled(
    backend: Backend, _caller: Caller, asked: ListReconciled
) -> Page[Reconciled]:
    look = partial(
        validations,
        limit=asked.limit + 1,
        below=id_of(asked.cursor) if asked.cursor else None,
        exceeding=asked.exceeding,
    )
    rows = await backend.read(lambda connection: connection.run_sync(look))
    return page_of(rows, asked.limit, _line, lambda row: row.id)


ENDPOINTS = (
    Endpoint(
        "GET", "/reconcile", list_reconciled, ListReconciled, Page[Reconciled], Role.ADMIN,
        "The ledger beside providers' own figures, the newest comparison first.",
    ),
)  # fmt: skip
