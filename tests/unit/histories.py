"""Histories written by hand: a site goes dark and comes back, as it ought to be told; and ways to tell it wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from chaos.history import (
    Answered,
    AnyRecord,
    Asked,
    Committed,
    Faulted,
    History,
    Led,
    Probed,
    Record,
    Served,
    Wrote,
)
from chaos.scenario import Expect, Fault, Scenario
from controlplane.documents import DecisionDoc
from policies.frame import target_id
from policies.topology import Check, Config, Dns, DnsDriver, Failback, Policy, ProbePolicy, Region, Service, Site
from policies.world import Answer, Carried, Desired, Event, SiteState, Slice, Vote

SITES = ("site-a", "site-b", "site-c")
VANTAGES = ("cloud", *SITES)
ADDRESS = {"site-a": "192.0.2.10", "site-b": "198.51.100.10", "site-c": "203.0.113.10"}
VOTES = {
    "up": Vote.UP | Vote.FRESH | Vote.ANSWERED,
    "down": Vote.DOWN | Vote.FRESH,
    "silent": Vote(0),
    "blind": Vote.FRESH | Vote.BLIND | Vote.DOWN,
}
OPTIONS = '{"address": "192.0.2.53", "dialect": "powerdns"}'  # which tells regions apart, and has weights
R = TypeVar("R", bound=Record)


def config(demand: float = 500.0, capacity: float = 1000.0) -> Config:
    policy = Policy(failback=Failback(soak_s=60.0, step_s=20.0), hold_s=30.0)
    www = Service(
        endpoints={site: (ADDRESS[site],) for site in SITES},
        demand={"world": demand},
        checks=(Check("http", "http:8080", "{}", ProbePolicy()),),
        policy=policy,
        target_s=60.0,
        dns=Dns("www.example.org", 20),
    )
    servers = tuple(
        DnsDriver("rfc2136", f"dns-{site}", site, ("example.org",), (site, SITES[n - 1]), 1.0, "freeze", (), OPTIONS)
        for n, site in enumerate(SITES)
    )
    sites = {site: Site(capacity=capacity) for site in SITES} | {"cloud": Site(capacity=0.0, role="witness")}
    return Config("acme", 60.0, sites, {"world": Region(default=True)}, {"www": www}, policy, dns=servers, revision=1)


def target(site: str) -> str:
    return target_id("www", site, "http:8080", ADDRESS[site])


class Tale:
    """Records in the order in which they are told; `desired` is what was committed last."""

    def __init__(self, cfg: Config | None = None) -> None:
        self.config = cfg or config()
        self.records: list[AnyRecord] = []
        self.desired: Desired | None = None
        self._ids = 0

    def tell(self, *records: AnyRecord) -> None:
        self.records += records

    def probes(
        self, at: float, site: str, passed: bool, vantages: Sequence[str] = VANTAGES, last: float | None = None
    ) -> None:
        for vantage in vantages:
            self.tell(
                Probed(
                    at=at,
                    vantage=vantage,
                    target=target(site),
                    site=site,
                    service="www",
                    passed=passed,
                    answered=passed,
                    reason="200" if passed else "timeout connect",
                    before_at=last,
                )
            )

    def commit(
        self,
        at: float,
        shares: Mapping[str, int] | None = None,
        rules: Mapping[str, str] | None = None,
        votes: Mapping[str, Mapping[str, str]] | None = None,
        rule: str = "",
        by: str = "site-b",
        token: int = 7,
        optional: bool = False,
        **more: Any,
    ) -> DecisionDoc:
        """shares None: as they were, and no new generation. rules: site -> rule, "failed" is down, the others up.
        votes: site -> vantage -> up | down | silent | blind, "up" unless told. rule: why those move that lose."""
        was = self.desired
        self._ids += 1
        before = dict(was.shares["world"]) if was else {}
        now = before if shares is None else dict(shares)
        states = {site: _state((rules or {}).get(site, "ready")) for site in SITES}
        made: dict[str, Any] = {"decision": f"d-{self._ids}", "nonce": f"n{self._ids}"}
        if shares is None and was:
            made = {"decision": was.decision, "nonce": was.nonce}
        desired = Desired(
            service="www",
            generation=(was.generation if was else 0) + (shares is not None),
            shares={"world": now},
            answers=tuple(Answer("world", "A", ADDRESS[site], site, share) for site, share in now.items()),
            sites=states,
            name="www.example.org",
            ttl_s=20,
            config_rev=1,
            token=token,
            **made,
        )
        desired = replace(desired, **more)
        changed = [site for site in SITES if before.get(site, 0) != now.get(site, 0)]
        kind = "move" if shares is not None and was else "state"
        events = [
            Event(
                kind,
                s,
                rule if rule and s in before else states[s].rule,
                f"{before.get(s, 0)} -> {now.get(s, 0)}",
                not optional,
            )
            for s in changed
        ]
        ballots = bytes(
            int(VOTES[(votes or {}).get(site, {}).get(vantage, "up")]) for site in SITES for vantage in VANTAGES
        )
        decision = DecisionDoc(
            id=f"d-{self._ids}",
            nonce=f"n{self._ids}",
            service="www",
            at="2026-03-02T03:14:03Z",
            node=by,
            token=token,
            config_rev=1,
            input=Slice("www", ballots, VANTAGES, {}, {}, "", 1.0, was),
            carried=Carried({}),
            desired=desired,
            events=tuple(events),
            refused=(),
            new_generation=shares is not None,
        )
        self.desired = desired
        self.tell(Committed(at=at, decision=decision, holder=by, holder_token=token))
        return decision

    def apply(self, at: float, servers: Sequence[str] = SITES) -> None:
        """The last decision is written and answered."""
        assert self.desired is not None
        for server in servers:
            self.tell(self.write(at, server), self.answer(at, server))

    def write(self, at: float, server: str, **other: Any) -> Wrote:
        assert self.desired is not None
        wrote = Wrote(
            at=at,
            server=server,
            writer=server,
            service="www",
            generation=self.desired.generation,
            incarnation="c1",
            op=f"{self.desired.stamp}.{server}-1",
            result="ok",
        )
        return replace(wrote, **other)

    def answer(self, at: float, server: str, **other: Any) -> Answered:
        assert self.desired is not None
        answered = Answered(
            at=at,
            server=server,
            service="www",
            region="world",
            sites=tuple(sorted(self.desired.shares["world"])),
            generation=self.desired.generation,
        )
        return replace(answered, **other)

    def history(self, duration_s: float = 600.0) -> History:
        records = tuple(sorted(self.records, key=lambda record: record.at))
        return History(scenario="dark", world="sim", seed=1, config=self.config, duration_s=duration_s, records=records)


def _state(rule: str) -> SiteState:
    phase = {"failed": "failed", "soak": "soak", "ramp": "ramp"}.get(rule, "ready")
    return SiteState(verdict="down" if rule == "failed" else "up", rule=rule, phase=phase)


DARK = Fault(verb="power_off", at_s=60.0, for_s=140.0, site="site-a", text="power_off site-a")


def scenario(*faults: Fault, expect: Sequence[Expect] = (), cfg: Config | None = None, **other: Any) -> Scenario:
    """By default site-a is dark from 60 s to 200 s, and all is to be quiet 200 s after that."""
    given = Scenario(
        name="dark",
        about="site-a goes dark",
        config=cfg or config(),
        config_text="",
        duration_s=600.0,
        faults=faults or (DARK,),
        expect=tuple(expect) or (Expect(kind="after_heal", from_s=200.0),),
    )
    return replace(given, **other)


def begun(cfg: Config | None = None) -> Tale:
    """All is well, and site-a serves."""
    tale = Tale(cfg)
    for site in SITES:
        tale.probes(-30.0, site, True)
    tale.tell(Led(at=-25.0, node="site-b", leading=True, why="the key was absent"))
    tale.commit(-20.0, {"site-a": 100})
    tale.apply(-19.0)
    tale.tell(served(-5.0, "site-a"))
    return tale


def dark(cfg: Config | None = None) -> Tale:
    """And goes dark at 60 s, without that its clients' traffic has moved."""
    tale = begun(cfg)
    tale.tell(Faulted(at=60.0, index=0, began=True, text="power_off site-a"))
    tale.tell(tale.answer(60.0, "site-a", reachable=False), served(60.5, "site-a", "timeout"))
    tale.probes(61.5, "site-a", False, ("cloud", "site-b", "site-c"), last=59.8)
    return tale


FAILED = {"site-a": "failed"}
ALL_DOWN = {"site-a": {"site-b": "down", "site-c": "down", "cloud": "down", "site-a": "silent"}}


def failed_over() -> Tale:
    """And its traffic goes to site-b."""
    tale = dark()
    tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    tale.apply(65.4, ("site-b", "site-c"))
    tale.tell(served(84.5, "site-b"))
    return tale


def back() -> Tale:
    """And it comes back at 200 s, soaks for a minute, and gets its traffic in three steps."""
    tale = failed_over()
    tale.tell(Faulted(at=200.0, index=0, began=False, text="power_off site-a"))
    tale.probes(200.5, "site-a", True, ("cloud", "site-b", "site-c"), last=199.9)
    stale = {"sites": ("site-a",), "generation": 1}
    tale.tell(tale.answer(200.0, "site-a", **stale), tale.write(201.0, "site-a", held_generation=1, held_op="d-1-n1.x"))
    tale.tell(tale.answer(201.0, "site-a"))
    tale.commit(205.0, None, {"site-a": "soak"})
    for at, shares in ((265.5, {"site-a": 10, "site-b": 90}), (296.0, {"site-a": 50, "site-b": 50})):
        tale.commit(at, shares, {"site-a": "ramp"}, optional=True)
        tale.apply(at + 0.2)
    tale.commit(327.0, {"site-a": 100}, optional=True)
    tale.apply(327.2)
    tale.tell(served(340.0, "site-a"))
    tale.tell(Asked(at=600.0, client="c1", service="www", region="world", requests=600, failed=24))
    return tale


def served(at: float, site: str, error: str = "", **other: Any) -> Served:
    record = Served(at=at, client="c1", service="www", region="world", site=site, error=error)
    return replace(record, **other)


def changed(history: History, kind: type[R], at: float, change: Callable[[R], AnyRecord | None]) -> History:
    """The history with its first record of that kind and time told otherwise (None: not at all)."""
    records: list[AnyRecord] = []
    done = False
    for record in history.records:
        if not done and isinstance(record, kind) and record.at == at:
            told = change(record)
            done = True
            if told is not None:
                records.append(told)
        else:
            records.append(record)
    assert done, f"no {kind.__name__} at {at}"
    return replace(history, records=tuple(records))


def decided(history: History, at: float, **fields: Any) -> History:
    """With the decision of that time told otherwise; fields of `desired` as desired_<field>."""
    return changed(history, Committed, at, lambda record: replace(record, decision=_other(record.decision, fields)))


def _other(decision: DecisionDoc, fields: Mapping[str, Any]) -> DecisionDoc:
    inner = {name.removeprefix("desired_"): value for name, value in fields.items() if name.startswith("desired_")}
    outer = {name: value for name, value in fields.items() if not name.startswith("desired_")}
    return replace(decision, desired=replace(decision.desired, **inner), **outer)


def added(history: History, *records: AnyRecord) -> History:
    """With these, in their places."""
    all_ = sorted((*history.records, *records), key=lambda record: record.at)
    return replace(history, records=tuple(all_))
