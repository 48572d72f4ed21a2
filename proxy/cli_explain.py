"""`tollkeeper budgets explain`: what would happen to a call, and why."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from db import catalog
from db.engine import reader
from db.report_leases import LeaseStatus, unfinished_leases
from db.reports import BudgetStatus
from pricing.book import PriceBook
from pricing.money import usd_from_nano
from pricing.price import Price
from proxy.cli import Failure, Invocation, pass_invocation
from proxy.cli_ledger import opened
from proxy.cli_output import Row, format_option, print_rows
from proxy.cli_tables import open_book
from proxy.config import Config
from proxy.control.api import explain as api
from proxy.control.api.failures import ApiError
from proxy.control.figures import figure
from proxy.customers import customer_in, unnamed
from proxy.downgrade import BODY_BYTES_MAX, rewritten, target_of
from proxy.errors import Refusal
from proxy.explain import Standing, Verdict, explain, items, needs
from proxy.providers import registry
from proxy.providers.base import Dialect, Facts
from proxy.scopes import BudgetIndex, Principal, applies
from proxy.state import price_names
from proxy.wire import BudgetEntry, KeyEntry

REQUEST_BYTES_MAX = 100 * 2**20
COLUMNS = ("what", "name", "needs", "limit", "spent", "free", "verdict")


class Asked(NamedTuple):
    """The call in question."""

    principal: Principal
    provider: str
    dialect: Dialect
    facts: Facts
    price: Price
    quote: Callable[[str], Price]
    path: str
    body: bytes


@click.command()
@click.option("--key", "key_name", required=True, help="Name of the key that calls.")
@click.option("--request", type=click.File("rb"), required=True, help="JSON body; - reads stdin.")
@click.option("--provider", help="Provider [default: the first that prices the model].")
@click.option("--path", help="Path of the call [default: guessed from the body].")
@click.option("--model", help="Model, where the body names none (Gemini).")
@click.option("--user", default="", help="As in x-tollkeeper-user.")
@click.option("--customer", default="", help="As in x-tollkeeper-customer.")
@format_option
@pass_invocation
def command(
    invocation: Invocation,
    key_name: str,
    request: BinaryIO,
    provider: str | None,
    path: str | None,
    model: str | None,
    user: str,
    customer: str,
    output: str,
) -> None:
    """Would this call pass, be clamped, wait, go to a cheaper model or be refused? By which budget,
    and for how much?

    Exit code 1 if it would be refused.
    """
    config = invocation.load()
    body = request.read(REQUEST_BYTES_MAX + 1)
    if len(body) > REQUEST_BYTES_MAX:
        raise Failure(f"{request.name}: larger than {REQUEST_BYTES_MAX >> 20} MB")
    key, statuses, leases = asyncio.run(_ledger(config, key_name, customer))
    wanted = (provider, path, model, body)
    try:
        word, rows = _explained(config, key, statuses, leases, (user, customer), wanted)
    except Refusal as exc:
        raise Failure(f"refused: {exc.code}: {exc.message}", 1) from exc
    print_rows(rows, COLUMNS, output)
    if word == "refused":
        raise click.exceptions.Exit(1)


def explain_call(
    config: Config, standing: api.Standing, asked: api.ExplainRequest, body: bytes
) -> api.Explanation:
    """The same for the admin API. Raises ApiError."""
    wanted = (asked.provider or None, asked.path or None, asked.model or None, body)
    key, statuses, leases = standing.key, standing.statuses, standing.leases
    try:
        word, rows = _explained(config, key, statuses, leases, (asked.user, asked.customer), wanted)
    except Refusal as exc:
        return api.Explanation(refused=True, code=exc.code, message=exc.message, lines=[])
    except Failure as exc:
        raise ApiError(400, "not_explained", exc.message) from exc
    lines = [api.ExplainedLine(**row) for row in rows]
    return api.Explanation(refused=word == "refused", code="", message=word, lines=lines)


def _explained(
    config: Config,
    key: KeyEntry,
    statuses: Sequence[BudgetStatus],
    leases: Sequence[LeaseStatus],
    named: tuple[str, str],  # user and customer
    call: tuple[str | None, str | None, str | None, bytes],
) -> tuple[str, list[Row]]:
    """The verdict in a word, and why. Raises Failure and Refusal."""
    user, customer = named
    principal = Principal.of(key, user, "", {}, customer)
    asked = _asked(config, principal, *call)
    standings = _standings(statuses, leases, asked)
    verdict = explain(asked.facts, asked.price, standings, asked.quote)
    cheaper = _cheaper(config, principal, asked, verdict)
    if cheaper is not None:
        of_cheaper = _standings(statuses, leases, cheaper)
        with suppress(Refusal):  # what bounds the cheaper model's cost does not let it pass either
            second = explain(cheaper.facts, cheaper.price, of_cheaper, cheaper.quote)
            if second.word != "refused":
                return second.word, list(_rows(cheaper, of_cheaper, second, asked.facts.model))
    return verdict.word, list(_rows(asked, standings, verdict))


def _cheaper(config: Config, principal: Principal, asked: Asked, verdict: Verdict) -> Asked | None:
    """The call at the model that the budget in the way names in its stead, as admission would try
    it; None: there is no such model, or the call cannot be made for it."""
    budget = verdict.blocking.entry if verdict.blocking is not None else None
    if verdict.word != "refused" or budget is None or len(asked.body) > BODY_BYTES_MAX:
        return None
    target = target_of(budget, asked.facts.model)
    if not target:
        return None
    declared = config.providers[asked.provider]
    body, path = rewritten(declared.dialect, asked.body, asked.path.encode(), target)
    try:
        found = _asked(config, principal, asked.provider, path.decode(), target, body)
    except (Refusal, Failure):
        return None
    wanted = declared.models.get(target, target)
    fits = found.facts.model == wanted != asked.facts.model and not found.price.unpriced
    return found if fits else None


async def _ledger(
    config: Config, key_name: str, customer: str
) -> tuple[KeyEntry, list[BudgetStatus], list[LeaseStatus]]:
    now_s = time.time()
    async with opened(config) as engine, reader(engine).connect() as connection:
        key = await _key(connection, key_name, now_s)
        statuses = await api.statuses_for(connection, customer, now_s)
        return key, statuses, await connection.run_sync(unfinished_leases)


async def _key(connection: AsyncConnection, name: str, now_s: float) -> KeyEntry:
    for row in await connection.run_sync(catalog.load_keys):
        if row.name == name:
            if row.revoked or 0 < row.expires_at <= now_s:
                why = "revoked" if row.revoked else "expired"
                raise Failure(f"refused: key_{why}: key {name!r} is {why}", 1)
            return KeyEntry(*row)
    raise Failure(f"no key is named {name!r}")


def _asked(
    config: Config,
    principal: Principal,
    provider: str | None,
    path: str | None,
    model: str | None,
    body: bytes,
) -> Asked:
    """Raises Refusal, as the proxy would."""
    try:
        content = json.loads(body)
    except ValueError as exc:
        raise Failure(f"the request is not JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise Failure("the request is not a JSON object")
    model = model or str(content.get("model") or "")
    if not model:
        raise Failure("the request names no model: give --model")
    book = open_book(config).for_team(principal.key.organization, principal.key.team)
    name = provider or _provider_of(config, book, principal, model)
    if name not in config.providers:
        raise Failure(f"no provider is called {name!r}: {', '.join(config.providers)}")
    declared = config.providers[name]
    dialect = registry.dialect(declared.dialect, declared.clamp_field, declared.models)
    path = path or _path(declared.dialect, content, model)
    facts = _facts(dialect, path, body)
    facts.model = declared.models.get(facts.model, facts.model)
    if not principal.allows_provider(name):
        raise Refusal("provider_not_allowed", f"the key may not call provider {name!r}")
    if not principal.allows_model(facts.model):
        raise Refusal("model_not_allowed", f"the key may not call model {facts.model!r}")

    def quote(model: str) -> Price:
        price = book.quote(declared.prices, *price_names(declared.aws.region, model))
        if price is None:
            raise Refusal("model_not_priced", f"{model!r} has no price in {book.version}")
        return price

    return Asked(principal, name, dialect, facts, quote(facts.model), quote, path, body)


def _provider_of(config: Config, book: PriceBook, principal: Principal, model: str) -> str:
    declared = ""
    for name, provider in config.providers.items():
        names = price_names(provider.aws.region, provider.models.get(model, model))
        price = book.quote(provider.prices, *names)
        if price is not None and principal.allows_provider(name):
            if not price.unpriced:
                return name
            declared = declared or name
    if declared:
        return declared
    raise Failure(f"no provider prices {model!r}: give --provider")


def _path(dialect: str, content: dict[str, object], model: str) -> str:
    if dialect == "anthropic":
        return "/v1/messages"
    if dialect == "gemini":
        verb = "generateContent" if "contents" in content else "embedContent"
        return f"/v1beta/models/{model.removeprefix('models/')}:{verb}"
    if dialect == "bedrock":
        return f"/model/{quote(model, safe='')}/{'converse' if 'messages' in content else 'invoke'}"
    if dialect == "vertex":
        publisher, verb = "google", "generateContent" if "contents" in content else "predict"
        if "anthropic_version" in content:
            publisher, verb = "anthropic", "rawPredict"
        return f"/v1/publishers/{publisher}/models/{model}:{verb}"
    if "messages" in content:
        return "/v1/chat/completions"
    if "prompt" in content:
        return "/v1/completions"
    return "/v1/embeddings" if "embed" in model else "/v1/responses"


def _facts(dialect: Dialect, path: str, body: bytes) -> Facts:
    path, _, query = path.partition("?")
    route = dialect.route("POST", path)
    if route is None or route.kind != "metered":
        raise Failure(f"POST {path} is {route.kind if route else 'unknown'}: no budget is asked")
    facts = dialect.facts(route, path, query.encode(), body)
    if facts.later == "batch":
        raise Failure("what a batch holds is known once it is sent: explain one of its requests")
    return facts


def _standings(
    statuses: Sequence[BudgetStatus], leases: Sequence[LeaseStatus], asked: Asked
) -> list[Standing]:
    """The budgets that apply to the call."""
    by_id = {status.budget.id: status for status in statuses}
    index = BudgetIndex(BudgetEntry(*status.budget) for status in statuses)
    provider, model = asked.provider, asked.facts.model
    for template in () if asked.principal.customer else index.templates_of(asked.principal):
        customer = customer_in(asked.dialect, asked.facts.body)
        if template.customer_from_body and customer:
            raise Failure(f"the request is for the customer {customer}: ask with --customer")
        if template.customer_required and template.enforce and applies(template, provider, model):
            raise unnamed(template)
    entries = index.match(asked.principal, provider, model)
    return [_standing(entry, by_id[entry.id], leases) for entry in entries]


def _standing(entry: BudgetEntry, status: BudgetStatus, leases: Sequence[LeaseStatus]) -> Standing:
    at_hand = sum(
        lease.left
        for lease in leases
        if lease.state == "open"
        and (lease.budget_id, lease.starts_at) == (entry.id, status.starts_at)
    )
    free = status.limit - status.committed + at_hand
    return Standing(entry, status.limit, status.spent, max(free, 0))


def _rows(
    asked: Asked, standings: Sequence[Standing], verdict: Verdict, instead_of: str = ""
) -> Iterator[Row]:
    """`instead_of`: the model that was asked for, where a spent budget names this one."""
    for name, count, nano in items(verdict.ceiling, asked.price):
        yield {"what": "hold", "name": f"{count:,} {name}", "needs": usd_from_nano(nano)}
    for standing in standings:
        yield _budget_row(standing, verdict)
    yield {
        "what": "call",
        "name": f"{asked.provider}/{asked.facts.model}",
        "needs": usd_from_nano(verdict.ceiling.nano),
        "verdict": _sentence(verdict) + (f", instead of {instead_of}" if instead_of else ""),
        "clamped_to": verdict.clamped_to,
        "blocked_by": verdict.blocking.entry.scope if verdict.blocking else None,
        "downgraded_from": instead_of or None,
    }


def _budget_row(standing: Standing, verdict: Verdict) -> Row:
    entry = standing.entry
    blocks = verdict.blocking is not None and verdict.blocking.entry.id == entry.id
    return {
        "what": "budget",
        "name": f"{entry.scope} per {entry.period} in {entry.unit}{_soft(entry)}",
        "needs": figure(entry.unit, needs(entry, verdict.ceiling)),
        "limit": figure(entry.unit, standing.limit),
        "spent": None if standing.capped else figure(entry.unit, standing.spent),
        "free": None if standing.capped else figure(entry.unit, standing.free),
        "verdict": verdict.word if blocks else _uncounted(standing, verdict),
        "scope": entry.scope,
    }


def _uncounted(standing: Standing, verdict: Verdict) -> str:
    """Of a budget that is not in the way."""
    entry = standing.entry
    over = needs(entry, verdict.ceiling) > standing.limit - standing.spent
    return "passes" if entry.enforce or not over else "would refuse (not enforced)"


def _soft(entry: BudgetEntry) -> str:
    return " (soft)" if entry.learned else ""


def _sentence(verdict: Verdict) -> str:
    """Soft budgets hold what their workers have learned, which nobody else knows: at most the
    ceiling."""
    if verdict.blocking is not None and verdict.blocking.entry.learned:
        return f"{verdict.word}, unless workers have learned that such calls need less"
    if verdict.clamped_to is None:
        return verdict.word
    clamped = f"clamped to {verdict.clamped_to} output tokens"
    return clamped if verdict.word == "clamped" else f"{verdict.word}, {clamped}"
