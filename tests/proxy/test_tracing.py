"""Tracing in a worker: off it costs a `None` check, on it is sampled, bounded and lossy."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from proxy import admission, call, forward, gateway, passthrough, relay, server_direct, telemetry
from proxy.tracing import PENDING_MAX, Tracer
from proxy.wire import TracingEntry
from tests.e2e.shapes import CHAT
from tests.e2e.stage import Stage
from tests.source_code import ROOT

PATH = (server_direct, gateway, call, admission, forward, relay, passthrough, telemetry)
PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"


# --- off -----------------------------------------------------------------------------------


def printed(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_no_worker_imports_opentelemetry() -> None:
    """Neither off nor on: records go to control as they are."""
    code = "import proxy.worker, sys; print('opentelemetry' in sys.modules)"
    assert printed(code) == "False\n"


def test_control_imports_it_only_where_it_is_on() -> None:
    code = (
        "import proxy.control.control, proxy.control.export as e, sys\n"
        "from proxy.config import Telemetry\n"
        "e.open_export(Telemetry()); print('opentelemetry' in sys.modules)\n"
        "e.open_export(Telemetry(traces='on')); print('opentelemetry' in sys.modules)"
    )
    assert printed(code) == "False\nTrue\n"


@pytest.mark.parametrize("module", PATH, ids=lambda module: module.__name__)
def test_nothing_on_the_path_is_wrapped(module: ModuleType) -> None:
    tree = ast.parse(inspect.getsource(module))
    written = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    written |= {node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)}
    owners: list[Any] = [module]
    owners += [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    found = [
        value
        for owner in owners
        for name, value in vars(owner).items()
        if name in written and isinstance(value, FunctionType)
    ]
    assert found
    for function in found:
        assert not hasattr(function, "__wrapped__")
        assert Path(function.__code__.co_filename) == Path(module.__file__ or "")


def test_off_the_path_asks_once_at_each_end(tmp_path: Path) -> None:
    """And passes what the caller sent, byte for byte."""
    with Stage(tmp_path) as stage:
        sent = {"traceparent": PARENT.decode() + "1", "tracestate": "a=1,b= 2"}
        stage.provider.reply(CHAT.reply())
        stage.call(CHAT, headers=sent)
        received = dict(stage.provider.requests[-1].headers)
        assert {name: received[name] for name in sent} == sent
        running = stage.app.app.gateway
        assert running is not None
        assert running.state is not None
        assert running.state.tracer is None
    for function in (relay.forward, passthrough.pass_through, telemetry.Telemetry.ended):
        source = inspect.getsource(function)
        assert source.count("tracer is not None") == source.count("tracer = ") == 1


def test_trace_headers_can_be_kept_from_providers(tmp_path: Path) -> None:
    with Stage(tmp_path, telemetry={"propagate_upstream": False}) as stage:
        stage.provider.reply(CHAT.reply())
        stage.call(CHAT, headers={"traceparent": PARENT.decode() + "1", "tracestate": "a=1"})
        names = {name.lower() for name, _ in stage.provider.requests[-1].headers}
        assert not {"traceparent", "tracestate"} & names


# --- on ------------------------------------------------------------------------------------


class FakeClient:
    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.headers = list(headers)
        self.started = True
        self.method, self.raw_path = "POST", b"/v1/chat/completions"


class FakeCall:
    """As much of a call as is there when it was refused at the door."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.client = FakeClient(*headers)
        self.trace = self.refusal = self.provider = self.route = self.principal = None
        self.facts = self.price = self.outcome = self.clamped = None
        self.began_ns = self.forwarded_ns = self.status = 0
        self.request_id, self.error, self.key_name = "id", "", ""


def tracer(**changes: Any) -> Tracer:
    values = {"spans": True, "metrics": False, "follow_parent": False, "ratio": 1.0} | changes
    return Tracer(TracingEntry(**values), propagate=True)


def sampled(of: Tracer, *headers: tuple[bytes, bytes]) -> bool:
    a_call: Any = FakeCall(*headers)
    of.begin(a_call)
    return bool(a_call.trace.sampled)


def test_samplers() -> None:
    parents = [((b"traceparent", PARENT + flag),) for flag in (b"1", b"0")]
    assert [sampled(tracer(), *parent) for parent in parents] == [True, True]
    assert [sampled(tracer(ratio=0.0), *parent) for parent in parents] == [False, False]
    follow = tracer(follow_parent=True, ratio=0.0)
    assert [sampled(follow, *parent) for parent in parents] == [True, False]
    assert not sampled(follow)
    some = sum(sampled(tracer(ratio=0.5)) for _ in range(400))
    assert 100 < some < 300


def test_a_ratio_decides_by_the_trace() -> None:
    half = tracer(ratio=0.5)
    low, high = b"00-" + b"f" * 16 + b"1" * 16, b"00-" + b"1" * 16 + b"f" * 16
    assert sampled(half, (b"traceparent", low + b"-b7ad6b7169203331-00"))
    assert not sampled(half, (b"traceparent", high + b"-b7ad6b7169203331-01"))


def test_records_are_bounded() -> None:
    full: Any = tracer()
    for _ in range(PENDING_MAX + 3):
        full.ended(FakeCall(), 1)
    assert (len(full.take()), full.lost) == (PENDING_MAX, 3)
    assert full.take() == []


def test_metrics_alone_need_every_record_and_no_header() -> None:
    alone: Any = tracer(spans=False, metrics=True)
    a_call: Any = FakeCall()
    assert alone.begin(a_call) == b""
    alone.ended(a_call, 1)
    assert len(alone.take()) == 1
    spans: Any = tracer(ratio=0.0)
    spans.ended(FakeCall(), 1)
    assert spans.take() == []
