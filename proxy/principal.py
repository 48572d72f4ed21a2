"""The request headers of our own: who the call is attributed to, tags, a cost cap."""

import re
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal

from db.journal_records import CUSTOMER_TAG
from pricing.money import NANO_PER_USD
from proxy.errors import Refusal
from proxy.request_head import RequestHead
from proxy.scopes import NAME

_AMOUNT = re.compile(r"\d{1,9}(\.\d{0,18})?([eE][+-]?\d)?|\d(\.\d{1,18})?[eE]-\d\d", re.ASCII)
RESERVED_TAG = "tollkeeper."  # tags of our own begin with it
TAGS_MAX = 16
TAG_BYTES_MAX = 128


@dataclass(slots=True)
class OwnHeaders:
    """What the `x-tollkeeper-*` headers of a request say."""

    user: str = ""
    project: str = ""
    customer: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    max_cost_nano: int | None = None
    include_usage: bool = True
    client_retry: int = 0


def own_headers(head: RequestHead) -> OwnHeaders:
    """Parse them. Raises Refusal `invalid_tollkeeper_header`, naming header and problem."""
    own = OwnHeaders()
    retries = head.noted.get(b"x-stainless-retry-count", b"0")
    if retries != b"0" and retries.isdigit() and len(retries) < 4:
        own.client_retry = int(retries)
    for name, value in head.own:
        _parse(own, name.decode("ascii", "replace"), _text(value).strip())
    if own.customer:
        own.tags[CUSTOMER_TAG] = own.customer
    return own


def _text(value: bytes) -> str:
    """Clients send UTF-8, or Latin-1 as HTTP has it."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _parse(own: OwnHeaders, name: str, value: str) -> None:
    if name == "x-tollkeeper-user":
        own.user = _name(name, value)
    elif name == "x-tollkeeper-project":
        own.project = _name(name, value)
    elif name == "x-tollkeeper-customer":
        if own.customer:
            raise _invalid(name, "is given twice")
        own.customer = _name(name, value)
    elif name == "x-tollkeeper-tags":
        own.tags |= _tags(name, value)
        if len(own.tags) > TAGS_MAX:
            raise _invalid(name, f"may hold at most {TAGS_MAX} tags")
    elif name == "x-tollkeeper-max-cost-usd":
        if own.max_cost_nano is not None:
            raise _invalid(name, "is given twice")
        own.max_cost_nano = _usd(name, value)
    elif name == "x-tollkeeper-include-usage":
        if value not in ("on", "off"):
            raise _invalid(name, "must be 'on' or 'off'")
        own.include_usage = value == "on"


def _invalid(name: str, problem: str) -> Refusal:
    return Refusal("invalid_tollkeeper_header", f"{name} {problem}.", {"header": name})


def _name(header: str, value: str) -> str:
    if not NAME.fullmatch(value):
        raise _invalid(header, "must be 1 to 128 letters, digits or . _ @ : + / -")
    return value


def _tags(header: str, value: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in value.split(","))):
        key, equals, text = pair.partition("=")
        if not equals or not key.strip() or len(pair.encode()) > TAG_BYTES_MAX:
            raise _invalid(header, "must be a list like team=search,env=prod (128 bytes a tag)")
        if key.strip().startswith(RESERVED_TAG):
            raise _invalid(header, f"may not name tags that begin with {RESERVED_TAG}")
        if not pair.isprintable():
            raise _invalid(header, "must be printable")
        tags[key.strip()] = text.strip()
    return tags


def _usd(header: str, value: str) -> int:
    """What is finer than a nano-dollar is dropped: a cap is never raised."""
    if not _AMOUNT.fullmatch(value):
        raise _invalid(header, "must be an amount in USD such as 0.25")
    return int((Decimal(value) * NANO_PER_USD).to_integral_value(ROUND_FLOOR))
