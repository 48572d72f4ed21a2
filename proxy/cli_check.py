"""`tollkeeper check`: what the configuration means, and whether everything it names is there."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import click
from sqlalchemy import URL, make_url

from db import catalog, schema
from db.engine import reader
from db.errors import DatabaseError
from db.journal_files import JournalError, list_journals, refuse_remote
from pricing.errors import PricingError
from proxy.cli import Invocation, pass_invocation
from proxy.cli_ledger import opened
from proxy.cli_online import probe
from proxy.cli_output import format_option, print_rows
from proxy.cli_tables import open_book
from proxy.config import Config, ConfigError, Provider
from proxy.config_checks import keys
from proxy.control.opening import middleware_of
from proxy.middleware import load as load_middleware
from proxy.middleware import look_beside
from proxy.providers.base import Route
from proxy.providers.openai_realtime import SESSION, is_metered_at
from proxy.providers.registry import dialect


class Finding(NamedTuple):
    """One line of the answer. `status`: ok, note (worth knowing) or fail (exit code 1)."""

    what: str
    name: str
    status: str
    detail: str


@click.command()
@click.option("--online", is_flag=True, help="Call each provider once, free of charge.")
@click.option("--routes", is_flag=True, help="Every route by its path, not just by its name.")
@format_option
@pass_invocation
def command(invocation: Invocation, online: bool, routes: bool, output: str) -> None:
    """Read the configuration and say what it means: providers, routes and their meters.

    Opens ledger and journal read-only. Exit code 1 if something would not work.
    """
    config = invocation.load()
    path = invocation.config_path
    findings = [Finding("config", str(path or "personal mode"), "ok", _counts(config))]
    stored_keys, ledger = _ledger(config)
    findings += [ledger, _journal(Path(config.journal.dir)), _prices(config)]
    if not stored_keys and not any(keys(config)):
        findings.append(Finding("keys", "none", "note", "make one: tollkeeper keys create"))
    if not config.providers:
        findings.append(Finding("provider", "none", "fail", "no provider's usual variable is set"))
    findings += [_provider(name, provider) for name, provider in config.providers.items()]
    if online:
        findings += [Finding("online", *result) for result in asyncio.run(probe(config.providers))]
    findings += _middleware(config)
    findings += _routes_by_path(config) if routes else _routes(config)
    columns = Finding._fields
    print_rows((finding._asdict() for finding in findings), columns, output)
    if any(finding.status == "fail" for finding in findings):
        raise click.exceptions.Exit(1)


def _counts(config: Config) -> str:
    teams = sum(len(org.teams) for org in config.organizations.values())
    counts = {
        "provider": len(config.providers),
        "organization": len(config.organizations),
        "team": teams,
        "key": sum(1 for _ in keys(config)),
        "budget": len(config.budgets),
    }
    return ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())


def _ledger(config: Config) -> tuple[int, Finding]:
    """(keys stored, what was found)."""
    url = make_url(config.database.url)
    name = _shown(url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return 0, Finding("ledger", name, "note", "not there yet: serve makes it")
    try:
        stored = asyncio.run(_count_keys(config))
    except DatabaseError as exc:
        return 0, Finding("ledger", name, "fail", str(exc))
    return stored, Finding("ledger", name, "ok", f"schema {schema.HEAD}, keys in use: {stored}")


def _shown(url: URL) -> str:
    if url.get_backend_name() == "sqlite" and url.database:
        return _short(url.database)
    return url.render_as_string(hide_password=True)


def _short(path: str) -> str:
    """As seen from here, if that is shorter."""
    return min(os.path.relpath(path), path, key=len)


async def _count_keys(config: Config) -> int:
    async with opened(config) as engine, reader(engine).connect() as connection:
        return len(await connection.run_sync(catalog.list_keys))


def _journal(directory: Path) -> Finding:
    name = _short(str(directory))
    try:
        if not directory.exists():
            return Finding("journal", name, "note", "not there yet: serve makes it")
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            return Finding("journal", name, "fail", "cannot be read and written")
        refuse_remote(directory)
        count = len(list_journals(directory))
    except (OSError, JournalError) as exc:
        return Finding("journal", name, "fail", str(exc))
    return Finding("journal", name, "ok", f"journals: {count}, {_free_space(directory)} free")


def _free_space(directory: Path) -> str:
    free = os.statvfs(directory)
    return f"{free.f_bavail * free.f_frsize >> 20} MB"


def _prices(config: Config) -> Finding:
    pricing = config.pricing
    try:
        book = open_book(config)
    except PricingError as exc:
        return Finding("prices", pricing.table, "fail", str(exc))
    entries, overlays = len(book.table), len(pricing.overlays)
    detail = f"{entries} entries, {overlays} overlays, other models: {pricing.unpriced}"
    return Finding("prices", book.version, "ok", detail)


def _middleware(config: Config) -> Iterator[Finding]:
    found = middleware_of(config)
    if found is None:
        return
    look_beside(found.directory)
    lists = [("all", found.of_all), *found.of_providers.items()]
    for name, entries in lists:
        for index, entry in enumerate(entries):
            try:
                load_middleware(entry, f"[{index}]")
            except ConfigError as exc:
                yield Finding("middleware", name, "fail", str(exc))
            else:
                yield Finding("middleware", name, "ok", entry.path)


def _provider(name: str, provider: Provider) -> Finding:
    parts = [f"{provider.base_url}", f"dialect {provider.dialect}", _key_of(provider)]
    if provider.prices != name:
        parts.append(f"prices {provider.prices}")
    local = urlsplit(provider.base_url).hostname in ("localhost", "127.0.0.1", "::1")
    plain = provider.base_url.startswith("http://") and not local and provider.api_key
    if plain:
        parts.append("its key goes over the network unencrypted")
    if provider.allow_unmetered:
        parts.append("unmetered routes are let through, and cost nothing here")
    note = plain or provider.allow_unmetered or provider.prices == "free"
    return Finding("provider", name, "note" if note else "ok", ", ".join(parts))


def _key_of(provider: Provider) -> str:
    if provider.api_key == "client":
        return "the caller's own key (Tollkeeper's in x-tollkeeper-key)"
    if provider.aws.region and not provider.api_key:
        return f"requests signed for {provider.aws.region}"
    if provider.google.location and not provider.api_key:
        return "Google Cloud access tokens"
    if provider.azure.tenant_id and not provider.api_key:
        return f"Entra access tokens of {provider.azure.client_id}"
    return "key set" if provider.api_key else "no key sent"


def _routes(config: Config) -> Iterator[Finding]:
    """What becomes of each provider's routes, by name."""
    for name, provider in config.providers.items():
        by_meter: dict[str, dict[str, None]] = {}
        for _, _, route in _table(provider):
            by_meter.setdefault(_meter(provider, route), {})[route.name] = None
        for meter, routes in by_meter.items():
            yield Finding("routes", f"{name}: {meter}", "ok", ", ".join(routes))


def _routes_by_path(config: Config) -> Iterator[Finding]:
    for name, provider in config.providers.items():
        for method, path, route in _table(provider):
            where = f"{method} /{name}{path}"
            yield Finding("route", where, "ok", f"{_meter(provider, route)} ({route.name})")


def _table(provider: Provider) -> list[tuple[str, str, Route]]:
    rows = list(dialect(provider.dialect).routes())
    if is_metered_at(provider.dialect, provider.prices):
        rows.append(("WebSocket", "/v1/realtime", SESSION))
    return rows


def _meter(provider: Provider, route: Route) -> str:
    if route.kind == "session":
        return "metered"
    if route.kind != "unmetered":
        return route.kind
    return "let through unmetered" if provider.allow_unmetered else "refused, 403"
