"""What clients are told: converged, audited."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from chaos.history import (
    Answered,
    Committed,
    Edited,
    Faulted,
    History,
    Pooled,
    Wrote,
)
from chaos.scenario import Fault
from policies.topology import Pools, Region
from policies.world import Answer, Event
from tests.unit.checking import Twist, answer, fails, look, wrote
from tests.unit.histories import (
    ADDRESS,
    ALL_DOWN,
    DARK,
    FAILED,
    SITES,
    added,
    back,
    begun,
    changed,
    config,
    dark,
    decided,
    scenario,
)

GOOD = back().history()


# ---- converged


@pytest.mark.parametrize(
    ("twist", "word"),
    [
        (lambda h: changed(h, Answered, 327.2, lambda r: replace(r, generation=4)), "with generation 4, not 5"),
        (lambda h: changed(h, Answered, 327.2, lambda r: replace(r, generation=None, sites=("site-b",))), "[site-b]"),
        (lambda h: changed(h, Answered, 327.2, lambda r: replace(r, at=450.0)), "site-a answers www with generation 4"),
        (lambda h: changed(h, Committed, 327.0, lambda r: replace(r, at=450.0)), "d-6 still moves www"),
        (lambda h: replace(h, duration_s=390.0), "the scenario ends at 390s"),
        (
            lambda h: added(h, Pooled(at=330.0, site="site-b", service="www", weights={"site-a": 0, "site-b": 1})),
            "the pool at site-b gives www to [site-b], not [site-a]",
        ),
    ],
)
def test_converged(twist: Twist, word: str) -> None:
    cfg = config()
    pooled = replace(cfg.services["www"], pools=Pools("bk", {site: (site,) for site in SITES}))
    fails("converged", twist(GOOD), word, scenario(cfg=replace(cfg, services={"www": pooled})))


def test_a_pool_that_is_not_configured_is_not_looked_at() -> None:
    pool = Pooled(at=330.0, site="site-b", service="www", weights={"site-a": 0, "site-b": 1})
    assert look("converged", added(GOOD, pool)).passed


def test_what_was_fixed_by_hand_does_not_count() -> None:
    stale = changed(GOOD, Answered, 327.2, lambda r: replace(r, generation=4))
    by_hand = added(stale, Edited(at=350.0, server="site-a", service="www", manual=True))
    assert look("converged", by_hand).passed
    repaired = added(by_hand, replace(wrote(GOOD, 327.2), at=360.0))
    fails("converged", repaired, "site-a answers www with generation 4")


def test_a_server_that_does_not_answer_has_to_have_a_reason() -> None:
    """For ever after the heal: it fails, or clients cannot reach it. A fault that lasts is a reason."""
    silent = added(GOOD, replace(answer(GOOD, 327.2), at=350.0, sites=(), generation=None, reachable=False))
    fails("converged", silent, "site-a gives clients in world no answer for www, and nothing is broken there")
    for one, passes in (("site-a", True), ("site-b", False)):
        cut = Fault(verb="cut", at_s=150.0, one=one, other="clients", text="cut site-a")
        told = scenario(DARK, cut)
        assert (
            look("converged", added(silent, Faulted(at=150.0, index=1, began=True, text="cut")), told).passed is passes
        )
    assert look("converged", added(silent, replace(answer(GOOD, 327.2), at=390.0))).passed


def partly(sites: tuple[str, ...]) -> History:
    """site-a has 10 %, site-b 90 %; site-a's server tells `sites` under that generation."""
    tale = back()
    tale.commit(345.0, {"site-a": 10, "site-b": 90}, optional=True)
    tale.apply(345.2)
    tale.tell(tale.answer(346.0, "site-a", sites=sites))
    return tale.history()


def test_a_part_of_the_answers_is_not_what_was_decided() -> None:
    assert look("converged", partly(("site-a", "site-b"))).passed
    for sites in (("site-a",), ("site-b",), ("site-a", "site-b", "site-c")):
        fails("converged", partly(sites), "not what generation 6 says: [site-a, site-b]")
        fails("audited", partly(sites), "no decision says so")
    drawn = replace(partly(("site-b",)), world="staging")  # of several addresses one is told, by lot
    assert look("converged", drawn).passed and look("audited", drawn).passed


def test_a_region_is_not_told_what_another_one_is_to_be_told() -> None:
    cfg = config()
    both = replace(cfg, regions={**cfg.regions, "west": Region(countries=("US",))})
    rows = tuple(
        Answer(r, "A", f"192.0.2.{n}", s, 100) for n, (r, s) in enumerate((("world", "site-a"), ("west", "site-b")))
    )
    shares = {"world": {"site-a": 100}, "west": {"site-b": 100}}
    for west, passes in (("site-b", True), ("site-a", False)):
        tale = begun(both)
        tale.commit(10.0, {"site-a": 100})
        tale.apply(11.0)
        tale.tell(*(tale.answer(11.0, site, region="west", sites=(west,)) for site in SITES))
        history = decided(tale.history(), 10.0, desired_shares=shares, desired_answers=rows)
        told = scenario(cfg=both)
        assert look("converged", history, told).passed is passes
        assert any("answers www in west" in said for said in look("audited", history, told).violations) is not passes


def test_without_a_word_of_the_scenario_the_allowance_is_the_longest_way_back() -> None:
    quiet = scenario(expect=())
    quiet = replace(quiet, expect=())
    # 200 s healed; soak 60, three steps of 30 (hold is longer than a step), hold 30, TTL 20, and a minute.
    assert look("converged", GOOD, quiet).passed
    fails("converged", replace(GOOD, duration_s=455.0), "(460s)", quiet)


# ---- audited


@pytest.mark.parametrize(
    ("twist", "word"),
    [
        (lambda h: decided(h, 65.2, events=()), "made generation 2 and does not say why"),
        (lambda h: decided(h, 65.2, events=(Event("move", "site-a", "failed", "", True),)), "without a reason"),
        (
            lambda h: decided(h, 65.2, events=(Event("move", "site-a", "failed", "down", True),)),
            "moves www at site-b from 0 to 100 % of world, unsaid",
        ),
        (lambda h: changed(h, Committed, 65.2, lambda r: None), "which nobody had decided"),
        (
            lambda h: changed(h, Wrote, 65.4, lambda r: replace(r, op="d-99-ab.1")),
            "(d-99-ab), which nobody had decided",
        ),
        (lambda h: changed(h, Wrote, 65.4, lambda r: None), "nobody wrote that there"),
        (lambda h: changed(h, Answered, 65.4, lambda r: replace(r, sites=("site-c",))), "no decision says so"),
        (lambda h: changed(h, Answered, 65.4, lambda r: replace(r, generation=9)), "generation 9: no decision says so"),
        (lambda h: added(h, replace(answer(h, 65.4), at=90.0, sites=("site-c",), generation=None)), "no decision says"),
    ],
)
def test_audited(twist: Twist, word: str) -> None:
    fails("audited", twist(GOOD), word)


def test_answers_say_the_shares() -> None:
    """Of each family in proportion; where no site with a share has it, somebody else's."""
    tale = dark()
    decision = tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    rows = decision.desired.answers
    kept = Answer("world", "A", ADDRESS["site-a"], "site-a", 100)
    fails(
        "audited", decided(tale.history(), 65.2, desired_answers=(*rows, kept)), "though the shares are {'site-b': 100}"
    )
    assert look("audited", decided(tale.history(), 65.2, desired_answers=(*rows, replace(kept, rtype="AAAA")))).passed
    for weights, passes in (((1, 9), True), ((10, 90), True), ((50, 50), False)):
        tale = begun()
        decision = tale.commit(10.0, {"site-a": 10, "site-b": 90}, optional=True)
        rows = tuple(replace(row, weight=n) for row, n in zip(decision.desired.answers, weights, strict=True))
        assert look("audited", decided(tale.history(), 10.0, desired_answers=rows)).passed is passes


def test_an_edit_by_hand_is_excepted() -> None:
    stray = replace(answer(GOOD, 65.4), at=90.0, sites=("site-c",))
    fails("audited", added(GOOD, stray), "no decision says so")
    edited = added(GOOD, Edited(at=90.0, server="site-b", service="www", manual=False), stray)
    assert look("audited", edited).passed


def test_in_a_real_world_the_store_may_be_heard_a_moment_after_the_name_server() -> None:
    late = replace(GOOD, records=tuple(later(r, 0.5) if isinstance(r, Committed) else r for r in GOOD.records))
    late = replace(late, records=tuple(sorted(late.records, key=lambda r: r.at)))
    fails("audited", late, "no decision says so")
    assert look("audited", replace(late, world="lab")).passed
    much = replace(GOOD, records=tuple(later(r, 2.0) if isinstance(r, Committed) else r for r in GOOD.records))
    much = replace(much, world="lab", records=tuple(sorted(much.records, key=lambda r: r.at)))
    fails("audited", much, "no decision says so")


def later(record: Committed, by_s: float) -> Committed:
    return replace(record, at=record.at + by_s)
