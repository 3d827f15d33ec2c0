"""Expectations are held against what reachable name servers answered, and what clients had."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from chaos.expectations import met
from chaos.history import Answered, Edited, History, Operated, Served
from chaos.report import Met
from chaos.scenario import Condition, Expect, Fault
from tests.unit.histories import DARK, added, back, changed, scenario, served

GOOD = back().history()
A, B, C = "site-a", "site-b", "site-c"


def held(expect: Expect, history: History = GOOD) -> Met:
    (one,) = met(scenario(expect=[expect]), history)
    return one


def by(at: float, kind: str, *sites: str, never: bool = False) -> Expect:
    service = "" if kind == "converged" else "www"
    return Expect(kind="by", from_s=at, conditions=(Condition(kind, service, sites, never),))


def during(from_s: float, to_s: float, kind: str, *sites: str, never: bool = False) -> Expect:
    return replace(by(from_s, kind, *sites, never=never), kind="during", to_s=to_s)


@pytest.mark.parametrize(
    ("expect", "passed", "at_s"),
    [
        (by(66.0, "answer", B), True, 65.4),
        (by(65.3, "answer", B), False, None),  # not yet
        (by(250.0, "answer", B), True, 201.0),  # site-a's server came back with the old answer
        (by(200.5, "answer", B), False, None),
        (by(270.0, "answer", A, B), True, 265.7),  # the exact set
        (by(270.0, "answer", A), False, None),
        (by(270.0, "serves", A), True, 265.7),
        (by(270.0, "serves", C), False, None),
        (by(70.0, "serves", A, never=True), True, 65.4),
        (by(270.0, "serves", A, never=True), False, None),
        (by(70.0, "answer", A, never=True), True, 65.4),
        (by(66.0, "converged"), True, 65.4),
        (by(65.3, "converged"), False, None),
        (by(65.3, "converged", never=True), True, 65.2),
        (by(601.0, "converged"), False, None),  # after the end
        (during(66.0, 199.0, "answer", B), True, None),
        (during(66.0, 260.0, "answer", B), False, 200.0),
        (during(60.0, 199.0, "answer", B), False, 60.0),
        (during(66.0, 199.0, "serves", A, never=True), True, None),
        (during(66.0, 300.0, "serves", A, never=True), False, 200.0),
        (during(70.0, 80.0, "answer", B), True, None),  # nothing changes in it: what was before counts
        (during(500.0, 601.0, "answer", A), False, None),
    ],
)
def test_what_servers_answer(expect: Expect, passed: bool, at_s: float | None) -> None:
    one = held(expect)
    assert (one.passed, one.at_s) == (passed, at_s), one


def test_after_heal_counts_from_the_end_of_the_last_fault() -> None:
    for after_s, passed in ((130.0, True), (90.0, False)):  # site-a has all again 127.2 s after
        expect = Expect(kind="after_heal", from_s=after_s, conditions=(Condition("answer", "www", (A,)),))
        assert held(expect).passed is passed


def test_every_reachable_server_must_say_so_and_no_other_is_asked() -> None:
    one = held(by(64.0, "answer", A))
    assert one.passed  # site-a's own is out of reach
    stray = added(GOOD, *(replace(r, at=80.0, sites=(A,)) for r in GOOD.records if r.at == 65.4 and _of(r, C)))
    one = held(by(90.0, "answer", B), stray)
    assert not one.passed
    assert one.detail == "site-b answers [site-b]; site-c answers [site-a]"


def _of(record: object, server: str) -> bool:
    return isinstance(record, Answered) and record.server == server


def test_nobody_to_ask_is_nothing_to_look_at() -> None:
    silent = replace(GOOD, records=tuple(r for r in GOOD.records if not isinstance(r, Answered)))
    for expect in (by(90.0, "answer", B), by(90.0, "converged"), during(1.0, 90.0, "serves", A, never=True)):
        one = held(expect, silent)
        assert not one.passed
        assert "no reachable name server" in one.detail
    dark = [replace(r, at=90.0, reachable=False) for r in GOOD.records if isinstance(r, Answered) and r.at == 65.4]
    one = held(by(100.0, "serves", A, never=True), added(GOOD, *dark))
    assert not one.passed
    assert "no reachable name server" in one.detail


def test_one_look_is_not_all_through() -> None:
    """Nobody is reachable for most of the time."""
    for until_s, passes in ((120.0, True), (180.0, False)):
        gone = [replace(r, at=100.0, reachable=False) for r in GOOD.records if isinstance(r, Answered) and r.at == 65.4]
        again = [replace(r, at=until_s, reachable=True) for r in gone]
        one = held(during(66.0, 199.0, "answer", B), added(GOOD, *gone, *again))
        assert one.passed is passes
        assert passes or one.detail == "from 100.0s to 180.0s no reachable name server to look at"


def test_after_the_heal_everybody_answers() -> None:
    expect = Expect(kind="after_heal", from_s=200.0, conditions=(Condition("converged"),))
    assert held(expect).passed
    last = next(r for r in GOOD.records if isinstance(r, Answered) and r.at == 327.2 and r.server == A)
    one = held(expect, added(GOOD, replace(last, at=350.0, reachable=False)))
    assert (one.passed, one.detail) == (False, "site-a gives clients in world no answer for www")


def test_converged_leaves_out_what_was_edited_by_hand() -> None:
    """Left alone, and alarmed: it is not the control plane that is behind."""
    late = changed(GOOD, Answered, 327.2, lambda r: replace(r, generation=4))
    assert not held(by(400.0, "converged"), late).passed
    by_hand = added(late, Edited(at=330.0, server=A, service="www", manual=True))
    assert held(by(400.0, "converged"), by_hand).passed


def outage(limit_s: float, service: str = "www") -> Expect:
    return Expect(kind="outage", outages={service: limit_s})


def test_outages_are_those_of_clients_whose_resolver_keeps_ttls() -> None:
    one = held(outage(24.0))
    assert (one.passed, one.at_s, one.detail) == (True, 60.5, "24.0s in world")
    assert not held(outage(23.9)).passed
    stretched = [served(60.5, A, "timeout", client="c2", resolver="stretch"), served(120.0, B, client="c2")]
    assert held(outage(24.0), added(GOOD, *stretched)).passed
    kept = [replace(record, resolver="keeps") for record in stretched]
    assert held(outage(24.0), added(GOOD, *kept)).detail == "59.5s in world"


def test_no_client_is_nothing_to_look_at() -> None:
    bare = replace(GOOD, records=tuple(r for r in GOOD.records if not isinstance(r, Served)))
    assert not held(outage(60.0), bare).passed
    assert not held(outage(60.0, "api")).passed


def test_several_conditions_are_told_one_by_one() -> None:
    both = (Condition("answer", "www", (B,)), Condition("serves", "www", (A,), never=True))
    expect = Expect(kind="during", from_s=66.0, to_s=170.0, conditions=both, text="as the file has it")
    told = met(scenario(expect=[expect]), GOOD)
    assert [one.text for one in told] == [
        "66s-170s answer www=[site-b]",
        "66s-170s never serves www=site-a",
    ]
    (one,) = met(scenario(expect=[replace(expect, conditions=both[:1])]), GOOD)
    assert (one.text, one.detail) == ("as the file has it", "1 looks")


@pytest.mark.parametrize(
    ("code", "ended", "passed"), [(0, 0, True), (1, 0, False), (1, 1, True), (0, 4, False), (0, None, False)]
)
def test_an_operator_s_command_ends_with_the_code_that_is_expected(code: int, ended: int | None, passed: bool) -> None:
    fault = Fault(verb="operator", at_s=70.0, argv=("drain", "site-b"), code=code, text="drain site-b")
    record = Operated(at=71.0, index=1, argv=fault.argv, code=ended or 0, said="DRAINED\n site-b")
    told = met(scenario(DARK, fault), GOOD if ended is None else added(GOOD, record))
    assert [(one.text, one.passed) for one in told] == [(f"drain site-b ends with {code}", passed)]
