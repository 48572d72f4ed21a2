"""What every table is made with: names of constraints, types of columns."""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Integer, LargeBinary, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite only autoincrements INTEGER primary keys.
BigId = BigInteger().with_variant(Integer(), "sqlite")
# None is SQL NULL: the default would store the JSON value null, which IS NULL does not find.
Json = JSON(none_as_null=True)


class Base(DeclarativeBase):
    """Named constraints, so that migrations can drop what they made on every engine."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: Json, list[Any]: Json, bytes: LargeBinary}  # noqa: RUF012


def row_id() -> Mapped[int]:
    return mapped_column(BigId, primary_key=True, autoincrement=True)


def refers_to(target: str, **options: Any) -> Mapped[Any]:
    return mapped_column(BigId, ForeignKey(target, ondelete="RESTRICT"), **options)
