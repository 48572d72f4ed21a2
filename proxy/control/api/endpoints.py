"""Every endpoint of the admin API."""

from proxy.control.api import (
    alerts,
    audit,
    budgets,
    calls,
    explain,
    keys,
    places,
    prices,
    raises,
    reconciliations,
    reports,
    status,
)
from proxy.control.api.table import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *status.ENDPOINTS,
    *places.ENDPOINTS,
    *keys.ENDPOINTS,
    *budgets.ENDPOINTS,
    *raises.ENDPOINTS,
    *calls.ENDPOINTS,
    *reports.ENDPOINTS,
    *prices.ENDPOINTS,
    *explain.ENDPOINTS,
    *reconciliations.ENDPOINTS,
    *alerts.ENDPOINTS,
    *audit.ENDPOINTS,
)
