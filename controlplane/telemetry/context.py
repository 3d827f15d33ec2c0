"""What joins the spans that several nodes make of one failover: W3C Trace Context, `traceparent`. Pure.

https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import hashlib
import re

from msgspec.structs import replace

from controlplane.documents import DecisionDoc
from policies.world import Event

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


def traceparent(stamp: str) -> str:
    """The trace of a decision, and its root span. Made from the decision's stamp, so that whoever knows the decision
    knows its trace."""
    digest = hashlib.sha256(stamp.encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


def ids(text: str) -> tuple[int, int] | None:
    """(trace id, span id); None for what is no traceparent."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    trace, span = int(match[1], 16), int(match[2], 16)
    return (trace, span) if trace and span else None


def left_sites(decision: DecisionDoc) -> tuple[Event, ...]:
    """The moves away from failed sites; () for what is no failover."""
    if not decision.new_generation or decision.input.desired is None:
        return ()
    return tuple(e for e in decision.events if e.kind == "move" and e.forced and e.rule == "failed")


def traced(decision: DecisionDoc) -> DecisionDoc:
    """A decision of a new generation, whose `desired` carries its trace if it is a failover, and none otherwise."""
    trace = traceparent(decision.desired.stamp) if left_sites(decision) else ""
    return replace(decision, desired=replace(decision.desired, traceparent=trace))
