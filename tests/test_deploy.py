"""deploy/ against the code: every expression names metrics, labels and values that exist."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from proxy.control.counts import BudgetFigures, Counts, OwnFigures
from proxy.control.metrics import render
from proxy.metrics import TOKENS, Metrics
from proxy.telemetry import ABOVE_CEILING
from tests.promql import Query, parse
from tests.source_code import read

DASHBOARD = json.loads(read("deploy/grafana-dashboard.json"))
RULES = [
    rule
    for group in yaml.safe_load(read("deploy/prometheus-alerts.yml"))["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
VARIABLES = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
OUTCOMES = ("delivered", "failed", "given_up")
VALUES = {  # of labels whose values the code decides
    "type": set(TOKENS),
    "event": {ABOVE_CEILING},
    "outcome": set(OUTCOMES),
    ("tollkeeper_price_lookup_total", "status"): {"priced", "unpriced"},
}


def exported() -> dict[str, set[str]]:
    """Every series the code can export: its name, and its labels."""
    metrics, counts = Metrics(), Counts()
    tokens = {f"{kind}_tokens": 1 for kind in TOKENS}
    times = {"duration_us": 1, "first_chunk_us": 1, "overhead_us": 1}
    metrics.call("openai", "gpt-5", "chat", "200", "", **times, **tokens)
    metrics.blocked("team")
    metrics.spared("team")
    metrics.price_lookup(priced=True)
    metrics.problem(ABOVE_CEILING)
    metrics.provider_cost("openrouter", 1, 1)
    counts.update(b"worker", metrics.encode())
    budgets = (BudgetFigures("team/acme/search", "day", 3, 2, 1),)
    told = ({"budget_threshold": 1}, dict.fromkeys((("ops", name) for name in OUTCOMES), 1))
    text = render(*counts.sums(), OwnFigures("1", "2", *[0] * 7, False, budgets, *told)).decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        assert family.samples, family.name
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


EXPORTED = exported()


def expressions() -> Iterator[tuple[str, str]]:
    yield from ((title, target["expr"]) for title, target in TARGETS)
    yield from ((rule["alert"], rule["expr"]) for rule in RULES)
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield (
                variable["name"],
                variable["query"]["query"].replace(", model)", ")").replace(", provider)", ")"),
            )


QUERIES = [(name, parse(expression)) for name, expression in expressions()]


def base(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)\Z", "", name)


@pytest.mark.parametrize(("name", "query"), QUERIES, ids=[name for name, _ in QUERIES])
def test_series_exist_with_their_labels(name: str, query: Query) -> None:
    assert query.selectors, name
    for selector in query.selectors:
        labels = EXPORTED[selector.metric]
        for label, value in selector.matchers:
            assert label in labels
            known = VALUES.get((selector.metric, label), VALUES.get(label))
            if known is not None and not value.startswith("$"):
                assert set(value.split("|")) <= known
    for label, selector in query.grouped:
        assert label in EXPORTED[selector.metric]


def labels_out(query: Query) -> set[str]:
    if query.labels is not None:
        return set(query.labels)
    return set().union(*(EXPORTED[selector.metric] for selector in query.selectors))


def test_legends_and_summaries_name_labels_that_come_out() -> None:
    for title, target in TARGETS:
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert named <= labels_out(parse(target["expr"])), title
    for rule in RULES:
        text = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels_out(parse(rule["expr"]))


def test_nothing_exported_is_left_out() -> None:
    used = {base(selector.metric) for _, query in QUERIES for selector in query.selectors}
    exported_names = {base(name) for name in EXPORTED if not name.endswith("_created")}
    assert exported_names == used


def test_the_document_lists_what_is_exported_with_its_labels() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([\w, ]*?) ?\|", read("docs/metrics.md"), re.MULTILINE
    )
    documented = {
        name: {part for part in re.split(r", *", labels) if part} for name, _, labels in rows
    }
    found: dict[str, set[str]] = {}
    for name, labels in EXPORTED.items():
        if not name.endswith("_created"):
            found.setdefault(base(name), set()).update(labels - {"le"})
    assert documented == found


def test_rules_are_complete() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_variables_of_the_dashboard_are_declared() -> None:
    text = read("deploy/grafana-dashboard.json")
    named = set(re.findall(r"\$\{?([a-z]\w*)", text))
    assert named == VARIABLES


@pytest.mark.parametrize(
    "expression",
    [
        "sum(rate(a[5m])",
        'a{b="c"',
        "sum by (x) rate(a[5m])",
        "a{b=c}",
        "rate(a[5 m])",
        "sum a",
        "a § b",
        'a{b=="c"}',
        "(a}",
    ],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(expression)


def test_an_expression_is_read_in_full() -> None:
    query = parse('sum by (le, x) (rate(a_bucket{b=~"c|d", e!=""}[5m])) / on (x) f > 0.5')
    assert [selector.metric for selector in query.selectors] == ["a_bucket", "f"]
    assert query.selectors[0].matchers == (("b", "c|d"), ("e", ""))
    assert {(label, selector.metric) for label, selector in query.grouped} == {
        ("le", "a_bucket"),
        ("x", "a_bucket"),
    }
    assert query.labels == {"le", "x"}


def test_the_service_starts_what_there_is() -> None:
    unit: dict[str, Any] = dict(
        line.split("=", 1)
        for line in read("deploy/tollkeeper.service").splitlines()
        if "=" in line and not line.startswith("#")
    )
    assert unit["ExecStart"].endswith("tollkeeper --config /etc/tollkeeper/config.yaml serve")
    assert yaml.safe_load(read("deploy/prometheus.yml"))["rule_files"] == ["prometheus-alerts.yml"]
