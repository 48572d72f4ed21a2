"""Where telemetry goes: the configuration's section, completed by OpenTelemetry's variables."""

from collections.abc import Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from msgspec.structs import replace

from proxy.config import Telemetry
from proxy.config_reader import Problems

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_SAMPLERS = ("always_on", "always_off", "traceidratio")
_DEFAULT_SAMPLER = "parentbased_always_on"
MISSING = "needs the packages of an extra: pip install 'tollkeeper[otel]'"


def completed(telemetry: Telemetry, env: Mapping[str, str], problems: Problems) -> Telemetry:
    """`traces` and `metrics` come out as "on" or "off", `sampler` and `sample_ratio` as they
    are. What the variables alone ask for is left off where the extra is not installed."""
    asked = bool(telemetry.endpoint) or "on" in (telemetry.traces, telemetry.metrics)
    if asked and not _installed():
        problems.add_check("telemetry", MISSING)
    if telemetry.endpoint and urlsplit(telemetry.endpoint).scheme not in ("http", "https"):
        problems.add_check("telemetry.endpoint", "expected http:// or https://, OTLP over HTTP")
    disabled = env.get("OTEL_SDK_DISABLED", "").lower() == "true" or not _installed()
    sampler, ratio = _sampler(telemetry, env)
    return replace(
        telemetry,
        traces=_switch(telemetry.traces, "TRACES", telemetry, env, disabled),
        metrics=_switch(telemetry.metrics, "METRICS", telemetry, env, disabled),
        sampler=sampler,
        sample_ratio=ratio,
    )


def _installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def _switch(
    asked: str, signal: str, telemetry: Telemetry, env: Mapping[str, str], disabled: bool
) -> str:
    if disabled or asked == "off":
        return "off"
    somewhere = (
        telemetry.endpoint
        or env.get(_ENDPOINT)
        or env.get(_ENDPOINT.replace("ENDPOINT", f"{signal}_ENDPOINT"))
    )
    wanted = asked == "on" or (somewhere and env.get(f"OTEL_{signal}_EXPORTER", "otlp") == "otlp")
    return "on" if wanted else "off"


def _sampler(telemetry: Telemetry, env: Mapping[str, str]) -> tuple[str, float]:
    """The configuration's, else that of the variables; what is no sampler is the usual one."""
    if telemetry.sampler:
        return telemetry.sampler, telemetry.sample_ratio
    name = env.get("OTEL_TRACES_SAMPLER", "")
    if name.removeprefix("parentbased_") not in _SAMPLERS:
        return _DEFAULT_SAMPLER, 1.0
    try:
        ratio = float(env.get("OTEL_TRACES_SAMPLER_ARG", "") or 1.0)
    except ValueError:
        ratio = 1.0
    return name, min(max(ratio, 0.0), 1.0)
