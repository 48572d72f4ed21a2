"""`/metrics`: what was counted, in Prometheus' text format.

Rendering thousands of series takes milliseconds, so it is done in a thread, from a copy. Loaded
with the first scrape: the client library brings a web server along.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pricing.money import NANO_PER_USD
from proxy.control.counts import BudgetFigures, OwnFigures
from proxy.metrics import (
    CALLS,
    COST_NANO,
    DURATION,
    DURATION_US,
    FIRST_CHUNK,
    FIRST_TOKEN_COUNT,
    OVERHEAD,
    OVERHEAD_US,
    TOKENS,
    US_PER_S,
    Labels,
    Totals,
)


def render(rows: dict[Labels, list[int]], sums: Totals, own: OwnFigures) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Families([*_of_calls(rows), *_of_workers(sums), *_of_control(own)]))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


# --- calls ---------------------------------------------------------------------------------


def _of_calls(rows: dict[Labels, list[int]]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "tollkeeper_requests",
        "Calls that ended.",
        labels=("provider", "model", "operation", "status", "error_type"),
    )
    for labels, values in rows.items():
        requests.add_metric(labels, values[CALLS])
    yield requests
    yield from _of_spend(rows)
    yield _histogram(
        "tollkeeper_request_duration_seconds",
        "From the request's head to the reply's end.",
        ("provider", "operation"),
        _grouped(rows, (0, 2), DURATION, len(DURATION_US)),
        DURATION_US,
    )
    yield _histogram(
        "tollkeeper_time_to_first_chunk_seconds",
        "From the request's head to the first byte of the reply.",
        ("provider", "operation"),
        _grouped(rows, (0, 2), FIRST_CHUNK, len(DURATION_US)),
        DURATION_US,
    )
    yield _histogram(
        "tollkeeper_overhead_seconds",
        "Spent in Tollkeeper: before forwarding, and on a reply that is no stream.",
        ("provider",),
        _grouped(rows, (0,), OVERHEAD, len(OVERHEAD_US)),
        OVERHEAD_US,
    )


def _of_spend(rows: dict[Labels, list[int]]) -> Iterator[Metric]:
    tokens = CounterMetricFamily(
        "tollkeeper_tokens",
        "Tokens; cache_read and cache_write are part of input, reasoning of output.",
        labels=("provider", "model", "type"),
    )
    cost = CounterMetricFamily(
        "tollkeeper_cost_usd", "Cost of settled calls.", labels=("provider", "model")
    )
    width = FIRST_TOKEN_COUNT + len(TOKENS) - COST_NANO
    for labels, (nano, *counts) in _grouped(rows, (0, 1), COST_NANO, width - 2).items():
        cost.add_metric(labels, nano / NANO_PER_USD)
        for kind, count in zip(TOKENS, counts, strict=True):
            if count:
                tokens.add_metric((*labels, kind), count)
    yield tokens
    yield cost


def _grouped(
    rows: dict[Labels, list[int]], by: tuple[int, ...], start: int, bounds: int
) -> dict[tuple[str, ...], list[int]]:
    """Rows added up under fewer labels: the `bounds + 2` places from `start` on."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for labels, values in rows.items():
        _add(groups, tuple(labels[index] for index in by), values[start : start + bounds + 2])
    return groups


def _histogram(
    name: str,
    text: str,
    labels: tuple[str, ...],
    groups: dict[tuple[str, ...], list[int]],
    bounds_us: tuple[int, ...],
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    names = [*(repr(bound / US_PER_S) for bound in bounds_us), "+Inf"]
    for values, (total_us, *buckets) in groups.items():
        if not any(buckets):
            continue
        cumulated, seen = [], 0
        for bound, count in zip(names, buckets, strict=True):
            seen += count
            cumulated.append((bound, float(seen)))
        family.add_metric(values, cumulated, total_us / US_PER_S)
    return family


def _add(groups: dict[tuple[str, ...], list[int]], key: tuple[str, ...], more: list[int]) -> None:
    known = groups.get(key)
    groups[key] = list(more) if known is None else [a + b for a, b in zip(known, more, strict=True)]


# --- the rest ------------------------------------------------------------------------------


def _of_workers(sums: Totals) -> Iterator[Metric]:
    counters = (
        ("tollkeeper_budget_blocked", "Calls refused for a budget.", "scope_kind", sums.blocked),
        (
            "tollkeeper_budget_would_block",
            "Calls that a budget would have refused, were it enforced.",
            "scope_kind",
            sums.spared,
        ),
        ("tollkeeper_price_lookup", "Prices looked up.", "status", sums.lookups),
        ("tollkeeper_problems", "Operational errors, logged each.", "event", sums.problems),
    )
    for name, text, label, counts in counters:
        family = CounterMetricFamily(name, text, labels=(label,))
        for value, count in sorted(counts.items()):
            family.add_metric((value,), count)
        yield family
    yield from _of_provider_costs(sums.provider_costs)
    yield GaugeMetricFamily("tollkeeper_in_flight_requests", "Calls in flight.", sums.in_flight)


def _of_provider_costs(sums: dict[str, list[int]]) -> Iterator[Metric]:
    families = [
        CounterMetricFamily(name, text, labels=("provider",))
        for name, text in (
            ("tollkeeper_provider_cost_calls", "Calls whose reply has the provider's own figure."),
            ("tollkeeper_provider_cost_drift_calls", "Those the price table prices otherwise."),
            ("tollkeeper_provider_cost_reported_usd", "Sum of the providers' own figures."),
            ("tollkeeper_provider_cost_priced_usd", "Sum of our prices of the same calls."),
        )
    ]
    for provider, (calls, drifted, reported, priced) in sorted(sums.items()):
        values = (calls, drifted, reported / NANO_PER_USD, priced / NANO_PER_USD)
        for family, value in zip(families, values, strict=True):
            family.add_metric((provider,), value)
    return iter(families)


def _of_control(own: OwnFigures) -> Iterator[Metric]:
    counters = (
        ("tollkeeper_ledger_write_retries", "Transactions that were repeated.", own.retries),
        ("tollkeeper_ledger_rows", "Cost rows written.", own.rows),
        ("tollkeeper_ledger_duplicates", "Rows that were there already.", own.duplicates),
        ("tollkeeper_dead_letters", "Records the ledger could not take.", own.dead_letters),
    )
    for name, text, value in counters:
        yield CounterMetricFamily(name, text, value)
    gauges = (
        ("tollkeeper_ledger_queue_depth", "Journal bytes not in the ledger.", own.queue_bytes),
        ("tollkeeper_ledger_outage", "1: the ledger is out of reach.", int(own.outage)),
        ("tollkeeper_waiting_calls", "Calls that wait for money to be leased.", own.waiting),
        ("tollkeeper_workers", "Workers connected.", own.workers),
    )
    for name, text, value in gauges:
        yield GaugeMetricFamily(name, text, value)
    labels = ("version", "pricing_version")
    build = GaugeMetricFamily("tollkeeper_build_info", "Always 1.", labels=labels)
    build.add_metric((own.version, own.pricing_version), 1)
    yield build
    yield from _of_budgets(own.budgets)
    yield from _of_alerts(own)


def _of_budgets(budgets: tuple[BudgetFigures, ...]) -> Iterator[Metric]:
    families = [
        GaugeMetricFamily(name, text, labels=("scope", "period"))
        for name, text in (
            ("tollkeeper_budget_limit_usd", "Limit of a budget above key level."),
            ("tollkeeper_budget_spent_usd", "Spent in the current window."),
            ("tollkeeper_budget_reserved_usd", "Committed and not spent."),
        )
    ]
    for each in budgets:
        reserved = each.committed_nano - each.spent_nano
        values = (each.limit_nano, each.spent_nano, reserved)
        for family, nano in zip(families, values, strict=True):
            family.add_metric((each.scope, each.period), nano / NANO_PER_USD)
    return iter(families)


def _of_alerts(own: OwnFigures) -> Iterator[Metric]:
    raised = CounterMetricFamily("tollkeeper_alerts", "Alerts raised.", labels=("kind",))
    for kind, count in sorted(own.alerts.items()):
        raised.add_metric((kind,), count)
    yield raised
    tried = CounterMetricFamily(
        "tollkeeper_alert_deliveries", "Attempts to deliver.", labels=("channel", "outcome")
    )
    for labels, count in sorted(own.deliveries.items()):
        tried.add_metric(labels, count)
    yield tried
