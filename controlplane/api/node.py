"""What the API needs of the node that it speaks for, and what it keeps between requests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from aiohttp import web
from msgspec.structs import replace

from controlplane.api.picture import Memory, arrival_of, number_of, words_of, working_agents
from controlplane.api.propagation import Arrival, Word
from controlplane.documents import Applied, AppliedDoc, DecisionDoc
from controlplane.journal import Journal
from controlplane.operator import Operator
from controlplane.telemetry.telemetry import Telemetry
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

    @property
    def telemetry(self) -> Telemetry: ...

    def wall(self) -> float:
        """The wall clock, seconds since 1970: for people."""
        ...


class Happenings:
    """What happens, for whoever listens: decisions, and what writers and name servers report. The latest of it is
    kept, for who was away for a moment."""

    def __init__(self, view: View, wall: Callable[[], float]) -> None:
        self._view, self._wall = view, wall
        self._latest: deque[Doc] = deque(maxlen=BACKLOG)
        self._known: dict[str, None] = {}  # nonces of decisions, of which a new snapshot tells again
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

    def since(self, decision: int) -> list[Doc]:
        """What happened after the decision of this number; decisions of before this API began come first."""
        latest = list(self._latest)
        old = [i for i, e in enumerate(latest) if e["type"] == "decision" and number_of(e["decision"]) <= decision]
        latest = latest[old[-1] + 1 :] if old else latest
        known = {e["decision"] for e in latest if e["type"] == "decision"}
        docs = self._view.mirror.decisions.values()
        early = [d for d in docs if number_of(d.id) > decision and d.id not in known]
        return [*map(_decision, sorted(early, key=lambda d: number_of(d.id))), *latest]

    def _tell(self, event: Doc) -> None:
        self._latest.append(event)
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()  # a reader that is so far behind reads the next status document
            queue.put_nowait(event)

    def _decided(self, doc: DecisionDoc, live: bool) -> None:
        if doc.nonce in self._known:
            return
        if len(self._known) >= BACKLOG:
            del self._known[next(iter(self._known))]
        self._known[doc.nonce] = None
        if live:
            self._tell(_decision(doc) | self._holder())
        else:
            self._latest.append(_decision(doc))

    def _holder(self) -> Doc:
        """Who holds the leader key as of the store's revision that is being applied, and since which one: for whoever
        judges a live decision from outside. "" and 0: nobody."""
        leader, keys = self._view.leader, self._view.keys
        token = self._view.revisions.get(keys.leader, 0) if leader else 0
        return {"holder": leader.node if leader else "", "holder_token": token}

    def _wrote(self, name: str, doc: AppliedDoc) -> None:
        before, self._applied[name] = self._applied.get(name), doc
        words, working = words_of(self._view), working_agents(self._view)
        for service, applied in sorted(doc.services.items()):
            known = before.services.get(service) if before else None
            seen = doc.seen.get(service, ())
            known_seen = before.seen.get(service, ()) if before else ()
            if _but_sessions(applied) != _but_sessions(known) or seen != known_seen:
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
                        **self._arrived(doc, service, applied, words, working),
                    }
                )

    def _arrived(
        self, doc: AppliedDoc, service: str, applied: Applied, words: tuple[Word, ...], working: Collection[str]
    ) -> Doc:
        """How far the present generation has come, whoever reported last."""
        desired = self._view.desired.get(service)
        arrived = Arrival("propagating", (), 0.0, ())
        if desired is not None:
            arrived = arrival_of(self._view.config, desired, words, working)
        generation = desired.generation if desired else applied.generation
        unreachable = [s.server for s in arrived.servers if s.generation is None]
        said = []
        if arrived.servers or not arrived.pools:
            said.append(f"{arrived.agreeing}/{len(arrived.servers)} name servers agree")
        if arrived.pools:
            said.append(f"{arrived.pools_agreeing}/{len(arrived.pools)} pools agree")
        parts = [f"{service} gen {generation}: {', '.join(said)}", *(f"{server} unreachable" for server in unreachable)]
        parts += [f"{p.driver} at {p.site} unreachable" for p in arrived.pools if p.generation is None]
        if applied.result != "ok":
            parts.append(f"{doc.driver} by {doc.writer}: {applied.result} {applied.reason}".rstrip())
        return {"text": " · ".join(parts), "arriving": generation}


def _but_sessions(applied: Applied | None) -> Applied | None:
    """Those change all the time: no news."""
    return replace(applied, sessions={}) if applied is not None and applied.sessions else applied


def _decision(doc: DecisionDoc) -> Doc:
    return {
        "type": "decision",
        "at": doc.at,
        "service": doc.service,
        "decision": doc.id,
        "generation": doc.desired.generation,
        "new_generation": doc.new_generation,
        "events": list(doc.events),
        "text": decision_text(doc),
        "holder": None,  # not known of one that was not seen as it was made
        "holder_token": None,
    }


def decision_text(doc: DecisionDoc) -> str:
    """ "d-1042 www gen 58: site-a failed eu-west 100 -> 0; ..."."""
    said = [f"{e.site} {e.rule}: {e.reason}".strip() for e in doc.events]
    what = "; ".join(said) if said else "checkpoint"
    return f"{doc.id} {doc.service} gen {doc.desired.generation}: {what}"


def iso(wall_s: float) -> str:
    """ISO 8601 UTC, to the millisecond."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Api:
    """What all handlers share."""

    def __init__(self, node: NodeApi, lacks: Callable[[], Sequence[str]] | None = None) -> None:
        self.node = node
        self.view = node.view
        self.lacks = lacks or self._lacks
        self.memory = Memory()
        self.happenings = Happenings(node.view, node.wall)

    def _lacks(self) -> Sequence[str]:
        if not self.view.current:
            return ("this node's view of the store is not current",)
        return () if self.view.config is not None else ("no configuration is applied yet",)


NODE = web.AppKey("node", Api)
