"""All tables. Their names are written in this package's modules models_*, and nowhere else.

Money is BigInteger nano-USD, token and request counts BigInteger; times of the hierarchy are
unix milliseconds (`*_at_ms`), window starts unix seconds. Deleting tombstones: rows that cost
rows refer to are never removed, so every reference is a foreign key with RESTRICT unless the
child has no meaning of its own.
"""

from db.model_base import Base
from db.models_alerts import Alert, AlertConfig, AlertDelivery
from db.models_audit import AuditEntry
from db.models_catalog import (
    ApiKey,
    Budget,
    CustomerBudget,
    KeyBudget,
    Organization,
    OrganizationBudget,
    Project,
    ProjectBudget,
    Revision,
    Team,
    TeamBudget,
    User,
    UserBudget,
)
from db.models_costs import (
    CostAdjustment,
    CostAnalytics,
    CostDay,
    CostValidation,
    FoldedDay,
    ModelCost,
    PriceVersion,
    ProviderObject,
    Repricing,
    Retention,
    UsageCost,
)
from db.models_ledger import (
    ChargeSet,
    ChargeSetWindow,
    Epoch,
    JournalOffset,
    Lease,
    PrunedCharges,
    Raise,
    Window,
)
from db.models_refusals import RefusalCount
from db.models_tags import TagDay, TagFold, TagHour, TagName

__all__ = [
    "Alert",
    "AlertConfig",
    "AlertDelivery",
    "ApiKey",
    "AuditEntry",
    "Base",
    "Budget",
    "ChargeSet",
    "ChargeSetWindow",
    "CostAdjustment",
    "CostAnalytics",
    "CostDay",
    "CostValidation",
    "CustomerBudget",
    "Epoch",
    "FoldedDay",
    "JournalOffset",
    "KeyBudget",
    "Lease",
    "ModelCost",
    "Organization",
    "OrganizationBudget",
    "PriceVersion",
    "Project",
    "ProjectBudget",
    "ProviderObject",
    "PrunedCharges",
    "Raise",
    "RefusalCount",
    "Repricing",
    "Retention",
    "Revision",
    "TagDay",
    "TagFold",
    "TagHour",
    "TagName",
    "Team",
    "TeamBudget",
    "UsageCost",
    "User",
    "UserBudget",
    "Window",
]
