"""A site dies that a thousand services are at: all of them move at once; how late the leader beat is printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.scale_world import Crowd

SERVICES = 1000


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    world = Crowd(tmp_path, SERVICES)
    try:
        yield world.start()
    finally:
        world.close()


@pytest.mark.timeout(400)
def test_a_thousand_services_leave_a_site_at_once(crowd: Crowd) -> None:
    move = crowd.lose_site()
    print(f"\n{SERVICES} services, after the site died: first commit {move.first_commit_s:.2f} s, last", end=" ")
    print(f"{move.last_commit_s:.2f} s, last answer {max(move.answers_s.values()):.2f} s", end="; ")
    print(f"the latest beat was {move.late_s * 1000:.0f} ms late, {move.leaders} leader{'s' * (move.leaders != 1)}")
    assert crowd.book.check() >= 2 * SERVICES
