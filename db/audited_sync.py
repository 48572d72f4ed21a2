"""Putting the configuration's declarations in force, with what that changes in the audit log."""

import socket
from typing import Any

from sqlalchemy import Connection, select

from db import catalog
from db.audit import Actor, record
from db.catalog_places import MODELS
from db.catalog_types import Declared
from db.edits import without_secret
from db.models import ApiKey, Budget
from db.paths import PATHS

CONFIG = "config"
NAMES_BUDGET = ("identity", "limit_value", "options")

States = dict[str, dict[str, Any]]  # by target


def sync_config(connection: Connection, declared: Declared, now_ms: int) -> bool:
    """As `catalog.sync_config`."""
    before = _declared_states(connection)
    if not catalog.sync_config(connection, declared, now_ms):
        return False
    after = _declared_states(connection)
    by = Actor(CONFIG, socket.gethostname())
    for target in sorted(before.keys() | after.keys()):
        was, now = before.get(target), after.get(target)
        record(connection, by, now_ms, "config.change", target, was, now)
    return True


def _declared_states(connection: Connection) -> States:
    """Of everything that is there because the configuration declares it."""
    states: States = {}
    for kind, model in MODELS.items():
        table: Any = model.__table__
        query = PATHS[kind].where(table.c.source == CONFIG, table.c.tombstoned_at_ms.is_(None))
        for _, *path in connection.execute(query):
            states["/".join((kind, *path))] = {"source": CONFIG}
    keys = select(ApiKey.__table__).where(ApiKey.source == CONFIG, ApiKey.revoked_at_ms.is_(None))
    for row in connection.execute(keys):
        states[f"key/{row.name}"] = without_secret(row)
    budgets = select(Budget.__table__).where(
        Budget.source == CONFIG, Budget.tombstoned_at_ms.is_(None)
    )
    for row in connection.execute(budgets):
        states[f"budget/{row.id}"] = {name: getattr(row, name) for name in NAMES_BUDGET}
    return states
