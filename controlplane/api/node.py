"""What the API needs of the node that it speaks for, and what it keeps between requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from aiohttp import web

from controlplane.api.picture import Memory
from controlplane.documents import Applied, AppliedDoc, DecisionDoc, Seen
from controlplane.journal import Journal
from controlplane.operator import Operator
from controlplane.view import View

Doc = dict[str, Any]
BACKLOG = 1000  # events that a slow reader may be behind


class NodeApi(Protocol):
    """Port: the node behind the API."""

    @property
    def view(self) -> View: ...

    @property
    def operator(self) -> Operator: ...

    @property
    def journal(self) -> Journal: ...

    def wall(self) -> float:
        """The wall clock, seconds since 1970: for people."""
        ...


class Happenings:
    """What happens, for whoever listens: decisions, and what writers and name servers report."""

    def __init__(self, view: View, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._queues: list[asyncio.Queue[Doc]] = []
        self._applied: dict[str, AppliedDoc] = dict(view.mirror.applied)
        view.on_decision.append(self._decided)
        view.on_applied.append(self._wrote)

    def subscribe(self) -> asyncio.Queue[Doc]:
        queue: asyncio.Queue[Doc] = asyncio.Queue(BACKLOG)
        self._queues.append(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[Doc]) -> None:
        self._queues.remove(queue)

    def _tell(self, event: Doc) -> None:
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()  # a reader that is so far behind reads the next status document
            queue.put_nowait(event)

    def _decided(self, doc: DecisionDoc, live: bool) -> None:
        if not live:
            return
        self._tell(
            {
                "type": "decision",
                "at": doc.at,
                "service": doc.service,
                "decision": doc.id,
                "generation": doc.desired.generation,
                "new_generation": doc.new_generation,
                "events": list(doc.events),
                "text": decision_text(doc),
            }
        )

    def _wrote(self, name: str, doc: AppliedDoc) -> None:
        before, self._applied[name] = self._applied.get(name), doc
        for service, applied in sorted(doc.services.items()):
            known = before.services.get(service) if before else None
            seen = doc.seen.get(service, ())
            known_seen = before.seen.get(service, ()) if before else ()
            if applied != known or seen != known_seen:
                self._tell(
                    {
                        "type": "applied",
                        "at": iso(self._wall()),
                        "service": service,
                        "driver": doc.driver,
                        "writer": doc.writer,
                        "generation": applied.generation,
                        "result": applied.result,
                        "seen": list(seen),
                        "text": applied_text(doc, service, applied, seen if seen != known_seen else ()),
                    }
                )


def decision_text(doc: DecisionDoc) -> str:
    """ "d-1042 www gen 58: site-a failed eu-west 100 -> 0; ..."."""
    said = [f"{e.site} {e.rule}: {e.reason}".strip() for e in doc.events]
    what = "; ".join(said) if said else "checkpoint"
    return f"{doc.id} {doc.service} gen {doc.desired.generation}: {what}"


def applied_text(doc: AppliedDoc, service: str, applied: Applied, seen: tuple[Seen, ...]) -> str:
    """ "www: gen 58 ok at embedded-site-b by site-b · 127.0.2.1:53 agrees"."""
    text = f"{service}: gen {applied.generation} {applied.result} {applied.reason}".rstrip()
    words = [
        f"{s.server} " + ("agrees" if s.agrees else "unreachable" if s.generation is None else s.reason or "differs")
        for s in seen
    ]
    return " · ".join([f"{text} at {doc.driver} by {doc.writer}", *words])


def iso(wall_s: float) -> str:
    """ISO 8601 UTC, to the millisecond."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Api:
    """What all handlers share."""

    def __init__(self, node: NodeApi) -> None:
        self.node = node
        self.view = node.view
        self.memory = Memory()
        self.happenings = Happenings(node.view, node.wall)


NODE = web.AppKey("node", Api)
