"""What stands at the sites: whether a service there answers, and how. Looked at by probes and by clients."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TypeVar

from chaos.scenario import CLIENTS
from chaos.worlds.sim.network import OUTSIDE, Network, Undo
from policies.frame import target_id
from policies.topology import Config
from probes.target import Sample, Target

T = TypeVar("T")

TRIPS = 2  # of a request: the handshake, then question and answer
RESENT_S = 1.0  # a lost SYN is sent again after so long (RFC 6298)
CLIENT_S = 1.0  # patience of a client: that of the lab's
COPY_LAG_S = 0.5  # of a copy of a service's data that keeps up
TIMEOUT, REFUSED, RESET, ERROR = "timeout", "refused", "reset", "status 500"

Seen = tuple[Sample, float]  # what a probe finds, and the seconds that it takes


class Wrong:
    """What is wrong with one service at one site; each thing as often as a fault brought it."""

    def __init__(self) -> None:
        self.how: list[str] = []  # of `stop`: refuse | hang | error
        self.rates: list[float] = []  # of `flaky`
        self.resets: list[bool] = []
        self.slow_s: list[float] = []
        self.age_s: list[float] = []  # of the data

    @property
    def well(self) -> bool:
        return not (self.how or self.rates or self.resets or self.slow_s or self.age_s)


class Services:
    """`config`: as it was in the beginning: an address that is not in it has nothing behind it."""

    def __init__(self, config: Config, network: Network) -> None:
        self._network = network
        self._wrong: dict[tuple[str, str], Wrong] = {}
        self._at: dict[str, str] = {}  # address -> site
        self._of: dict[tuple[str, str], str] = {}  # service, address -> site
        self._data: set[str] = set()  # ids of targets that tell how old a copy is
        for name, spec in config.services.items():
            for site, addresses in spec.endpoints.items():
                self._at |= dict.fromkeys(addresses, site)
                self._of |= {(name, address): site for address in addresses}
        self._seen: dict[tuple[str, str], Seen] = {}
        self.on_turn: dict[Callable[[], None], None] = {}  # called when a probe may find something else
        self.learn(config)

    def learn(self, config: Config) -> None:
        """A configuration came in force."""
        for name, spec in config.services.items():
            if spec.data is not None:
                places = [(s, a) for s, addresses in spec.endpoints.items() for a in addresses]
                self._data |= {target_id(name, site, spec.data.check.name, address) for site, address in places}
        self.turn()

    def turn(self) -> None:
        """Something changed: what was found before is old."""
        self._seen.clear()
        for told in self.on_turn:
            told()

    def site_of(self, service: str, address: str) -> str:
        """Where one gets to, or the address itself: nothing is there."""
        return self._of.get((service, address)) or self._at.get(address, address)

    # --- disturbing ---

    def stop(self, service: str, site: str, how: str) -> Undo:
        return self._put(self._wrong_at(service, site).how, how)

    def flaky(self, service: str, site: str, rate: float) -> Undo:
        return self._put(self._wrong_at(service, site).rates, rate)

    def reset(self, service: str, site: str) -> Undo:
        return self._put(self._wrong_at(service, site).resets, True)

    def slow(self, service: str, site: str, by_s: float) -> Undo:
        return self._put(self._wrong_at(service, site).slow_s, by_s)

    def lag(self, service: str, site: str, age_s: float) -> Undo:
        return self._put(self._wrong_at(service, site).age_s, age_s)

    def _wrong_at(self, service: str, site: str) -> Wrong:
        return self._wrong.setdefault((service, site), Wrong())

    def _put(self, there: list[T], what: T) -> Undo:
        there.append(what)
        self.turn()

        def undo() -> None:
            there.remove(what)
            self.turn()

        return undo

    # --- a probe, a client ---

    def probe(self, vantage: str, target: Target, rng: random.Random) -> tuple[Sample, float]:
        """What a probe that begins now finds, and the seconds that it takes."""
        key = (vantage, target.id)
        known = self._seen.get(key)
        if known is None:
            known = self._probe(vantage, target, rng)
            if self._certain(vantage, target):
                self._seen[key] = known
        return known

    def steady(self, vantage: str, target: Target) -> bool:
        """Will every probe pass and find what the last one found, until something changes?"""
        known = self._seen.get((vantage, target.id))
        return known is not None and known[0].passed

    def _certain(self, vantage: str, target: Target) -> bool:
        wrong = self._wrong.get((target.service, target.site))
        loss = self._network.path(vantage, target.site or OUTSIDE).loss
        return not loss and (wrong is None or not wrong.rates)

    def _probe(self, vantage: str, target: Target, rng: random.Random) -> tuple[Sample, float]:
        path = self._network.path(vantage, target.site or OUTSIDE)
        elsewhere = bool(target.service) and self._at.get(target.address) != target.site
        limit_s = target.timeout_s
        took_s = path.rtt_s + (lost_s(path.loss, rng) if path.loss else 0.0)
        if not path.works or elsewhere or took_s >= limit_s:
            return Sample(False, False, "timeout connect", limit_s), limit_s
        wrong = self._wrong.get((target.service, target.site))
        reason = "" if wrong is None else _reason(wrong, rng)
        took_s += (TRIPS - 1) * path.rtt_s
        if wrong is not None:
            took_s += sum(wrong.slow_s)
        if reason in (REFUSED, RESET):
            return Sample(False, True, reason, path.rtt_s), path.rtt_s
        if reason == TIMEOUT or took_s >= limit_s:
            return Sample(False, True, "timeout headers", limit_s), limit_s
        if reason:
            return Sample(False, True, reason, took_s), took_s
        lag_s = COPY_LAG_S + sum(wrong.age_s if wrong else ()) if target.id in self._data else None
        return Sample(True, True, "status 200", took_s, lag_s=lag_s), took_s

    def connect(self, service: str, site: str, rng: random.Random) -> str:
        """A client's request to `site` (or to an address where nothing is): "" or why it failed."""
        path = self._network.path(CLIENTS, site)
        if site not in self._network.ends or not path.works:
            return TIMEOUT
        wrong = self._wrong.get((service, site))
        reason = "" if wrong is None else _reason(wrong, rng)
        took_s = TRIPS * path.rtt_s + (lost_s(path.loss, rng) if path.loss else 0.0)
        if reason in (REFUSED, RESET) and path.rtt_s < CLIENT_S:
            return reason
        if took_s + sum(wrong.slow_s if wrong else ()) >= CLIENT_S:
            return TIMEOUT
        return reason


def lost_s(loss: float, rng: random.Random) -> float:
    """How much longer a handshake takes where packets get lost."""
    late_s, pause_s = 0.0, RESENT_S
    while late_s < 8 * RESENT_S and rng.random() < loss:
        late_s, pause_s = late_s + pause_s, 2 * pause_s
    return late_s


def _reason(wrong: Wrong, rng: random.Random) -> str:
    """Why a request that got there fails; "" = it does not."""
    words: Mapping[str, str] = {"refuse": REFUSED, "hang": TIMEOUT, "error": ERROR}
    if wrong.how:
        return words[wrong.how[-1] or "refuse"]
    if wrong.resets:
        return RESET
    return ERROR if any(rng.random() < rate for rate in wrong.rates) else ""
