"""The safety mechanisms of named.py: how each is switched off, and the aimed scenario that needs it.

A row is proven by two runs of its scenario: with the mechanism all is well, without it something that speaks of it
fails.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from chaos.history import Faulted, History, Led
from chaos.reading import read_scenario
from chaos.scenario import Fault, Scenario
from controlplane import reporter
from policies.topology import Data
from tests.sim.mutations import off_act as act
from tests.sim.mutations import off_judge as judge
from tests.sim.mutations.swap import Off, Reached, swapped

AIMED = Path(__file__).parents[1] / "aimed"


class Mechanism(Struct, frozen=True):
    """names: of NAMED. off: takes it out. seen_by: the checkers of which one must fail without it, and "expectation".

    also: what else must be so, with it; "" = it is, else why not. setting: what is different in both runs, where
    another mechanism would stand in for this one: see `why`. of: makes the scenario of the one in the file."""

    names: tuple[str, ...]
    scenario: str
    off: Off
    seen_by: tuple[str, ...] = ("expectation",)
    also: Callable[[History], str] | None = None
    setting: Off | None = None
    of: Callable[[Scenario], Scenario] | None = None
    why: str = ""

    def read(self) -> Scenario:
        """Raises AssertionError with what is wrong with the file."""
        read = read_scenario(AIMED / f"{self.scenario}.yaml")
        assert read.scenario is not None, "\n".join(map(str, read.problems))
        return self.of(read.scenario) if self.of else read.scenario


def _few_at_once() -> AbstractContextManager[Reached]:
    """A transaction takes one shard of a vantage, as it takes a hundred of one that has thousands of targets."""

    @contextmanager
    def both() -> Any:
        with ExitStack() as stack:
            stack.enter_context(swapped(reporter, "SPACING_S", lambda _: 1.0))
            yield stack.enter_context(swapped(reporter, "SHARDS", lambda _: 1))

    found: AbstractContextManager[Reached] = both()
    return found


def _with_data(scenario: Scenario) -> Scenario:
    """www has data: its source is at site-a, and the copy at site-b is an hour old from 5 s on."""
    www = scenario.config.services["www"]
    www = replace(www, data=Data("site-a", 30.0, www.checks[0]))
    config = replace(scenario.config, services={"www": www})
    lag = Fault(verb="lag", at_s=5.0, service="www", site="site-b", by_s=3600.0, text="lag www@site-b 1h")
    return replace(scenario, config=config, faults=(lag, *scenario.faults))


def _led_with_a_wrong_clock(history: History) -> str:
    """Whoever's clock jumped must have given the lead away within seconds."""
    stepped = next(r for r in history.records if isinstance(r, Faulted) and "clock_step" in r.text)
    led = [r for r in history.records if isinstance(r, Led) and r.at <= stepped.at and r.leading]
    given = [r for r in history.records if isinstance(r, Led) and r.node == led[-1].node and r.at > stepped.at]
    if given and not given[0].leading and given[0].at <= stepped.at + 10.0:
        return ""
    return f"{led[-1].node} leads on, though its clock is off by a day"


def _row(name: str, scenario: str, off: Off, *seen_by: str, **more: Any) -> Mechanism:
    return Mechanism((name,), scenario, off, seen_by or ("expectation",), **more)


MECHANISMS: tuple[Mechanism, ...] = (
    _row("damping", "fall", judge.fall),
    _row("late results", "late-results", judge.late_results),
    _row("a machine that slept", "slept", judge.slept),
    _row("hung probes", "giving-up", judge.giving_up),
    _row("blindness", "blindness", judge.blindness),
    _row("sight", "sight", judge.sight),
    Mechanism(
        ("freshness by sequence number", "run of a restarted vantage"),
        "listed-shards",
        act.listed_shards,
        ("quorum_backed",),
        setting=_few_at_once,
        why="Shards and beat go in one transaction, so that numbers and runs agree where one takes all of them.",
    ),
    _row("freshness by the own clock", "moving-beat", act.moving_beat),
    _row("view currency", "current-view", act.current),
    _row("resigning without a view", "resigning", act.resigning),
    _row("suspect clocks may not lead", "clock-suspect", act.clock_suspect, "also", also=_led_with_a_wrong_clock),
    _row("quorum", "quorum", judge.share_of_voters, "quorum_backed"),
    _row("never on one witness", "min-vantages", judge.min_vantages, "quorum_backed"),
    _row("own site's vote", "own-vote", judge.own_vote),
    _row("held without quorum", "held", judge.held, "quorum_backed"),
    _row("addresses once they are up", "address-first-up", judge.address_first_up),
    _row("freeze", "freeze", act.freeze),
    _row("data freshness", "rpo", judge.rpo, of=_with_data),
    _row("last resorts", "last-resorts", judge.last_resorts),
    _row("flaps", "flaps", judge.flaps),
    _row("capacity", "capacity", judge.capacity, "capacity"),
    _row("never empty", "never-empty", judge.never_empty, "never_empty"),
    _row("forced before optional", "forced-first", judge.forced_first),
    _row("hold", "hold", judge.hold, "hold_time"),
    _row("governor", "governor", judge.governor),
    _row("preflight", "preflight", act.preflight),
    _row("soak", "soak", judge.soak, "hold_time"),
    _row("longer soaks", "longer-soak", judge.longer_soak, "hold_time"),
    _row("ramp", "ramp", judge.ramp, "hold_time"),
    _row("manual failback", "manual-failback", judge.manual_failback),
    _row("fencing in the store", "store-fence", act.token, "fenced"),
    _row("commits compare what was read", "what-was-read", act.what_was_read, "fenced"),
    _row("unknown outcomes", "unknown-outcome", act.unknown_outcome),
    _row("order fencing in DNS", "dns-order", act.order, "fenced"),
    _row(
        "order fencing in drivers",
        "dns-order-in-drivers",
        act.order_in_drivers,
        "fenced",
        setting=act.order_in_agents,
        why="Agents do not even try to write over what is newer.",
    ),
    _row("compare-and-set in DNS", "dns-compare-and-set", act.compare_and_set, "fenced"),
    _row("rewound: optional moves wait", "rewound-waits", act.rewound_waits),
    _row("rewound: answers are kept", "takeover-of-answers", act.takeover_of_answers),
    _row("foreign incarnations", "foreign", act.foreign, "fenced"),
    _row("names taken by hand", "manual", act.manual, "fenced"),
    _row("deputy", "deputy", act.deputy),
    _row(
        "agents without the store stand still",
        "cut-off-agent",
        act.standing_still,
        "fenced",
        setting=act.order,
        why="Order fencing in DNS alone keeps out who knows only what was decided before.",
    ),
    _row("drift repair", "repair", act.repair),
)
