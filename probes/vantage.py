"""The loop of SEE: wheel -> prober -> damping -> reporter.

`step(now_s)` does all the work and is a function of what it is given; `run` calls it whenever something is due or a
result has come in. The beat is sent by that same step: a loop that hangs falls silent.

Blindness. References are the targets at all other sites, where there are at least two such sites (with only one, its
death and ours would look the same), and the targets of site "" (`vantage.references`). The vantage is blind while
every one of them is silent, damped (`Damper.silent`): one lost packet at the last reference that lives must not take
this vantage's vote away in the middle of a failover. With fewer than two references it cannot tell, and never says
so.

Sight. Silence makes a target DOWN only if a reference is known to have answered meanwhile (sight.py); until then it
is UNKNOWN. Whenever a result is silent and no reference has answered since, a few of them are probed at once, and
again at their fast intervals until one answers: each time at most PER_SITE of each other site.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Callable, Iterable

from probes.damping import Damper
from probes.sight import Look, Sight
from probes.target import Cancel, Health, Prober, Reporter, Sample, Target
from probes.wheel import Wheel

BEAT_S = 1.0
PER_SITE = 2  # references of one site that are asked at once
TICK_S = 0.001  # steps are at least this far apart, so that a clock that rounds down cannot spin
SLEPT = "slept"
NO_RESULT = "broken: no result"
REFERENCES = "refs"  # the shard of the targets of site ""
SHARD_TARGETS = 100  # in a shard, about: it is written whole when one of them changes


class Watch:
    """One target under watch."""

    __slots__ = (
        "began_s",
        "cancel",
        "damper",
        "doubt_s",
        "look",
        "number",
        "observation",
        "reference",
        "shard",
        "target",
    )

    def __init__(self, target: Target, look: Look) -> None:
        self.target = target
        self.damper = Damper(target.fall, target.rise, target.clear)
        self.observation = self.damper.observation(target.id)  # as last put
        self.reference = False
        self.cancel: Cancel | None = None  # of the probe that is running
        self.number = 0  # of that probe: results of earlier ones are ignored
        self.began_s = 0.0
        self.look = look  # the latest one when that probe began
        self.doubt_s: float | None = None  # it fell silent: was there sight since then?
        self.shard = ""


class Vantage:
    """One site's prober. `freshness_s` (may be set at any time): a longer gap between steps means that it slept."""

    def __init__(
        self, site: str, targets: Iterable[Target], prober: Prober, reporter: Reporter, freshness_s: float = 3.0
    ) -> None:
        self.site = site
        self.blind = False
        self.voids = 0  # results that did not count, since the start
        self._prober = prober
        self._reporter = reporter
        self.freshness_s = freshness_s
        self._wanted: tuple[Target, ...] | None = tuple(targets)
        self._watches: dict[str, Watch] = {}
        self._references: list[Watch] = []
        self._wheel = Wheel(site)
        self._results: list[tuple[Watch, int, Sample]] = []
        self._shards: dict[str, list[Watch]] = {}
        self._changed: dict[str, None] = {}  # shards to put
        self._sight = Sight()
        self._asked: frozenset[str] = frozenset()  # references that are probed fast until the latest look is answered
        self._stepped_s: float | None = None
        self._beat_s = float("-inf")  # when the next beat is due
        self._wake: Callable[[], None] = _nothing

    def set_targets(self, targets: Iterable[Target]) -> None:
        """Watch these from the next step on. Unchanged ones keep their state; timing alone is no change."""
        self._wanted = tuple(targets)
        self._wake()

    async def run(self) -> None:
        """Probe and report until cancelled; then cancel the probes that run. Prober and reporter are the caller's
        to close. What a prober or reporter raises ends the loop: a vantage that cannot work must be silent."""
        turns = _Turns(self.step)
        self._wake = turns.ask
        try:
            turns.ask()
            await turns.failed
        finally:
            self._wake = _nothing
            turns.end()
            for watch in self._watches.values():
                _stop(watch)

    def step(self, now_s: float) -> float:
        """Do what is due at `now_s` (the loop's clock) and return when something is due next."""
        self._notice_sleep(now_s)
        if self._wanted is not None:
            self._take_targets(self._wanted, now_s)
        if self._results:
            self._take_results(now_s)
        beat = now_s >= self._beat_s
        if beat:
            self._give_up(now_s)
        for id_ in self._wheel.pop(now_s):
            self._begin(self._watches[id_], now_s)
        blind = self._sees_nothing()
        turned, self.blind = blind != self.blind, blind
        if self._changed:
            self._put()
        if beat or turned:
            self._reporter.beat(blind)
            self._beat_s = now_s + BEAT_S
        next_s = self._wheel.next_s()
        due_s = self._beat_s if next_s is None or next_s > self._beat_s else next_s
        return max(due_s, now_s + TICK_S)

    def _sees_nothing(self) -> bool:
        for watch in self._references:
            if not watch.damper.silent:
                return False
        return len(self._references) >= 2

    def _notice_sleep(self, now_s: float) -> None:
        """After a gap nothing is known: neither what was seen before it nor what was under way."""
        last_s, self._stepped_s = self._stepped_s, now_s
        if last_s is None or now_s - last_s <= self.freshness_s:
            return
        for watch in self._watches.values():
            self.voids += _stop(watch)
            self._restart(watch, SLEPT)
            self._add(watch.target, now_s)  # spread anew: all of them are overdue at once

    def _take_targets(self, targets: Iterable[Target], now_s: float) -> None:
        """Bring what is watched to what is wanted."""
        wanted, self._wanted = {target.id: target for target in targets}, None
        old, self._watches = self._watches, {}
        for id_, target in sorted(wanted.items()):
            watch = old.get(id_)
            if watch is not None and _same_check(watch.target, target):
                del old[id_]
                self._retune(watch, target)
            else:
                watch = Watch(target, self._sight.look)
            self._watches[id_] = watch
        for watch in old.values():
            _stop(watch)
            self._wheel.remove(watch.target.id)
            self._changed[watch.shard] = None
        for watch in self._watches.values():
            if watch.target.id not in self._wheel:
                self._add(watch.target, now_s)
        self._spread()
        self._find_references()

    def _spread(self) -> None:
        """Give each target its shard: a site's own, or one of several where there are many."""
        counts = Counter(watch.target.site for watch in self._watches.values())
        self._shards = {}
        for watch in self._watches.values():  # in order of id
            name, parts = watch.target.site or REFERENCES, -(-counts[watch.target.site] // SHARD_TARGETS)
            shard = name if parts == 1 else f"{name}.{zlib.crc32(watch.target.id.encode()) % parts}"
            self._shards.setdefault(shard, []).append(watch)
            if watch.shard != shard:
                if watch.shard:
                    self._changed[watch.shard] = None
                watch.shard = shard
                self._changed[shard] = None

    def _find_references(self) -> None:
        sites = {watch.target.site for watch in self._watches.values()} - {self.site, ""}
        others = sites if len(sites) >= 2 else set()
        self._references = []
        for watch in self._watches.values():
            watch.reference = watch.target.site == "" or watch.target.site in others
            if watch.reference:
                self._references.append(watch)

    def _take_results(self, now_s: float) -> None:
        results, self._results = self._results, []
        for watch, number, sample in results:
            if watch.cancel is None or number != watch.number:
                continue  # of a probe that was cancelled meanwhile
            watch.cancel = None
            target = watch.target
            if now_s > watch.began_s + target.timeout_s + target.interval_s:
                self.voids += 1  # it says more about this loop than about the target
            else:
                self._count(watch, sample, now_s)
            self._ended(watch, now_s)

    def _count(self, watch: Watch, sample: Sample, now_s: float) -> None:
        if watch.reference and sample.answered and not sample.broken:
            self._sight.answered(watch.began_s, watch.look)
        silent = not sample.answered and not sample.broken and len(self._references) >= 2
        shown = watch.doubt_s is not None and watch.look.shows(watch.doubt_s, watch.began_s)
        news = watch.damper.feed(sample, sight=shown or not silent)
        if not silent or watch.damper.health is Health.DOWN:
            watch.doubt_s = None
        elif shown or watch.doubt_s is None:  # each further failure needs sight of its own
            watch.doubt_s = min(now_s, watch.began_s + watch.target.timeout_s / 2)
            if not self._sight.covers(watch.doubt_s):
                self._ask_references(watch.doubt_s, now_s)
        if news:
            self._refresh(watch)

    def _ask_references(self, since_s: float, now_s: float) -> None:
        """Probe a few references of each site at once, rather those that answered lately, and quick ones. One that
        has been running since `since_s` or later will do."""
        found: dict[str, list[str]] = {}
        first_s = now_s
        for watch in sorted(self._references, key=lambda each: (not each.damper.answered, each.target.fast_interval_s)):
            of_site = found.setdefault(watch.target.site, [])
            if len(of_site) < PER_SITE:
                of_site.append(watch.target.id)
                self._wheel.hasten(watch.target.id, now_s)
                if watch.cancel is not None and watch.began_s >= since_s:
                    first_s = min(first_s, watch.began_s)
        self._sight.asked(first_s)
        self._asked = frozenset(id_ for of_site in found.values() for id_ in of_site)

    def _ended(self, watch: Watch, now_s: float) -> None:
        asked = not self._sight.look.answered and watch.target.id in self._asked
        self._wheel.ended(watch.target.id, now_s, watch.damper.fast or asked)

    def _give_up(self, now_s: float) -> None:
        """A prober that never says done would leave an old verdict standing: that target is UNKNOWN."""
        for watch in self._watches.values():
            target = watch.target
            patience_s = target.timeout_s + target.interval_s + self.freshness_s
            if watch.cancel is not None and now_s > watch.began_s + patience_s:
                self.voids += _stop(watch)
                self._restart(watch, NO_RESULT)
                self._ended(watch, now_s)

    def _begin(self, watch: Watch, now_s: float) -> None:
        watch.number += 1
        watch.began_s, watch.look = now_s, self._sight.look
        number = watch.number

        def done(sample: Sample) -> None:
            self._results.append((watch, number, sample))
            self._wake()

        watch.cancel = self._prober.start(watch.target, done)

    def _put(self) -> None:
        """Whole shards, of which something changed; one that has no targets any more is put as empty."""
        changed, self._changed = sorted(self._changed), {}
        for shard in changed:
            self._reporter.put(shard, [watch.observation for watch in self._shards.get(shard, ())])

    def _add(self, target: Target, now_s: float) -> None:
        self._wheel.add(target.id, target.interval_s, target.fast_interval_s, target.jitter, now_s)

    def _retune(self, watch: Watch, target: Target) -> None:
        """The same check with other counts or intervals: what is known of it stands."""
        watch.target = target
        watch.damper.fall, watch.damper.rise, watch.damper.clear = target.fall, target.rise, target.clear
        self._wheel.retune(target.id, target.interval_s, target.fast_interval_s, target.jitter)

    def _restart(self, watch: Watch, reason: str) -> None:
        watch.damper.restart(reason)
        watch.doubt_s = None
        self._refresh(watch)

    def _refresh(self, watch: Watch) -> None:
        observation = watch.damper.observation(watch.target.id)
        if observation != watch.observation:
            watch.observation = observation
            self._changed[watch.shard] = None


def _stop(watch: Watch) -> bool:
    """Cancel the probe that is running, if any. Was there one?"""
    cancel, watch.cancel = watch.cancel, None
    if cancel is not None:
        cancel()
    return cancel is not None


def _same_check(one: Target, other: Target) -> bool:
    """Do both ask the same question? Their counts and intervals may differ."""
    return (one.site, one.address, one.kind, one.options) == (
        other.site,
        other.address,
        other.kind,
        other.options,
    )


class _Turns:
    """Calls `step` when it is due and when it is asked for, on the running loop: by plain callbacks, because to wake a
    task for each would cost more than the step itself. `failed`: what `step` raised; then there are no more turns."""

    def __init__(self, step: Callable[[float], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._step = step
        self._alarm: asyncio.TimerHandle | None = None
        self._due_s = 0.0  # of the alarm
        self._asked: asyncio.Handle | None = None
        self.failed: asyncio.Future[None] = self._loop.create_future()

    def ask(self) -> None:
        """A turn soon; what comes until then is taken by the same one."""
        if self._asked is None:
            self._asked = self._loop.call_soon(self._turn)

    def end(self) -> None:
        for handle in (self._alarm, self._asked):
            if handle is not None:
                handle.cancel()

    def _ring(self) -> None:
        self._alarm = None
        if self._asked is None:
            self._turn()

    def _turn(self) -> None:
        self._asked = None
        try:
            due_s = self._step(self._loop.time())
        except Exception as error:
            self.end()
            if not self.failed.done():
                self.failed.set_exception(error)
            return
        if self._alarm is None or due_s != self._due_s:
            if self._alarm is not None:
                self._alarm.cancel()
            self._due_s, self._alarm = due_s, self._loop.call_at(due_s, self._ring)


def _nothing() -> None:
    """Nobody is waiting."""
