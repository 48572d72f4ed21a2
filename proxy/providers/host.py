"""A provider that needs no base URL in the configuration: what its own SDK defaults to."""

from typing import NamedTuple


class Host(NamedTuple):
    """One provider's own settings. Its name is the default path prefix and price provider."""

    name: str
    dialect: str
    base_url: str = ""  # "": one per account, so it must be configured
    variables: tuple[str, ...] = ()  # usual environment variables of its key, first wins
    sdk_path: str = ""  # what follows our prefix in the base URL of an OpenAI SDK (or its own)
    prices: str = ""  # provider name in price tables; "" = its own, "free" = costs nothing
    clamp_field: str = ""  # where it differs from the dialect's
