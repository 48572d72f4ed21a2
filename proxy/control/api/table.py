"""What an endpoint is. `endpoints.py` lists them all."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from db.audit import Actor
from proxy.control.api.backend import Backend
from proxy.control.identity import Identity, Role

PREFIX = "/admin/api"
BODY_BYTES_MAX = 2**20
PAGE_MAX = 1_000
PAGE = 100

Text = Annotated[str, Meta(max_length=512)]
Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]
PageSize = Annotated[int, Meta(ge=1, le=PAGE_MAX, description="How many at most.")]
Cursor = Annotated[str, Meta(max_length=256, description="`next` of the page before.")]


T = TypeVar("T")


class Caller(NamedTuple):
    identity: Identity
    address: str

    @property
    def actor(self) -> Actor:
        return Actor(self.identity.name, self.address)


class Page(Struct, Generic[T], frozen=True):
    items: list[T]
    next: str | None  # `cursor` of the next page; None: this is the last


Handler = Callable[[Backend, Caller, Any], Awaitable[Any]]


class Endpoint(NamedTuple):
    """`request` holds everything that is asked: fields named in the path come from there, the
    others from the query, or from the JSON body of POST and PATCH."""

    method: str
    path: str  # below PREFIX
    handler: Handler
    request: type[Struct]
    answer: Any  # the type of what is answered, as JSON
    role: Role
    summary: str
    status: int = 200
    also: tuple[str, ...] = ()  # media types it can answer in besides JSON
    body_bytes_max: int = BODY_BYTES_MAX


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what is asked."""


class PageRequest(Request, frozen=True, kw_only=True):
    cursor: Cursor = ""
    limit: PageSize = PAGE


class ById(Request, frozen=True, kw_only=True):
    id: Id


class Done(Struct, frozen=True):
    done: bool = True


class Nothing(Request, frozen=True):
    """No parameters."""


class Where(Request, frozen=True, kw_only=True):
    """Whose calls: every condition that is given must hold. `tag:NAME=VALUE`, any number of them,
    ends up in `tags` by its whole name."""

    organization: Text | UnsetType = UNSET
    team: Text | UnsetType = UNSET
    project: Text | UnsetType = UNSET
    user: Text | UnsetType = UNSET
    key: Text | UnsetType = UNSET
    customer: Text | UnsetType = UNSET
    provider: Text | UnsetType = UNSET
    model: Text | UnsetType = UNSET
    route: Text | UnsetType = UNSET
    ending: Text | UnsetType = UNSET
    price_version: Text | UnsetType = UNSET
    tags: dict[str, Text] = {}

    def conditions(self) -> dict[str, str]:
        """By dimension."""
        named = {name: getattr(self, name) for name in DIMENSIONS}
        return {name: value for name, value in named.items() if value is not UNSET} | self.tags


DIMENSIONS = tuple(name for name in Where.__struct_fields__ if name != "tags")
TAG = "tag:"


class Problem(Struct, frozen=True, kw_only=True):
    code: str
    message: str
    param: str | None = None  # what it is about, if it is a parameter


class Failed(Struct, frozen=True):
    error: Problem
