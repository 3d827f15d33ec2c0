"""A scenario: what is broken when, and what must be so all the same (DESIGN section 8). Pure.

Times are seconds from the scenario's start; at 0 the cluster has run for a while and all is well. chaos/reading.py
makes one of a file, with file:line:column for what is wrong.
"""

from __future__ import annotations

from msgspec import Struct

from policies.topology import Config

EVERYTHING = "*"  # all that is not the other end: sites, witnesses, the store, clients
CLIENTS = "clients"  # the other possible end that is no site
LEADER, STORE_LEADER = "leader", "store_leader"  # processes by what they are at that moment

# What `delay` and `loss` can hold back or lose: an agent's update of a name server; a transaction with the store; a
# leader's commit; a watch's events; a vantage's report. `reply`: of a transaction, whose outcome is then unknown.
MESSAGES = ("dns_update", "store", "commit", "watch", "report", "reply")
SAYS = ("up", "down", "nothing", "stuck")  # lie: all passes, all fails with a reply, nothing comes back, probes hang
HOW = ("refuse", "hang", "error")  # stop: what a client meets
FENCES = ("keep", "none", "manual", "foreign")  # edit_zone: what becomes of the fence beside the name

MOST_MOVES = 6


class Fault(Struct, frozen=True, kw_only=True):
    """One line of `faults`. Only the fields that its verb names in VERBS mean anything.

    for_s: heals by itself after so long; None: at the scenario's end (or never: a deed, like clock_step, operator)."""

    verb: str
    at_s: float
    for_s: float | None = None
    one: str = ""  # cut, cut_one_way (from), loss, slow: a site, or "*"
    other: str = ""  # the other end: a site, "*" or "clients"; edit_zone: the site that is served from now on
    site: str = ""  # power_off, dns_api_down: a site; edit_zone: whose name server
    service: str = ""
    node: str = ""  # a site's or witness's name, "leader", "store_leader"; whose messages ("" = all); lie: the vantage
    message: str = ""
    says: str = ""
    how: str = ""  # stop: one of HOW; edit_zone: one of FENCES
    rate: float = 0.0  # 0 to 1; bandwidth: KB/s
    by_s: float = 0.0  # slow, delay: how much later; clock_step: forward, or back; lag: the copy's age; rewind: to when
    argv: tuple[str, ...] = ()  # operator: without "failoverctl"
    code: int = 0  # operator: the exit code that is expected
    text: str = ""  # as the file has it, for people: "cut site-a"
    line: int = 0
    column: int = 0

    @property
    def ends_s(self) -> float | None:
        return None if self.for_s is None else self.at_s + self.for_s


class Condition(Struct, frozen=True):
    """What clients are told, by every name server that they can reach, at a moment.

    answer: `sites` is the exact set in the service's answers over all regions. serves: the one site is among them.
    converged: every reachable server answers what was decided last, for every service. never: the opposite."""

    kind: str  # answer | serves | converged
    service: str = ""
    sites: tuple[str, ...] = ()
    never: bool = False


class Expect(Struct, frozen=True, kw_only=True):
    """One line of `expect`. by: the conditions hold at from_s. during: all through from_s to to_s. after_heal: they
    hold from_s after the end of the last fault. outage: no client's longest run of failed requests is longer.
    always: checkers."""

    kind: str  # by | during | after_heal | outage | always
    from_s: float = 0.0
    to_s: float = 0.0
    conditions: tuple[Condition, ...] = ()
    outages: dict[str, float] = {}  # service -> seconds
    checkers: tuple[str, ...] = ()
    text: str = ""  # as the file has it: "by 120s answer www=[site-b]"
    line: int = 0
    column: int = 0


class Resolvers(Struct, frozen=True):
    """How many of each region's caching resolvers do not keep to the rules; the first always does, and `outage` counts
    its clients alone. stretch: keeps each answer `stretch_s` longer; stale: serves an answer that is over for up to
    `stale_s` more while no name server answers it (RFC 8767)."""

    stretch: int = 0
    stretch_s: float = 30.0
    stale: int = 0
    stale_s: float = 30.0


class Scenario(Struct, frozen=True, kw_only=True):
    name: str
    about: str
    config: Config
    config_text: str  # the configuration's file as it is
    duration_s: float
    faults: tuple[Fault, ...]  # in the order of their times
    expect: tuple[Expect, ...]
    resolvers: Resolvers = Resolvers()
    transfer_s: float = 0.0  # over 0: every name server that transfers its zone has a secondary, so much later
    most_moves: int = MOST_MOVES  # no_flap: moves of one service in any hour
    file: str = ""

    @property
    def healed_s(self) -> float:
        """The end of the last fault; a deed ends as it is done."""
        return max((f.at_s if f.for_s is None else f.at_s + f.for_s for f in self.faults), default=0.0)


class Verb(Struct, frozen=True):
    """How a fault is written. shape: ends = [one, other]; word = one string, `fields[0]`; map = a mapping of `fields`;
    flag = true; words = a command line. heals: may have `for`."""

    shape: str
    fields: tuple[str, ...]
    about: str
    optional: tuple[str, ...] = ()
    heals: bool = True


VERBS: dict[str, Verb] = {
    "cut": Verb("ends", ("one", "other"), "no packet between the two, both ways"),
    "cut_one_way": Verb("ends", ("one", "other"), "no packet from the first to the second"),
    "loss": Verb(
        "map",
        ("rate",),
        "packets between two ends (between: [site, site]), or one kind of message, get lost",
        ("between", "message", "node"),
    ),
    "slow": Verb(
        "map",
        ("by",),
        "packets between two ends, or a service at a site, take so much longer",
        ("between", "service", "site"),
    ),
    "delay": Verb("map", ("message", "for"), "messages of one kind, sent while this lasts, are held back", ("node",)),
    "pause": Verb("word", ("node",), "a process stands still (SIGSTOP), and goes on"),
    "kill": Verb("word", ("node",), "a process dies, and is started anew after `for`"),
    "restart": Verb("word", ("node",), "a process is stopped cleanly, and started anew after `for`"),
    "power_off": Verb("word", ("site",), "all of a site dies: services, name server, store member, control plane"),
    "stop": Verb("map", ("service", "site"), "a service at a site fails", ("how",)),
    "flaky": Verb("map", ("service", "site", "rate"), "so many of the requests to a service at a site fail"),
    "reset": Verb("map", ("service", "site"), "connections to a service at a site are reset"),
    "bandwidth": Verb("map", ("service", "site", "rate"), "a service at a site sends so many KB a second"),
    "lie": Verb("map", ("vantage", "says"), "a vantage's probes see something else than what is there"),
    "lag": Verb("map", ("service", "site", "age"), "the copy of a service's data at a site is so old"),
    "clock_step": Verb("map", ("node", "by"), "a machine's wall clock jumps", heals=False),
    "store_down": Verb("flag", (), "no member of the store answers anybody"),
    "store_compact": Verb("flag", (), "the store forgets its history", heals=False),
    "store_rewind": Verb("map", ("to",), "the store is restored from a backup made at that time", heals=False),
    "dns_api_down": Verb("word", ("site",), "the name server at a site refuses updates, and goes on answering"),
    "edit_zone": Verb(
        "map",
        ("service", "site", "serve"),
        "somebody edits a name by hand: it serves another site's addresses",
        ("fence",),
        heals=False,
    ),
    "operator": Verb("words", ("argv",), "a failoverctl command", ("exit",), heals=False),
}
