"""Probes that are skipped because nothing can have changed must make no difference."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos.history import Probed
from chaos.worlds.sim.node import SimProber
from probes.target import Cancel, Done, Target
from tests.sim.setting import Story, config, settled

QUICK = config(soak_s=20.0, step_s=10.0, hold_s=5.0)
Told = list[tuple[float, str]]


def dark(story: Story) -> None:
    story.begin("dark", "site-a")
    story.run(40.0)
    story.end("dark", "site-a")
    story.run(60.0)


def stopped(story: Story) -> None:
    story.begin("stopped", "site-a", "www")
    story.run(17.0)
    story.end("stopped", "site-a", "www")
    story.run(60.0)


def still(story: Story) -> None:
    story.begin("still", "site-b")
    story.run(11.0)
    story.end("still", "site-b")
    story.begin("dark", "site-a")
    story.run(30.0)
    story.end("dark", "site-a")
    story.run(10.0)


def lying(story: Story) -> None:
    told = story.lie("site-b", "down")
    story.run(25.0)
    told()
    story.run(25.0)


def lossy(story: Story) -> None:
    heal = story.network.lose("site-a", "site-c", 0.9)
    story.run(60.0)
    heal()
    story.run(30.0)


def play(tell: Callable[[Story], None]) -> tuple[Told, Told, int]:
    """Decisions, changes of what raw probes found, callbacks."""
    with settled(QUICK) as story:
        story.run(300.0)
        tell(story)
        moves = [(move.at, f"{move.decision.service} {move.decision.desired.shares}") for move in story.moves()]
        found = []
        for seen in story.records(Probed):
            assert seen.before_at is not None
            text = f"{seen.vantage} {seen.target} {seen.passed} {seen.reason}"
            found += [(seen.at, text), (seen.before_at, f"before {text}")]
        return moves, found, story.kernel.handles


@pytest.mark.parametrize("tell", [dark, stopped, still, lying])
def test_the_same_is_seen_and_decided(tell: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch) -> None:
    moves, found, callbacks = play(tell)
    monkeypatch.setattr(SimProber, "steady", lambda self, target: False)
    all_moves, all_found, all_callbacks = play(tell)
    assert found and callbacks < 0.9 * all_callbacks, "something was skipped"
    assert [text for _, text in moves] == [text for _, text in all_moves]
    assert sorted(text for _, text in found) == sorted(text for _, text in all_found)
    for (at, text), (all_at, _) in zip(moves, all_moves, strict=True):
        assert abs(at - all_at) < 0.5, text
    times = {text: at for at, text in all_found}
    assert all(abs(at - times[text]) < 0.1 for at, text in found), "probes are made when they would have been"


def test_over_a_lossy_line_every_probe_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    start = SimProber.start

    def counted(self: SimProber, target: Target, done: Done) -> Cancel:
        made.append(target.site)
        return start(self, target, done)

    monkeypatch.setattr(SimProber, "start", counted)
    with settled(QUICK) as story:
        story.run(60.0)
        made.clear()
        story.run(60.0)
        assert len(made) == 0, "nothing to find"
        lossy(story)
        assert made.count("site-a") > 40, "site-c probes it over the line"
