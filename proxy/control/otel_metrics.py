"""The conventions' metrics of calls to providers, and their cost."""

from typing import NamedTuple

from opentelemetry.metrics import Histogram, Meter

from pricing.money import NANO_PER_USD
from proxy.call_record import CallRecord
from proxy.control import otel_names as names
from proxy.control.otel_spans import Attributes, error_type


class Told(NamedTuple):
    """A metric, as it is told."""

    name: str
    description: str
    unit: str


DURATION = Told(names.DURATION_METRIC, "From forwarding a request to the end of the reply.", "s")
FIRST_CHUNK = Told(
    names.FIRST_CHUNK_METRIC,
    "From forwarding a request to the first chunk of a streamed reply.",
    "s",
)
TOKENS = Told(names.TOKENS_METRIC, "Tokens as reported by the provider.", "{token}")
COST = Told(names.COST_METRIC, "Cost of settled calls.", "{USD}")


class Calls(NamedTuple):
    """What calls have in common that are counted together."""

    operation: str
    provider: str
    model: str
    host: str
    port: int

    @classmethod
    def of(cls, call: CallRecord) -> "Calls":
        provider = names.provider_name(call.provider, call.prices)
        return cls(call.operation, provider, call.priced_model or names.OTHER, call.host, call.port)

    def attributes(self) -> Attributes:
        return {
            names.OPERATION: self.operation,
            names.PROVIDER: self.provider,
            names.REQUEST_MODEL: self.model,
            names.SERVER_ADDRESS: self.host,
            names.SERVER_PORT: self.port,
        }


class Instruments:
    """Records a call once, at its end. No attribute holds what a caller chooses freely."""

    def __init__(self, meter: Meter) -> None:
        seconds, tokens = list(names.SECONDS), list(names.TOKENS)
        self._duration = _histogram(meter, DURATION, seconds)
        self._first_chunk = _histogram(meter, FIRST_CHUNK, seconds)
        self._tokens = _histogram(meter, TOKENS, tokens)
        self._cost = meter.create_counter(COST.name, COST.unit, COST.description)
        self._nanos: dict[Calls, int] = {}  # costs that are not counted yet

    def record(self, call: CallRecord) -> None:
        """Count a call; one that was not forwarded, or is none of a model's, does not count."""
        if call.forwarded_ns < 0 or not call.operation:
            return
        calls = Calls.of(call)
        attributes = calls.attributes()
        if call.first_chunk_ns >= 0:
            self._first_chunk.record(call.first_chunk_ns / 1e9, attributes)
        if call.usage_source == "reported":
            for kind, count in (("input", call.input_tokens), ("output", call.output_tokens)):
                self._tokens.record(count, attributes | {names.TOKEN_TYPE: kind})
        if call.cost_nano > 0:
            self._nanos[calls] = self._nanos.get(calls, 0) + call.cost_nano
        failed = error_type(call)
        if failed:
            attributes[names.ERROR_TYPE] = failed
        self._duration.record((call.duration_ns - call.forwarded_ns) / 1e9, attributes)

    def add_costs(self) -> None:
        """Count what the calls of a batch have cost: a counter takes as long for one as for all."""
        nanos, self._nanos = self._nanos, {}
        for calls, nano in nanos.items():
            self._cost.add(nano / NANO_PER_USD, calls.attributes())


def _histogram(meter: Meter, told: Told, bounds: list[float]) -> Histogram:
    return meter.create_histogram(
        told.name, told.unit, told.description, explicit_bucket_boundaries_advisory=bounds
    )
