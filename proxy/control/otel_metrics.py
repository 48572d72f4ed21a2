"""The conventions' metrics of calls to providers, and their cost."""

from typing import NamedTuple

from opentelemetry.metrics import Meter

from pricing.money import NANO_PER_USD
from proxy.call_record import CallRecord
from proxy.control import otel_names as names
from proxy.control.otel_spans import Attributes, error_type


class _Calls(NamedTuple):
    """What calls have in common that are counted together."""

    operation: str
    provider: str
    model: str
    host: str
    port: int

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
        self._duration = meter.create_histogram(
            names.DURATION_METRIC,
            "s",
            "From forwarding a request to the end of the reply.",
            explicit_bucket_boundaries_advisory=seconds,
        )
        self._first_chunk = meter.create_histogram(
            names.FIRST_CHUNK_METRIC,
            "s",
            "From forwarding a request to the first chunk of a streamed reply.",
            explicit_bucket_boundaries_advisory=seconds,
        )
        self._tokens = meter.create_histogram(
            names.TOKENS_METRIC,
            "{token}",
            "Tokens as reported by the provider.",
            explicit_bucket_boundaries_advisory=tokens,
        )
        self._cost = meter.create_counter(names.COST_METRIC, "{USD}", "Cost of settled calls.")
        self._nanos: dict[_Calls, int] = {}  # costs that are not counted yet

    def record(self, call: CallRecord) -> None:
        """Count a call; one that was not forwarded, or is none of a model's, does not count."""
        if call.forwarded_ns < 0 or not call.operation:
            return
        provider = names.provider_name(call.provider, call.prices)
        model = call.priced_model or names.OTHER
        calls = _Calls(call.operation, provider, model, call.host, call.port)
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
