"""Leadership over a real etcd: whatever happens to the leader, another takes over, and the old one changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.election_world import FAULTS, Rivals


@pytest.fixture(scope="module", params=[("site-a", "site-b", "site-c"), ("site-a", "site-b")], ids=["three", "two"])
def rivals(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rivals]:
    """Three controllers, or two."""
    world = Rivals(tmp_path_factory.mktemp("rivals"), request.param)
    try:
        yield world.start()
    finally:
        world.close()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("fault", FAULTS)
def test_another_controller_takes_over(rivals: Rivals, fault: str, tmp_path: Path) -> None:
    took_s = rivals.take_over(fault)
    commits = rivals.book.check()
    print(f"\nleader {fault}: {took_s:.2f} s to the new leader's first commit; {commits} commits checked")
