"""Which claims of fences ahead of desired are believed."""

from __future__ import annotations

from controlplane.dns.fencing import LEAP
from controlplane.documents import Applied, AppliedDoc
from controlplane.view.claims import Claims
from policies.world import Ahead, Answer, Desired

DESIRED = Desired("www", 7, {}, (), {}, name="www.example.org")


def claim(claims: Claims, site: str, generation: int, op: str) -> None:
    answers = (Answer("world", "A", "192.0.2.1", site, 100),)
    said = Applied(generation, "ahead", f"c=inc g={generation} op={op}", "", generation, answers)
    claims.take(f"{site}/{site}/dns/0", AppliedDoc(site, "dns", site, "r", 1, {"www": said}, {}, {}), 0.0)


def test_one_server_that_was_tampered_with_does_not_speak_for_the_others() -> None:
    claims = Claims()
    claim(claims, "a", 8 + LEAP, "d-903-x.1")
    assert claims.highest("www", DESIRED, None) is None
    assert claims.decisions("www", 7) == set()
    claim(claims, "b", 9, "d-9-3fd2.b-1")
    assert claims.highest("www", DESIRED, None) == Ahead(9, {"world": {"b": 100}})
    assert claims.decisions("www", 7) == {"d-9-3fd2"}
    claim(claims, "a", 7 + LEAP, "d-903-x.1")
    assert claims.highest("www", DESIRED, None) == Ahead(7 + LEAP, {"world": {"a": 100}})
    assert claims.decisions("www", 7) == {"d-9-3fd2", "d-903-x"}
