"""What the dialects' request parsing shares. Everything raised is a Refusal `bad_request` that
says what is wrong and what to do.
"""

import re
from urllib.parse import unquote

from msgspec import DecodeError, json

from proxy.errors import Refusal
from proxy.providers.base import Route
from proxy.providers.fields import COUNT_MAX, MODEL_CHARS_MAX

READ_METHODS = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))
WRITE_METHODS = frozenset(("POST", "PUT", "PATCH"))
READ = Route("read", "free")
OTHER = Route("other", "unmetered")

NO_OWN_BOUND = -1  # RequestSize.tool_windows: the budget's `server_tool_passes` applies
WEB_SEARCHES_DEFAULT = 10  # billable searches held for a request that sets no limit; most seen: 3


def parse_body(body: bytes) -> dict[str, object]:
    """The request as a dict, parsed once."""
    try:
        parsed = json.decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError) as exc:
        what = "empty" if not body else f"not valid JSON ({exc})"
        raise bad(f"the request body is {what}: send one JSON object") from None
    if type(parsed) is not dict:
        raise bad('the request body is not a JSON object: send an object such as {"model": ...}')
    return parsed


def bad(message: str) -> Refusal:
    return Refusal("bad_request", message)


def may_name(body: bytes, key: bytes) -> bool:
    """Whether a JSON text can have this key; False spares parsing it to know."""
    return key in body or b"\\u" in body  # a key may be spelled in escapes


def path_segment(segment: str) -> str:
    """A name in a path, percent-decoded."""
    return unquote(segment) if "%" in segment else segment


def checked_model(model: object) -> str:
    if type(model) is not str or not model:
        raise bad("`model` is missing or not a string: name the model to call")
    if len(model) > MODEL_CHARS_MAX:
        raise bad(f"`model` is longer than {MODEL_CHARS_MAX} characters")
    return model


def checked_flag(body: dict[str, object], name: str) -> bool:
    value = body.get(name)
    if value is None or type(value) is bool:
        return bool(value)
    raise bad(f"`{name}` must be true or false")


def checked_count(fields: dict[str, object], name: str, least: int = 1) -> int | None:
    """A whole number of at least `least`; None if absent. A decimal string counts, since some
    providers take one."""
    value = fields.get(name)
    if value is None or (type(value) is int and least <= value <= COUNT_MAX):
        return value
    if (type(value) is float and value.is_integer()) or _is_decimal(value):
        value = int(value)  # type: ignore[call-overload]
    if type(value) is not int or not least <= value <= COUNT_MAX:
        raise bad(f"`{name}` must be a whole number of at least {least}")
    return value


def _is_decimal(value: object) -> bool:
    return type(value) is str and len(value) <= 12 and value.isascii() and value.isdigit()


_search_unclear = re.compile(r"[?#;\\\n\r\0]").search


def path_end(path: str) -> str | None:
    """A path decoded, without trailing slashes; None where its end may not be what the provider
    sees (dot segments, parameters, fragments, control characters)."""
    if "%" in path:
        path = unquote(path)
    path = path.rstrip("/")
    if "/." in path and any(part in (".", "..") for part in path.split("/")):
        return None
    if _search_unclear(path):
        return None
    return path


def insert_first(body: bytes, key: str, value: object) -> bytes:
    """`body` with a new key in front; every other byte stays. The object must not be empty."""
    brace = body.index(b"{") + 1
    return b"%b%b:%b,%b" % (body[:brace], json.encode(key), json.encode(value), body[brace:])


def with_edits(request: dict[str, object], body: bytes, edits: dict[str, object]) -> bytes:
    """`body` with top-level keys set. New keys are spliced in, so that every other byte stays;
    a key that is there already means encoding the request again."""
    if any(key in request for key in edits):
        return json.encode({**request, **edits})
    for key, value in edits.items():
        body = insert_first(body, key, value)
    return body


Posts = tuple[tuple[str, Route], ...]  # (end of the path, route)


def route_by_end(posts: Posts, method: str, path: str) -> Route | None:
    """The route of a path: reads are free, a POST not listed is unmetered, never unknown."""
    if not path.startswith("/"):
        return None
    if method == "POST":
        end = path_end(path)
        if end is not None:
            for suffix, route in posts:
                if end.endswith(suffix):
                    return route
        return OTHER
    if method in READ_METHODS:
        return READ
    return OTHER if method in WRITE_METHODS else None


def route_table(
    posts: Posts, prefix: str, reads: tuple[str, ...]
) -> tuple[tuple[str, str, Route], ...]:
    """The rows of `Dialect.routes`. A suffix may name the prefix, so that nothing else ends so."""
    return (
        *(("POST", prefix + suffix.removeprefix(prefix), route) for suffix, route in posts),
        *(("GET", path, READ) for path in reads),
        ("POST", prefix + "/anything/else", OTHER),
    )
