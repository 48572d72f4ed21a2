"""The request headers of our own: who the call is attributed to, tags, a cost cap."""

import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from pricing.money import nano_from_usd
from proxy.errors import Refusal
from proxy.request_head import RequestHead

_NAME = re.compile(r"[\w.@:+/-]{1,128}", re.ASCII)
TAGS_MAX = 16
TAG_BYTES_MAX = 128


@dataclass(slots=True)
class OwnHeaders:
    """What the `x-tollkeeper-*` headers of a request say."""

    user: str = ""
    project: str = ""
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
        _parse(own, name.decode("ascii", "replace"), value.decode("latin-1").strip())
    return own


def _parse(own: OwnHeaders, name: str, value: str) -> None:
    if name == "x-tollkeeper-user":
        own.user = _name(name, value)
    elif name == "x-tollkeeper-project":
        own.project = _name(name, value)
    elif name == "x-tollkeeper-tags":
        own.tags = _tags(name, value)
    elif name == "x-tollkeeper-max-cost-usd":
        own.max_cost_nano = _usd(name, value)
    elif name == "x-tollkeeper-include-usage":
        if value not in ("on", "off"):
            raise _invalid(name, "must be 'on' or 'off'")
        own.include_usage = value == "on"


def _invalid(name: str, problem: str) -> Refusal:
    return Refusal("invalid_tollkeeper_header", f"{name} {problem}.", {"header": name})


def _name(header: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise _invalid(header, "must be 1 to 128 letters, digits or . _ @ : + / -")
    return value


def _tags(header: str, value: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in value.split(","))):
        key, equals, text = pair.partition("=")
        if not equals or not key.strip() or len(pair) > TAG_BYTES_MAX:
            raise _invalid(header, "must be a list like team=search,env=prod (128 bytes a tag)")
        tags[key.strip()] = text.strip()
    if len(tags) > TAGS_MAX:
        raise _invalid(header, f"may hold at most {TAGS_MAX} tags")
    return tags


def _usd(header: str, value: str) -> int:
    try:
        usd = Decimal(value)
    except InvalidOperation:
        usd = Decimal(-1)
    if not usd.is_finite() or usd < 0 or usd > 10**9:
        raise _invalid(header, "must be an amount in USD such as 0.25")
    return nano_from_usd(usd)
