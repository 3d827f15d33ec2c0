"""The API's mutations: preflight, compare, commit, audit.

The plan is the deed: a preflight (`dry_run`) returns its `basis`, a digest of all that it was judged on; who sends
it back gets exactly that plan carried out, or 409 with a new one to look at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from controlplane.api import wishes
from controlplane.api.changes import differences
from controlplane.api.guard import Refusal, reply
from controlplane.api.node import NODE, Api
from controlplane.api.reach import reach
from controlplane.api.status import override_status
from controlplane.api.trail import Ask, audited, body, current, meta, ready
from controlplane.config import check_document, read_config
from controlplane.view.evidence import running_nodes
from policies.frame import usable
from policies.safety import Preflight, preflight
from policies.topology import Config, Override

Doc = dict[str, Any]


class AskOverride(Ask, forbid_unknown_fields=True, kw_only=True):
    """command: drain | pin | freeze | failback. verb: in | out, for pin. for_s None: no expiry; left out: the
    command's own (4 h, failback 10 min)."""

    command: str
    verb: str = ""
    sites: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    for_s: float | msgspec.UnsetType | None = msgspec.UNSET


class AskApply(Ask, forbid_unknown_fields=True, kw_only=True):
    """text: the YAML file as it is; file: its name, for messages; expect: the revision that it replaces."""

    text: str
    file: str = "config"
    expect: int | None = None


async def post_override(request: web.Request) -> web.Response:
    api = request.app[NODE]
    async with audited(api, request) as trail:
        ask = await body(request, AskOverride, trail)
        words = (ask.command, *ask.sites, *([ask.verb] if ask.command == "pin" else ()), *ask.services)
        trail.action = wishes.one_line(" ".join(words))
        config = ready(api)
        draft = wishes.override(config, ask, api.node.wall())
        now, rev = api.view.overrides, _overrides_rev(api)
        same, older = wishes.already(now, draft, ask.for_s is msgspec.UNSET)
        if same is not None:
            trail.tell(f"in force already as {same.id}")
            return reply({"ok": True, "existing": _status(api, same), **meta(api)})
        plan = await _judged(api, config, ask, now, (*(o for o in now if o not in older), draft))
        plan |= {"for_s": draft.for_s, "ramp": _ramp(config, [draft]), "replaces": [_status(api, o) for o in older]}
        if ask.dry_run:
            return reply(plan)
        ids = [o.id for o in older]
        if ids:
            trail.tell(f"in place of {' '.join(ids)}")
        stored = await api.node.operator.add_override(draft, rev, ids)
    return reply({**plan, "override": override_status(stored, stored.for_s), **meta(api)}, 201)


async def delete_override(request: web.Request) -> web.Response:
    """Cancel one, or several ("ov-1,ov-2"): all or none."""
    api = request.app[NODE]
    async with audited(api, request) as trail:
        ask = await body(request, Ask, trail)
        ids = tuple(dict.fromkeys(request.match_info["id"].split(",")))
        trail.action = wishes.one_line(f"cancel {' '.join(ids)}")
        config = ready(api)
        there = {o.id for o in api.view.overrides}
        missing = [id_ for id_ in ids if id_ not in there]
        if missing:
            raise Refusal(404, f"no override {', '.join(missing)}: cancelled before, or at its end")
        now, rev = api.view.overrides, _overrides_rev(api)
        plan = await _judged(api, config, ask, now, tuple(o for o in now if o.id not in ids))
        plan |= {"ends": list(ids), "ramp": _ramp(config, [o for o in now if o.id in ids])}
        if ask.dry_run:
            return reply(plan)
        await api.node.operator.cancel_overrides(ids, rev)
    return reply({**plan, "cancelled": list(ids), **meta(api)})


async def post_unfreeze(request: web.Request) -> web.Response:
    """End every freeze, and the wait after the store was restored from a backup."""
    api = request.app[NODE]
    async with audited(api, request) as trail:
        ask = await body(request, Ask, trail)
        trail.action = "unfreeze"
        config = ready(api)
        now, rev, rewound = api.view.overrides, _overrides_rev(api), api.view.rewound
        frozen = [o.id for o in now if o.verb == "freeze"]
        if not frozen and not rewound:
            raise Refusal(404, "nothing is frozen", nothing=True)
        plan = await _judged(api, config, ask, now, tuple(o for o in now if o.id not in frozen))
        plan["ends"] = [*frozen, *(("rewound",) if rewound else ())]
        if ask.dry_run:
            return reply(plan)
        ended = await api.node.operator.unfreeze(frozen, rewound, rev)
    return reply({**plan, "cancelled": list(ended), **meta(api)})


async def post_apply(request: web.Request) -> web.Response:
    """Validate, compare, and put a configuration in force as the next revision."""
    api = request.app[NODE]
    view = api.view
    async with audited(api, request) as trail:
        ask = await body(request, AskApply, trail)
        trail.action = wishes.one_line(f"apply {ask.file}")
        current(api)
        read = await asyncio.to_thread(read_config, ask.text, ask.file)  # a large file takes seconds
        current(api)  # still
        config = read.config
        if config is None:
            raise Refusal(422, f"{ask.file} has errors", check=check_document(read))
        if config.cluster != view.keys.cluster:
            raise Refusal(422, f"{ask.file} is for cluster {config.cluster}; this is {view.keys.cluster}")
        revision = view.config.revision if view.config else 0
        doc: Doc = {
            "ok": True,
            "revision": revision,
            "changes": differences(view.config, config),
            "problems": list(read.problems),
            **meta(api),
        }
        if ask.expect is not None and ask.expect != revision:
            raise Refusal(409, f"revision {revision} is in force by now, not {ask.expect}", changed=True, **doc)
        if ask.dry_run or not doc["changes"]:
            return reply(doc)
        applied = await api.node.operator.apply_config(config, running_nodes(view), revision)
    return reply({**doc, "revision": applied.config.revision, "applied": True}, 201)


# --- what they share ------------------------------------------------------------------------------------


async def _judged(api: Api, config: Config, ask: Ask, now: Sequence[Override], changed: Sequence[Override]) -> Doc:
    """The preflight document. Raises Refusal: 409 if it is not what was looked at any more, 422 by a guard."""
    view = api.view
    slices = {name: view.slice(name) for name in view.frames}
    basis = wishes.basis(view, slices)
    room, guards = usable(config), config.policy.guards
    # In a thread: over thousands of services it takes seconds, and beats have to go on.
    found = await asyncio.to_thread(preflight, view.frames, slices, room, now, changed, guards, ask.accepts)
    doc: Doc = {"ok": not found.refused, "preflight": found, "basis": basis, "reach": reach(view, config), **meta(api)}
    if ask.basis and ask.basis != basis:
        raise Refusal(409, "something changed since the plan was made; look at it again", **doc | {"changed": True})
    if found.refused and not ask.dry_run:
        raise Refusal(422, refusal_text(found), **{k: v for k, v in doc.items() if k != "ok"})
    return doc


def _ramp(config: Config, ended: Sequence[Override]) -> list[int] | None:
    """The steps, percent, by which sites come back when these end; None where nothing does, or services differ."""
    sites = {site for o in ended if o.verb == "out" for site in o.sites}
    ramps = {
        service.policy.failback.ramp
        for name, service in config.services.items()
        if sites & service.endpoints.keys() and any(not o.services or name in o.services for o in ended)
    }
    return list(ramps.pop()) if len(ramps) == 1 else None


def refusal_text(found: Preflight) -> str:
    """All refusals at once, each with what would accept it."""
    lines = [
        f"{f.guard}: {f.text}"
        + (f" ({f.flag})" if f.flag else " (this cannot be accepted)" * (f.guard == "never_empty"))
        for f in found.findings
        if f.level == "refused"
    ]
    return "refused: " + "; ".join(lines)


def _overrides_rev(api: Api) -> int:
    return api.view.revisions.get(api.view.keys.overrides_rev, 0)


def _status(api: Api, override: Override) -> Doc:
    return override_status(override, api.view.override_left_s(override.id))
