"""Counting in a worker: totals of what changed, and never more series than there may be."""

from proxy.metrics import (
    CALLS,
    COST_NANO,
    DURATION,
    DURATION_US,
    FIRST_CHUNK,
    FIRST_TOKEN_COUNT,
    NOTABLE_MAX,
    OTHER,
    OVERHEAD,
    ROW_LENGTH,
    SERIES_MAX,
    TOKENS,
    Metrics,
    decode_totals,
)

LABELS = ("openai", "gpt-5", "chat", "200", "")


def count(metrics: Metrics, *labels: str, **fields: int) -> None:
    metrics.call(*(labels or LABELS), **({"duration_us": 60_000} | fields))


def row(metrics: Metrics, labels=LABELS) -> list[int]:
    (values,) = [v for key, v in decode_totals(metrics.encode()).rows if tuple(key) == labels]
    return values


def test_a_call_is_counted_in_every_place():
    metrics = Metrics()
    count(
        metrics,
        first_chunk_us=50_000,
        overhead_us=101,
        input_tokens=1,
        output_tokens=2,
        cache_read_tokens=3,
        cache_write_tokens=4,
        reasoning_tokens=5,
        cost_nano=6,
    )
    values = row(metrics)
    assert len(values) == ROW_LENGTH
    assert (values[CALLS], values[COST_NANO]) == (1, 6)
    assert values[FIRST_TOKEN_COUNT : FIRST_TOKEN_COUNT + len(TOKENS)] == [1, 2, 3, 4, 5]
    assert (values[DURATION], values[DURATION + 2]) == (60_000, 1)
    assert (values[FIRST_CHUNK], values[FIRST_CHUNK + 1]) == (50_000, 1), "a bound is inclusive"
    assert (values[OVERHEAD], values[OVERHEAD + 2]) == (101, 1)


def test_times_that_were_not_measured_are_not_counted():
    metrics = Metrics()
    count(metrics)
    values = row(metrics)
    assert not any(values[FIRST_CHUNK:])


def test_what_is_beyond_the_last_bound_has_a_bucket():
    metrics = Metrics()
    count(metrics, duration_us=DURATION_US[-1] + 1, overhead_us=10**9)
    values = row(metrics)
    assert values[FIRST_CHUNK - 1] == 1
    assert values[ROW_LENGTH - 1] == 1


def test_only_what_changed_is_sent_and_as_totals():
    metrics = Metrics()
    assert metrics.encode() == b""
    count(metrics)
    count(metrics, "openai", "gpt-5", "chat", "500", "server_error")
    metrics.blocked("team")
    metrics.price_lookup(priced=True)
    metrics.price_lookup(priced=False)
    metrics.problem("metering failed")
    first = decode_totals(metrics.encode())
    assert len(first.rows) == 2
    assert first.blocked == {"team": 1}
    assert first.lookups == {"priced": 1, "unpriced": 1}
    assert first.problems == {"metering failed": 1}
    assert metrics.encode() == b""
    count(metrics)
    (changed,) = decode_totals(metrics.encode()).rows
    assert (tuple(changed[0]), changed[1][CALLS]) == (LABELS, 2)


def test_calls_in_flight_are_news():
    metrics = Metrics()
    metrics.in_flight = 3
    assert decode_totals(metrics.encode()).in_flight == 3
    assert metrics.encode() == b""
    metrics.in_flight = 0
    assert decode_totals(metrics.encode()).in_flight == 0


def test_series_are_bounded():
    metrics = Metrics()
    for number in range(SERIES_MAX + 50):
        count(metrics, "openai", f"model-{number}", "chat", "200", "")
    rows = decode_totals(metrics.encode()).rows
    assert len(rows) == SERIES_MAX + 1
    (other,) = [values for labels, values in rows if labels[0] == OTHER]
    assert other[CALLS] == 50


def test_what_is_notable_is_counted_by_name_up_to_a_bound():
    metrics = Metrics()
    for number in range(NOTABLE_MAX + 5):
        metrics.notable("unpriced_model", f"openai/{number}")
    metrics.notable("unpriced_model", "openai/0")
    counts = decode_totals(metrics.encode()).notable["unpriced_model"]
    assert len(counts) == NOTABLE_MAX + 1
    assert (counts["openai/0"], counts[OTHER]) == (2, 5)
    assert metrics.encode() == b""
