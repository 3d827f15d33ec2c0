"""The API's mutations: preflight, compare, commit, audit.

The plan is the deed: a preflight (`dry_run`) returns its `basis`, a digest of all that it was judged on; who sends
it back gets exactly that plan carried out, or 409 with a new one to look at.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from controlplane.api import wishes
from controlplane.api.changes import differences
from controlplane.api.guard import Refusal, reply
from controlplane.api.node import NODE, Api
from controlplane.api.picture import source_of
from controlplane.api.reads import configured
from controlplane.api.status import override_status
from controlplane.config import check_document, read_config
from controlplane.operator import Refused, Unknown
from controlplane.store import OutcomeUnknown, StoreError
from policies.frame import usable
from policies.safety import Preflight, preflight
from policies.topology import Config, Override

Doc = dict[str, Any]
T = TypeVar("T")


class Ask(Struct, forbid_unknown_fields=True, kw_only=True):
    """What every mutation says. basis: of the preflight that was looked at; "" = none was."""

    author: str
    reason: str = ""
    dry_run: bool = False
    basis: str = ""
    accepts: tuple[str, ...] = ()


class AskOverride(Ask, forbid_unknown_fields=True, kw_only=True):
    """command: drain | pin | freeze | failback. verb: in | out, for pin. for_s None: no expiry."""

    command: str
    verb: str = ""
    sites: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    for_s: float | None


class AskApply(Ask, forbid_unknown_fields=True, kw_only=True):
    """text: the YAML file as it is; file: its name, for messages; expect: the revision that it replaces."""

    text: str
    file: str = "config"
    expect: int | None = None


async def post_override(request: web.Request) -> web.Response:
    api = request.app[NODE]
    ask = await _body(request, AskOverride)
    config = _ready(api)
    draft = wishes.override(config, ask, api.node.wall())
    action = f"{ask.command} {' '.join((*ask.sites, *ask.services))}".strip()
    async with _audited(api, ask, action):
        same = wishes.already(api.view.overrides, draft)
        if same is not None:
            return reply({"ok": True, "existing": _status(api, same), **_meta(api)})
        now, rev = api.view.overrides, _overrides_rev(api)
        plan = await _judged(api, config, ask, now, (*now, draft))
        if ask.dry_run:
            return reply(plan)
        stored = await api.node.operator.add_override(draft, rev)
    left_s = stored.for_s
    return reply({**plan, "override": override_status(stored, left_s), **_meta(api)}, 201)


async def delete_override(request: web.Request) -> web.Response:
    """Cancel one, or several ("ov-1,ov-2"): all or none."""
    api = request.app[NODE]
    ask = await _body(request, Ask)
    config = _ready(api)
    ids = tuple(dict.fromkeys(request.match_info["id"].split(",")))
    async with _audited(api, ask, f"cancel {' '.join(ids)}"):
        there = {o.id for o in api.view.overrides}
        missing = [id_ for id_ in ids if id_ not in there]
        if missing:
            raise Refusal(404, f"no override {', '.join(missing)}: cancelled before, or at its end")
        now, rev = api.view.overrides, _overrides_rev(api)
        plan = await _judged(api, config, ask, now, tuple(o for o in now if o.id not in ids))
        plan["ends"] = list(ids)
        if ask.dry_run:
            return reply(plan)
        await api.node.operator.cancel_overrides(ids, rev)
    return reply({**plan, "cancelled": list(ids), **_meta(api)})


async def post_unfreeze(request: web.Request) -> web.Response:
    """End every freeze, and the wait after the store was restored from a backup."""
    api = request.app[NODE]
    ask = await _body(request, Ask)
    config = _ready(api)
    async with _audited(api, ask, "unfreeze"):
        now = api.view.overrides
        frozen = [o.id for o in now if o.verb == "freeze"]
        if not frozen and not api.view.rewound:
            raise Refusal(404, "nothing is frozen")
        plan = await _judged(api, config, ask, now, tuple(o for o in now if o.id not in frozen))
        plan["ends"] = [*frozen, *(("rewound",) if api.view.rewound else ())]
        if ask.dry_run:
            return reply(plan)
        ended = await api.node.operator.unfreeze()
    return reply({**plan, "cancelled": list(ended), **_meta(api)})


async def post_apply(request: web.Request) -> web.Response:
    """Validate, compare, and put a configuration in force as the next revision."""
    api = request.app[NODE]
    ask = await _body(request, AskApply)
    view = api.view
    if not view.current:
        raise Refusal(503, "this node's view is not current", **_meta(api))
    async with _audited(api, ask, f"apply {ask.file}"):
        read = await asyncio.to_thread(read_config, ask.text, ask.file)  # a large file takes seconds
        config = read.config
        if config is None:
            raise Refusal(422, f"{ask.file} has errors", check=check_document(read))
        cluster = view.keys.prefix.strip("/").split("/")[-1]
        if config.cluster != cluster:
            raise Refusal(422, f"{ask.file} is for cluster {config.cluster}; this is {cluster}")
        revision = view.config.revision if view.config else 0
        doc: Doc = {
            "ok": True,
            "revision": revision,
            "changes": differences(view.config, config),
            "problems": list(read.problems),
            **_meta(api),
        }
        if ask.expect is not None and ask.expect != revision:
            raise Refusal(409, f"revision {revision} is in force by now, not {ask.expect}", changed=True, **doc)
        if ask.dry_run or not doc["changes"]:
            return reply(doc)
        nodes = [n for name, n in view.mirror.nodes.items() if view.age_s(view.keys.node(name)) < view.freshness_s]
        applied = await api.node.operator.apply_config(config, nodes, revision)
    return reply({**doc, "revision": applied.config.revision, "applied": True}, 201)


# --- what they share ------------------------------------------------------------------------------------


async def _body(request: web.Request, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=type_)
    except msgspec.MsgspecError as error:
        raise Refusal(400, f"the request is not understood: {error}") from None


def _ready(api: Api) -> Config:
    """Only a current view may judge what an operator wants to do."""
    config = configured(api.view)
    if not api.view.current:
        raise Refusal(503, "this node's view is not current", **_meta(api))
    return config


async def _judged(api: Api, config: Config, ask: Ask, now: Sequence[Override], changed: Sequence[Override]) -> Doc:
    """The preflight document. Raises Refusal: 409 if it is not what was looked at any more, 422 by a guard."""
    view = api.view
    slices = {name: view.slice(name) for name in view.frames}
    basis = wishes.basis(view, slices)
    room, guards = usable(config), config.policy.guards
    # In a thread: over thousands of services it takes seconds, and beats have to go on.
    found = await asyncio.to_thread(preflight, view.frames, slices, room, now, changed, guards, ask.accepts)
    doc: Doc = {"ok": not found.refused, "preflight": found, "basis": basis, **_meta(api)}
    if ask.basis and ask.basis != basis:
        raise Refusal(409, "something changed since the plan was made; look at it again", **doc | {"changed": True})
    if found.refused and not ask.dry_run:
        raise Refusal(422, refusal_text(found), **{k: v for k, v in doc.items() if k != "ok"})
    return doc


def refusal_text(found: Preflight) -> str:
    """All refusals at once, each with what would accept it."""
    lines = [
        f"{f.guard}: {f.text}" + (f" ({f.flag})" if f.flag else " (this cannot be accepted)")
        for f in found.findings
        if f.level == "refused"
    ]
    return "refused: " + "; ".join(lines)


def _overrides_rev(api: Api) -> int:
    return api.view.revisions.get(api.view.keys.overrides_rev, 0)


def _status(api: Api, override: Override) -> Doc:
    return override_status(override, api.view.override_left_s(override.id))


def _meta(api: Api) -> Doc:
    view = api.view
    return {
        "cluster": view.keys.prefix.strip("/").split("/")[-1],
        "config_rev": view.config.revision if view.config else None,
        "source": source_of(view),
    }


@contextlib.asynccontextmanager
async def _audited(api: Api, ask: Ask, action: str) -> AsyncIterator[None]:
    """Every mutation goes into the audit trail, refused ones too; a look at the plan does not."""
    author, detail = wishes.one_line(ask.author), wishes.one_line(ask.reason)
    result = "ok"
    try:
        yield
    except Refusal as refusal:
        result = "conflict" if refusal.status == 409 else "refused"
        detail = f"{detail}: {refusal.error}"
        raise
    except Refused as refused:
        result, detail = "conflict", f"{detail}: {refused}"
        raise Refusal(409, str(refused), changed=True) from None
    except (Unknown, OutcomeUnknown) as unknown:
        result, detail = "unknown", f"{detail}: {unknown}"
        raise Refusal(504, str(unknown), sent=True) from None
    except StoreError as error:
        result, detail = "refused", f"{detail}: {error}"
        raise Refusal(503, f"the store cannot be reached: {error}", sent=False) from None
    except BaseException:
        result = "unknown"
        raise
    finally:
        if not ask.dry_run:
            api.node.journal.audit(author, action, result, detail)
