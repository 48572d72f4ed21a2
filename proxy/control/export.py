"""Where records of calls go that workers send: nowhere, or to OpenTelemetry."""

from proxy.config import Telemetry


class Export:
    """Drops them: telemetry is off."""

    def add(self, calls: list[bytes]) -> None:
        """Take encoded records. Never waits, never raises."""

    async def close(self) -> None:
        """Send what is left, within a few seconds."""


def open_export(telemetry: Telemetry) -> Export:
    """By the configuration as loaded. The packages are imported only where they are used."""
    if "on" not in (telemetry.traces, telemetry.metrics):
        return Export()
    from proxy.control.otel import OtelExport  # noqa: PLC0415

    return OtelExport(telemetry)
