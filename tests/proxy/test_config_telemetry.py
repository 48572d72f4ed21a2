"""What the configuration and OpenTelemetry's variables say together."""

from collections.abc import Mapping

import pytest

from proxy import config_telemetry
from proxy.config import ConfigError, Telemetry
from proxy.config_reader import Problems
from proxy.config_telemetry import completed

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def of(env: Mapping[str, str], **keys: object) -> Telemetry:
    problems = Problems("c.yaml")
    found = completed(Telemetry(**keys), env, problems)  # type: ignore[arg-type]
    problems.raise_if_any()
    return found


def switches(env: Mapping[str, str], **keys: object) -> tuple[str, str]:
    found = of(env, **keys)
    return found.traces, found.metrics


@pytest.mark.parametrize(
    ("env", "keys", "expected"),
    [
        ({}, {}, ("off", "off")),
        ({}, {"endpoint": "http://c:4318"}, ("on", "on")),
        ({}, {"endpoint": "http://c:4318", "metrics": "off"}, ("on", "off")),
        ({}, {"traces": "on"}, ("on", "off")),
        (ENDPOINT, {}, ("on", "on")),
        (ENDPOINT, {"traces": "off"}, ("off", "on")),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, {}, ("on", "off")),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c/v1/metrics"}, {}, ("off", "on")),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": "none"}, {}, ("on", "off")),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, {}, ("off", "off")),
        ({"OTEL_SDK_DISABLED": "true"}, {"endpoint": "http://c:4318"}, ("off", "off")),
    ],
)
def test_where_there_is_an_endpoint_it_is_on(
    env: dict[str, str], keys: dict[str, object], expected: tuple[str, str]
) -> None:
    assert switches(env, **keys) == expected


@pytest.mark.parametrize(
    ("env", "keys", "expected"),
    [
        ({}, {}, ("parentbased_always_on", 1.0)),
        ({}, {"sampler": "traceidratio", "sample_ratio": 0.1}, ("traceidratio", 0.1)),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
            {},
            ("parentbased_traceidratio", 0.25),
        ),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, {"sampler": "always_on"}, ("always_on", 1.0)),
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, {}, ("parentbased_always_on", 1.0)),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "many"},
            {},
            ("traceidratio", 1.0),
        ),
    ],
)
def test_samplers(
    env: dict[str, str], keys: dict[str, object], expected: tuple[str, float]
) -> None:
    found = of(env, **keys)
    assert (found.sampler, found.sample_ratio) == expected


def test_an_endpoint_of_another_kind_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"telemetry\.endpoint: expected http"):
        of({}, endpoint="collector:4317")


def test_the_extra_is_needed_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_telemetry, "find_spec", lambda name: None)
    assert switches(ENDPOINT) == ("off", "off")
    with pytest.raises(ConfigError, match=r"tollkeeper\[otel\]"):
        of({}, endpoint="http://c:4318")
    with pytest.raises(ConfigError, match=r"tollkeeper\[otel\]"):
        of({}, traces="on")


def test_no_package_of_opentelemetry_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(config_telemetry, "find_spec", missing)
    assert switches({}) == ("off", "off")
