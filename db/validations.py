"""What comparisons with providers' own cost exports have found."""

from typing import NamedTuple

from sqlalchemy import Connection, select

from db.models import CostValidation


class Validation(NamedTuple):
    id: int
    validated_at_ms: int
    source: str
    file_sha256: str
    day: str
    model: str  # "": all of the day
    calls: int
    ledger_nano: int
    provider_nano: int
    threshold_percent: str
    exceeds: bool


def validations(
    connection: Connection, *, limit: int, below: int | None = None, exceeding: bool = False
) -> list[Validation]:
    """The newest first; `below`: only lines older than the one of this id."""
    query = select(CostValidation.__table__).order_by(CostValidation.id.desc()).limit(limit)
    if below is not None:
        query = query.where(CostValidation.id < below)
    if exceeding:
        query = query.where(CostValidation.exceeds)
    return [Validation(*row) for row in connection.execute(query)]
