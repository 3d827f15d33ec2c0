"""POST /v1/adopt: give the records of a foreign incarnation to this cluster (DESIGN 4.8)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from controlplane.api import wishes
from controlplane.api.alarms import foreign
from controlplane.api.guard import Refusal, reply
from controlplane.api.node import NODE, Api
from controlplane.api.picture import words_of
from controlplane.api.trail import Ask, audited, body, meta, ready

Doc = dict[str, Any]


class AskAdopt(Ask, forbid_unknown_fields=True, kw_only=True):
    """incarnations: () = all that are found. adoption: the revision that the plan was made on; None = none was."""

    incarnations: tuple[str, ...] = ()
    adoption: int | None = None


async def post_adopt(request: web.Request) -> web.Response:
    """`found`: incarnation -> service -> {name, drivers}, of those asked for. Only what an agent has found can be
    adopted: a misspelt incarnation is refused."""
    api = request.app[NODE]
    async with audited(api, request) as trail:
        ask = await body(request, AskAdopt, trail)
        trail.action = wishes.one_line(f"adopt {' '.join(ask.incarnations) or 'all'}")
        ready(api)
        own = api.view.incarnation
        if own in ask.incarnations:
            raise Refusal(400, f"{own} is this cluster's own incarnation")
        there = _found(api)
        missing = [name for name in ask.incarnations if name not in there]
        if missing or not there:
            known = f"; there are {', '.join(sorted(there))}" if there else ": no foreign record is known"
            raise Refusal(
                404, f"nothing of {', '.join(missing) or 'another incarnation'} was found{known}", nothing=True
            )
        found = {name: there[name] for name in ask.incarnations or sorted(there)}
        adoption = api.view.adoption
        doc: Doc = {"ok": True, "found": found, "own": own, "adoption": adoption, **meta(api)}
        if ask.adoption not in (None, adoption):
            raise Refusal(409, "something else was adopted since the plan was made", **doc | {"changed": True})
        if ask.dry_run:
            return reply(doc)
        adopted = await api.node.operator.adopt(tuple(found), adoption)
    return reply({**doc, "adopted": list(adopted), **meta(api)}, 201)


def _found(api: Api) -> dict[str, Doc]:
    view = api.view
    names = {service: desired.name for service, desired in view.desired.items()}
    return {
        incarnation: {s: {"name": names.get(s, ""), "drivers": sorted(drivers)} for s, drivers in sorted(where.items())}
        for incarnation, where in foreign(words_of(view)).items()
        if incarnation != view.incarnation
    }
