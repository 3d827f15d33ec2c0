"""What the API's mutations share: who asks, whether this node may judge it, and the audit trail."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from controlplane.api import wishes
from controlplane.api.guard import Refusal
from controlplane.api.node import Api
from controlplane.api.picture import source_of
from controlplane.api.reads import configured
from controlplane.operator import Refused, TooOld, Unknown
from controlplane.store import OutcomeUnknown, StoreError
from policies.topology import Config

Doc = dict[str, Any]
NOBODY = "?"


class Ask(Struct, forbid_unknown_fields=True, kw_only=True):
    """What every mutation says. basis: of the preflight that was looked at; "" = none was."""

    author: str
    reason: str = ""
    dry_run: bool = False
    basis: str = ""
    accepts: tuple[str, ...] = ()


A = TypeVar("A", bound=Ask)


class Trail:
    """What the audit trail will say of one mutation; filled in as it becomes known. look: only at the plan."""

    def __init__(self, action: str) -> None:
        self.author, self.action, self.detail, self.look = NOBODY, action, "", False

    def tell(self, more: str) -> None:
        self.detail = "; ".join(part for part in (self.detail, more) if part)


@contextlib.asynccontextmanager
async def audited(api: Api, request: web.Request) -> AsyncIterator[Trail]:
    """Every mutation goes into the audit trail, refused ones too; a look at the plan does not."""
    trail = Trail(wishes.one_line(f"{request.method} {request.path}"))
    result = "ok"
    try:
        yield trail
    except Refusal as refusal:
        result = "conflict" if refusal.status == 409 else "refused"
        trail.tell(refusal.error)
        raise
    except web.HTTPException as error:  # such as a body that is too large
        result = "refused"
        trail.tell(error.reason)
        raise
    except TooOld as refused:
        result = "refused"
        trail.tell(str(refused))
        raise Refusal(422, str(refused)) from None
    except Refused as refused:
        result = "conflict"
        trail.tell(str(refused))
        raise Refusal(409, str(refused), changed=True) from None
    except (Unknown, OutcomeUnknown) as unknown:
        result = "unknown"
        trail.tell(str(unknown))
        raise Refusal(504, str(unknown), sent=True) from None
    except StoreError as error:
        result = "refused"
        trail.tell(str(error))
        raise Refusal(503, f"the store cannot be reached: {error}", sent=False) from None
    except BaseException:
        result = "unknown"
        raise
    finally:
        if not trail.look:
            api.node.journal.audit(trail.author, trail.action, result, trail.detail)


async def body(request: web.Request, type_: type[A], trail: Trail) -> A:
    try:
        raw = await request.read()
    except web.RequestPayloadError as error:  # such as what is not compressed as it says
        raise Refusal(400, f"the body cannot be read: {' '.join(str(error).split())[:200]}") from None
    except ConnectionError:
        raise Refusal(400, "the client hung up before all was sent") from None
    try:
        ask = msgspec.json.decode(raw, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(400, f"the request is not understood: {error}") from None
    trail.author, trail.detail, trail.look = wishes.one_line(ask.author), wishes.one_line(ask.reason), ask.dry_run
    if not trail.author:
        trail.author = NOBODY
        raise Refusal(400, "an author is needed")
    wishes.acceptable(ask.accepts)
    return ask


def current(api: Api) -> None:
    """Only a current view may judge what an operator wants to do."""
    if not api.view.current:
        raise Refusal(503, "this node's view is not current", **meta(api))


def ready(api: Api) -> Config:
    config = configured(api.view)
    current(api)
    return config


def meta(api: Api) -> Doc:
    view = api.view
    return {
        "cluster": view.keys.cluster,
        "config_rev": view.config.revision if view.config else None,
        "source": source_of(view),
    }
