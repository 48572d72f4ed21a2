"""Who changed what."""

from typing import Any

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from db.model_base import Base, Json, row_id


class AuditEntry(Base):
    """One change of the catalog or of money by hand; append-only, in the change's transaction."""

    __tablename__ = "ai_audit_log"
    id: Mapped[int] = row_id()
    at_ms: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(String(128))  # admin, cli:USER, config
    origin: Mapped[str] = mapped_column(String(128))  # address or host the change came from
    action: Mapped[str] = mapped_column(String(32))  # key.create
    target: Mapped[str] = mapped_column(String(512))  # key/search-prod
    before: Mapped[dict[str, Any] | None] = mapped_column(Json)  # None: it was not there
    after: Mapped[dict[str, Any] | None] = mapped_column(Json)  # None: it is not there any more
