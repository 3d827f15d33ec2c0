"""What an operator asks for, made into an override or refused with what would be right. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from controlplane.api.guard import Refusal
from controlplane.view import View
from policies.safety import ACCEPTABLE
from policies.topology import Config, Override
from policies.world import Slice

MOST_S = 72 * 3600.0
HOURS_4_S = 4 * 3600.0
DEFAULT_S = {"failback": 600.0}  # how long an override lasts unless something else is asked for; others: 4 h
LONGEST = 500  # characters of a reason

COMMANDS = {"drain": ("out", False), "freeze": ("freeze", False), "failback": ("in", False)}
PIN = ("in", "out")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Wish(Protocol):
    """The part of the request that makes the override."""

    command: str
    verb: str
    sites: tuple[str, ...]
    services: tuple[str, ...]
    author: str
    reason: str
    for_s: float | msgspec.UnsetType | None  # unset: the command's own
    accepts: tuple[str, ...]


def override(config: Config, wish: Wish, wall_s: float) -> Override:
    """The draft; its id, order and op come with the commit. Raises Refusal, naming what would be right."""
    if wish.command == "pin":
        if wish.verb not in PIN:
            raise Refusal(400, "pin: verb is in or out")
        verb, hard = wish.verb, True
    elif wish.command in COMMANDS:
        verb, hard = COMMANDS[wish.command]
    else:
        raise Refusal(400, f"no command {wish.command!r}; there are {', '.join((*COMMANDS, 'pin'))}")
    if bool(wish.sites) == (verb == "freeze"):
        raise Refusal(400, "freeze takes no site" if wish.sites else f"{wish.command} needs a site")
    for_s = DEFAULT_S.get(wish.command, HOURS_4_S) if wish.for_s is msgspec.UNSET else wish.for_s
    if for_s is not None and not 0 < for_s <= MOST_S:
        raise Refusal(400, "an override lasts over 0 s and at most 72 h; or say --no-expiry")
    _known(config, wish)
    return Override(
        id="new",
        verb=verb,
        hard=hard,
        command=wish.command,
        sites=tuple(sorted(set(wish.sites))),
        services=tuple(sorted(set(wish.services))),
        author=one_line(wish.author),
        reason=one_line(wish.reason),
        created_at=datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="seconds"),
        order=1 << 62,  # in a preflight: newer than any other
        for_s=for_s,
        accepts=tuple(sorted(set(wish.accepts))),
    )


def _known(config: Config, wish: Wish) -> None:
    for service in wish.services:
        if service not in config.services:
            raise Refusal(404, f"no service {service!r}; there are {', '.join(sorted(config.services)[:8])}")
    serving = [name for name, site in config.sites.items() if site.role != "witness"]
    for site in wish.sites:
        if site not in config.sites:
            raise Refusal(404, f"no site {site!r}; there are {', '.join(serving)}")
        if site not in serving:
            raise Refusal(400, f"{site} is a witness: it serves nothing that could be moved")
        for service in wish.services:
            if site not in config.services[service].endpoints:
                there = ", ".join(config.services[service].endpoints)
                raise Refusal(400, f"{service} has no endpoint at {site}; it has them at {there}")


def one_line(text: str) -> str:
    """What people wrote, without what could move a cursor or break a log."""
    return _CONTROL.sub(" ", text).strip()[:LONGEST]


def acceptable(accepts: Sequence[str]) -> None:
    """Raises Refusal for what is no guard that can be accepted."""
    for guard in accepts:
        if guard not in ACCEPTABLE:
            why = "never_empty cannot be accepted" if guard == "never_empty" else f"{guard!r} is no guard to accept"
            raise Refusal(400, f"{why}; there are {', '.join(ACCEPTABLE)}")


def already(overrides: Sequence[Override], draft: Override, any_length: bool) -> tuple[Override | None, list[Override]]:
    """(one in force that says the same: a repeat creates no second override; those whose place the draft takes).

    The latter do the same but for how long, or but for the guards accepted. any_length: no duration was asked for.
    """

    def does(o: Override) -> tuple[object, ...]:
        return (o.command, o.verb, o.hard, o.sites, o.services)

    alike = [there for there in overrides if does(there) == does(draft)]
    for there in alike:
        if there.accepts == draft.accepts and (any_length or there.for_s == draft.for_s):
            return there, []
    return None, alike


def basis(view: View, slices: Mapping[str, Slice]) -> str:
    """Digest of what a preflight is judged on: overrides, configuration, and of each service what it is told and
    how its sites stand. Running timers are left out: they would change it each minute."""
    keys = view.keys
    parts: list[object] = [view.revisions.get(keys.overrides_rev, 0), view.revisions.get(keys.config, 0)]
    for name, slice_ in slices.items():
        d = slice_.desired
        sites = {s: (x.verdict, x.held, x.rule, x.phase, x.step) for s, x in d.sites.items()} if d else {}
        parts.append((name, d.generation if d else 0, sites, slice_.rewound))
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:32]
