"""As much of PromQL as dashboards and alert rules need: which series an expression reads."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

AGGREGATIONS = frozenset(("sum", "avg", "min", "max", "count", "topk"))
FUNCTIONS = frozenset(("rate", "increase", "histogram_quantile", "sort_desc", "label_values"))
GROUPINGS = frozenset(("by", "without", "on", "ignoring", "group_left", "group_right"))
WORDS = frozenset(("and", "or", "unless", "bool", "offset"))
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<range>\[(?:\d+[smhdwy]|\$__rate_interval|\$__range)\])
    | (?P<text>"(?:[^"\\]|\\.)*")
    | (?P<number>\d+(?:\.\d+)?[smhdwy]?)
    | (?P<name>[a-zA-Z_][a-zA-Z0-9_]*)
    | (?P<operator>=~|!~|!=|==|>=|<=|[-+*/<>=(){},])
    )""",
    re.VERBOSE,
)


class Selector(NamedTuple):
    """A metric and the matchers on it."""

    metric: str
    matchers: tuple[tuple[str, str], ...]  # label, value


class Query(NamedTuple):
    selectors: tuple[Selector, ...]
    grouped: tuple[tuple[str, Selector], ...]  # a label and a metric that must have it
    labels: frozenset[str] | None  # of what comes out; None: those of the metrics


class Token(NamedTuple):
    kind: str
    text: str


def tokens(expression: str) -> list[Token]:
    """Raises ValueError at what is no token."""
    out, at, text = [], 0, expression.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise ValueError(f"{text[at:]!r} in {expression!r}")
        out.append(Token(match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return out


def parse(expression: str) -> Query:
    """Raises ValueError for what it does not understand."""
    found = tokens(expression)
    selectors: dict[int, Selector] = {}
    groups: list[tuple[frozenset[str], int, int]] = []
    aggregated, at = False, 0
    _check_brackets(found)
    while at < len(found):
        kind, text = found[at]
        if kind != "name" or text in WORDS:
            at += 1
        elif text in GROUPINGS:
            labels, at = _labels(found, at + 1)
            if text == "by":
                groups.append((labels, at, _closing(found, at)))
        elif text in AGGREGATIONS | FUNCTIONS:
            aggregated |= text in AGGREGATIONS
            at += 1
            if found[at].text not in ("(", "by", "without"):
                raise ValueError(f"{text} is not called in {expression!r}")
        else:
            place = at
            matchers, at = _matchers(found, at + 1)
            selectors[place] = Selector(text, matchers)
    grouped = tuple(
        (label, selector)
        for labels, start, end in groups
        for label in labels
        for place, selector in selectors.items()
        if start < place < end
    )
    outer = groups[0][0] if groups else frozenset()
    return Query(tuple(selectors.values()), grouped, outer if aggregated else None)


def _check_brackets(found: Sequence[Token]) -> None:
    depth: list[str] = []
    for _, text in found:
        if text in ("(", "{"):
            depth.append({"(": ")", "{": "}"}[text])
        elif text in (")", "}") and (not depth or depth.pop() != text):
            raise ValueError("brackets do not match")
    if depth:
        raise ValueError("a bracket is not closed")


def _closing(found: Sequence[Token], at: int) -> int:
    """Where the bracket that opens at `at` is closed."""
    if at >= len(found) or found[at].text != "(":
        raise ValueError("expected the grouping in front of what is grouped")
    depth = 0
    for place in range(at, len(found)):
        depth += {"(": 1, ")": -1}.get(found[place].text, 0)
        if not depth:
            return place
    raise ValueError("a bracket is not closed")


def _labels(found: Sequence[Token], at: int) -> tuple[frozenset[str], int]:
    end = _closing(found, at)
    return frozenset(token.text for token in found[at + 1 : end] if token.kind == "name"), end + 1


def _matchers(found: Sequence[Token], at: int) -> tuple[tuple[tuple[str, str], ...], int]:
    if at >= len(found) or found[at].text != "{":
        return (), at
    end = next(place for place in range(at, len(found)) if found[place].text == "}")
    return tuple(_pairs(found[at + 1 : end])), end + 1


def _pairs(found: Sequence[Token]) -> Iterator[tuple[str, str]]:
    for at in range(0, len(found), 4):
        label, operator, value = found[at : at + 3]
        if label.kind != "name" or operator.text not in ("=", "!=", "=~", "!~"):
            raise ValueError(f"{label.text}{operator.text} is no matcher")
        if value.kind != "text" or (at + 3 < len(found) and found[at + 3].text != ","):
            raise ValueError(f"{value.text} is no value")
        yield label.text, value.text[1:-1]
