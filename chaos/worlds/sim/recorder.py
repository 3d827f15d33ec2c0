"""The history as it comes to be. Only what changes is recorded."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from chaos.history import (
    Answered,
    AnyRecord,
    Committed,
    Configured,
    Edited,
    Led,
    Pooled,
    Probed,
    Rewound,
    Wrote,
)
from chaos.worlds.loop import Kernel
from chaos.worlds.world import Say
from controlplane.documents import DecisionDoc, Keys, LeaderDoc, decode
from controlplane.drivers import Change, Fence, Result
from controlplane.store import KV, Put, Txn
from policies.topology import Config
from probes.target import Sample, Target


class Sight:
    """What a vantage's probes of one target have found last."""

    __slots__ = ("ended", "sample")

    def __init__(self) -> None:
        self.sample: Sample | None = None
        self.ended = 0.0


class Recorder:
    """Until begin() time is the kernel's; then it is the scenario's, and `say` is told of everything."""

    def __init__(self, kernel: Kernel, keys: Keys) -> None:
        self.records: list[AnyRecord] = []
        self.zero: float | None = None  # kernel time of the scenario's start
        self._kernel, self._keys = kernel, keys
        self._say: Say | None = None
        self._ended = False
        self._sights: dict[tuple[str, str], Sight] = {}
        self._told: dict[tuple[str, str, str], object] = {}
        self._leading: dict[str, bool] = {}
        self._pools: dict[tuple[str, str], dict[str, int]] = {}
        self._config = b""

    @property
    def now(self) -> float:
        return self._kernel.now - (self.zero or 0.0)

    def begin(self, say: Say) -> None:
        """It is 0 now: what was before has negative times."""
        zero = self.zero = self._kernel.now
        self.records = [
            replace(r, at=r.at - zero, before_at=r.before_at - zero)
            if isinstance(r, Probed) and r.before_at is not None
            else replace(r, at=r.at - zero)
            for r in self.records
        ]
        self._say = say
        for record in self.records:
            say(record)

    def end(self) -> None:
        """The history is complete."""
        self._ended = True

    def say(self, record: AnyRecord) -> None:
        if self._ended:
            return
        self.records.append(record)
        if self._say is not None:
            self._say(record)

    # --- the store ---

    def committed(self, txn: Txn, leader: KV | None) -> Config | None:
        """A transaction was applied. leader: the leader key as it was at that. Returns a new configuration."""
        config = None
        for op in txn.then:
            if not isinstance(op, Put):
                continue
            if op.key.startswith(self._keys.decisions):
                holder = decode(LeaderDoc, leader.value).node if leader else ""
                self.say(
                    Committed(
                        at=self.now,
                        decision=decode(DecisionDoc, op.value),
                        holder=holder,
                        holder_token=leader.mod_rev if leader else 0,
                    )
                )
            elif op.key == self._keys.config:
                config = self.configured(op.value)
        return config

    def configured(self, value: bytes) -> Config | None:
        """What is in force now, if that is news; the first one is the scenario's own, and not told."""
        if value == self._config:
            return None
        config, first = decode(Config, value), not self._config
        self._config = value
        if not first:
            self.say(Configured(at=self.now, config=config))
        return config

    def rewound(self, to: float) -> None:
        self.say(Rewound(at=self.now, to=to))

    # --- nodes ---

    def led(self, node: str, leading: bool, why: str) -> None:
        if self._leading.get(node, False) != leading:
            self._leading[node] = leading
            self.say(Led(at=self.now, node=node, leading=leading, why=why))

    def skipped(self, vantage: str, target: Target, began_s: float) -> None:
        """Probes that would have found what the last one found; the last of them would have begun so long ago."""
        sight = self._sights[vantage, target.id]
        if sight.sample is not None:
            sight.ended = max(sight.ended, self._kernel.now - max(0.0, began_s - sight.sample.took_s))

    def probed(self, vantage: str, target: Target, sample: Sample) -> None:
        """A probe has ended."""
        sight = self._sights.get((vantage, target.id))
        if sight is None:
            sight = self._sights[vantage, target.id] = Sight()
        last, ended = sight.sample, sight.ended
        sight.ended = self._kernel.now
        if last is sample:
            return
        sight.sample = sample
        if last is not None and _outcome(last) == _outcome(sample):
            return
        self.say(
            Probed(
                at=self.now,
                vantage=vantage,
                target=target.id,
                site=target.site,
                service=target.service,
                passed=sample.passed,
                answered=sample.answered,
                reason=sample.reason,
                before_at=None if last is None else ended - (self.zero or 0.0),
            )
        )

    # --- name servers and pools ---

    def wrote(self, server: str, writer: str, change: Change, held: Fence | None, result: Result) -> None:
        ours = held is not None and held.incarnation == change.fence.incarnation
        self.say(
            Wrote(
                at=self.now,
                server=server,
                writer=writer,
                service=change.desired.service,
                generation=change.fence.generation,
                incarnation=change.fence.incarnation,
                op=change.fence.op,
                result=result.value,
                held_generation=held.generation if held and ours else 0,
                held_op=held.op if held else "",
            )
        )

    def edited(self, server: str, service: str, manual: bool) -> None:
        self.say(Edited(at=self.now, server=server, service=service, manual=manual))

    def answered(self, server: str, service: str, region: str, told: tuple[tuple[str, ...], int | None] | None) -> None:
        """told None: clients get no answer there."""
        key = (server, service, region)
        if key in self._told and self._told[key] == told:
            return
        self._told[key] = told
        sites, generation = told or ((), None)
        self.say(
            Answered(
                at=self.now,
                server=server,
                service=service,
                region=region,
                sites=sites,
                generation=generation,
                reachable=told is not None,
            )
        )

    def pooled(self, site: str, service: str, weights: Mapping[str, int]) -> None:
        if self._pools.get((site, service)) != weights:
            self._pools[site, service] = dict(weights)
            self.say(Pooled(at=self.now, site=site, service=service, weights=dict(weights)))


def _outcome(sample: Sample) -> tuple[bool, bool, str]:
    return sample.passed, sample.answered, sample.reason
