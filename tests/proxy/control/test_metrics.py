"""Workers' counts added up, and the text a Prometheus server reads."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.control.counts import BudgetFigures, Counts, OwnFigures
from proxy.control.metrics import render
from proxy.metrics import Metrics

OWN = OwnFigures(
    version="1.0",
    pricing_version="2026",
    retries=1,
    rows=2,
    duplicates=3,
    dead_letters=4,
    queue_bytes=5,
    waiting=6,
    workers=7,
    outage=True,
    budgets=(BudgetFigures("team/acme/search", "day", 10**9, 25 * 10**7, 5 * 10**8),),
)


def a_worker(calls: int = 1) -> Metrics:
    metrics = Metrics()
    for _ in range(calls):
        metrics.call(
            "openai", "gpt-5", "chat", "200", "", duration_us=2_000_000, first_chunk_us=70_000,
            overhead_us=400, input_tokens=10, output_tokens=3, cost_nano=500_000_000,
        )  # fmt: skip
    metrics.provider_cost("openrouter", 3 * 10**8, 10**8)
    metrics.provider_cost("openrouter", 10**8 + 1, 10**8)  # rounded otherwise
    metrics.blocked("team")
    metrics.in_flight = 2
    return metrics


def samples(counts: Counts, own: OwnFigures = OWN) -> dict[tuple[str, ...], float]:
    """(name, sorted label values...) -> value."""
    text = render(*counts.sums(), own).decode()
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_two_workers_are_added_up():
    counts = Counts()
    counts.update(b"a", a_worker(2).encode())
    counts.update(b"b", a_worker(3).encode())
    found = samples(counts)
    model = ("model=gpt-5", "provider=openai")
    assert (
        found["tollkeeper_requests_total", "error_type=", *model[:1], "operation=chat", model[1],
              "status=200"] == 5
    )  # fmt: skip
    assert found["tollkeeper_cost_usd_total", *model] == 2.5
    assert found["tollkeeper_tokens_total", *model, "type=input"] == 50
    assert found["tollkeeper_budget_blocked_total", "scope_kind=team"] == 2
    provider = "provider=openrouter"
    assert found["tollkeeper_provider_cost_calls_total", provider] == 4
    assert found["tollkeeper_provider_cost_drift_calls_total", provider] == 2
    assert found["tollkeeper_provider_cost_reported_usd_total", provider] == pytest.approx(0.8)
    assert found["tollkeeper_provider_cost_priced_usd_total", provider] == pytest.approx(0.4)
    assert found["tollkeeper_in_flight_requests",] == 4


def test_histograms_are_cumulative_and_in_seconds():
    counts = Counts()
    counts.update(b"a", a_worker(2).encode())
    found = samples(counts)
    labels = ("operation=chat", "provider=openai")
    name = "tollkeeper_request_duration_seconds"
    assert found[f"{name}_bucket", "le=1.0", *labels] == 0
    assert found[f"{name}_bucket", "le=2.5", *labels] == 2
    assert found[f"{name}_bucket", "le=+Inf", *labels] == found[f"{name}_count", *labels] == 2
    assert found[f"{name}_sum", *labels] == 4.0
    assert found["tollkeeper_overhead_seconds_sum", "provider=openai"] == pytest.approx(0.0008)
    assert found["tollkeeper_time_to_first_chunk_seconds_bucket", "le=0.1", *labels] == 2


def test_counters_of_a_dead_worker_stay_and_its_calls_are_no_longer_in_flight():
    counts = Counts()
    worker = a_worker(2)
    counts.update(b"a", worker.encode())
    before = samples(counts)
    counts.bury(b"a")
    counts.bury(b"a")
    counts.update(b"b", a_worker(1).encode())
    after = samples(counts)
    name = ("tollkeeper_cost_usd_total", "model=gpt-5", "provider=openai")
    assert (before[name], after[name]) == (1.0, 1.5)
    calls = ("tollkeeper_provider_cost_calls_total", "provider=openrouter")
    assert (before[calls], after[calls]) == (2, 4)
    assert after["tollkeeper_budget_blocked_total", "scope_kind=team"] == 2
    assert after["tollkeeper_in_flight_requests",] == 2


def test_a_message_that_comes_twice_changes_nothing():
    counts = Counts()
    data = a_worker(2).encode()
    counts.update(b"a", data)
    once = samples(counts)
    counts.update(b"a", data)
    assert samples(counts) == once


def test_controls_own_figures():
    found = samples(Counts())
    assert found["tollkeeper_build_info", "pricing_version=2026", "version=1.0"] == 1
    expected = {
        "tollkeeper_ledger_write_retries_total": 1,
        "tollkeeper_ledger_rows_total": 2,
        "tollkeeper_ledger_duplicates_total": 3,
        "tollkeeper_dead_letters_total": 4,
        "tollkeeper_ledger_queue_depth": 5,
        "tollkeeper_waiting_calls": 6,
        "tollkeeper_workers": 7,
        "tollkeeper_ledger_outage": 1,
    }
    assert {name: found[name,] for name in expected} == expected
    scope = ("period=day", "scope=team/acme/search")
    assert found["tollkeeper_budget_limit_usd", *scope] == 1
    assert found["tollkeeper_budget_spent_usd", *scope] == 0.25
    assert found["tollkeeper_budget_reserved_usd", *scope] == 0.25


def test_labels_are_escaped():
    counts = Counts()
    metrics = Metrics()
    metrics.call('a"b\\', "m\n", "chat", "200", "", duration_us=1)
    counts.update(b"a", metrics.encode())
    assert any('provider=a"b\\' in key for key in samples(counts))


def test_what_is_notable_is_added_up_the_dead_included():
    counts = Counts()
    for name in (b"a", b"b"):
        worker = a_worker()
        worker.notable("unpriced_model", "openai/new")
        counts.update(name, worker.encode())
    counts.bury(b"a")
    assert counts.sums()[1].notable == {"unpriced_model": {"openai/new": 2}}
    assert counts.sums()[1].notable == {"unpriced_model": {"openai/new": 2}}
