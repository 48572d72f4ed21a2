"""What channels, routes and scheduled reports need, and whether they name one another."""

import re
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from proxy.alert_kinds import KINDS
from proxy.config import AlertChannel, Config, Report
from proxy.config_reader import Problems
from proxy.schedules import parse_schedule

CHANNELS_MAX = 50
REPORTS_MAX = 100
LOG = "log"  # the channel that is always there
CHANNEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
# One address without a display name; nothing that could end a header or a command.
_ADDRESS = re.compile(r"[^\s<>,;@]+@[^\s<>,;@]+\Z")
_FIELDS = {
    "webhook": {"url", "secret"},
    "slack": {"url"},
    "email": {"host", "port", "security", "user", "password", "sender", "recipients"},
    "log": set[str](),
}


def check_alerts(config: Config, problems: Problems) -> None:
    alerts = config.alerts
    names = {LOG, *alerts.channels}
    for name, channel in alerts.channels.items():
        _check_channel(f"alerts.channels.{name}", name, channel, problems)
    if len(alerts.channels) > CHANNELS_MAX:
        problems.add_check("alerts.channels", f"more than {CHANNELS_MAX}")
    for index, route in enumerate(alerts.routes):
        path = f"alerts.routes[{index}]"
        _check_to(path, route.to, names, problems)
        for number, glob in enumerate(route.kinds):
            if not any(fnmatchcase(kind, glob) for kind in KINDS):
                known = ", ".join(KINDS)
                problems.add_check(f"{path}.kinds[{number}]", f"no such kind; there are: {known}")
    if not _is_amount(str(alerts.anomalies.minimum_usd)):
        problems.add_check("alerts.anomalies.minimum_usd", "expected an amount, 0 or more")
    if len(config.reports) > REPORTS_MAX:
        problems.add_check("reports", f"more than {REPORTS_MAX}")
    seen: dict[str, str] = {}
    for index, report in enumerate(config.reports):
        path = f"reports[{index}]"
        _check_report(path, report, names, problems)
        if seen.setdefault(report.name, path) != path:
            problems.add_check(f"{path}.name", f"duplicate, {seen[report.name]} has the same name")


def _check_channel(path: str, name: str, channel: AlertChannel, problems: Problems) -> None:
    if not CHANNEL_NAME.match(name):
        problems.add_check(path, "a channel's name is made of a-z, 0-9, '.', '_' and '-'")
    if name == LOG and channel.kind != LOG:
        problems.add_check(path, "this name is the log's, choose another")
    unset = AlertChannel(channel.kind)
    for field in AlertChannel.__struct_fields__[1:]:
        given = getattr(channel, field) != getattr(unset, field)
        if given and field not in _FIELDS.get(channel.kind, ()):
            problems.add_check(f"{path}.{field}", f"is of no use to kind {channel.kind}")
    if channel.kind in ("webhook", "slack"):
        _check_url(f"{path}.url", channel.url, problems)
    if channel.kind == "webhook" and not channel.secret:
        problems.add_check(f"{path}.secret", "missing: it signs what is sent")
    if channel.kind == "email":
        _check_email(path, channel, problems)


def _check_url(path: str, url: str, problems: Problems) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        problems.add_check(path, "expected http://HOST/PATH or https://HOST/PATH")


def _check_email(path: str, channel: AlertChannel, problems: Problems) -> None:
    if not channel.host:
        problems.add_check(f"{path}.host", "missing: the SMTP server")
    if not _ADDRESS.match(channel.sender):
        problems.add_check(f"{path}.sender", "expected an address, like tollkeeper@example.com")
    if not channel.recipients:
        problems.add_check(f"{path}.recipients", "missing")
    for index, address in enumerate(channel.recipients):
        if not _ADDRESS.match(address):
            problems.add_check(f"{path}.recipients[{index}]", "expected an address")
    if channel.user and channel.security == "none":
        problems.add_check(f"{path}.user", "a password is not sent in the clear: use starttls")
    if bool(channel.user) != bool(channel.password):
        problems.add_check(path, "give both of user and password, or none")


def _check_report(path: str, report: Report, names: set[str], problems: Problems) -> None:
    if not CHANNEL_NAME.match(report.name):
        problems.add_check(f"{path}.name", "a name is made of a-z, 0-9, '.', '_' and '-'")
    try:
        parse_schedule(report.at)
    except ValueError as exc:
        problems.add_check(f"{path}.at", str(exc))
    try:
        ZoneInfo(report.timezone)
    except (KeyError, ValueError, OSError):
        problems.add_check(f"{path}.timezone", f"unknown time zone {report.timezone!r}")
    _check_to(path, report.to, names, problems)


def _check_to(path: str, to: list[str], names: set[str], problems: Problems) -> None:
    if not to:
        problems.add_check(f"{path}.to", "missing: names of channels")
    for index, name in enumerate(to):
        if name not in names:
            known = ", ".join(sorted(names))
            problems.add_check(f"{path}.to[{index}]", f"no channel is called {name!r}: {known}")


def _is_amount(text: str) -> bool:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return False
    return value.is_finite() and 0 <= value < 10**9
