"""Records of calls to OpenTelemetry, in a thread of its own: control's loop only queues them.

Everything is bounded and lossy. A collector that is slow or away costs records, never a call.
"""

import asyncio
import logging
import queue
import threading
import uuid
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

from proxy import __version__
from proxy.call_record import CallRecord, decode_record
from proxy.config import Telemetry
from proxy.control.export import Export
from proxy.control.otel_encoding import SpanEncoder
from proxy.control.otel_metrics import Instruments
from proxy.control.otel_spans import Spans
from proxy.control.otel_sums import MetricSums, fits

log = logging.getLogger(__name__)

BATCHES_MAX = 64  # that wait, each of what one worker sent at once
CLOSE_S = 5.0
# What takes bytes in the SDK's exporter. It is no promise of theirs: where there is none, the SDK
# makes and encodes the spans.
SENDER = "_client"


class OtelExport(Export):
    """Spans and metrics over OTLP. `span_exporter` and `metric_reader` take the place of those
    the configuration names."""

    def __init__(
        self,
        telemetry: Telemetry,
        span_exporter: SpanExporter | None = None,
        metric_reader: MetricReader | None = None,
    ) -> None:
        resource = _resource(telemetry)
        self.lost = 0  # records
        self._spans: Spans | SpanEncoder = Spans(resource, __version__)
        self._processor: BatchSpanProcessor | None = None
        self._meters: MeterProvider | MetricSums | None = None
        self._instruments: Instruments | MetricSums | None = None
        if telemetry.traces == "on":
            exporter = span_exporter or _span_exporter(telemetry)
            if isinstance(exporter, OTLPSpanExporter) and hasattr(exporter, SENDER):
                self._spans = encoder = SpanEncoder(resource, __version__)
                exporter = EncodedExporter(encoder, exporter)
            self._processor = BatchSpanProcessor(exporter)
        if telemetry.metrics == "on":
            self._count(resource, metric_reader or _metric_reader(telemetry))
        self._batches: queue.Queue[list[bytes]] = queue.Queue(BATCHES_MAX)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otel", daemon=True)
        self._thread.start()

    def _count(self, resource: Resource, reader: MetricReader) -> None:
        if fits(reader):
            self._meters = self._instruments = MetricSums(resource, __version__, reader)
        else:
            self._meters = MeterProvider([reader], resource, shutdown_on_exit=False)
            self._instruments = Instruments(self._meters.get_meter("tollkeeper", __version__))

    def add(self, calls: list[bytes]) -> None:
        if not calls:
            return
        try:
            self._batches.put_nowait(calls)
        except queue.Full:
            if not self.lost:
                log.warning("telemetry cannot keep up: records of calls are lost")
            self.lost += len(calls)

    async def close(self) -> None:
        self._closing.set()
        self.add([b""])  # wakes it
        await asyncio.to_thread(self._thread.join, CLOSE_S)

    # --- in the thread ---

    def _run(self) -> None:
        while not (self._closing.is_set() and self._batches.empty()):
            for data in self._batches.get():
                if data:
                    self._send(decode_record(data))
            if isinstance(self._instruments, Instruments):
                self._instruments.add_costs()
        if self._processor is not None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
        if self._meters is not None:
            self._meters.shutdown()

    def _send(self, call: CallRecord) -> None:
        try:
            if self._instruments is not None:
                self._instruments.record(call)
            if self._processor is not None and call.sampled:
                for span in self._spans.of(call):
                    self._processor.on_end(span)  # type: ignore[arg-type]
        except Exception:
            log.exception("telemetry of call %s is lost", call.request_id)


class EncodedExporter(SpanExporter):
    """Sends spans that come encoded as the SDK's exporter sends those it encodes: to where it was
    told, with its headers, certificates, compression and patience."""

    def __init__(self, encoder: SpanEncoder, exporter: OTLPSpanExporter) -> None:
        self._encoder = encoder
        self._exporter = exporter

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        sent = getattr(self._exporter, SENDER).export(self._encoder.request(list(spans)))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _resource(telemetry: Telemetry) -> Resource:
    """The configuration's name, else that of the variables, else our own."""
    own = {"service.version": __version__, "service.instance.id": str(uuid.uuid4())}
    if telemetry.service_name:
        own["service.name"] = telemetry.service_name
    found = Resource.create(dict(own))
    if str(found.attributes["service.name"]).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": "tollkeeper"}))
    return found


def _span_exporter(telemetry: Telemetry) -> SpanExporter:
    return OTLPSpanExporter(_url(telemetry, "traces"), headers=telemetry.headers or None)


def _metric_reader(telemetry: Telemetry) -> MetricReader:
    exporter = OTLPMetricExporter(_url(telemetry, "metrics"), headers=telemetry.headers or None)
    return PeriodicExportingMetricReader(exporter)


def _url(telemetry: Telemetry, signal: str) -> str | None:
    """None: what the variables say."""
    base = telemetry.endpoint.rstrip("/")
    return f"{base}/v1/{signal}" if base else None
