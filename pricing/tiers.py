"""Service tiers: as requests and replies name them, and which of them a reply may be billed at."""

from functools import lru_cache

from pricing.rates import TIERS

# Service tiers as providers spell them in requests and replies; anything else is standard.
_TIER_NAMES = {
    "flex": "flex",
    "on_demand_flex": "flex",
    "priority": "priority",
    "on_demand_priority": "priority",
    "fast": "priority",
    "batch": "batch",
    "batches": "batch",
    "balanced": "balanced",
    "ultrafast": "ultrafast",
    "decisions": "decisions",
}
BATCH = "batch"  # the tier of what is sent as a batch; it is never denied
BATCH_TIERS = (BATCH,)
_STANDARD_NAMES = frozenset({"default", "standard", "standard_only", "on_demand", "scale"})

# A request that names no tier, or "auto", is served as the account is set up: here an account can
# be set up for flex or priority processing, elsewhere no tier named is the standard one.
_ACCOUNT_TIERS = ("", "flex", "priority")
_ACCOUNT_TIER_PROVIDERS = frozenset({"openai", "azure", "azure_ai"})


def normal_tier(name: str) -> str:
    """The service tier a request or reply names, as in `rates.TIERS`."""
    return _TIER_NAMES.get(name.lower(), "")


@lru_cache(maxsize=256)  # the names come from clients
def reachable_tiers(provider: str, requested: str) -> tuple[str, ...]:
    """Every tier a reply to this request may be billed at. A tier asked for may be denied, then
    the standard one applies; a name nobody knows may mean any of them."""
    name = requested.lower()
    if name == "auto" or (not name and provider in _ACCOUNT_TIER_PROVIDERS):
        return _ACCOUNT_TIERS
    if not name or name in _STANDARD_NAMES:
        return ("",)
    if name in _TIER_NAMES:
        return ("", _TIER_NAMES[name])
    return tuple(TIERS)
