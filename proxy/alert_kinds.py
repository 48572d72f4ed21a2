"""Every kind of alert, once: a new one is an entry here, a line in docs/alerts.md, and whoever
raises it (`proxy.control.alerts`)."""

from typing import NamedTuple


class AlertKind(NamedTuple):
    severity: str  # info | warning | critical
    meaning: str


KINDS = {
    "budget_threshold": AlertKind("warning", "a budget has spent a share of its limit"),
    "budget_exhaustion": AlertKind("warning", "a budget is expected to be spent soon"),
    "trial_refusal": AlertKind("warning", "a budget on trial would have refused a call"),
    "spend_anomaly": AlertKind("warning", "an hour spends far more than in earlier weeks"),
    "unpriced_model": AlertKind("warning", "a model without a price was called"),
    "ceiling_violation": AlertKind("critical", "a call cost more than its hold"),
    "dead_letter": AlertKind("critical", "a record could not be stored"),
    "ledger_outage": AlertKind("critical", "the database is out of reach"),
    "test": AlertKind("info", "`tollkeeper alerts test`"),
}
