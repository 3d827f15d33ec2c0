"""One slice's votes -> what each site is for this service: its verdict, what it answers, which address is
served (DESIGN 4.3). Pure."""

from __future__ import annotations

from msgspec import Struct

from policies.frame import Frame, Watched, watched
from policies.quorum import Verdict, quorum
from policies.world import SiteState, Slice

NEW = SiteState()


class Judged(Struct, frozen=True):
    """What the votes of one slice say of one site."""

    verdict: str  # up | down | unknown
    held: bool  # up, but without quorum now
    replies: bool  # something of the service still answers there
    unanimous: bool  # down, and no voter dissents
    addresses: tuple[str, ...]  # to serve
    last: dict[str, str]
    replying: tuple[str, ...]  # targets that are not up and answer something
    tally: str  # of the worst target
    complete: bool  # every target has a verdict

    @property
    def up(self) -> bool:
        return self.verdict == "up" and not self.held


class _Row(Struct, frozen=True):
    row: Watched
    now: Verdict
    last: str  # up | down | ""
    status: str  # down | held | up | unknown; a held DOWN counts as DOWN, on the quorum that made it
    replies: bool


def judge(frame: Frame, slice_: Slice) -> dict[str, Judged]:
    """Every site that has an endpoint or is still served."""
    desired = slice_.desired
    states = desired.sites if desired else {}
    width = len(slice_.vantages)
    quorum_policy = frame.spec.policy.quorum
    by_site: dict[str, list[_Row]] = {site: [] for site in frame.sites}
    for index, row in enumerate(watched(frame, desired)):
        votes = slice_.votes[index * width : (index + 1) * width]
        now = quorum(votes, quorum_policy.share_permille, quorum_policy.min_vantages)
        state = states.get(row.site, NEW)
        last = now.health or state.last.get(row.id, "")
        replies = now.replies
        if replies is None:
            replies = row.id in state.replies or state.last.get(row.id) == "up"
        status = "held" if last == "up" and not now.health else last or "unknown"
        by_site.setdefault(row.site, []).append(_Row(row, now, last, status, replies))
    return {
        site: _judge_site(frame, rows, states.get(site, NEW), site, bool(slice_.freeze))
        for site, rows in by_site.items()
    }


def _judge_site(frame: Frame, rows: list[_Row], state: SiteState, site: str, frozen: bool) -> Judged:
    configured = frame.spec.endpoints.get(site, ())
    served = state.addresses or configured
    if served == configured and rows and all(r.status == "up" for r in rows):
        return _all_well(rows, served)
    if served != configured and configured and not frozen and _proven(frame, rows, served, configured):
        served = configured
    rows = [r for r in rows if r.row.own or r.row.address in served or r.row.address in configured]
    status, deciding = _combine(frame, rows, served)
    mine = [r for r in rows if not r.row.own and r.row.address in served]
    return Judged(
        verdict="up" if status == "held" else status,
        held=status == "held",
        replies=any(r.replies for r in mine),
        unanimous=any(r.last == "down" and r.now.health == "down" and not r.now.dissent for r in deciding),
        addresses=served,
        last={r.row.id: r.last for r in rows if r.last},
        replying=tuple(sorted(r.row.id for r in rows if r.replies and r.last != "up")),
        tally=min((r.now.passes, r.now.tally) for r in deciding)[1] if deciding else "0/0",
        complete=all(r.last for r in rows),
    )


def _all_well(rows: list[_Row], served: tuple[str, ...]) -> Judged:
    """What most sites are most of the time, without the search for what is wrong."""
    tally = min((r.now.passes, r.now.tally) for r in rows)[1]
    return Judged("up", False, True, False, served, {r.row.id: "up" for r in rows}, (), tally, True)


def _proven(frame: Frame, rows: list[_Row], served: tuple[str, ...], configured: tuple[str, ...]) -> bool:
    """A changed address is probed beside the old one, and served once it is UP itself: a wrong one is never served."""
    new = [(address,) for address in configured if address not in served]
    return all(_combine(frame, rows, addresses)[0] == "up" for addresses in (*new, configured))


WORST_FIRST = ("down", "held", "up")


def _combine(frame: Frame, rows: list[_Row], addresses: tuple[str, ...]) -> tuple[str, list[_Row]]:
    """The status over the targets of these addresses and the site's own, and the rows that have it.

    The worst of the service's targets (with at_least: N, the Nth best), then the worst with the site's own
    targets, which can only make it worse: an uplink that is up proves nothing about a service.
    """
    mine = [r for r in rows if not r.row.own and r.row.address in addresses]
    known = sorted((r for r in mine if r.status != "unknown"), key=lambda r: WORST_FIRST.index(r.status))
    own = [r for r in rows if r.row.own and r.status in ("down", "held")]
    if known:
        at_least = frame.spec.at_least
        nth = known[0] if at_least is None else known[max(0, len(known) - at_least)]
        status = nth.status
    else:
        status = "unknown"
    for r in own:
        if r.status == "down" or status == "up":
            status = r.status if status != "down" else status
    return status, [r for r in mine + own if r.status == status]
