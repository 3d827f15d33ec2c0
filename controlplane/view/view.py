"""What this controller has seen, and whether that is current (DESIGN 4.2).

The only place (with pulse.py and eyes.py, its parts) where clock readings become flags and ages; everything after
it sees durations. Two machines' clocks are never compared, except to raise `clock_suspect`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from controlplane.documents import AppliedDoc, DecisionDoc, Keys, LeaderDoc, NodeDoc, encode
from controlplane.patience import Patience
from controlplane.signal import Signal, together
from controlplane.store import KV, Compacted, Delete, Put, Rewound, Store, StoreError, Txn
from controlplane.view.claims import Claims
from controlplane.view.endings import Endings
from controlplane.view.mirror import Mirror
from controlplane.view.pulse import BEAT_S, FOREVER, Pulse
from controlplane.view.votes import Votes
from controlplane.view.words import Words
from policies.frame import Frame, usable
from policies.standing import effective
from policies.topology import Config, Override
from policies.world import Ahead, Carried, Desired, Slice

TICK_S = 0.25  # how late the end of an override may be noticed
IDLE_S = 1.0  # between looks, at most
CALL_S = 1.0  # patience with one write of the beat
RETRY_S = 0.2


class View:
    """One controller's view of its cluster; run() keeps it. `me` describes the node (its n and wall_s are filled
    in), `wall` reads the wall clock."""

    def __init__(self, store: Store, cluster: str, me: NodeDoc, wall: Callable[[], float]) -> None:
        self.keys = Keys(cluster)
        self.mirror = Mirror(self.keys)
        self.pulse = Pulse(me, wall)
        self.synced = False
        self.inputs = Signal()  # something that a decision depends on
        self.news = Signal()  # configuration, desired, incarnation: what agents and vantages act on
        self.leadership = Signal()  # the leader key
        self.leader_moved_at = 0.0  # the leader key or its beat
        self.batches = Signal()  # anything at all
        self.on_decision: list[Callable[[DecisionDoc, bool], None]] = []  # live: not from a snapshot
        self.on_applied: list[Callable[[str, AppliedDoc], None]] = []
        self.votes = Votes()
        self.words = Words(self.mirror)
        self.highest_rev = 0
        self._store = store
        self._rewound = ""
        self._marked = False  # as the governor's document had it
        self._claims = Claims()
        self._endings = Endings(self.mirror)
        self._arrived: dict[str, float] = {}  # key -> own clock

    # --- flags and ages ---------------------------------------------------------------------------------

    @property
    def current(self) -> bool:
        """The newest own beat that came back as a watch event was sent less than a second ago, and this process
        did not just wake up from a stall."""
        return self.synced and self.pulse.current

    @property
    def current_for_s(self) -> float:
        return self.pulse.current_for_s if self.synced else 0.0

    @property
    def clock_suspect(self) -> bool:
        return self.pulse.clock_suspect

    @property
    def may_lead(self) -> bool:
        """The clock is not suspect, there is nothing that this version cannot read, and its site is configured."""
        config = self.mirror.config
        known = config is None or self.pulse.me.site in config.sites
        return known and not self.pulse.clock_suspect and not self.mirror.unreadable

    @property
    def freshness_s(self) -> float:
        return self.pulse.freshness_s

    @property
    def rewound(self) -> str:
        """Why optional moves wait for `failoverctl unfreeze`, or ""."""
        governor = self.mirror.governor
        return (governor.rewound if governor else "") or self._rewound

    def age_s(self, key: str) -> float:
        """Since the copy of `key` came; 0 for what is not there. Beats and shards are at most this old."""
        now = self.pulse.now()
        return now - self._arrived.get(key, now)

    def override_left_s(self, id_: str) -> float | None:
        """What is left of an override; None without expiry. 0 = over. KeyError if there is no such override."""
        ends = self._endings.at(self.mirror.overrides[id_], self.pulse.now(), self._arrived)
        return None if ends == FOREVER else max(0.0, ends - self.pulse.now())

    # --- for whoever decides, leads, acts ---------------------------------------------------------------

    @property
    def config(self) -> Config | None:
        return self.mirror.config

    @property
    def incarnation(self) -> str:
        return self.mirror.incarnation

    @property
    def adopted(self) -> tuple[str, ...]:
        """Foreign incarnations whose records were given to this cluster."""
        return self.mirror.adopted.incarnations if self.mirror.adopted else ()

    @property
    def adoption(self) -> int:
        """The revision of that; 0 = never."""
        return self.revisions.get(self.keys.adopted, 0)

    @property
    def desired(self) -> Mapping[str, Desired]:
        return self.mirror.desired

    @property
    def frames(self) -> Mapping[str, Frame]:
        """Every configured service, in the order of the fold."""
        return self.votes.frames

    @property
    def leader(self) -> LeaderDoc | None:
        return self.mirror.leader

    @property
    def revisions(self) -> Mapping[str, int]:
        """Key -> mod revision of the copy held here, for a commit's comparisons; absent = 0."""
        return self.mirror.revisions

    @property
    def overrides(self) -> tuple[Override, ...]:
        """Those that have not expired, by id."""
        self.look()
        return self._endings.standing

    def carried(self) -> Carried:
        """What the fold over services starts with: all room, and the automatic moves within the window."""
        config, governor = self.config, self.mirror.governor
        room = usable(config) if config else {}
        if governor is None:
            return Carried(room)
        left_s = max(0.0, governor.window_left_s - self.age_s(self.keys.timers_governor))
        return Carried(room, governor.moved if left_s > 0 else 0.0, left_s)

    def take_dirty(self) -> set[str]:
        """Services whose inputs changed since the last call. For one consumer: the leader."""
        self.look()
        dirty, self.votes.dirty = self.votes.dirty, set()
        return dirty

    async def changed(self, timeout_s: float) -> None:
        """Until an input of a decision changes, or the time is over."""
        if not self.votes.dirty:
            await self.inputs.wait(timeout_s)

    def slice(self, service: str) -> Slice:
        """All that this service's decision depends on. KeyError for a service without configuration."""
        frame = self.frames[service]
        self.look()
        votes, reasons = self.votes.cast(service)
        winners, freeze = effective(self._endings.standing, frame)
        desired = self.mirror.desired.get(service)
        ahead = self.ahead(service)
        return Slice(
            service=service,
            votes=votes,
            vantages=self.votes.vantages,
            reasons=reasons,
            overrides=winners,
            freeze=freeze,
            age_s=self.age_s(self.keys.service(service)),
            desired=desired,
            lag_s=self.votes.lag_s(service),
            rewound=bool(self.rewound) or ahead is not None,
            ahead=None if self._claims.young(service) else ahead,
        )

    def ahead(self, service: str) -> Ahead | None:
        """The highest fence that an agent found ahead of desired, and what it serves."""
        return self._claims.highest(service, self.mirror.desired.get(service), self.config)

    def ahead_by(self, service: str) -> set[str]:
        """The decisions that such fences name (see Desired.stamp); "" = one that names none."""
        desired = self.mirror.desired.get(service)
        return self._claims.decisions(service, desired.generation if desired else 0)

    def claimed_ahead(self) -> list[str]:
        """Configured services of which some agent says that their fence is ahead of desired."""
        return sorted(s for s in self._claims.services() if s in self.frames)

    # --- the loops --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch, beat and keep time until cancelled."""
        self.pulse.start()
        await together(self._watch(), self._beat(), self._tick())

    async def _watch(self) -> None:
        while True:
            try:
                await (self._same_history() if self.synced else self._snapshot())
                await self._follow()
            except Rewound:
                self._flag_rewound(f"the store went back behind revision {self.highest_rev}")
                self.synced = False
            except Compacted:
                self.synced = False
            except (StoreError, TimeoutError):
                await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        batches = self._store.watch(self.keys.prefix, self.mirror.rev + 1)
        try:
            async for batch in batches:
                self._take(batch.events, live=True)
                self.mirror.rev = max(self.mirror.rev, batch.rev)
                self.highest_rev = max(self.highest_rev, self.mirror.rev)
                self.batches.set()
        finally:
            if (aclose := getattr(batches, "aclose", None)) is not None:
                await aclose()

    async def _same_history(self) -> None:
        """Before a broken watch is resumed. Raises Rewound."""
        if self.mirror.contradicts(await self._store.range(self.keys.prefix)):
            raise Rewound(f"another history than the one seen up to revision {self.mirror.rev}")

    async def _snapshot(self) -> None:
        snapshot = await self._store.range(self.keys.prefix)
        if snapshot.rev < self.highest_rev or self.mirror.contradicts(snapshot):
            self._flag_rewound(f"store revision {snapshot.rev}, but another history up to {self.highest_rev} was seen")
        self._take(self.mirror.load(snapshot, anew=bool(self._rewound)), live=False)
        self.highest_rev = snapshot.rev
        governor = self.mirror.governor
        if governor and governor.highest_rev > snapshot.rev:
            self._flag_rewound(f"store revision {snapshot.rev}, but a leader saw {governor.highest_rev}")
        self.synced = True
        self.votes.touch_all()
        for signal in (self.inputs, self.news, self.leadership, self.batches):
            signal.set()

    async def _beat(self) -> None:
        while True:
            started = self.pulse.now()
            me = self.pulse.beat(self.mirror.complaint)
            try:
                with Patience(CALL_S):
                    await self._store.txn(Txn((), (Put(self.keys.node(me.node), encode(me)),)))
            except (StoreError, TimeoutError):
                pass  # what counts is whether the beat comes back, not what the write said
            await asyncio.sleep(max(0.0, started + BEAT_S - self.pulse.now()))

    async def _tick(self) -> None:
        """Stalls, which have to be noticed within the freshness window, and the ends of beats and overrides."""
        while True:
            self.pulse.tick()
            self.look()
            next_s = self.votes.next_end(self.freshness_s) - self.pulse.now()
            if self._claims.any_young or self._endings.next_at < FOREVER:
                next_s = TICK_S
            await asyncio.sleep(min(max(next_s, TICK_S / 4), IDLE_S, self.freshness_s / 4))

    # --- events -----------------------------------------------------------------------------------------

    def _take(self, events: Sequence[KV | Delete], live: bool) -> None:
        """Apply events in order. live: they came from the watch, so the beats among them prove something."""
        now, touched = self.pulse.now(), dict[str, None]()
        for event in events:
            key = event.key
            where = (self.mirror.apply(event) if live else self.mirror.slot(key)).vantage
            if where is not None:
                touched[where[0]] = None
                self._date(key, live, now)
                if not where[1]:
                    self._vantage_beat(where[0], live)
            elif key.startswith(self.keys.nodes):
                self._date(key, live, now)
                self._node_beat(key, live)
            elif key in (self.keys.leader, self.keys.leader_beat):
                self._arrived[key] = self.leader_moved_at = now
                if key == self.keys.leader:
                    self.leadership.set()
            else:
                self._document(event, live)
        for name in touched:
            beat, shards = self.mirror.beats.get(name), self.mirror.shards.get(name, {})
            self.votes.see(name, beat, shards, now, self.freshness_s)
        if self.votes.dirty:
            self.inputs.set()

    def _date(self, key: str, live: bool, now: float) -> None:
        """A beat is dated by the newest own beat before it (see pulse.py); one from a snapshot may be old."""
        if key not in self.mirror.revisions and key not in self.mirror.unreadable:
            self._arrived.pop(key, None)
        elif live:
            self._arrived[key] = now if self.pulse.floor is None else self.pulse.floor
        else:
            self._arrived.setdefault(key, now)

    def _node_beat(self, key: str, live: bool) -> None:
        node = self.mirror.nodes.get(key.removeprefix(self.keys.nodes))
        if node is None:
            self.pulse.forget(key)
        elif live and node.node == self.pulse.me.node:
            self.pulse.returned(node)
        elif live:
            self.pulse.heard(key, node.wall_s)

    def _vantage_beat(self, name: str, live: bool) -> None:
        beat = self.mirror.beats.get(name)
        if beat is None:
            self.votes.moved(name, None)
            self.pulse.forget(name)
        elif live:
            self.votes.moved(name, self.pulse.floor)
            self.pulse.heard(name, beat.wall_s)

    def _document(self, event: KV | Delete, live: bool) -> None:
        """Anything but a beat or a shard."""
        key, keys, mirror = event.key, self.keys, self.mirror
        gone = isinstance(event, Delete)
        self._arrived[key] = self.pulse.now()
        if gone and not key.startswith(keys.desired):  # of desired that is gone: since when there is none
            del self._arrived[key]
        if key.startswith(keys.desired):
            service = key.removeprefix(keys.desired)
            self.votes.index(service, mirror.desired.get(service))
            self.news.set()
        elif key == keys.config:
            self._configure()
        elif key in (keys.incarnation, keys.adopted):
            self.news.set()
        elif key.startswith(keys.overrides) or key == keys.timers_overrides:
            self._endings.expire(self.pulse.now(), self._arrived)
            if key != keys.timers_overrides:
                self.votes.touch_all()
        elif key == keys.timers_governor:
            marked = bool(mirror.governor and mirror.governor.rewound)
            if marked:
                self._rewound = ""  # from here on the document says it, and `unfreeze` ends it there
            if marked != self._marked:
                self._marked = marked
                self.votes.touch_all()
        elif key.startswith(keys.applied):
            self._applied(key.removeprefix(keys.applied))
        elif key.startswith(keys.decisions) and not gone:
            decision = mirror.decisions.get(key.removeprefix(keys.decisions))
            if decision is not None:
                for told in self.on_decision:
                    told(decision, live)

    def _applied(self, name: str) -> None:
        done = self.mirror.applied.get(name)
        for service in sorted(self._claims.take(name, done, self.pulse.now())):
            self.votes.touch(service)
        self.words.take(name)
        if done is not None:
            for told in self.on_applied:
                told(name, done)

    def _configure(self) -> None:
        config = self.mirror.config
        if config is not None:
            self.pulse.freshness_s = config.policy.freshness_s
        self.votes.configure(config, self.mirror.desired)
        now = self.pulse.now()
        for service in self.frames:
            self._arrived.setdefault(self.keys.service(service), now)
        self.news.set()

    def look(self) -> None:
        """What has ended by now: beats that stopped moving, overrides, the time for claims."""
        now = self.pulse.now()
        self.votes.look(now, self.freshness_s)
        if now >= self._endings.next_at:
            self._endings.expire(now, self._arrived)
            self.votes.touch_all()
        for service in sorted(self._claims.ripen(now)):
            self.votes.touch(service)
        if self.votes.dirty:
            self.inputs.set()

    def _flag_rewound(self, why: str) -> None:
        """The store was restored from a backup; the leader writes it down."""
        self._rewound = why
        self.pulse.hold(BEAT_S)
        self.votes.touch_all()
