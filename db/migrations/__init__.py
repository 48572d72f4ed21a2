"""Alembic revisions, run by `db.schema`; every one can be undone."""
