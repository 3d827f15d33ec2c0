"""SIGTERM to a leader in the middle of its commits, and of its own agent's writes: no step is left half done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.query
import dns.rdatatype
import dns.tsigkeyring
import dns.xfr
import dns.zone
import pytest

from controlplane.documents import DecisionDoc, decode
from controlplane.drivers import Fence
from controlplane.store import KV
from policies.world import Desired
from tests.real.election_world import KEYS
from tests.real.failoverd_world import SITES, until
from tests.real.scale_world import HEIR, VICTIM, Crowd, Door

SERVICES = 150
PREFIX = "_failover."


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    world = Crowd(tmp_path, SERVICES)
    try:
        yield world.start()
    finally:
        world.close()


def check_decisions(crowd: Crowd) -> None:
    """Every generation was written together with the decision that made it."""
    events = [event for _, event in list(crowd.book.events) if isinstance(event, KV)]
    stories = {e.key: e for e in events if e.key.startswith(KEYS.decisions)}
    known: dict[str, int] = {}
    for event in events:
        if event.key.startswith(KEYS.desired):
            desired = decode(Desired, event.value)
            story = stories[KEYS.decision(desired.decision)]
            decision = decode(DecisionDoc, story.value)
            assert (decision.service, decision.nonce) == (desired.service, desired.nonce)
            if known.get(desired.service) != desired.generation:
                assert (story.mod_rev, decision.desired) == (event.mod_rev, desired), "not in one transaction"
                known[desired.service] = desired.generation
    assert len(known) == SERVICES


def zone_of(crowd: Crowd, site: str) -> dict[str, tuple[Fence, list[str]]]:
    """All that a site's name server has, at one moment: name -> its fence and its answers."""
    zone = dns.zone.Zone("real.test.")
    keyring = dns.tsigkeyring.from_text({crowd.key.name: crowd.key.secret})
    query, _ = dns.xfr.make_query(zone, keyring=keyring)
    dns.query.inbound_xfr("127.0.0.1", zone, query, crowd.servers[site].port, timeout=5, lifetime=20)
    fences: dict[str, Fence] = {}
    answers: dict[str, list[str]] = {}
    for name, _, record in zone.iterate_rdatas():
        text = name.to_text()
        if record.rdtype == dns.rdatatype.TXT and text.startswith(PREFIX):
            fence = Fence.parse(b"".join(record.strings).decode())
            assert fence is not None
            fences[text.removeprefix(PREFIX)] = fence
        elif record.rdtype == dns.rdatatype.A and text.startswith("s0"):
            answers.setdefault(text, []).append(record.address)
    assert set(fences) == set(answers), "a fence without an answer, or an answer without a fence"
    return {name: (fences[name], sorted(answers[name])) for name in fences}


def check_zones(crowd: Crowd) -> dict[str, int]:
    """Each name's answers are those of the generation in its fence. Returns how many services each server had sent
    away from site-a."""
    found = {site: zone_of(crowd, site) for site in SITES}  # before the book: what they have stands in it
    until("the book to have it", lambda: all(len(zone) == SERVICES for zone in found.values()))
    made = {(d.service, d.generation): d for _, d in crowd.book.commits()}
    for site, zone in found.items():
        for service, (fence, addresses) in zone.items():
            desired = made[service, fence.generation]
            wanted = sorted(answer.address for answer in desired.answers)
            assert (fence.decision, addresses) == (desired.stamp, wanted), f"{service} at {site}"
    return {site: sum(SITES[VICTIM] not in a for _, a in zone.values()) for site, zone in found.items()}


def move(crowd: Crowd, to: str) -> bool:
    """site-a dies or comes back; when the first of its services have moved the leader is told to end. Was it in the
    middle of it?"""
    leader = crowd.wait_for_leader()
    began = time.monotonic()
    if to == VICTIM:
        crowd.webs[VICTIM] = Door(SITES[VICTIM], crowd.web_port)
    else:
        crowd.webs.pop(VICTIM).close()

    def moved() -> set[str]:
        return {d.service for _, d in crowd.book.commits(began) if all(set(s) == {to} for s in d.shares.values())}

    end = time.monotonic() + 60
    while not moved():
        assert time.monotonic() < end, "nothing moved"
    assert leader.process.stop(10) == 0
    decided = len(moved())
    print(f"{leader.site} told to end after {decided} of {SERVICES} services had left for {to};", end=" ")
    written = check_zones(crowd)
    print("at name servers, away from site-a:", written)
    check_decisions(crowd)
    crowd.wait_for_leader(other_than=leader.site)
    leader.start()
    until("every service decided", lambda: len(crowd.served_by(to)) == SERVICES, 60)
    for site in SITES:
        until(f"every answer of {site}", lambda s=site: crowd.answers(s, SITES[to]), 60)
    until("every node to be ready", lambda: all(n.ready for n in crowd.nodes.values()), 60)
    check_zones(crowd)
    check_decisions(crowd)
    return decided < SERVICES or 0 < written[leader.site] < SERVICES


@pytest.mark.timeout(300)
def test_no_step_is_left_half_done(crowd: Crowd) -> None:
    caught = [move(crowd, to) for to in (HEIR, VICTIM, HEIR)]
    assert any(caught), "each time all was done before it was told to end: nothing was tested"
    assert crowd.book.check() >= 4 * SERVICES
