"""Switches for what stands in policies/ and probes/: verdicts, standing, plans, damping, sight."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from msgspec.structs import replace

from policies import decide, placing, quorum, stage, timers, verdicts
from policies.decide import Choice
from policies.frame import Frame
from policies.quorum import Verdict
from policies.timers import Moment
from policies.world import Carried, Desired, SiteState, Slice
from probes.damping import Damper
from probes.target import Sample
from probes.vantage import Vantage
from tests.sim.mutations.swap import Reached, everywhere, swapped

Quorum = Callable[[bytes, int, int], Verdict]
Enter = Callable[[SiteState, str, Moment], SiteState]

# --- verdicts


def _quorum(of: Callable[[Quorum, bytes, int, int], Verdict]) -> AbstractContextManager[Reached]:
    return swapped(verdicts, "quorum", lambda before: lambda votes, share, least: of(before, votes, share, least))


def share_of_voters() -> AbstractContextManager[Reached]:
    """One voter is enough to call a target down."""
    return _quorum(lambda before, votes, share, least: before(votes, 1, least))


def min_vantages() -> AbstractContextManager[Reached]:
    return _quorum(lambda before, votes, share, least: before(votes, share, 1))


def held() -> AbstractContextManager[Reached]:
    """Who cannot be judged is down."""

    def of(before: Quorum, votes: bytes, share: int, least: int) -> Verdict:
        found = before(votes, share, least)
        return found if found.health else replace(found, health="down")

    return _quorum(of)


@contextmanager
def own_vote() -> Iterator[Reached]:
    """A site's own vantage votes on its site like any other."""

    def make(_: object) -> Callable[[bytes, int], bytes]:
        return lambda votes, least: bytes(vote for vote in votes if quorum.counts(vote))

    quorum.quorum.cache_clear()
    try:
        with swapped(quorum, "voters", make) as reached:
            yield reached
    finally:
        quorum.quorum.cache_clear()


def address_first_up() -> AbstractContextManager[Reached]:
    """A changed address is served as soon as it is configured."""
    return swapped(verdicts, "_proven", lambda _: lambda frame, rows, served, configured: True)


def rpo() -> AbstractContextManager[Reached]:
    return swapped(stage, "_stale", lambda _: lambda frame, site, lag_s: False)


# --- coming back


def _entering(phase: str, change: Callable[[SiteState], SiteState]) -> AbstractContextManager[Reached]:
    def make(enter: Enter) -> Enter:
        def off(state: SiteState, into: str, moment: Moment) -> SiteState:
            found = enter(state, into, moment)
            return change(found) if into == phase else found

        return off

    return swapped(timers, "_enter", make)


def soak() -> AbstractContextManager[Reached]:
    return _entering("soak", lambda state: replace(state, left_s=0.0))


def flaps() -> AbstractContextManager[Reached]:
    return _entering("failed", lambda state: replace(state, flaps=False, flaps_left_s=0.0))


def longer_soak() -> AbstractContextManager[Reached]:
    """The nth failover soaks no longer than the first."""

    def make(enter: Enter) -> Enter:
        def off(state: SiteState, into: str, moment: Moment) -> SiteState:
            found = enter(replace(state, failovers=min(1, state.failovers)), into, moment)
            return replace(found, failovers=state.failovers)

        return off

    return swapped(timers, "_enter", make)


def ramp() -> AbstractContextManager[Reached]:
    return everywhere(timers.percent, lambda _: lambda state, failback: 100)


def manual_failback() -> AbstractContextManager[Reached]:
    def make(moment: Callable[..., Moment]) -> Callable[..., Moment]:
        return lambda *args: replace(moment(*args), released=True)

    return swapped(stage, "_moment", make)


# --- plans


def hold() -> AbstractContextManager[Reached]:
    def make(write: Callable[..., Desired]) -> Callable[..., Desired]:
        return lambda *args: replace(write(*args), hold_left_s=0.0)

    return swapped(decide, "_write", make)


def governor() -> AbstractContextManager[Reached]:
    return swapped(decide, "_governor_wait", lambda _: lambda *args: 0.0)


def capacity() -> AbstractContextManager[Reached]:
    """Every site has room for everything."""

    def make(place: Callable[..., Any]) -> Callable[..., Any]:
        def off(frame: Frame, room: Mapping[str, float], standings: Any, cur: Any, sticky: bool) -> Any:
            return place(frame, dict.fromkeys(room, 1e12), standings, cur, sticky)

        return off

    return swapped(decide, "place", make)


def forced_first() -> AbstractContextManager[Reached]:
    """While the full plan is refused nothing moves."""

    def make(choose: Callable[..., Choice]) -> Callable[..., Choice]:
        def off(frame: Frame, slice_: Slice, carried: Carried, st: stage.Stage) -> Choice:
            found = choose(frame, slice_, carried, st)
            return Choice(st.cur, "", False, False, found.refused, 0.0) if found.refused else found

        return off

    return swapped(decide, "_choose", make)


def last_resorts() -> AbstractContextManager[Reached]:
    """What was served last is the only resort."""
    return swapped(placing, "LADDER", lambda ladder: ladder[-1:])


@contextmanager
def never_empty() -> Iterator[Reached]:
    """Where no site may serve, none does: no last resort, and no look at whether anything is left."""

    def all_(items: Any) -> bool:
        return isinstance(items, type({}.values())) or builtins.all(items)

    with ExitStack() as stack:
        reached = stack.enter_context(swapped(placing, "_last_resort", lambda _: lambda p: ""))
        vars(decide)["all"] = all_
        stack.callback(vars(decide).pop, "all")
        yield reached


# --- probes


def fall() -> AbstractContextManager[Reached]:
    """One failure is enough."""

    def make(count: Callable[[Damper, bool], None]) -> Callable[[Damper, bool], None]:
        def off(self: Damper, passed: bool) -> None:
            self.fall = 1
            count(self, passed)

        return off

    return swapped(Damper, "_count_up", make)


def sight() -> AbstractContextManager[Reached]:
    """Silence is always proof."""

    def make(feed: Callable[..., bool]) -> Callable[..., bool]:
        def off(self: Damper, sample: Sample, sight: bool = True) -> bool:
            return feed(self, sample, True)

        return off

    return swapped(Damper, "feed", make)


def blindness() -> AbstractContextManager[Reached]:
    return swapped(Damper, "silent", lambda _: property(lambda self: False))


def slept() -> AbstractContextManager[Reached]:
    def make(_: object) -> Callable[[Vantage, float], None]:
        def off(self: Vantage, now_s: float) -> None:
            self._stepped_s = now_s

        return off

    return swapped(Vantage, "_notice_sleep", make)


def late_results() -> AbstractContextManager[Reached]:
    """A result counts whenever it comes."""

    def make(take: Callable[[Vantage, float], None]) -> Callable[[Vantage, float], None]:
        def off(self: Vantage, now_s: float) -> None:
            for watch, _, _ in self._results:
                latest_s = watch.target.timeout_s + watch.target.interval_s
                watch.began_s = max(watch.began_s, now_s - latest_s)
            take(self, now_s)

        return off

    return swapped(Vantage, "_take_results", make)


def giving_up() -> AbstractContextManager[Reached]:
    """A probe that never ends leaves the opinion before it standing."""
    return swapped(Vantage, "_give_up", lambda _: lambda self, now_s: None)
