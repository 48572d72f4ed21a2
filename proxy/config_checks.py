"""What one key of the configuration says about another: scopes, names, limits, addresses."""

import hashlib
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from fnmatch import fnmatchcase
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pricing.keys import is_price_key
from pricing.money import NANO_PER_USD
from proxy.config import (
    MODEL_NAME,
    Budget,
    Config,
    Key,
    Overlay,
    Provider,
    expires_at_ms,
)
from proxy.config_admin import check_admin
from proxy.config_alerts import check_alerts
from proxy.config_clouds import check_cloud
from proxy.config_reader import Problems
from proxy.providers.registry import DIALECT_NAMES
from proxy.scopes import parse_scope

NAME_CHARS_MAX = 128
KEEP_MONTHS_MIN = 4  # three of them may be 89 days
PROVIDER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
# First segments of the data port's own paths and of the bare paths SDKs use.
RESERVED_PROVIDER_NAMES = frozenset(
    {"v1", "v1beta", "v1beta1", "v1alpha", "upload", "ws", "healthz", "readyz"}
    | {"model", "projects", "publishers"}
)
USUAL_PRICE_KEYS = (
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "cache_creation_input_token_cost",
)
DATABASE_SCHEMES = ("sqlite+aiosqlite://", "postgresql+asyncpg://")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_HEADER = re.compile(r"[A-Za-z0-9-]+\Z")


def check(config: Config, problems: Problems) -> None:
    """Add every cross-reference that does not hold to `problems`."""
    _check_addresses(config, problems)
    check_admin(config.admin, problems)
    for name, provider in config.providers.items():
        _check_provider(f"providers.{name}", name, provider, problems)
    if not config.providers:
        problems.add_check("providers", "none declared, so there is nothing to forward calls to")
    if config.journal.max_mb < 2 * config.journal.segment_mb:
        problems.add_check("journal.max_mb", "must be at least twice journal.segment_mb")
    if 0 < config.retention.keep_months < KEEP_MONTHS_MIN:
        problems.add_check(
            "retention.keep_months",
            f"at least {KEEP_MONTHS_MIN}: so long a provider may tell what an open call costs",
        )
    _check_pricing(config, problems)
    _check_names(config, problems)
    _check_keys(config, problems)
    _check_budgets(config, problems)
    check_alerts(config, problems)


def keys(config: Config) -> Iterator[tuple[str, str, Key]]:
    """(path, organization, key) of every declared key."""
    for org_name, org in config.organizations.items():
        for team_name, team in org.teams.items():
            at = f"organizations.{org_name}.teams.{team_name}"
            for index, key in enumerate(team.keys):
                yield f"{at}.keys[{index}]", org_name, key
            for project_name, project in team.projects.items():
                for index, key in enumerate(project.keys):
                    yield f"{at}.projects.{project_name}.keys[{index}]", org_name, key


def scopes(config: Config) -> set[str]:
    """Every scope a budget may name. A user counts as declared when a key is bound to it."""
    out = set()
    for org_name, org in config.organizations.items():
        out.add(f"organization/{org_name}")
        out.update(f"user/{org_name}/{user}" for user in org.users)
        for team_name, team in org.teams.items():
            out.add(f"team/{org_name}/{team_name}")
            out.update(f"project/{org_name}/{team_name}/{project}" for project in team.projects)
    for _, org_name, key in keys(config):
        out.add(f"key/{key.name}")
        if key.user:
            out.add(f"user/{org_name}/{key.user}")
    return out


def _check_addresses(config: Config, problems: Problems) -> None:
    server, admin = config.server, config.admin
    wild = {"0.0.0.0", "::", ""}  # noqa: S104 - compared with, not bound to
    same_host = server.host == admin.host or bool({server.host, admin.host} & wild)
    if same_host and server.port == admin.port != 0:
        problems.add_check("admin.port", f"is the same as server.port, {server.port}")
    if not config.database.url.startswith(DATABASE_SCHEMES):
        expected = " or ".join(f"{scheme}..." for scheme in DATABASE_SCHEMES)
        problems.add_check("database.url", f"expected {expected}")


def _check_provider(path: str, name: str, provider: Provider, problems: Problems) -> None:
    if not PROVIDER_NAME.match(name):
        problems.add_check(path, "a provider's name is its path: a-z, 0-9, '.', '_' and '-'")
    if name in RESERVED_PROVIDER_NAMES:
        problems.add_check(path, "this name is a path of the proxy itself, choose another")
    check_cloud(path, name, provider, problems)
    if not provider.base_url:
        problems.add_check(f"{path}.base_url", "missing, and this provider has no usual one")
    else:
        _check_base_url(f"{path}.base_url", provider.base_url, problems)
    if provider.dialect not in DIALECT_NAMES:
        missing = f"unknown dialect {provider.dialect!r}" if provider.dialect else "missing"
        problems.add_check(f"{path}.dialect", f"{missing}: one of {', '.join(DIALECT_NAMES)}")
    if provider.api_key_header and not _HEADER.match(provider.api_key_header):
        problems.add_check(f"{path}.api_key_header", "expected the name of a header")


def _check_base_url(path: str, url: str, problems: Problems) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        valid = valid and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        problems.add_check(path, "expected http://HOST or https://HOST, with port and path if any")
    elif parts.username is not None or parts.query or parts.fragment:
        problems.add_check(path, "must hold no user name, query or fragment")


def _check_pricing(config: Config, problems: Problems) -> None:
    pricing = config.pricing
    rate = pricing.unpriced_usd_per_mtok
    if rate and _decimal(rate, at_least=0) is None:
        problems.add_check("pricing.unpriced_usd_per_mtok", "expected a price in USD, 0 or more")
    if pricing.unpriced == "ceiling" and not rate:
        problems.add_check("pricing.unpriced_usd_per_mtok", "missing: `unpriced: ceiling` needs it")
    for index, overlay in enumerate(pricing.overlays):
        _check_overlay(f"pricing.overlays[{index}]", overlay, problems)
        _check_team(f"pricing.overlays[{index}].team", overlay.team, config, problems)


def _check_overlay(path: str, overlay: Overlay, problems: Problems) -> None:
    discount = _decimal(overlay.discount_percent)
    if discount is None or discount > 100:
        problems.add_check(f"{path}.discount_percent", "expected a number up to 100")
    for name, price in overlay.prices.items():
        if not is_price_key(name):
            known = ", ".join(USUAL_PRICE_KEYS)
            problems.add_check(f"{path}.prices.{name}", f"unknown price; the usual ones: {known}")
        elif _decimal(price, at_least=0) is None:
            problems.add_check(f"{path}.prices.{name}", "expected a price in USD, 0 or more")


def _check_team(path: str, glob: str, config: Config, problems: Problems) -> None:
    teams = [f"{name}/{team}" for name, org in config.organizations.items() for team in org.teams]
    if glob != "*" and not any(fnmatchcase(team, glob) for team in teams):
        problems.add_check(path, f"no team is called {glob!r} (ORG/TEAM){_suggest(glob, teams)}")


def _check_names(config: Config, problems: Problems) -> None:
    for org_name, org in config.organizations.items():
        at = f"organizations.{org_name}"
        _check_name(at, org_name, problems)
        for user in org.users:
            _check_name(f"{at}.users.{user}", user, problems)
        for team_name, team in org.teams.items():
            _check_name(f"{at}.teams.{team_name}", team_name, problems)
            for project in team.projects:
                _check_name(f"{at}.teams.{team_name}.projects.{project}", project, problems)


def _check_name(path: str, name: str, problems: Problems) -> None:
    if not name or len(name) > NAME_CHARS_MAX or "/" in name or not name.isprintable():
        problems.add_check(path, f"a name is 1 to {NAME_CHARS_MAX} characters without '/'")


def _check_keys(config: Config, problems: Problems) -> None:
    names: dict[str, str] = {}
    digests: dict[str, str] = {}
    for path, _, key in keys(config):
        _check_name(f"{path}.name", key.name, problems)
        if names.setdefault(key.name, path) != path:
            problems.add_check(f"{path}.name", f"duplicate, {names[key.name]} has the same name")
        if bool(key.key) == bool(key.key_sha256):
            problems.add_check(path, "give exactly one of key and key_sha256")
            continue
        digest = key.key_sha256 or hashlib.sha256(key.key.encode()).hexdigest()
        if not _SHA256.match(digest):
            problems.add_check(f"{path}.key_sha256", "expected 64 lower-case hex digits")
        if digests.setdefault(digest, path) != path:
            problems.add_check(path, f"has the same secret as {digests[digest]}")
        _check_key_options(path, key, config, problems)


def _check_key_options(path: str, key: Key, config: Config, problems: Problems) -> None:
    if key.user:
        _check_name(f"{path}.user", key.user, problems)
    if key.expires:
        try:
            expires_at_ms(key.expires)
        except (ValueError, OverflowError):
            problems.add_check(f"{path}.expires", "expected a date or timestamp, like 2027-01-31")
    _check_provider_globs(f"{path}.providers", key.providers, config, problems)


def _check_provider_globs(path: str, globs: list[str], config: Config, problems: Problems) -> None:
    for index, glob in enumerate(globs):
        if not any(fnmatchcase(name, glob) for name in config.providers):
            problems.add_check(
                f"{path}[{index}]",
                f"no provider is called {glob!r}{_suggest(glob, config.providers)}",
            )


def _check_budgets(config: Config, problems: Problems) -> None:
    known = scopes(config)
    seen: dict[object, str] = {}
    for index, budget in enumerate(config.budgets):
        path = f"budgets[{index}]"
        if budget.scope not in known:
            problems.add_check(f"{path}.scope", _unknown_scope(budget.scope, known))
        _check_limit(path, budget, problems)
        for name, message in budget.customer_problems():
            problems.add_check(f"{path}.{name}", message)
        for model in budget.on_exhausted.downgrade.values():
            if not re.match(MODEL_NAME, model):
                at = f"{path}.on_exhausted.downgrade"
                problems.add_check(at, f"{model!r}: expected the name of a model, no glob")
        _check_timezone(f"{path}.timezone", budget.timezone, problems)
        _check_provider_globs(f"{path}.providers", budget.providers, config, problems)
        if seen.setdefault(_identity(budget), path) != path:
            problems.add_check(path, f"is the same budget as {seen[_identity(budget)]}")


def _unknown_scope(scope: str, known: set[str]) -> str:
    try:
        parse_scope(scope)
    except ValueError as exc:
        return str(exc)
    return f"unknown scope {scope!r}{_suggest(scope, known)}"


def _check_limit(path: str, budget: Budget, problems: Problems) -> None:
    limits = ("limit_usd", "limit_tokens", "limit_requests")
    given = [name for name in limits if getattr(budget, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        problems.add_check(path, f"give exactly one of {', '.join(limits)}; found {found}")
    if budget.limit_usd is not None:
        usd = _decimal(str(budget.limit_usd), at_least=0)
        if usd is None or usd * NANO_PER_USD >= 2**63:
            problems.add_check(f"{path}.limit_usd", "expected an amount from 0 up to 9 billion")
        elif usd * NANO_PER_USD % 1:
            problems.add_check(f"{path}.limit_usd", "is finer than 0.000000001 USD")


def _check_timezone(path: str, name: str, problems: Problems) -> None:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        problems.add_check(path, f"unknown time zone {name!r}, expected one like Europe/Berlin")


def _identity(budget: Budget) -> object:
    unit = [name for name in ("limit_usd", "limit_tokens") if getattr(budget, name) is not None]
    anchors = (budget.timezone, budget.week_start, budget.month_day)
    filters = (tuple(sorted(budget.models)), tuple(sorted(budget.providers)))
    return budget.scope, tuple(unit), budget.period, anchors, filters, budget.each


def _decimal(text: str, at_least: int | None = None) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    if not value.is_finite() or (at_least is not None and value < at_least):
        return None
    return value


def _suggest(name: str, known: object) -> str:
    close = get_close_matches(name, list(known), 1, 0.7)  # type: ignore[call-overload]
    return f", did you mean {close[0]}?" if close else ""
