"""The real vantage; but a healthy target of which every probe would find the same is not probed in vain.

Such a target is parked after a probe. As soon as something changes that a probe could find, all that are parked go on
as if they had been probed all the time: at the times of the wheel's own sequence, and with the references' answers
counted up to then. Whatever is not known to be steady (a failing target, a lossy link, a lie) is probed as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from chaos.worlds.loop import NodeLoop
from probes.target import Health, Prober, Reporter, Sample, Target
from probes.vantage import Vantage, Watch
from probes.wheel import Wheel

Steady = Callable[[Target], bool]
Skipped = Callable[[Target, float], None]  # its last probe that was not made began so many seconds ago


class ParkingVantage(Vantage):
    """`steady`: will every probe of a target find what the last one found, until `unpark` is called? `skipped` is told
    of each target that goes on."""

    def __init__(
        self, site: str, prober: Prober, reporter: Reporter, loop: NodeLoop, steady: Steady, skipped: Skipped
    ) -> None:
        super().__init__(site, (), prober, reporter)
        self._wheel: SkippingWheel = SkippingWheel(site)
        self._loop, self._steady, self._skipped = loop, steady, skipped
        self._parked: dict[str, Watch] = {}

    def unpark(self) -> None:
        """Something is others now."""
        if self._parked:
            self._go_on(self._loop.time())
            self._wake()

    def _go_on(self, now_s: float) -> None:
        parked, self._parked = self._parked, {}
        for id_, watch in parked.items():
            watch.began_s, watch.look = self._wheel.skip(id_, now_s), self._sight.look
            if watch.reference:
                self._sight.answered(watch.began_s, watch.look)
            self._skipped(watch.target, now_s - watch.began_s)

    # --- where the vantage does something else ---

    def _ended(self, watch: Watch, now_s: float) -> None:
        damper = watch.damper
        asked = not self._sight.look.answered and watch.target.id in self._asked
        if damper.health is Health.UP and damper.answered and not (damper.fast or asked) and self._steady(watch.target):
            self._parked[watch.target.id] = watch
        else:
            super()._ended(watch, now_s)

    def _count(self, watch: Watch, sample: Sample, now_s: float) -> None:
        if not sample.answered and watch.damper.health is not Health.DOWN:
            self._go_on(now_s)  # it matters now which reference answered when
        super()._count(watch, sample, now_s)

    def _notice_sleep(self, now_s: float) -> None:
        if self._stepped_s is not None and now_s - self._stepped_s > self.freshness_s:
            self._go_on(now_s)  # all begin anew
        super()._notice_sleep(now_s)

    def _take_targets(self, targets: Iterable[Target], now_s: float) -> None:
        self._go_on(now_s)
        super()._take_targets(targets, now_s)


class SkippingWheel(Wheel):
    def skip(self, id_: str, now_s: float) -> float:
        """A target of which no probe runs is due when it would be if it had been probed all the time. Returns when the
        last probe would have begun."""
        entry = self._entries[id_]
        while (due_s := entry.began_s + entry.next_interval_s()) <= now_s:
            entry.began_s = due_s
        self._schedule(id_, entry, due_s)
        return entry.began_s
