"""Detection within the bound of section 10 whatever the references' interval, and never by who cannot see."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from policies.timing import detection_s
from policies.topology import ProbePolicy
from probes.target import Health, Sample, Target
from tests.unit.vantage_world import PASS, SILENT, UNREACHABLE, World, target

START = 70.0  # by then a target that is probed each minute has had its first probe, and is UP
SLOW = [target("site-c", "api", interval_s=60.0), target("site-d", "api", interval_s=60.0)]
Says = Callable[[str, float], Sample | None]


def dead(site: str, at: float, sample: Sample = SILENT, delay_s: float = 0.01) -> Says:
    """One site is gone from then on; the others answer after a while."""
    answer = Sample(passed=True, answered=True, reason="ok", took_s=delay_s)
    return lambda id_, now: sample if id_.endswith(site) and now >= 1000.0 + at else answer


def dark(begin: float, end: float, sample: Sample = SILENT, own: str = "@site-a") -> Says:
    """Nothing but the own site answers from begin to end; packets that are under way at the begin are lost too."""

    def says(id_: str, now: float) -> Sample:
        lost = 1000.0 + begin - PASS.took_s < now < 1000.0 + end
        return sample if lost and not id_.endswith(own) else PASS

    return says


def bound_s(of: Target) -> float:
    return detection_s(ProbePolicy(of.interval_s, of.fast_interval_s, of.timeout_s, of.fall, jitter=of.jitter))


@pytest.mark.parametrize("sample", [SILENT, UNREACHABLE])
@pytest.mark.parametrize("delay_s", [0.01, 0.5])
@pytest.mark.parametrize("fall", [1, 2, 3, 5])
def test_slow_references_do_not_delay_detection(fall: int, delay_s: float, sample: Sample) -> None:
    probed = target("site-b", fall=fall)
    for phase in range(23):
        at = START + phase / 19
        world = World([target("site-a"), probed, *SLOW])
        world.says = dead("@site-b", at, sample, delay_s)
        world.until(at)
        assert world.health("www@site-b")[0] is Health.UP
        world.until(at + bound_s(probed) + 0.01)
        assert world.health("www@site-b") == (Health.DOWN, sample.reason), at
        assert not world.vantage.blind


@pytest.mark.parametrize("timeout_s", [0.3, 1.5])
@pytest.mark.parametrize("fall", [2, 3])
def test_a_site_of_many_targets_is_down_within_the_bound(fall: int, timeout_s: float) -> None:
    silent = Sample(passed=False, answered=False, reason="timeout connect", took_s=timeout_s)
    many = [target("site-b", f"s{n}", fall=fall, timeout_s=timeout_s) for n in range(60)]
    for phase in range(7):
        at = START + phase / 6
        world = World([target("site-a"), *many, *SLOW])
        world.says = dead("@site-b", at, silent)
        world.until(at + bound_s(many[0]) + (0.01 if timeout_s > 1.0 else 0.01 + timeout_s))
        assert {world.health(each.id)[0] for each in many} == {Health.DOWN}, at


def test_detection_of_a_target_that_is_the_only_one_at_its_site_and_slow_itself() -> None:
    slow = [target(site, interval_s=60.0) for site in ("site-b", "site-c", "site-d")]
    world = World([target("site-a"), *slow])
    world.says = dead("@site-b", START)
    world.until(START + bound_s(slow[0]) + 0.01)
    assert world.health("www@site-b")[0] is Health.DOWN


def test_a_few_references_are_asked_and_none_more_often_than_its_fast_interval() -> None:
    many = [target(site, f"s{n}", interval_s=60.0) for site in ("site-c", "site-d") for n in range(20)]
    many += [target("", f"r{n}", interval_s=60.0) for n in range(5)]
    world = World([target("site-a"), *[target("site-b", f"s{n}") for n in range(20)], *many])
    world.until(START)
    world.says = dark(START, START + 60)
    world.until(START + 3)
    first = min(at for at, id_ in world.began if at > 1000.0 + START and id_.endswith("@site-b")) + SILENT.took_s
    asked = [id_ for at, id_ in world.began if first <= at <= first + 0.7 and not id_.endswith(("@site-a", "@site-b"))]
    assert {sum(id_.endswith(site) for id_ in asked) for site in ("@site-c", "@site-d", "@")} <= {2, 3}  # one is usual
    world.until(START + 30)
    for id_ in asked:
        at = [began for began, other in world.began if other == id_]
        assert all(b - a >= 0.2 - 1e-9 for a, b in pairwise(at))


def test_nothing_more_is_asked_once_all_is_settled() -> None:
    world = World([target("site-a"), target("site-b"), *SLOW])
    world.says = dead("@site-b", START)
    world.until(START + 10)
    assert world.health("www@site-b")[0] is Health.DOWN
    before = len([id_ for _, id_ in world.began if id_.startswith("api")])
    world.until(START + 40)
    assert len([id_ for _, id_ in world.began if id_.startswith("api")]) <= before + 2


def test_with_references_that_answer_all_the_time_none_is_asked_for_a_lost_packet() -> None:
    quick = [target("site-c", f"s{n}", interval_s=0.5) for n in range(10)]
    world = World([target("site-a"), target("site-b"), *quick])
    world.until(20)
    usual = len([id_ for at, id_ in world.began if 1010.0 <= at < 1020.0 and id_.endswith("site-c")])
    world.says = lambda id_, now: SILENT if id_ == "www@site-b" and now < 1021.0 else PASS
    world.until(30)
    after = len([id_ for at, id_ in world.began if 1020.0 <= at < 1030.0 and id_.endswith("site-c")])
    assert abs(after - usual) <= 10


MIXED = [
    [target("site-b"), *SLOW],
    [target("site-b"), target("site-c")],
    [target("site-b", fall=1), target("site-b", "api", fall=2), target("site-c", fall=2), target("", "r", fall=1)],
    [target("site-b", f"s{n}") for n in range(10)] + [target("site-c", f"s{n}", interval_s=60.0) for n in range(10)],
]


def never_down(world: World, targets: list[Target], begin: float, end: float, step_s: float) -> None:
    for n in range(int((end - begin) / step_s)):
        world.until(begin + n * step_s)
        for each in targets:
            assert world.health(each.id)[0] is not Health.DOWN, (each.id, world.now)


@pytest.mark.parametrize("targets", MIXED)
@pytest.mark.parametrize("sample", [SILENT, UNREACHABLE])
def test_who_goes_dark_for_any_time_never_says_down(targets: list[Target], sample: Sample) -> None:
    for length_s in (0.5, 1.6, 2.0, 3.1, 3.7, 4.2, 4.6, 5.0, 6.3, 9.0):
        for phase in range(4):
            at = START + phase * 0.27
            world = World([target("site-a"), *targets])
            world.says = dark(at, at + length_s, sample)
            world.until(at)
            never_down(world, targets, at, at + length_s + 8, 0.2)


@pytest.mark.parametrize("targets", MIXED[:2])
def test_a_lost_packet_just_before_it_goes_dark_does_not_count_for_sight(targets: list[Target]) -> None:
    for gap_s in (0.3, 0.7, 1.1, 1.6):
        for phase in range(5):
            at = START + phase * 0.23
            gone = dark(at + gap_s, at + 60.0)

            def says(id_: str, now: float, at: float = at, gone: Says = gone) -> Sample | None:
                return SILENT if id_ == "www@site-b" and 1000.0 + at <= now <= 1001.0 + at else gone(id_, now)

            world = World([target("site-a"), *targets])
            world.says = says
            world.until(at)
            never_down(world, targets, at, at + 12, 0.2)


def test_who_goes_dark_while_a_site_is_down_never_says_down_of_the_others() -> None:
    targets = [target(site, name) for site in ("site-b", "site-c", "site-d") for name in ("api", "www")]
    for phase in range(25):
        at = START + phase * 0.21
        gone, lost = dark(at, at + 60.0), dead("@site-b", START)
        world = World([target("site-a"), *targets])

        def says(id_: str, now: float, gone: Says = gone, lost: Says = lost) -> Sample | None:
            return SILENT if SILENT in (gone(id_, now), lost(id_, now)) else PASS

        world.says = says
        world.until(START)
        never_down(world, targets[2:], START, at + 12, 0.2)


def test_two_vantages_that_go_dark_together_never_agree_on_a_healthy_target() -> None:
    targets = [target(site, name) for site in ("site-a", "site-b", "site-c", "site-d") for name in ("api", "www")]
    for length_s in (2.0, 4.0, 4.6, 7.0):
        for phase in range(6):
            at = START + phase * 0.19
            for own in ("site-a", "site-b"):
                world = World(targets, own)
                world.says = dark(at, at + length_s, own=f"@{own}")
                world.until(at)
                never_down(world, [t for t in targets if t.site != own], at, at + length_s + 8, 0.2)
