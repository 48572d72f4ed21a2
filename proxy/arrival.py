"""What the head of a request says: where its call goes, whose it is, what is sent upstream.

An SDK sends the same head with every call on a connection, but for the length of the body. A
connection keeps what its last head said (`server_direct.py`), so that a call on a kept
connection is routed and authenticated by one comparison of bytes. It holds for one snapshot: a
revoked key or a changed provider makes a new one.
"""

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from db.journal_records import CUSTOMER_TAG
from pricing.price import Price
from proxy.forward import request_head
from proxy.providers.base import Route
from proxy.scopes import Principal
from proxy.state import Provider, State

if TYPE_CHECKING:
    from proxy.admission import Terms
    from proxy.call import Call

TERMS_MAX = 64  # models remembered of one head: clients choose their names


class Arrival:
    """The head of a metered request, routed and authenticated."""

    __slots__ = (
        "_prices",
        "_state",
        "_terms",
        "credential",
        "dialect",
        "head",
        "key_name",
        "own",
        "path",
        "path_text",
        "principal",
        "provider",
        "query",
        "route",
        "upstream_head",
    )

    provider: Provider
    route: Route
    principal: Principal

    def __init__(self, call: "Call") -> None:
        assert call.provider is not None
        assert call.route is not None
        assert call.principal is not None
        self._state = call.state
        self._terms: dict[str, Terms] = {}
        self._prices: dict[tuple[str, ...], Price | None] = {}
        self.provider = call.provider
        self.dialect = call.dialect
        self.route = call.route
        self.path = call.path
        self.path_text = call.path.decode("ascii", "replace")
        self.query = call.query
        self.head = call.head
        self.credential = call.credential
        self.key_name = call.key_name
        self.principal = call.principal
        self.own = call.own
        # Everything but the length of the body, which is another one with each call.
        start, host = call.start_line, call.provider.origin.host_header
        self.upstream_head = request_head(start, host, call.head, call.credential, b"")[:-2]

    def holds(self, state: State, now_s: float) -> bool:
        """Whether it may be used for another call."""
        expires_at = self.principal.key.expires_at
        return self._state is state and not (expires_at and now_s >= expires_at)

    def of_customer(self, customer: str) -> "Arrival":
        """The same for a customer whom the body of one call names."""
        assert self.own is not None
        own, found = self.own, copy(self)
        found._terms = {}
        found.principal = copy(self.principal)
        found.principal.customer = customer
        found.own = replace(own, customer=customer, tags={**own.tags, CUSTOMER_TAG: customer})
        return found

    def price_of(self, *models: str) -> Price | None:
        """The price of the first of these models that has one, for this caller here."""
        try:
            return self._prices[models]
        except KeyError:
            prices, provider = self._state.prices.for_key(self.principal.key), self.provider
        if len(self._prices) >= TERMS_MAX:
            self._prices.clear()
        price = prices.find(provider.prices, *provider.price_names(*models))
        self._prices[models] = price
        return price

    def terms(self, model: str) -> "Terms | None":
        """What was found for a model before."""
        return self._terms.get(model)

    def keep(self, model: str, terms: "Terms") -> None:
        """Remember what was found."""
        if len(self._terms) >= TERMS_MAX:
            self._terms.clear()
        self._terms[model] = terms
