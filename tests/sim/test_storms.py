"""Everything at once: random faults for minutes, then peace. A seed that fails becomes a story of its own in
test_cluster.py."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.sim.setting import SITES, WITNESS, Story, config, settled

QUICK = config(soak_s=20.0, step_s=10.0, hold_s=5.0)
NODES = (*SITES, WITNESS)


class Storm:
    """What blows now, beside the story's own deeds: messages that are disturbed."""

    def __init__(self, w: Story, rng: random.Random) -> None:
        self.w, self.rng = w, rng
        self._undo: dict[str, Callable[[], None]] = {}

    def disturb(self, message: str, undo: Callable[[], None]) -> None:
        """In the place of what disturbed those messages before."""
        self.calm(message)
        self._undo[message] = undo

    def calm(self, *messages: str) -> None:
        for message in messages or tuple(self._undo):
            if message in self._undo:
                self._undo.pop(message)()

    def one_fault(self) -> None:
        w, rng = self.w, self.rng
        site = rng.choice(NODES)
        match rng.choice(("dark", "light", "kill", "pause", "resume", "stop", "go", "unknown", "lag", "late", "away")):
            case "dark" if not any(w.is_("dark", other) for other in NODES):
                w.begin("dark", site)
            case "light" | "away" if dark := [other for other in NODES if w.is_("dark", other)]:
                w.end("dark", dark[0])
            case "away":
                w.begin("away")
                w.run(rng.choice((1.0, 8.0)))
                w.end("away")
            case "kill":
                w.begin("down", site)
                w.run(rng.choice((0.1, 6.0)))
                w.end("down", site)
            case "pause" if not w.is_("still", site):
                w.begin("still", site)
            case "resume":
                for other in NODES:
                    if w.is_("still", other):
                        w.end("still", other)
            case "stop" if site in SITES and not w.is_("stopped", site, "www"):
                w.begin("stopped", site, "www")
            case "go":
                for other in SITES:
                    if w.is_("stopped", other, "www"):
                        w.end("stopped", other, "www")
            case "unknown":
                self.disturb("reply", w.messages.lose("reply", site, rng.choice((0.0, 0.3))))
            case "lag":
                self.disturb("watch", w.messages.delay("watch", site, rng.choice((0.0, 0.2, 1.5))))
            case "late" if site in SITES:
                self.disturb("dns_update", w.messages.delay("dns_update", site, 15.0))


@pytest.mark.parametrize("seed", range(1, 5))
def test_after_any_storm_it_converges(seed: int) -> None:
    with settled(QUICK, seed=str(seed)) as w:
        rng = random.Random(f"storm {seed}")
        storm = Storm(w, rng)
        for _ in range(24):
            storm.one_fault()
            w.run(rng.choice((0.3, 2.0, 5.0, 12.0)))
        storm.calm()
        w.end_all()
        w.run(170.0)
        assert w.all_serve("site-a"), (w.serving(), w.now_desired())
        assert w.generations() == dict.fromkeys(SITES, w.now_desired().generation)
        assert any(record.at > 0 for record in w.history), "it was a storm"
