"""How often calls were refused, and why."""

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from db.model_base import Base


class RefusalCount(Base):
    """Refused calls of an hour that are alike, on one host: each host has rows of its own. Names
    are text, "" where the call had not come so far: many a refused call names nothing that there
    is."""

    __tablename__ = "ai_refusals"
    shard: Mapped[str] = mapped_column(String(64), primary_key=True)  # digest of host and group
    hour: Mapped[int] = mapped_column(BigInteger, index=True)  # unix hours
    organization: Mapped[str] = mapped_column(String(128))
    team: Mapped[str] = mapped_column(String(128))
    key_name: Mapped[str] = mapped_column(String(128))
    provider: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(256))
    code: Mapped[str] = mapped_column(String(64))
    scope: Mapped[str] = mapped_column(String(512))  # of the budget; "": of none
    calls: Mapped[int] = mapped_column(BigInteger)
    last_at_ms: Mapped[int] = mapped_column(BigInteger)
