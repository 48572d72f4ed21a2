"""Pages by cursor: the id, or the place in time, of the last item."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from proxy.control.api.failures import bad_cursor
from proxy.control.api.table import Page

T = TypeVar("T")
R = TypeVar("R")


def id_of(cursor: str, default: int = 0) -> int:
    """Raises ApiError."""
    if not cursor:
        return default
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise bad_cursor()
    return int(cursor)


def page_of(
    rows: Sequence[R], limit: int, item: Callable[[R], T], cursor: Callable[[R], object]
) -> Page[T]:
    """Of rows of which one more than `limit` was asked for."""
    more = len(rows) > limit
    return Page([item(row) for row in rows[:limit]], str(cursor(rows[limit - 1])) if more else None)
