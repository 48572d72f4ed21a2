"""Reading more rows than fit into memory."""

from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

ROWS_PER_FETCH = 250  # few enough that the event loop is not held up for long


async def stream(connection: AsyncConnection, query: Any) -> AsyncGenerator[Any, None]:
    """The rows of a query, fetched in pieces from one cursor."""
    options = {"yield_per": ROWS_PER_FETCH}
    async with connection.stream(query, execution_options=options) as result:
        async for rows in result.partitions():
            for row in rows:
                yield row
