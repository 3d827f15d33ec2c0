"""What a node measures of itself and of its cluster (DESIGN 7; the names are OPERATOR's, "Telemetry").

`telemetry` puts it together; `metrics` is the table of names; `counters` counts what happens here; `gauges` reads a
picture of the view; `prometheus` renders both for `/metrics`; `course` follows a failover to its end; `context` is
what joins the spans of one trace; `otlp` sends all of it where an endpoint is configured, and is not even imported
where none is.

Metrics do not go through OpenTelemetry's MeterProvider. It aggregates measurements as they come in; these are
states, which are there already. Five times the work for each series, a copy of each that is never freed, and
callbacks in threads that may not look at the view: all that for the same numbers.
"""
