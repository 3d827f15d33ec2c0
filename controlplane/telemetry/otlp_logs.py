"""Log lines as OTLP log records, with the decision and the trace that they belong to."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from controlplane.telemetry.context import ids

MOST_CHARS = 16_384
# What sends the lines must not send lines of its own about that.
SENDERS = ("opentelemetry", "urllib3", "requests")
SEVERITIES = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
)


class OtlpHandler(logging.Handler):
    """A line names its decision with `extra={"decision": "d-7"}`; trace_of(decision) is its traceparent, or ""."""

    def __init__(self, provider: LoggerProvider, redact: Callable[[str], str], trace_of: Callable[[str], str]) -> None:
        super().__init__()
        self._provider, self._redact, self._trace_of = provider, redact, trace_of

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".", 1)[0] in SENDERS:
            return
        try:
            self._provider.get_logger(record.name).emit(self._translated(record))
        except Exception:
            self.handleError(record)  # a log call with the wrong arguments: said on stderr, as logging does

    def _translated(self, record: logging.LogRecord) -> LogRecord:
        attributes: dict[str, str] = {}
        decision = str(getattr(record, "decision", ""))
        if decision:
            attributes["decision"] = decision
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            attributes["exception.type"] = type(error).__name__
            trace = "".join(traceback.format_exception(error))
            attributes["exception.stacktrace"] = self._redact(trace)[-MOST_CHARS:]
        severity = next((s for level, s in SEVERITIES if record.levelno >= level), SeverityNumber.DEBUG)
        when = int(record.created * 1e9)
        return LogRecord(
            timestamp=when,
            observed_timestamp=when,
            context=self._context(decision),
            severity_text=record.levelname,
            severity_number=severity,
            body=self._redact(record.getMessage())[:MOST_CHARS],
            attributes=attributes,
        )

    def _context(self, decision: str) -> Context:
        known = ids(self._trace_of(decision)) if decision else None
        return parent_of(known) if known else Context()


def parent_of(known: tuple[int, int]) -> Context:
    """The context of spans and lines that belong to a failover: (trace id, root's span id)."""
    root = SpanContext(*known, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(root), Context())
