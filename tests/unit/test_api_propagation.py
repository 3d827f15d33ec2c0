"""Did it arrive? converged, propagating, diverged, from what writers and servers said."""

from __future__ import annotations

from controlplane.api.propagation import CONVERGED, DIVERGED, PROPAGATING, Arrival, Pool, Word, arrival
from controlplane.documents import Applied, AppliedDoc, Seen
from policies.world import Desired

A, B = "192.0.2.53:53", "198.51.100.53:53"
DRIVERS = ("dns-a", "dns-b")
DESIRED = Desired("www", 58, {"world": {"a": 100}}, (), {}, name="www.example.org", ttl_s=20)


def seen(server: str, generation: int | None, reason: str = "") -> Seen:
    return Seen(server, generation, generation == 58 and not reason, reason)


def word(
    *looks: Seen,
    applied: Applied | None = None,
    driver: str = "dns-a",
    alive: bool = True,
    left_s: float = 0.0,
    age_s: float = 0.0,
) -> Word:
    services = {"www": applied or Applied(58, "ok")}
    doc = AppliedDoc("a", driver, "a", "run", 1, services, {"www": looks}, {"www": left_s})
    return Word(doc, age_s, alive)


def state(*words: Word, desired: Desired = DESIRED) -> str:
    return arrival(desired, DRIVERS, (A, B), words).state


def test_all_agree() -> None:
    assert state(word(seen(A, 58), seen(B, 58))) == CONVERGED


def test_a_name_without_dns_has_nothing_to_wait_for() -> None:
    assert state(desired=Desired("www", 58, {}, (), {})) == CONVERGED


def test_one_server_is_late() -> None:
    found = arrival(DESIRED, DRIVERS, (A, B), [word(seen(A, 58), seen(B, 57))])
    assert found.state == PROPAGATING
    assert found.why == (f"{B} still gen 57",)
    assert (found.agreeing, found.reachable) == (1, 2)


def test_who_agreed_with_what_was_desired_before_does_not_agree_now() -> None:
    found = arrival(DESIRED, DRIVERS, (A, B), [word(Seen(A, 57, True), seen(B, 58))])
    assert found.agreeing == 1 and found.servers[0].reason == "still gen 57"


def test_an_unreachable_server_holds_nothing_up_but_all_of_them_do() -> None:
    assert state(word(seen(A, 58), seen(B, None, "timeout"))) == CONVERGED
    assert state(word(seen(A, None), seen(B, None))) == PROPAGATING


def test_a_server_that_nobody_asked_yet() -> None:
    assert state(word(seen(A, 58))) == PROPAGATING


def test_the_driver_of_a_dead_site_cannot_be_written_and_holds_nothing_up() -> None:
    deputy = word(driver="dns-b", applied=Applied(0, "transient", "read: timeout"))
    assert state(word(seen(A, 58), seen(B, None)), deputy) == CONVERGED


def test_old_ttls_run_out_by_themselves() -> None:
    looks = (seen(A, 58), seen(B, 58))
    assert state(word(*looks, left_s=17)) == PROPAGATING
    assert state(word(*looks, left_s=17, age_s=18)) == CONVERGED


def test_two_askers_of_one_server_the_newer_answer_counts() -> None:
    assert state(word(seen(A, 57), seen(B, 57)), word(seen(A, 58), seen(B, 58), driver="dns-b")) == CONVERGED


def test_the_last_word_of_a_dead_writer_is_history() -> None:
    assert state(word(seen(A, 58), seen(B, 58), alive=False)) == PROPAGATING


def test_words_that_are_not_renewed_are_history_too() -> None:
    """Its node beats, and yet nobody has heard of its name servers for two refreshes."""
    looks = (seen(A, 58), seen(B, 58))
    assert state(word(*looks, age_s=19)) == CONVERGED
    found = arrival(DESIRED, DRIVERS, (A, B), [word(*looks, age_s=21)])
    assert found.state == PROPAGATING and found.servers == () and found.why


def test_edited_by_hand() -> None:
    assert state(word(seen(A, 58), seen(B, 58, "A: answers 192.0.2.99"))) == DIVERGED


def test_what_no_further_try_will_mend() -> None:
    for result in ("terminal", "ahead", "manual", "foreign"):
        found = arrival(DESIRED, DRIVERS, (A, B), [word(seen(A, 58), seen(B, 58), applied=Applied(58, result, "why"))])
        assert found.state == DIVERGED
        assert found.why == (f"dns-a: {result} why",)


def test_a_driver_of_another_zone_has_no_say() -> None:
    other = word(driver="other", applied=Applied(1, "terminal"))
    assert state(word(seen(A, 58), seen(B, 58)), other) == CONVERGED


# ---- pools

LB = (Pool("lb", "a", True), Pool("lb", "b", True))


def pool_word(site: str, applied: Applied | None, alive: bool = True) -> Word:
    services = {"www": applied} if applied else {}
    return Word(AppliedDoc(site, "lb", site, "run", 1, services, {}, {}), 0.0, alive)


def pools(*words: Word, there: tuple[Pool, ...] = LB, desired: Desired = DESIRED) -> Arrival:
    return arrival(desired, DRIVERS, (A, B), [word(seen(A, 58), seen(B, 58)), *words], there)


FINE = Applied(58, "ok")


def test_pools_have_to_agree_too() -> None:
    found = pools(pool_word("a", FINE), pool_word("b", Applied(58, "ok", sessions={"b": 7})))
    assert found.state == CONVERGED and found.pools_agreeing == 2
    assert [p.sessions for p in found.pools] == [{}, {"b": 7}]
    found = pools(pool_word("a", FINE), pool_word("b", Applied(57, "ok")))
    assert (found.state, found.why) == (PROPAGATING, ("lb at b still gen 57",))
    found = pools(pool_word("a", FINE), pool_word("b", Applied(0, "transient", "read: no answer")))
    assert (found.state, found.why) == (PROPAGATING, ("lb at b transient read: no answer",))
    found = pools(pool_word("a", FINE), pool_word("b", Applied(58, "terminal", "no such backend")))
    assert (found.state, found.why) == (DIVERGED, ("lb at b: terminal no such backend",))


def test_the_same_generation_of_another_decision_is_not_ours() -> None:
    other = Applied(58, "ok", decision="d-9-x")
    assert pools(pool_word("a", FINE), pool_word("b", other)).state == PROPAGATING


def test_a_pool_that_was_not_written_yet_is_waited_for() -> None:
    for words in ((), (pool_word("b", None),), (pool_word("b", FINE, alive=False),)):
        found = pools(pool_word("a", FINE), *words)
        assert (found.state, found.why) == (PROPAGATING, ("lb at b was not written yet",))


def test_the_pool_of_a_dead_site_or_of_a_dead_process_is_unreachable_and_holds_nothing_up() -> None:
    dead = (LB[0], Pool("lb", "b", False))
    found = pools(pool_word("a", FINE), pool_word("b", Applied(57, "ok"), alive=False), there=dead)
    assert found.state == CONVERGED and found.pools[1].generation is None
    assert found.pools[1].reason == "no agent runs there" and found.pools_agreeing == 1
    found = pools(pool_word("a", FINE), pool_word("b", Applied(0, "transient", "read: refused", gone=True)))
    assert found.state == CONVERGED and found.pools[1].reason == "read: refused"


def test_only_its_own_agent_speaks_for_a_pool() -> None:
    stranger = Word(AppliedDoc("b", "lb", "a", "run", 1, {"www": FINE}, {}, {}), 0.0, True)
    assert pools(pool_word("a", FINE), stranger).state == PROPAGATING


def test_a_service_of_pools_alone() -> None:
    alone = Desired("www", 58, {"world": {"a": 100}}, (), {})
    assert arrival(alone, (), (), [pool_word("a", FINE), pool_word("b", FINE)], LB).state == CONVERGED
    found = arrival(alone, (), (), [pool_word("a", FINE)], LB)
    assert (found.state, found.servers, found.old_ttl_left_s) == (PROPAGATING, (), 0.0)
