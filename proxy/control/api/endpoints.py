"""Every endpoint of the admin API."""

from proxy.control.api import (
    alerts,
    audit,
    budgets,
    calls,
    explain,
    keys,
    leases,
    places,
    prices,
    raises,
    reconciliations,
    refusals,
    reports,
    status,
    verification,
)
from proxy.control.api.table import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *status.ENDPOINTS,
    *places.ENDPOINTS,
    *keys.ENDPOINTS,
    *budgets.ENDPOINTS,
    *raises.ENDPOINTS,
    *leases.ENDPOINTS,
    *calls.ENDPOINTS,
    *refusals.ENDPOINTS,
    *reports.ENDPOINTS,
    *prices.ENDPOINTS,
    *explain.ENDPOINTS,
    *reconciliations.ENDPOINTS,
    *verification.ENDPOINTS,
    *alerts.ENDPOINTS,
    *audit.ENDPOINTS,
)
