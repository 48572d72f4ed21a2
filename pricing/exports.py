"""Providers' own cost exports, as amounts per day and model. Days are UTC, as providers' are.

openai      GET /v1/organization/costs, pages of daily buckets, `group_by=line_item`: amounts in
            USD; a line item is "MODEL, kind" ("gpt-5-2025-08-07, cached input")
anthropic   GET /v1/organizations/cost_report, `group_by[]=description`: amounts in cents, as
            decimal text; costs of server tools name no model
openrouter  GET /api/v1/activity (a JSON list of days by endpoint), or the CSV of the activity
            page, one row per generation
csv         any table with a day, an amount and perhaps a model, its columns named by a mapping

A JSON file holds one answer of the API or a list of them, as they come page by page.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from pricing.errors import ExportError
from pricing.money import nano_from_usd

EXPORT_BYTES_MAX = 256 * 2**20
DAYS_MAX = 3_660
CENTS = 100
TOOL = "tool:"  # in front of the name of a tool whose calls are billed on lines of their own
_TOOLS = {
    "web search": "web_search",
    "file search": "file_search",
    "code interpreter": "code_interpreter",
    "code execution": "code_execution",
}
OPENROUTER_CSV = {"day": "created_at", "model": "model_permaslug", "cost_usd": "cost_total"}
MAPPING_KEYS = ("day", "model", "cost_usd", "cost_cents")


class Line(NamedTuple):
    day: date
    model: str  # "": of no model in particular
    usd: Decimal


class Export(NamedTuple):
    """What a provider says calls cost, by day and model, and every day it speaks of."""

    days: tuple[date, ...]
    nano: dict[tuple[date, str], int]


def read_export(source: str, data: bytes, mapping: Mapping[str, str] | None = None) -> Export:
    """`mapping`: for `csv`, columns by MAPPING_KEYS. Raises ExportError."""
    if len(data) > EXPORT_BYTES_MAX:
        raise ExportError(f"larger than {EXPORT_BYTES_MAX >> 20} MB")
    try:
        text = data.decode("utf-8-sig")
        if source == "csv":
            return _spanning(_csv_lines(text, mapping or {}))
        if source == "openrouter" and not text.lstrip().startswith(("{", "[")):
            return _spanning(_csv_lines(text, OPENROUTER_CSV))
        return _JSON_SOURCES[source](_answers(text))
    except UnicodeDecodeError as error:
        raise ExportError(f"not UTF-8: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
        raise ExportError(f"not an export of {source}: {error!r}") from error


# --- JSON ----------------------------------------------------------------------------------


def _answers(text: str) -> list[dict[str, Any]]:
    """Numbers as exact decimals."""
    try:
        document = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"not JSON: {error}") from error
    answers = document if isinstance(document, list) else [document]
    if not all(isinstance(answer, dict) and "data" in answer for answer in answers):
        raise ExportError("expected an answer of the API with `data`, or a list of them")
    return answers


def _openai(answers: list[dict[str, Any]]) -> Export:
    lines, days = [], set()
    for answer in answers:
        for bucket in answer["data"]:
            day = datetime.fromtimestamp(int(bucket["start_time"]), UTC).date()
            days.add(day)
            for result in bucket["results"]:
                amount = result["amount"]
                _check_usd(amount["currency"])
                item = str(result.get("line_item") or "")
                usd = _decimal(amount["value"])
                lines.append(Line(day, _tool(item) or item.partition(",")[0].strip(), usd))
    return _export(days, lines)


def _anthropic(answers: list[dict[str, Any]]) -> Export:
    lines, days = [], set()
    for answer in answers:
        for bucket in answer["data"]:
            day = _day(bucket["starting_at"])
            days.add(day)
            for result in bucket["results"]:
                _check_usd(result["currency"])
                kind = str(result.get("cost_type") or "").replace("_", " ")
                model = result.get("model") or _tool(kind)
                lines.append(Line(day, model, _decimal(result["amount"]) / CENTS))
    return _export(days, lines)


def _openrouter(answers: list[dict[str, Any]]) -> Export:
    return _spanning(
        Line(_day(row["date"]), str(row["model"]), _decimal(row["usage"]))
        for answer in answers
        for row in answer["data"]
    )


_JSON_SOURCES: dict[str, Callable[[list[dict[str, Any]]], Export]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "openrouter": _openrouter,
}
SOURCES = (*_JSON_SOURCES, "csv")


def _tool(item: str) -> str:
    """A line of a tool's calls; "": it is none."""
    item = item.lower()
    return next((TOOL + name for words, name in _TOOLS.items() if words in item), "")


def _check_usd(currency: object) -> None:
    if str(currency).upper() != "USD":
        raise ExportError(f"amounts in {currency}, expected USD")


# --- CSV -----------------------------------------------------------------------------------


def _csv_lines(text: str, mapping: Mapping[str, str]) -> Iterator[Line]:
    unknown = sorted(mapping.keys() - set(MAPPING_KEYS))
    if unknown:
        raise ExportError(f"mapping: unknown {unknown[0]!r}; known: {', '.join(MAPPING_KEYS)}")
    if "day" not in mapping or ("cost_usd" in mapping) == ("cost_cents" in mapping):
        raise ExportError("mapping: name the columns of day and of either cost_usd or cost_cents")
    rows = csv.DictReader(io.StringIO(text))
    missing = [name for name in mapping.values() if name not in (rows.fieldnames or ())]
    if missing:
        raise ExportError(f"line 1: no column {missing[0]!r}")
    cost, unit = ("cost_usd", 1) if "cost_usd" in mapping else ("cost_cents", CENTS)
    try:
        for row in rows:
            usd = _decimal(row[mapping[cost]]) / unit
            model = row[mapping["model"]] if "model" in mapping else ""
            yield Line(_day(row[mapping["day"]]), model or "", usd)
    except ExportError as error:
        raise ExportError(f"line {rows.line_num}: {error}") from error
    except csv.Error as error:
        raise ExportError(f"line {rows.line_num}: not CSV: {error}") from error


# --- values --------------------------------------------------------------------------------


def _decimal(value: object) -> Decimal:
    """A number, or its text with or without "$" and thousands' commas."""
    text = str(value).strip().replace("$", "").replace(",", "")
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or isinstance(value, bool):
        raise ExportError(f"{value!r} is no amount")
    return amount


def _day(value: object) -> date:
    """The UTC day of a date, a timestamp (UTC unless it says otherwise) or unix seconds."""
    text = str(value).strip()
    try:
        if text.isdecimal() and len(text) > len("20260131"):
            return datetime.fromtimestamp(int(text), UTC).date()
        at = datetime.fromisoformat(text.removesuffix(" UTC"))
    except (ValueError, OverflowError, OSError):
        raise ExportError(f"{value!r} is no date") from None
    return (at.astimezone(UTC) if at.tzinfo else at).date()


def _spanning(lines: Iterable[Line]) -> Export:
    """An export that does not mention days without costs."""
    found = list(lines)
    days = {line.day for line in found}
    if days:
        first, last = min(days), max(days)
        if (last - first).days >= DAYS_MAX:
            raise ExportError(f"spans more than {DAYS_MAX} days: {first} to {last}")
        days = {first + timedelta(n) for n in range((last - first).days + 1)}
    return _export(days, found)


def _export(days: Iterable[date], lines: Iterable[Line]) -> Export:
    usd: dict[tuple[date, str], Decimal] = {}
    for line in lines:
        key = (line.day, line.model)
        usd[key] = usd.get(key, Decimal(0)) + line.usd
    nano = {key: nano_from_usd(amount) for key, amount in usd.items()}
    return Export(tuple(sorted(days)), nano)
