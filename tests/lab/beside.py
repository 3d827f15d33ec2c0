"""Phases measured in the lab beside those of the simulator: where they differ by over a second, and why."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from chaos.report import Failover, Report

APART_S = 1.0  # beyond what the simulator's seeds have among themselves
PHASES = ("detect", "apply", "ttl", "outage")
# Why a phase differs, where it ever did: as journals, logs and histories of such runs showed.
WHY = {
    "detect": "at what point between two probes the fault came; a real etcd takes a second to elect",
    "apply": "whether a deputy has to wait 2 s for a home agent that is gone",
    "ttl": "how old the resolver's answer was when the name servers changed",
    "outage": "follows from the others",
}
_ASKED = "chance: a resolver may ask the server with the old answer once more"
_LED = "who led: with a site's leader its agent is gone, and its deputy waits 2 s first; the witness has no agent"
WHY_HERE = {
    ("name-server-refuses-updates", "outage"): _ASKED,
    ("name-server-refuses-updates", "ttl"): _ASKED,
    ("leader-dies-in-failover", "apply"): _LED,
    ("leader-dies-in-failover", "ttl"): "what is not apply",
    ("leader-paused-across-a-decision", "apply"): _LED,
    ("leader-paused-across-a-decision", "ttl"): "what is not apply",
}


class Phases(Struct, frozen=True):
    """Seconds; they follow each other, from the fault: to the commit, until all name servers answer so, until the last
    client gets through. outage: the longest of any client."""

    detect: float | None = None
    apply: float | None = None
    ttl: float | None = None
    outage: float | None = None


class Row(Struct, frozen=True):
    scenario: str
    service: str
    lab: Phases
    sims: tuple[Phases, ...]

    def range(self, phase: str) -> tuple[float, float] | None:
        """Least and most of the simulator's."""
        found = [value for sim in self.sims if (value := getattr(sim, phase)) is not None]
        return (min(found), max(found)) if found else None

    def apart(self, phase: str) -> bool:
        """Is the lab's over a second outside of the simulator's?"""
        mine, theirs = getattr(self.lab, phase), self.range(phase)
        if mine is None or theirs is None:
            return (mine or 0.0) > APART_S or (theirs or (0.0, 0.0))[1] > APART_S
        return round(theirs[0] - mine, 1) > APART_S or round(mine - theirs[1], 1) > APART_S

    @property
    def note(self) -> str:
        """Why, phase by phase."""
        apart = [phase for phase in PHASES if self.apart(phase)]
        return "; ".join(f"{phase}: {WHY_HERE.get((self.scenario, phase), WHY[phase])}" for phase in apart)


def phases(report: Report) -> dict[str, Phases]:
    """By service: of its first failover, if there was one; the outage in any case, if there was one."""
    first: dict[str, Failover] = {}
    for failover in report.failovers:
        if failover.fault_at_s is not None:
            first.setdefault(failover.service, failover)
    longest: dict[str, float] = {}
    for outage in report.outages:
        if outage.resolver == "keeps":
            longest[outage.service] = max(longest.get(outage.service, 0.0), outage.longest_s)
    found = {}
    for service in longest:
        f = first.get(service)
        if f is not None and f.fault_at_s is not None:
            found[service] = Phases(f.at_s - f.fault_at_s, f.apply_s, f.ttl_s, longest[service])
        elif longest[service]:
            found[service] = Phases(outage=longest[service])
    return found


def rows(scenario: str, lab: Report, sims: Sequence[Report]) -> list[Row]:
    """One for each service to which something happened in either world."""
    mine, theirs = phases(lab), [phases(sim) for sim in sims]
    services = sorted({service for found in (mine, *theirs) for service in found})
    none = Phases(outage=0.0)
    return [
        Row(scenario, service, mine.get(service, none), tuple(found.get(service, none) for found in theirs))
        for service in services
    ]


def table(found: Sequence[Row]) -> str:
    """LAB of SIMULATOR, * = over a second apart."""
    head = ("SCENARIO", "SERVICE", *(f"{phase.upper()} lab/sim" for phase in PHASES), "WHY IT DIFFERS")
    lines = [head, *((row.scenario, row.service, *(_cell(row, phase) for phase in PHASES), row.note) for row in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )


def _cell(row: Row, phase: str) -> str:
    mine, theirs = getattr(row.lab, phase), row.range(phase)
    lab = "-" if mine is None else f"{mine:.2f}"
    sim = "-" if theirs is None else f"{theirs[0]:.2f}-{theirs[1]:.2f}"
    return f"{lab} / {sim}{' *' if row.apart(phase) else ''}"
