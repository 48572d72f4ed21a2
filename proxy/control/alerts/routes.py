"""Which channels an alert goes to."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from proxy.config import AlertChannel, Alerts

LOG = "log"


def channels(alerts: Alerts) -> Mapping[str, AlertChannel]:
    """By name; the log is always there."""
    return {LOG: AlertChannel("log"), **alerts.channels}


def route(alerts: Alerts, kind: str, scope: str) -> set[str]:
    """Names of channels. Without any that is configured, the log; without a route, every one."""
    if not alerts.routes:
        return set(alerts.channels) or {LOG}
    return {
        name
        for each in alerts.routes
        if _fits(kind, each.kinds) and _fits(scope, each.scopes)
        for name in each.to
    }


def _fits(value: str, globs: list[str]) -> bool:
    return not globs or any(fnmatchcase(value, glob) for glob in globs)
