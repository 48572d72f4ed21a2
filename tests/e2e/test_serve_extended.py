"""`tollkeeper serve` with what few have: middleware, and an OTLP endpoint."""

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.load import Provider, served
from tests.processes import Serving
from tests.source_code import ROOT


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(seed=1) as provider:
        yield provider


def test_workers_serve_through_middleware(tmp_path: Path, provider: Provider) -> None:
    log = tmp_path / "audit.ndjson"
    used = [{"path": "audit_log:AuditLog", "options": {"file": str(log)}}]
    changes = {"middleware": used, "middleware_dir": str(ROOT / "examples")}
    with Serving(tmp_path, provider.url, server={"workers": 2}, **changes) as serving:
        for number in range(1, 5):
            served(serving, number)
    assert len(serving.rows()) == 4
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len([line for line in lines if line["method"] == "POST"]) == 4
    assert serving.exit_code == 0


class Endpoint(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                endpoint.bodies.append((self.path, body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)


def test_spans_of_all_workers_arrive_by_the_end(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Endpoint() as endpoint:
        thread = threading.Thread(target=endpoint.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{endpoint.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        with Serving(tmp_path, provider.url, server={"workers": 2}) as serving:
            for number in range(1, 7):
                served(serving, number)
        endpoint.shutdown()
        thread.join()
    paths = {path for path, _ in endpoint.bodies}
    assert paths == {"/v1/traces", "/v1/metrics"}
    spans = [
        span
        for path, body in endpoint.bodies
        if path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert len(spans) == 2 * 6
    assert len({span.trace_id for span in spans}) == 6
    assert serving.exit_code == 0
