"""Snapshots: everything a worker knows, from the catalog, the configuration and the prices."""

from collections.abc import Sequence

from sqlalchemy import Connection

from db.catalog import load_budgets, load_keys, load_projects
from db.customers import load_customers
from proxy.config import Config, Provider, Telemetry
from proxy.wire import (
    AwsEntry,
    AzureEntry,
    BudgetEntry,
    GoogleEntry,
    KeyEntry,
    PricesEntry,
    ProjectEntry,
    ProviderEntry,
    Settings,
    Snapshot,
    TracingEntry,
)

Catalog = tuple[tuple[KeyEntry, ...], tuple[ProjectEntry, ...], tuple[BudgetEntry, ...]]


def load_catalog(connection: Connection, customers: Sequence[int] = ()) -> Catalog:
    """`customers`: ids of budgets that were made from templates."""
    budgets = load_budgets(connection) + load_customers(connection, customers)
    return (
        tuple(KeyEntry(*row) for row in load_keys(connection)),
        tuple(ProjectEntry(*row) for row in load_projects(connection)),
        tuple(BudgetEntry(*row) for row in budgets),
    )


def build(
    revision: int, epoch_id: int, catalog: Catalog, prices: PricesEntry, config: Config
) -> Snapshot:
    """`revision` is control's own count of snapshots: what workers acknowledge."""
    keys, projects, budgets = catalog
    return Snapshot(
        revision=revision,
        epoch_id=epoch_id,
        keys=keys,
        projects=projects,
        budgets=budgets,
        prices=prices,
        providers=tuple(_provider(name, each) for name, each in config.providers.items()),
        settings=_settings(config),
    )


def limits(snapshot: Snapshot) -> dict[int, int]:
    """Limits by budget id, of the budgets that have windows."""
    windowed = (b for b in snapshot.budgets if b.period != "request" and not b.each)
    return {budget.id: budget.limit for budget in windowed}


def longest_wait_ms(snapshot: Snapshot) -> int:
    """How long a call may wait for money."""
    return max((budget.hold_wait_ms for budget in snapshot.budgets), default=0)


def _provider(name: str, provider: Provider) -> ProviderEntry:
    return ProviderEntry(
        name=name,
        dialect=provider.dialect or name,
        base_url=provider.base_url,
        api_key=provider.api_key,
        api_key_header=provider.api_key_header,
        prices=provider.prices or name,
        clamp_field=provider.clamp_field,
        allow_unmetered=provider.allow_unmetered,
        inject_usage=provider.inject_usage,
        refusal_status=provider.refusal_status,
        charge_reported=provider.charge == "reported",
        region=provider.aws.region,
        models=provider.models,
        aws=_aws(provider),
        google=_google(provider),
        azure=_azure(provider),
    )


def _aws(provider: Provider) -> AwsEntry | None:
    """None where a key of the API does."""
    aws = provider.aws
    if not aws.region or provider.api_key:
        return None
    return AwsEntry(
        region=aws.region,
        service=aws.service,
        access_key_id=aws.access_key_id,
        secret_access_key=aws.secret_access_key,
        session_token=aws.session_token,
        profile=aws.profile,
    )


def _google(provider: Provider) -> GoogleEntry | None:
    if not provider.google.location or provider.api_key:
        return None
    return GoogleEntry(provider.google.service_account_file)


def _azure(provider: Provider) -> AzureEntry | None:
    azure = provider.azure
    if not azure.tenant_id or provider.api_key:
        return None
    return AzureEntry(
        authority=azure.authority,
        tenant_id=azure.tenant_id,
        client_id=azure.client_id,
        client_secret=azure.client_secret,
        federated_token_file=azure.federated_token_file,
        scope=azure.scope,
    )


def _settings(config: Config) -> Settings:
    server = config.server
    return Settings(
        max_body_bytes=int(server.max_body_mb * 2**20),
        max_concurrency=server.max_concurrency,
        connect_timeout_s=server.connect_timeout_s,
        first_byte_timeout_s=server.first_byte_timeout_s,
        idle_timeout_s=server.idle_timeout_s,
        drain_s=server.drain_s,
        flush_interval_ms=config.journal.flush_interval_ms,
        on_ledger_outage=config.on_ledger_outage,
        on_disconnect=config.on_disconnect,
        propagate_upstream=config.telemetry.propagate_upstream,
        tracing=_tracing(config.telemetry),
        log_calls=config.log.calls and config.log.level in ("debug", "info"),
    )


def _tracing(telemetry: Telemetry) -> TracingEntry | None:
    """What workers are told; None: calls are not traced."""
    spans, metrics = telemetry.traces == "on", telemetry.metrics == "on"
    if not (spans or metrics):
        return None
    kind = telemetry.sampler.removeprefix("parentbased_")
    ratio = {"always_off": 0.0, "traceidratio": telemetry.sample_ratio}.get(kind, 1.0)
    return TracingEntry(spans, metrics, telemetry.sampler.startswith("parentbased_"), ratio)
