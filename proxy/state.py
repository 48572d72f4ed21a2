"""What a worker knows: one snapshot from control, compiled for use. Replaced as a whole."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pricing.book import PriceBook
from pricing.errors import PricingError
from pricing.price import Price
from pricing.table import PriceTable
from proxy.auth import Keyring
from proxy.errors import Refusal
from proxy.providers.base import Dialect, HeaderDialect
from proxy.providers.registry import dialect
from proxy.tracing import Tracer
from proxy.upstream import Origin, Proxies
from proxy.upstream_auth import UpstreamAuth, auth_for
from proxy.wire import KeyEntry, PricesEntry, ProviderEntry, Snapshot

CLIENT_KEY = "client"  # `api_key: client`: the caller's own credential goes to the provider
_BEARER_HEADERS = ("authorization",)


def price_names(region: str, *models: str) -> tuple[str, ...]:
    """What these models are called in the price table, a region's own price first."""
    if not region:
        return models
    return tuple(name for model in models for name in (f"{region}/{model}", model))


def processing_region(base_url: str) -> str:
    """The region of a data residency host of OpenAI ("eu" of eu.api.openai.com), else ""."""
    found = re.fullmatch(r"([a-z]{2})\.api\.openai\.com", urlsplit(base_url).hostname or "")
    return found[1] if found else ""


@dataclass(slots=True)
class Provider:
    """A configured provider: where its calls go, in which dialect, at whose prices."""

    name: str
    dialect: Dialect
    origin: Origin
    credential: bytes  # ready header line; b"" when no credential is added
    credential_header: str
    client_key: bool
    prices: str  # provider name in the price table, or "free"
    allow_unmetered: bool
    inject_usage: bool
    refusal_status: int  # of a spent budget; 0: what suits dialect and client
    models: Mapping[str, str]  # what calls name -> the model it is
    charge_reported: bool = False  # the provider's own figure, where a reply has one
    region: str = ""
    geo: str = ""  # where OpenAI processes what is sent to this host, if that is dearer there
    auth: UpstreamAuth | None = None  # makes the credential, call by call
    headers: HeaderDialect | None = None  # the dialect, where it reads headers

    def price_names(self, *models: str) -> tuple[str, ...]:
        """`price_names` at this provider."""
        return price_names(self.region, *models)

    def client_credential(self, secret: bytes) -> bytes:
        """The header line for a caller's own credential."""
        return _credential_line(self.credential_header, secret)


def _credential_line(header: str, secret: bytes) -> bytes:
    if header in _BEARER_HEADERS:
        return header.encode() + b": Bearer " + secret
    return header.encode() + b": " + secret


def _provider(entry: ProviderEntry, proxies: Proxies, before: Provider | None) -> Provider:
    spoken = dialect(entry.dialect, entry.clamp_field, entry.models)
    header = entry.api_key_header or spoken.credential_header
    client_key = entry.api_key == CLIENT_KEY
    line = b""
    if entry.api_key and not client_key:
        line = _credential_line(header, entry.api_key.encode())
    return Provider(
        name=entry.name,
        dialect=spoken,
        origin=Origin.parse(entry.base_url, proxies),
        credential=line,
        credential_header=header,
        client_key=client_key,
        prices=entry.prices,
        allow_unmetered=entry.allow_unmetered,
        inject_usage=entry.inject_usage,
        refusal_status=entry.refusal_status,
        models=entry.models,
        charge_reported=entry.charge_reported,
        region=entry.region,
        geo=processing_region(entry.base_url),
        auth=auth_for(entry, before.auth if before is not None else None),
        headers=spoken if isinstance(spoken, HeaderDialect) else None,
    )


class Prices:
    """The price version in force."""

    def __init__(self, version: str, book: PriceBook) -> None:
        self.version = version
        self._book = book

    @classmethod
    def load(cls, entry: PricesEntry, previous: "Prices | None" = None) -> "Prices":
        """Open the table of a snapshot; the previous one is kept when nothing changed.

        Raises PricingError when the table here is not the one announced.
        """
        if previous is not None and previous.version == entry.version:
            return previous
        table = PriceTable.open(entry.table_path, entry.table_sha256)
        rate = entry.unpriced_atto_per_token if entry.unpriced == "ceiling" else None
        book = PriceBook(table, entry.overlays, unpriced_atto_per_token=rate)
        if book.version != entry.version:
            raise PricingError(f"price version {book.version} here, {entry.version} announced")
        return cls(entry.version, book)

    def for_key(self, key: KeyEntry) -> "Prices":
        """What the calls of this key are priced with: its team may have overlays of its own."""
        if not self._book.of_teams:
            return self
        return Prices(self.version, self._book.for_team(key.organization, key.team))

    def find(self, provider: str, *models: str) -> Price | None:
        """The price of the first of these models that has one."""
        return self._book.quote(provider, *models)

    def quote(self, provider: str, *models: str) -> Price:
        """The price to hold with. Raises Refusal `model_not_priced`."""
        price = self.find(provider, *models)
        if price is None:
            model = models[-1]
            raise Refusal(
                "model_not_priced",
                f"The model '{model}' has no price under provider '{provider}' in price version "
                f"{self.version}, so its cost cannot be known. Declare it under "
                "pricing.overlays, import a newer price table, or check the model's name.",
                {"model": model, "price_version": self.version},
            )
        return price


class State:
    """A compiled snapshot."""

    def __init__(self, snapshot: Snapshot, previous: "State | None" = None) -> None:
        self.revision = snapshot.revision
        self.epoch_id = snapshot.epoch_id
        self.settings = snapshot.settings
        self.learns = any(budget.learned for budget in snapshot.budgets)
        self.keyring = Keyring(snapshot.keys)
        self.projects: Mapping[tuple[int, str], int] = {
            (p.team_id, p.name): p.id for p in snapshot.projects
        }
        proxies = Proxies.from_environ(os.environ)
        known: Mapping[str, Provider] = previous.providers if previous is not None else {}
        self.providers: Mapping[str, Provider] = {
            entry.name: _provider(entry, proxies, known.get(entry.name))
            for entry in snapshot.providers
        }
        self.provider_names = frozenset(name.encode() for name in self.providers)
        settings = self.settings
        self.tracer: Tracer | None = None  # set by the worker where calls are traced
        self.drops_trace = not settings.propagate_upstream or (
            settings.tracing is not None and settings.tracing.spans  # it sends its own
        )
        before: Prices | None = previous.prices if previous is not None else None
        self.prices: Prices = Prices.load(snapshot.prices, before)
