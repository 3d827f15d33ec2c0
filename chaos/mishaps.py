"""Random faults for a configuration: a phase of them, and what an operator does in the end so that all may get well.
Pure: everything comes from the generator that is handed in."""

from __future__ import annotations

import random
from collections.abc import Callable

from chaos.scenario import CLIENTS, EVERYTHING, LEADER, MESSAGES, STORE_LEADER, Fault
from chaos.writing import fault_text
from policies.topology import Config

FIRST_S = 5.0
LEAST_S = 10.0  # before the end of the phase none begins any more
AFTER_S = 5.0  # from the end of the last fault to the first command that heals
APART_S = 10.0  # between such commands
OVERRIDE_S = (60, 90, 120)  # how long operators' overrides last
WHY = ("--reason", "fuzz", "--no-wait")

Draft = dict[str, object]


def random_faults(rng: random.Random, config: Config, files: tuple[str, ...], phase_s: float) -> tuple[Fault, ...]:
    """All begin and end within the phase; then come the operator's commands. files: what `apply` may be given."""
    dice = Dice(rng, config, files, phase_s)
    faults = [dice.fault() for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 10)))]
    clean = _without_repeats(sorted(faults, key=lambda fault: fault.at_s))
    return (*clean, *_healing(clean, phase_s + AFTER_S, rng))


def _without_repeats(faults: list[Fault]) -> list[Fault]:
    """One that is under way already cannot begin."""
    found: list[Fault] = []
    for fault in faults:
        text = fault_text(fault)
        if not any(fault_text(other) == text and (other.ends_s or other.at_s) >= fault.at_s for other in found):
            found.append(fault)
    return found


def _healing(faults: list[Fault], from_s: float, rng: random.Random) -> list[Fault]:
    """What no time heals: clocks that were moved, drains, freezes, stores that were restored, foreign records."""
    found: list[Fault] = []
    for fault in faults:
        if fault.verb == "clock_step":
            found.append(Fault(verb="clock_step", at_s=from_s, node=fault.node, by_s=-fault.by_s))
    commands: list[tuple[str, ...]] = []
    for fault in faults:
        if fault.argv[:1] == ("drain",):
            commands.append(("undrain", fault.argv[1], *WHY))
    commands.append(("unfreeze", *WHY))
    if any(fault.how == "foreign" for fault in faults) and rng.random() < 0.7:
        commands.append(("adopt", "--all", *WHY[:2]))
    commands += [
        ("failback", site, *WHY) for site in sorted({f.argv[1] for f in faults if f.argv[:1] == ("failback",)})
    ]
    for n, argv in enumerate(dict.fromkeys(commands)):
        found.append(Fault(verb="operator", at_s=from_s + n * APART_S, argv=argv))
    return found


class Dice:
    """Throws one fault after another."""

    def __init__(self, rng: random.Random, config: Config, files: tuple[str, ...], phase_s: float) -> None:
        self._rng, self._config, self._files, self._phase_s = rng, config, files, phase_s
        self._sites = list(config.sites)
        self._serving = [name for name, site in config.sites.items() if site.role != "witness"]
        self._homes = sorted({driver.site for driver in config.dns})
        # What breaks together does most harm: in half of all cases most faults are near one of two moments.
        last_s = phase_s - LEAST_S
        self._moments = [rng.uniform(FIRST_S, last_s) for _ in range(2)] if rng.random() < 0.5 else []

    def fault(self) -> Fault:
        kinds = [kind for kind, times in KINDS for _ in range(times)]
        at_s = self._at_s()
        lasts_s = min(self._length_s(), round(self._phase_s - at_s, 1))
        fields = self._rng.choice(kinds)(self, at_s)
        given: Draft = {"at_s": at_s, **fields}
        if given["verb"] not in ("clock_step", "store_compact", "store_rewind", "edit_zone", "operator"):
            given["for_s"] = lasts_s
        return Fault(**given)  # type: ignore[arg-type]

    def _at_s(self) -> float:
        last_s = self._phase_s - LEAST_S
        if not self._moments or self._rng.random() < 0.2:
            return round(self._rng.uniform(FIRST_S, last_s), 1)
        near_s = self._rng.choice(self._moments) + self._rng.choice((0.0, self._rng.gauss(0.0, 6.0)))
        return round(min(max(near_s, FIRST_S), last_s), 1)

    def _length_s(self) -> float:
        return round(self._rng.choice((2.0, 5.0, 12.0, 30.0, 60.0, 120.0, 200.0)) * self._rng.uniform(0.7, 1.3), 1)

    def _pick(self, *words: str) -> str:
        return self._rng.choice(words)

    def _site(self) -> str:
        return self._rng.choice(self._sites)

    def _node(self) -> str:
        return self._pick(LEADER, self._site())

    def _pair(self) -> tuple[str, str]:
        one, other = self._rng.sample(self._sites, 2)
        return one, other

    def _place(self) -> tuple[str, str]:
        """A service, and a site where it has an endpoint."""
        service = self._rng.choice(list(self._config.services))
        return service, self._rng.choice(list(self._config.services[service].endpoints))

    # ---- the verbs

    def power_off(self, at_s: float) -> Draft:
        return {"verb": "power_off", "site": self._site()}

    def cut_off(self, at_s: float) -> Draft:
        return {"verb": "cut", "one": self._site(), "other": EVERYTHING}

    def cut(self, at_s: float) -> Draft:
        one, other = self._pair()
        if self._rng.random() < 0.3:
            one, other = self._rng.choice(self._serving), CLIENTS
        return {"verb": "cut", "one": one, "other": other}

    def cut_one_way(self, at_s: float) -> Draft:
        one, other = self._pair()
        one, other = self._rng.choice(((one, other), (one, EVERYTHING), (EVERYTHING, one)))
        return {"verb": "cut_one_way", "one": one, "other": other}

    def loss(self, at_s: float) -> Draft:
        rate = self._rng.choice((0.05, 0.2, 0.5, 0.9))
        if self._rng.random() < 0.5:
            return {"verb": "loss", "message": self._pick(*MESSAGES), "rate": rate}
        one, other = self._pair()
        return {"verb": "loss", "one": one, "other": self._pick(other, EVERYTHING), "rate": rate}

    def slow(self, at_s: float) -> Draft:
        by_s = self._rng.choice((0.1, 0.4, 1.0, 3.0))
        if self._rng.random() < 0.5:
            service, site = self._place()
            return {"verb": "slow", "service": service, "site": site, "by_s": by_s}
        one, other = self._pair()
        return {"verb": "slow", "one": one, "other": self._pick(other, EVERYTHING), "by_s": by_s}

    def delay(self, at_s: float) -> Draft:
        message = self._pick(*(m for m in MESSAGES if m != "reply"))
        node = "" if message == "dns_update" else self._pick("", self._node())
        return {"verb": "delay", "message": message, "node": node, "by_s": self._rng.choice((1.0, 5.0, 20.0))}

    def pause(self, at_s: float) -> Draft:
        return {"verb": "pause", "node": self._node()}

    def kill(self, at_s: float) -> Draft:
        return {"verb": "kill", "node": self._pick(self._node(), self._node(), STORE_LEADER)}

    def restart(self, at_s: float) -> Draft:
        return {"verb": "restart", "node": self._node()}

    def stop(self, at_s: float) -> Draft:
        service, site = self._place()
        return {"verb": "stop", "service": service, "site": site, "how": self._pick("refuse", "hang", "error")}

    def flaky(self, at_s: float) -> Draft:
        service, site = self._place()
        return {"verb": "flaky", "service": service, "site": site, "rate": self._rng.choice((0.1, 0.5, 0.9))}

    def reset(self, at_s: float) -> Draft:
        service, site = self._place()
        return {"verb": "reset", "service": service, "site": site}

    def lie(self, at_s: float) -> Draft:
        return {"verb": "lie", "node": self._site(), "says": self._pick("up", "down", "nothing", "stuck")}

    def clock_step(self, at_s: float) -> Draft:
        return {"verb": "clock_step", "node": self._site(), "by_s": self._rng.choice((-86400.0, -30.0, 8.0, 3600.0))}

    def store_down(self, at_s: float) -> Draft:
        return {"verb": "store_down"}

    def store_compact(self, at_s: float) -> Draft:
        return {"verb": "store_compact"}

    def store_rewind(self, at_s: float) -> Draft:
        return {"verb": "store_rewind", "by_s": round(self._rng.uniform(0.0, at_s), 1)}

    def dns_api_down(self, at_s: float) -> Draft:
        return {"verb": "dns_api_down", "site": self._rng.choice(self._homes)}

    def edit_zone(self, at_s: float) -> Draft:
        service, serve = self._place()
        fence = self._pick("keep", "none", "manual", "foreign")
        return {
            "verb": "edit_zone",
            "service": service,
            "site": self._rng.choice(self._homes),
            "other": serve,
            "how": fence,
        }

    def operator(self, at_s: float) -> Draft:
        service, site = self._place()
        only = self._rng.choice(((), ("--service", service)))
        for_ = ("--for", f"{self._rng.choice(OVERRIDE_S)}s")
        accept = self._rng.choice(((), ("--accept", "capacity", "--accept", "min_sites")))
        argv = self._rng.choice(
            (
                ("drain", site, *only, *for_, *accept, *WHY),
                ("drain", site, *only, *for_, *accept, *WHY),
                ("undrain", site, *WHY),
                ("pin", site, "in", *only, *for_, *accept, *WHY),
                ("pin", site, "out", *only, *for_, *accept, *WHY),
                ("freeze", *only, *for_, *WHY),
                ("unfreeze", *WHY),
                ("failback", site, *WHY),
            )
        )
        return {"verb": "operator", "argv": argv}

    def apply(self, at_s: float) -> Draft:
        if not self._files:
            return self.operator(at_s)
        return {"verb": "operator", "argv": ("apply", self._rng.choice(self._files), *WHY[:2])}


# Each as often as it is worth: what breaks a site most.
KINDS: tuple[tuple[Callable[[Dice, float], Draft], int], ...] = (
    (Dice.power_off, 4),
    (Dice.cut_off, 4),
    (Dice.cut, 2),
    (Dice.cut_one_way, 2),
    (Dice.loss, 2),
    (Dice.slow, 2),
    (Dice.delay, 3),
    (Dice.pause, 3),
    (Dice.kill, 3),
    (Dice.restart, 2),
    (Dice.stop, 4),
    (Dice.flaky, 2),
    (Dice.reset, 1),
    (Dice.lie, 3),
    (Dice.clock_step, 1),
    (Dice.store_down, 2),
    (Dice.store_compact, 1),
    (Dice.store_rewind, 2),
    (Dice.dns_api_down, 2),
    (Dice.edit_zone, 2),
    (Dice.operator, 6),
    (Dice.apply, 2),
)
