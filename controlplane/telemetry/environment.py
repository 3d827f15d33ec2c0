"""Is telemetry to be sent anywhere? OpenTelemetry's environment variables say so, and nothing else does.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from controlplane.telemetry.telemetry import Exports, Telemetry

log = logging.getLogger(__name__)

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SIGNALS = ("TRACES", "METRICS", "LOGS")
PROTOCOL = "http/protobuf"


def wanted(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The signals to send, of SIGNALS: those with an endpoint, unless they are switched off."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    return tuple(
        signal
        for signal in SIGNALS
        if (environ.get(ENDPOINT) or environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))
        and environ.get(f"OTEL_{signal}_EXPORTER", "otlp").strip().lower() != "none"
    )


def telemetry_from(environ: Mapping[str, str], site: str, cluster: str, wall: Callable[[], float]) -> Telemetry:
    """A node's telemetry. `environ`: os.environ; `wall`: seconds since 1970.

    Where nothing is to be sent, no thread runs and no connection is made. Settings that cannot be used are said in
    the log, and nothing is sent: telemetry must not stop a node."""
    return Telemetry(site, cluster, _exports(environ, site, cluster, wall))


def _exports(environ: Mapping[str, str], site: str, cluster: str, wall: Callable[[], float]) -> Exports | None:
    signals = wanted(environ)
    if not signals:
        return None
    protocol = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or PROTOCOL
    if protocol != PROTOCOL:
        log.warning("telemetry is sent as %s: OTEL_EXPORTER_OTLP_PROTOCOL=%s is not known here", PROTOCOL, protocol)
    try:
        # Not before it is needed: most nodes never load the SDK. It reads settings while it is loaded.
        from controlplane.telemetry.otlp import OtlpExports

        return OtlpExports(site, cluster, wall, environ, signals)
    except Exception as error:  # whatever it raises for settings that it cannot use
        log.error("telemetry is not sent, its settings cannot be used: %s", str(error) or type(error).__name__)
        return None
