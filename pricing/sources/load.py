"""From a file that was found to the entries of a table."""

import hashlib
from pathlib import Path

from pricing.errors import SourceError
from pricing.sources import genai_prices, litellm
from pricing.sources.files import KINDS, LITELLM, Found, Kind, Source, from_path, installed


def load(found: Found, day: str) -> Source:
    """Parse it, with the prices of a day (ISO date) as the standing ones. Raises SourceError."""
    try:
        if found.kind is LITELLM:
            entries = litellm.parse(found.data)
        else:
            entries = genai_prices.parse(found.data, day)
    except (SourceError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise SourceError(f"{found.where}: {error}") from error
    except (ArithmeticError, RecursionError) as error:
        raise SourceError(f"{found.where}: {error!r}") from error
    if not entries:
        raise SourceError(f"{found.where}: no models in it")
    digest = hashlib.sha256(found.data).hexdigest()
    return Source(f"{found.kind.name} {found.version}", digest, entries)


def load_path(path: str | Path, day: str) -> Source:
    """Raises SourceError."""
    return load(from_path(path), day)


def load_installed(day: str, kinds: tuple[Kind, ...] = KINDS) -> list[Source]:
    """Every source that is installed, in the order of `kinds`. Raises SourceError if none is."""
    sources, missing = [], []
    for kind in kinds:
        try:
            sources.append(load(installed(kind), day))
        except SourceError as error:
            missing.append(str(error))
    if not sources:
        raise SourceError("; ".join(missing))
    return sources
