"""The API's reads. Each answer carries its source: whose view it is, and how old."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from controlplane.api.guard import Refusal, reply
from controlplane.api.node import NODE, Api
from controlplane.api.picture import number_of, source_of, take_picture, vantages_of
from controlplane.api.predict import carried_to, explanation, next_loss, retold, settle_now
from controlplane.api.status import override_status, status_document
from controlplane.api.survey import verified
from controlplane.documents import DecisionDoc
from controlplane.store import StoreError
from controlplane.view import View
from controlplane.view.evidence import evidence
from policies.frame import Frame, frames
from policies.topology import Config

Doc = dict[str, Any]
QUIET_S = 1.0  # an event stream says at least this often how things are
CALM_S = 0.2  # between two status documents of one stream
STORE_S = 1.0  # patience with a read of the store
MOST_DEMAND = 1000.0  # times today's


def configured(view: View) -> Config:
    """Raises Refusal while there is no configuration to speak of."""
    if view.config is None:
        why = "no configuration is applied yet" if view.synced else "this node has not read the store yet"
        raise Refusal(409 if view.synced else 503, why, source=source_of(view))
    return view.config


async def get_status(request: web.Request) -> web.Response:
    api = request.app[NODE]
    return reply(await status(api, request.query.getall("service", [])))


async def status(api: Api, only: list[str]) -> Doc:
    view = api.view
    return status_document(await take_picture(view, api.memory, api.node.journal), only)


async def get_explain(request: web.Request) -> web.Response:
    api = request.app[NODE]
    view, service = api.view, request.match_info["service"]
    config = configured(view)
    if service not in view.frames:
        known = ", ".join(sorted(view.frames)[:8])
        raise Refusal(404, f"no service {service!r}; there are {known}")
    carried = carried_to(view.frames, view.desired, service, view.carried())
    doc = explanation(view.frames[service], view.slice(service), carried)
    desired = view.desired.get(service)
    recorded = view.mirror.decisions.get(desired.decision) if desired else None
    ages = {(e.vantage, e.target): e for e in evidence(view, service)}
    for site in doc["sites"].values():
        for line in site["evidence"]:
            seen = ages.get((line["vantage"], line["target"]))
            line["age_s"] = None if seen is None or seen.age_s is None else round(seen.age_s, 3)
            line["since_s"] = None if seen is None or seen.since_s is None else round(seen.since_s, 3)
            line["warning"] = "" if seen is None else seen.warning
    first = list(view.frames)[: list(view.frames).index(service) + 1]
    slices = {name: view.slice(name) for name in first}
    doc["next"] = await asyncio.to_thread(next_loss, config, slices, service)
    now = await status(api, [service])
    doc |= {
        "at": recorded.at if recorded else None,
        "events": list(recorded.events) if recorded else [],
        "state": now["services"][service]["state"],
        "overrides": [o for o in now["overrides"] if not o["services"] or service in o["services"]],
        "source": now["source"],
    }
    return reply(doc)


async def get_decision(request: web.Request) -> web.Response:
    api = request.app[NODE]
    view, id_ = api.view, request.match_info["id"]
    found = view.mirror.decisions.get(id_)
    if found is None:
        latest = sorted(view.mirror.decisions, key=lambda d: (len(d), d))[-1:] or ["none"]
        raise Refusal(404, f"no decision {id_} is kept; the latest is {latest[0]}")
    doc = retold(found, await _frame_of(api, found))
    doc |= {
        "decision": found.id,
        "generation": found.desired.generation,
        "at": found.at,
        "shares": found.desired.shares,
        "events": list(found.events),
        "refused": [f"{e.rule}: {e.reason}" for e in found.refused],
        "by": found.node,
        "config_rev": found.config_rev,
        "state": None,
        "overrides": [override_status_of(view, o) for o in found.desired.overrides],
        "source": source_of(view),
    }
    return reply(doc)


async def get_record(request: web.Request) -> web.Response:
    """A decision as it stands in the store, with its inputs: what replays it, and what judges a drill."""
    view, id_ = request.app[NODE].view, request.match_info["id"]
    found = view.mirror.decisions.get(id_)
    if found is None:
        raise Refusal(404, f"no decision {id_} is kept")
    return reply({"record": found, "source": source_of(view)})


async def _frame_of(api: Api, decision: DecisionDoc) -> Frame | None:
    """The service as the configuration had it when this was decided; None if that is not to be had any more."""
    view, revision = api.view, decision.config_rev
    if view.config is not None and view.config.revision == revision:
        return view.frames.get(decision.service)
    try:
        async with asyncio.timeout(STORE_S):
            config = await api.node.operator.config_of(revision)
    except (StoreError, TimeoutError):
        return None
    return (await asyncio.to_thread(frames, config)).get(decision.service) if config else None


def override_status_of(view: View, id_: str) -> Doc:
    """What is still known of an override that a decision names."""
    override = view.mirror.overrides.get(id_)
    if override is None:
        return {"id": id_}
    return override_status(override, view.override_left_s(id_))


async def get_overrides(request: web.Request) -> web.Response:
    view = request.app[NODE].view
    overrides = [override_status(o, view.override_left_s(o.id)) for o in view.overrides]
    return reply({"overrides": overrides, "source": source_of(view)})


async def get_config(request: web.Request) -> web.Response:
    """The applied configuration, and what its services are to be told: all that `verify` needs."""
    view = request.app[NODE].view
    config = configured(view)
    return reply(
        {
            "config": config,
            "incarnation": view.incarnation,
            "desired": dict(view.desired),
            "source": source_of(view),
        }
    )


async def get_whatif(request: web.Request) -> web.Response:
    view = request.app[NODE].view
    config = configured(view)
    lost, drained = request.query.getall("lose", []), request.query.getall("drain", [])
    for site in (*lost, *drained):
        if site not in config.sites:
            raise Refusal(404, f"no site {site!r}; there are {', '.join(config.sites)}")
    try:
        factor = float(request.query.get("demand", "1"))
    except ValueError:
        raise Refusal(400, "demand is a factor, such as 1.3") from None
    if not 0 <= factor <= MOST_DEMAND:
        raise Refusal(400, f"demand is a factor from 0 to {MOST_DEMAND:g}")
    slices = {name: view.slice(name) for name in view.frames}
    seeing = {site for site, word in vantages_of(view).items() if word == "ok"}
    mute = [site for site in config.sites if site not in seeing]
    doc = await asyncio.to_thread(settle_now, config, slices, lost, drained, factor, mute)
    doc["overrides"] = [o.id for o in view.overrides]
    doc["source"] = source_of(view)
    return reply(doc)


async def get_verify(request: web.Request) -> web.Response:
    """This node asks every name server itself."""
    view = request.app[NODE].view
    config = configured(view)
    services = request.query.getall("service", [])
    for service in services:
        if service not in config.services:
            raise Refusal(404, f"no service {service!r}; there are {', '.join(list(config.services)[:8])}")
    doc = await verified(config, services, view.desired, view.incarnation)
    doc["source"] = source_of(view)
    return reply(doc)


async def get_healthz(request: web.Request) -> web.Response:
    """The process answers."""
    return reply({"ok": True})


async def get_readyz(request: web.Request) -> web.Response:
    """Does this node do all of its work? `missing`: what it waits for, in words."""
    api = request.app[NODE]
    missing = list(api.lacks())
    return reply({"ok": not missing, "missing": missing, "source": source_of(api.view)}, 503 if missing else 200)


async def get_events(request: web.Request) -> web.StreamResponse:
    """Server-sent events (WHATWG HTML, section 9.2): a status document when something changed and at least each
    second (`changed`: other than in its ages), and what happens in between. ?after=d-7: first what happened after
    that decision, as far as it is known here (`replayed`)."""
    api = request.app[NODE]
    after = request.query.get("after", "")
    if after and not re.fullmatch(r"d-[0-9]{1,18}", after):
        raise Refusal(400, "after is a decision's id, such as d-7")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    heard = api.happenings.subscribe()
    missed = api.happenings.since(number_of(after)) if after else []
    try:
        async for event in _events(api, heard, missed):
            await response.write(b"data: " + msgspec.json.encode(event) + b"\n\n")
    except (ConnectionResetError, ConnectionError):
        pass  # the reader went away
    finally:
        api.happenings.unsubscribe(heard)
    return response


async def _events(api: Api, heard: asyncio.Queue[Doc], missed: list[Doc]) -> AsyncIterator[Doc]:
    loop = asyncio.get_running_loop()
    for event in missed:
        yield event | {"replayed": True}
    before: bytes | None = None
    while True:
        doc = await status(api, [])
        mark = _mark(doc)
        yield {"type": "status", "changed": mark != before, **doc}
        before = mark
        until = loop.time() + QUIET_S
        changed_at: float | None = None
        while (left := (until if changed_at is None else changed_at + CALM_S) - loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    event = await heard.get()
            except TimeoutError:
                break
            yield event
            changed_at = loop.time() if changed_at is None else changed_at


def _mark(doc: Doc) -> bytes:
    """The document without what changes by itself: two that differ only in ages are the same."""
    return msgspec.json.encode(_still(msgspec.to_builtins(doc)), order="deterministic")


_AGES = ("source", "age_s", "since_s", "left_s", "old_ttl_left_s", "sessions", "notes", "reason", "remedy")


def _still(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _still(v) for k, v in value.items() if k not in _AGES}
    return [_still(v) for v in value] if isinstance(value, list) else value
