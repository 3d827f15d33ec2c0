"""A vantage on a clock of the test's own: step(now) is called whenever it says, and a scripted prober answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from probes.target import Cancel, Done, Health, Observation, Sample, Target
from probes.vantage import Vantage

PASS = Sample(passed=True, answered=True, reason="ok", took_s=0.01)
REFUSED = Sample(passed=False, answered=True, reason="refused", took_s=0.0)
SILENT = Sample(passed=False, answered=False, reason="timeout connect", took_s=1.5)
UNREACHABLE = Sample(passed=False, answered=False, reason="unreachable", took_s=0.0)
BROKEN = Sample(passed=False, answered=False, reason="broken: KeyError", took_s=0.0, broken=True)


def target(
    site: str, name: str = "www", options: str = "{}", fall: int = 3, interval_s: float = 1.0, timeout_s: float = 1.5
) -> Target:
    return Target(
        f"{name}@{site}",
        site,
        name,
        "192.0.2.1",
        "http",
        options,
        interval_s=interval_s,
        timeout_s=timeout_s,
        fall=fall,
    )


class World:
    """A fake prober, reporter and clock. `says` maps (target id, time of start) to a sample, or None: hangs."""

    def __init__(self, targets: Sequence[Target], site: str = "site-a") -> None:
        self.now = 1000.0
        self.says: Callable[[str, float], Sample | None] = lambda id_, at: PASS
        self.pending: list[tuple[float, int, Done, Sample]] = []
        self.began: list[tuple[float, str]] = []
        self.cancelled: list[int] = []
        self.log: list[tuple[float, str, object]] = []  # put and beat, in order
        self.shards: dict[str, dict[str, Observation]] = {}
        self.vantage = Vantage(site, targets, self, self)
        self.due = self.now

    def start(self, target: Target, done: Done) -> Cancel:
        number = len(self.began)
        self.began.append((self.now, target.id))
        sample = self.says(target.id, self.now)
        if sample is not None:
            self.pending.append((self.now + sample.took_s, number, done, sample))
            self.pending.sort(key=lambda entry: entry[:2])

        def cancel() -> None:
            self.cancelled.append(number)
            self.pending = [entry for entry in self.pending if entry[1] != number]

        return cancel

    async def aclose(self) -> None: ...

    def put(self, shard: str, observations: Sequence[Observation]) -> None:
        self.log.append((self.now, "put", shard))
        self.shards[shard] = {observation.target: observation for observation in observations}

    def beat(self, blind: bool) -> None:
        self.log.append((self.now, "beat", blind))

    async def run(self) -> None: ...

    def until(self, end: float) -> None:
        """Let time pass up to `end` seconds after the start."""
        while True:
            at = min(self.due, self.pending[0][0] if self.pending else self.due)
            if at > 1000.0 + end:
                break
            self.now = max(self.now, at)
            while self.pending and self.pending[0][0] <= self.now:
                _, _, done, sample = self.pending.pop(0)
                done(sample)
            self.due = self.vantage.step(self.now)
        self.now = 1000.0 + end

    def health(self, id_: str) -> tuple[Health, str]:
        seen = self.shards[id_.split("@")[1] or "refs"][id_]
        return seen.health, seen.reason

    def beats(self) -> list[tuple[float, bool]]:
        return [(at - 1000.0, bool(what)) for at, verb, what in self.log if verb == "beat"]


def three_sites() -> list[Target]:
    return [target(site) for site in ("site-a", "site-b", "site-c")]


def dark_from(at: float, sample: Sample = SILENT) -> Callable[[str, float], Sample]:
    return lambda id_, now: sample if now >= 1000.0 + at and not id_.endswith("@site-a") else PASS
