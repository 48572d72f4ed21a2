"""Every endpoint of the admin API."""

from proxy.control.api import reports, status
from proxy.control.api.table import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (*status.ENDPOINTS, *reports.ENDPOINTS)
