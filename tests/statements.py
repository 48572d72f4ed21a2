"""SQL that was compiled once is kept for all engines, not for one: a test that opens a database
would spend a third of its time on compiling what the test before it has compiled."""

from functools import partial
from typing import Any

from sqlalchemy.util import LRUCache

import db.engine

STATEMENTS = 5_000


class Compiled(LRUCache[Any, Any]):
    """Dialects of one class compile alike, as all engines here are made by `db.engine`."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_by_class(key))

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_by_class(key), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_by_class(key), value)


def _by_class(key: Any) -> Any:
    dialect, *rest = key
    return type(dialect), *rest


def keep_compiled() -> None:
    options = {"compiled_cache": Compiled(STATEMENTS)}
    for name in ("create_engine", "create_async_engine"):
        made = partial(getattr(db.engine, name), execution_options=options)
        setattr(db.engine, name, made)
