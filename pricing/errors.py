"""What can be wrong with prices.

PricingError
├── TableError        a price table file is damaged, malformed or not the one expected
├── SourceError       a source to import prices from is missing or malformed
├── OverlayError      an overlay of the configuration names unknown keys or bad numbers
├── ExportError       a provider's cost export is not what it should be
└── MissingMaximum    a model's most expensive call has no bound
    └── MissingPrice  because it is not billed by what the call uses
"""


class PricingError(Exception):
    """Base class; the message names the file, model or key that is wrong."""


class TableError(PricingError):
    """A price table cannot be used."""

    def __init__(self, path: object, line: int, reason: str) -> None:
        super().__init__(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")
        self.path = str(path)
        self.line = line
        self.reason = reason


class SourceError(PricingError):
    """Nothing to import prices from, or not in the expected shape."""


class OverlayError(PricingError):
    """An overlay cannot be applied."""


class ExportError(PricingError):
    """A file that is not the cost export it should be; the text says where and why."""


class MissingMaximum(PricingError):
    """No bound exists for a call to this model, so no budget could be guaranteed."""

    def __init__(self, key: str, lacking: str) -> None:
        super().__init__(
            f"{key} has no {lacking}, so the most a call can cost is unknown; "
            f"declare the {lacking} in an overlay under pricing.overlays"
        )
        self.key = key
        self.lacking = lacking


class MissingPrice(MissingMaximum):
    """The entry prices other things than those this call uses."""

    def __init__(self, key: str, lacking: str) -> None:
        super().__init__(key, f"price of {lacking}")
