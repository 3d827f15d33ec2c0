"""Small worlds for the tests of JUDGE: builders, and a driver that plays the leader in virtual time.

Every step that the driver takes is checked for what must hold always (see `check_step`), so each history proves
more than its own assertions say.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from msgspec.structs import replace

from policies.decide import WORTH_MOVING, decide_service
from policies.frame import Frame, Watched, frames, usable, watched
from policies.placing import Shares, load, overload, place
from policies.stage import stage
from policies.standing import NONE, effective
from policies.topology import Check, Config, Data, Dns, Failback, Override, Policy, ProbePolicy, Region, Service, Site
from policies.world import Ahead, Carried, Desired, Event, Slice, Step, Vote

HTTP = Check("http", "http:80", "{}", ProbePolicy())
TCP = Check("tcp", "tcp:443", "{}", ProbePolicy())
LAG = Check("http", "lag", "{}", ProbePolicy())
UPLINK = Check("tcp", "tcp:179", "{}", ProbePolicy(), host="203.0.113.1")

# What a vantage may say of a target.
WORDS = {
    "up": Vote.UP | Vote.ANSWERED,
    "error": Vote.DOWN | Vote.ANSWERED,  # a reply, but a wrong one
    "down": Vote.DOWN,
    "unknown": Vote(0),
}


def properties(examples: int) -> settings:
    """Hypothesis settings: the same examples in every run; EXPLORE=20 looks at 20 times as many random ones."""
    explore = int(os.environ.get("EXPLORE", "0"))
    return settings(
        derandomize=not explore,
        max_examples=examples * max(1, explore),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def make_service(sites: Sequence[str], demand: Mapping[str, float], number: int = 0, **more: Any) -> Service:
    """One address for each site: 10.<number>.0.<position of the site>."""
    more.setdefault("endpoints", {site: (f"10.{number}.0.{ord(site[-1])}",) for site in sites})
    more.setdefault("dns", Dns(f"w{number}.example.org"))
    more.setdefault("checks", (HTTP,))
    more.setdefault("policy", Policy())
    return Service(demand=dict(demand), target_s=60, **more)


def make_config(
    capacities: Mapping[str, float | Site],
    services: Mapping[str, Service],
    regions: Sequence[str] = ("world",),
    policy: Policy | None = None,
) -> Config:
    """The first region is the default one; capacity 0 makes a witness."""
    sites = {
        name: c if isinstance(c, Site) else Site(capacity=c, role="active" if c else "witness")
        for name, c in capacities.items()
    }
    return Config(
        "test", 60, sites, {r: Region(default=r == regions[0]) for r in regions}, dict(services), policy or Policy()
    )


def one_service(
    capacities: Mapping[str, float] | None = None,
    demand: Mapping[str, float] | float = 600.0,
    **more: Any,
) -> Config:
    """Service "www" at all sites with capacity, and a witness "w" with a vantage."""
    capacities = capacities or {"a": 1000.0, "b": 1000.0, "c": 1000.0}
    asked = demand if isinstance(demand, Mapping) else {"world": demand}
    service = make_service(list(capacities), asked, **more)
    return make_config({**capacities, "w": 0.0}, {"www": service}, tuple(asked), service.policy)


def with_failback(**more: Any) -> Policy:
    return Policy(failback=Failback(**more))


class World:
    """A leader's life: `decide()` folds over all services now, `run(s)` follows `wake_in` for that long."""

    def __init__(self, config: Config):
        self.config = config
        self.vantages = tuple(sorted(config.sites))
        self.now = 0.0
        self.desired: dict[str, Desired] = {}
        self.written: dict[str, float] = {}
        self.sites: dict[str, str] = {}  # site -> word; default up
        self.targets: dict[str, str] = {}  # address, or site/check -> word; outranks the site's
        self.lies: dict[tuple[str, str], str] = {}  # (vantage, site) -> word; outranks everything
        self.silent: set[str] = set()
        self.blind: set[str] = set()
        self.lag: dict[str, float | None] = {}
        self.overrides: dict[str, tuple[Override, float | None]] = {}
        self.rewound = False
        self.ahead: dict[str, Ahead] = {}
        self.moved, self.window_ends = 0.0, 0.0
        self.log: list[tuple[float, str, Event]] = []
        self.steps: dict[str, Step] = {}
        self.looked: dict[str, float] = {}

    # --- faults ---------------------------------------------------------------------------------------------

    def dark(self, *sites: str) -> None:
        """The whole site is gone: its services do not answer, and its vantage is silent."""
        for site in sites:
            self.sites[site] = "down"
            self.silent.add(site)

    def heal(self, *sites: str) -> None:
        for site in sites:
            self.sites.pop(site, None)
            self.silent.discard(site)

    # --- operators ------------------------------------------------------------------------------------------

    def override(self, verb: str, *sites: str, hard: bool = False, for_s: float | None = None, **more: Any) -> str:
        order = len(self.overrides) + 1
        id_ = more.pop("id", f"ov-{order}")
        command = {"out": "drain", "in": "failback", "freeze": "freeze"}[verb] if not hard else "pin"
        made = Override(
            id_, verb, hard, command, sites, more.pop("services", ()), "ana", "test", "", order, for_s, **more
        )
        self.overrides[id_] = (made, None if for_s is None else self.now + for_s)
        return id_

    def drain(self, *sites: str, **more: Any) -> str:
        return self.override("out", *sites, **more)

    def freeze(self, **more: Any) -> str:
        return self.override("freeze", **more)

    def lift(self, id_: str) -> None:
        del self.overrides[id_]

    # --- deciding -------------------------------------------------------------------------------------------

    def vote(self, vantage: str, row: Watched) -> int:
        word = self.lies.get((vantage, row.site))
        word = word or self.targets.get(row.address) or self.targets.get(f"{row.site}/{row.check.name}")
        vote = WORDS[word or self.sites.get(row.site, "up")]
        vote |= Vote(0) if vantage in self.silent else Vote.FRESH
        vote |= Vote.BLIND if vantage in self.blind else Vote(0)
        vote |= Vote.OWN if vantage == row.site else Vote(0)
        return int(vote)

    def slice(self, frame: Frame) -> Slice:
        name = frame.service
        desired = self.desired.get(name)
        rows = watched(frame, desired)
        live = [o for o, ends in self.overrides.values() if ends is None or ends > self.now]
        chosen, freeze = effective(live, frame)
        since = self.written.get(name, self.looked.setdefault(name, self.now))
        return Slice(
            service=name,
            votes=bytes(self.vote(vantage, row) for row in rows for vantage in self.vantages),
            vantages=self.vantages,
            reasons={},
            overrides=chosen,
            freeze=freeze,
            age_s=self.now - since,
            desired=desired,
            lag_s=dict(self.lag),
            rewound=self.rewound,
            ahead=self.ahead.get(name),
        )

    def carried(self) -> Carried:
        left = max(0.0, self.window_ends - self.now)
        return Carried(usable(self.config), self.moved if left else 0.0, left)

    def decide(self) -> Step:
        """One fold over all services, committed. Returns the step of the last service (mostly the only one)."""
        carried = self.carried()
        step: Step | None = None
        for frame in frames(self.config).values():
            slice_ = self.slice(frame)
            step = decide_service(frame, slice_, carried)
            check_step(frame, slice_, carried, step)
            self.steps[frame.service] = step
            self.log += [(self.now, frame.service, e) for e in (*step.events, *step.refused)]
            if step.desired is not None:
                self.desired[frame.service] = step.desired
                self.written[frame.service] = self.now
                self._same_again(frame, carried, step)
            if step.carried.moved > carried.moved:
                self.moved, self.window_ends = step.carried.moved, self.now + step.carried.window_left_s
            carried = step.carried
        assert step is not None
        return step

    def _same_again(self, frame: Frame, carried: Carried, step: Step) -> None:
        """Idempotent: the same world again changes nothing. (Where nothing has room, or there is no hold time, a
        few optional moves may follow: what a ramping site carries is what it may keep. They end.)"""
        desired = self.desired[frame.service]
        waits = desired.refused == "rewound"  # a forced move may do what the refused one would have done
        more = 10 if desired.shortfall or waits or frame.spec.policy.hold_s == 0 else 0
        for left in range(more, -1, -1):
            carried = replace(carried, moved=step.carried.moved)
            step = decide_service(frame, self.slice(frame), carried)
            if step.desired is None or not left:
                break
            assert all(not event.forced for event in step.events)
            self.desired[frame.service] = step.desired
        assert step.desired is None and not step.new_generation and not step.events, step

    def run(self, seconds: float) -> Step:
        """Follow wake_in, and the ends of overrides, for so long. Fails if that makes no progress."""
        end = self.now + seconds
        self.decide()
        for _ in range(int(20 + seconds)):
            due = [s.wake_in_s for s in self.steps.values() if s.wake_in_s is not None]
            due += [ends - self.now for _, ends in self.overrides.values() if ends is not None and ends > self.now]
            wait = min(due, default=seconds)
            if self.now + wait >= end - 1e-9:
                self.now = end
                return self.decide()
            self.now += wait
            self.decide()
        raise AssertionError(f"no progress: {seconds} s took too many steps; wakes {due}")

    def tick(self, seconds: float, every: float = 1.0) -> list[Shares]:
        """Decide every so often; the shares (of the last service) after each."""
        seen: list[Shares] = []
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now += min(every, end - self.now)
            step = self.decide()
            seen.append(step.current.shares if step.current else {})
        return seen

    # --- looking --------------------------------------------------------------------------------------------

    def share(self, site: str, region: str = "world", service: str = "www") -> int:
        return self.desired[service].shares[region].get(site, 0)

    def shares(self, service: str = "www") -> dict[str, int]:
        """Site -> percent in the default region."""
        return self.desired[service].shares[frames(self.config)[service].default_region]

    def rule(self, site: str, service: str = "www") -> str:
        return self.desired[service].sites[site].rule

    def phase(self, site: str, service: str = "www") -> str:
        return self.desired[service].sites[site].phase

    def left_s(self, site: str, service: str = "www") -> float:
        """What is left of the site's clock as of now, written or not."""
        current = self.steps[service].current
        assert current is not None
        return current.sites[site].left_s

    def generation(self, service: str = "www") -> int:
        return self.desired[service].generation

    def loads(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for name, frame in frames(self.config).items():
            for site, amount in load(frame, self.desired[name].shares).items():
                total[site] = total.get(site, 0.0) + amount
        return total

    def said(self, rule: str) -> list[Event]:
        return [event for _, _, event in self.log if event.rule == rule]


def families(desired: Desired) -> dict[str, set[str]]:
    """rtype -> sites that have such an address."""
    found: dict[str, set[str]] = {}
    for site, state in desired.sites.items():
        for address in state.addresses:
            found.setdefault("AAAA" if ":" in address else "A", set()).add(site)
    return found


def check_step(frame: Frame, slice_: Slice, carried: Carried, step: Step) -> None:
    """What must hold of every step, whatever the world brings."""
    for event in (*step.events, *step.refused):
        assert event.reason.strip() and event.rule, event
    assert step.wake_in_s is None or step.wake_in_s > 0, step.wake_in_s
    before, now = slice_.desired, step.current
    assert before is None or now is not None, "what was served once is always served"
    if now is not None:
        check_answers(frame, now)
        differs = before is None or (before.answers, before.shares) != (now.answers, now.shares)
        assert step.new_generation or not differs
        assert (step.desired is not None) or not step.new_generation
        assert now.generation > (before.generation if before else 0) if step.new_generation else True
    moves = [event for event in step.events if event.kind == "move"]
    assert bool(moves) == step.new_generation or slice_.ahead, "no move without its story, no story without a move"
    assert step.desired is not None or not step.events, "what is said is written"
    if now is not None and before is not None:
        check_limits(frame, slice_, carried, step, now)
    recorded = msgspec.json.decode(msgspec.json.encode(slice_), type=Slice)
    with_it = msgspec.json.decode(msgspec.json.encode(carried), type=Carried)
    again = decide_service(frame, recorded, with_it)
    assert msgspec.json.encode(again) == msgspec.json.encode(step), "replayed from its record"


def check_limits(frame: Frame, slice_: Slice, carried: Carried, step: Step, now: Desired) -> None:
    """What the forced plan may do, and what the full plan adds, compared with the two plans themselves."""
    judged = stage(frame, slice_)
    forced = place(frame, carried.room, judged.standings, judged.cur, sticky=True)
    moves = [event for event in step.events if event.kind == "move"]
    if not step.refused and not slice_.freeze and any(not move.forced for move in moves):
        worth = max(WORTH_MOVING * frame.demand, 1e-6)
        before, after = (overload(frame, carried.room, shares) for shares in (forced.shares, now.shares))
        assert after <= before + 2 * worth, "an optional move causes an overload"
    lost = {s for s, standing in judged.standings.items() if standing.take == NONE}
    if {event.rule for event in step.refused} & {"hold", "rewound"} and all(forced.shares.values()) and not forced.tier:
        still = {s for shares in now.shares.values() for s in shares} & lost
        assert not still, "the forced plan is never held back by what the full plan adds"


def check_answers(frame: Frame, desired: Desired) -> None:
    """Never empty; every region's shares add up to 100; each address family has an answer everywhere."""
    assert set(desired.shares) == set(frame.regions)
    wanted = {"AAAA" if ":" in address else "A" for mine in frame.spec.endpoints.values() for address in mine}
    for region, shares in desired.shares.items():
        assert sum(shares.values()) == 100 and all(share > 0 for share in shares.values()), (region, shares)
        assert set(shares) <= set(desired.sites)
        for rtype in wanted & set(families(desired)) if frame.spec.dns else ():
            mine = [a for a in desired.answers if (a.region, a.rtype) == (region, rtype)]
            assert mine and all(answer.weight > 0 for answer in mine), (region, rtype)


def standby(rpo_s: float = 5.0, source: str = "a") -> Data:
    return Data(source=source, rpo_s=rpo_s, check=LAG)
