"""Open the ledger for one command."""

import getpass
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from db import schema
from db.audit import Actor
from db.engine import open_engine
from proxy.config import Config


@asynccontextmanager
async def opened(config: Config, *, read_only: bool = True) -> AsyncIterator[AsyncEngine]:
    """The engine, its schema checked. Raises DatabaseUnusable, SchemaMismatch."""
    async with opened_unchecked(config, read_only=read_only) as engine:
        await schema.check(engine)
        yield engine


@asynccontextmanager
async def opened_unchecked(config: Config, *, read_only: bool) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(config.database.url, read_only=read_only)
    try:
        yield engine
    finally:
        await engine.dispose()


def cli_actor() -> Actor:
    """Who runs the command, for the audit log."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        user = "unknown"
    return Actor(f"cli:{user}", socket.gethostname())
