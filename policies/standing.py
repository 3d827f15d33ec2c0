"""May this site serve this service? The precedence table (DESIGN 4.4). Pure.

RULES is the table itself: highest first, the first that applies decides, and its name is stored. The
documentation's table is generated from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from policies.frame import Frame
from policies.timers import percent
from policies.topology import Override, Policy
from policies.world import Effective, SiteState

# What a site may take in a plan.
FULL = "full"  # any traffic
RELIEF = "relief"  # only what would overload the others
RAMP = "ramp"  # up to its step, and more like RELIEF
KEEP = "keep"  # what it has, and no more
NONE = "none"

# Last resorts: the first class that has a site serves, when no site may take more.
LADDER: tuple[str, ...] = ("drained", "flapping", "replies", "held", "drained held", "last served")


class Facts(Struct, frozen=True):
    """Everything that the table looks at, of one site for one service."""

    state: SiteState  # verdict, held, phase, ... as of now
    override: Effective | None
    replies: bool  # something at the site still answers
    carries: bool  # the site has a share now
    stale: bool  # its copy lags by more than rpo, or nobody knows by how much
    lag_s: float | None
    policy: Policy
    tally: str = ""  # "2/3": voters that pass, of those that vote, at its worst target

    @property
    def up(self) -> bool:
        return self.state.verdict == "up" and not self.state.held


class Standing(Struct, frozen=True):
    """`take`: FULL .. NONE; `cap_percent`: of each region, for RAMP; `ladder`: its class of last resort, or "";
    `flaps`: a RAMP site that may take no more than its step."""

    rule: str
    reason: str
    take: str
    ladder: str = ""
    cap_percent: int = 0
    flaps: bool = False


class Rule(Struct, frozen=True):
    name: str
    when: str  # for people
    may_serve: str  # for people
    applies: Callable[[Facts], bool]
    effect: Callable[[Facts], Standing]


def _pinned(f: Facts) -> bool:
    o = f.override
    # A stale copy loses writes: only who names that guard may pin it in. What it carries already, it keeps.
    return o is not None and o.verb == "in" and o.hard and (not f.stale or f.carries or "data" in o.accepts)


def _out(f: Facts) -> Standing:
    assert f.override is not None
    ladder = ""
    if not f.override.hard and not f.stale:
        ladder = "drained" if f.up else "drained held" if f.state.held else "replies" if f.replies else ""
    return Standing("out", f"{f.override.id} {f.override.why}", NONE, ladder)


def _failed(f: Facts) -> Standing:
    return Standing("failed", f"down, {f.tally} voters pass", NONE, "replies" if f.replies and not f.stale else "")


def _data(f: Facts) -> Standing:
    lag = "unknown" if f.lag_s is None else f"{f.lag_s:.1f}s"
    return Standing("data", f"its copy's lag is {lag}, more than rpo allows", KEEP)


def _soak(f: Facts) -> Standing:
    s = f.state
    if s.left_s > 0:
        reason = f"up {f.tally}, soaking, {s.left_s:.0f}s left"
    elif f.policy.failback.mode == "manual":
        reason = f"up {f.tally}, soaked, waits for failoverctl failback"
    else:
        reason = f"up {f.tally}, soaked"
    return Standing("soak", reason, NONE, "flapping") if s.flaps else Standing("soak", reason, RELIEF)


def _ramp(f: Facts) -> Standing:
    step = percent(f.state, f.policy.failback)
    reason = f"up {f.tally}, ramping at {step}%, next step in {f.state.left_s:.0f}s"
    return Standing("ramp", reason, RAMP, "flapping" if f.state.flaps else "", step, f.state.flaps)


RULES: tuple[Rule, ...] = (
    Rule(
        "pinned",
        "pinned in by an operator; into a stale copy only with `--accept data`",
        "yes",
        _pinned,
        lambda f: Standing("pinned", f"{f.override.id} {f.override.why}" if f.override else "", FULL),
    ),
    Rule(
        "out",
        "drained or pinned out by an operator, or removed from the configuration",
        "no; as a last resort if soft",
        lambda f: f.override is not None and f.override.verb == "out",
        _out,
    ),
    Rule(
        "failed",
        "its verdict is down",
        "no; as a last resort if it still replies",
        lambda f: f.state.verdict == "down",
        _failed,
    ),
    Rule(
        "unknown",
        "never had a verdict",
        "keeps the share that it has, gets no more; as a last resort if it replies",
        lambda f: f.state.verdict == "unknown",
        lambda f: Standing("unknown", "never had a verdict", KEEP, "replies" if f.replies and not f.stale else ""),
    ),
    Rule(
        "data",
        "its copy lags its source by more than `rpo`, or the lag is unknown",
        "keeps the share that it has, gets no more; never a last resort",
        lambda f: f.stale,
        _data,
    ),
    Rule(
        "held",
        "last up, now without quorum",
        "keeps the share that it has, gets no more; as a last resort",
        lambda f: f.state.held,
        lambda f: Standing("held", f"last up, now no quorum ({f.tally} voters pass)", KEEP, "held"),
    ),
    Rule(
        "soak",
        "up again, not yet trusted",
        "not yet; to carry what else would overload, and as a last resort",
        lambda f: f.state.phase in ("soak", "new"),
        _soak,
    ),
    Rule(
        "ramp",
        "coming back, step by step",
        "its step of each region's clients, never less than it carries; more, like soak",
        lambda f: f.state.phase == "ramp",
        _ramp,
    ),
    Rule("ready", "up", "yes", lambda f: True, lambda f: Standing("ready", f"up {f.tally}", FULL)),
)


def stand(facts: Facts) -> Standing:
    """The first rule of the table that applies."""
    for rule in RULES:
        if rule.applies(facts):
            return rule.effect(facts)
    raise AssertionError("the last rule applies to all")


def effective(overrides: Sequence[Override], frame: Frame) -> tuple[dict[str, Effective], str]:
    """Site -> the one override that wins for this service; and the id of the freeze that covers it, or "".

    The service's own before those for all, then out before in, then hard before soft, then the newest.
    """
    won: dict[str, Override] = {}
    freeze: Override | None = None
    for override in overrides:
        if override.services and frame.service not in override.services:
            continue
        if override.verb == "freeze":
            if freeze is None or _rank(override) < _rank(freeze):
                freeze = override
            continue
        for site in override.sites:
            if site in frame.spec.endpoints and (site not in won or _rank(override) < _rank(won[site])):
                won[site] = override
    chosen = {site: _effective(won[site]) for site in sorted(won)}
    return chosen, freeze.id if freeze else ""


def _rank(override: Override) -> tuple[bool, bool, bool, int]:
    return (not override.services, override.verb != "out", not override.hard, -override.order)


def _effective(override: Override) -> Effective:
    why = f"{override.command} by {override.author}" + (f': "{override.reason}"' if override.reason else "")
    return Effective(override.id, override.verb, override.hard, override.accepts, why)
