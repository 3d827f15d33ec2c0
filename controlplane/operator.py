"""What operators change in the store. Every change is one transaction under the comparisons on which it was
judged; one whose outcome is unknown is looked for by its nonce and never simply repeated."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from controlplane.documents import AdoptedDoc, GovernorDoc, Keys, NodeDoc, OverridesRev, SchemaTooNew, decode, encode
from controlplane.fence import encode_with
from controlplane.store import KV, Compare, Delete, OutcomeUnknown, Put, Store, StoreError, Txn
from controlplane.view.mirror import unknown_fields
from policies.topology import SCHEMA, Config, Override

LOOKS = 10  # re-reads after an outcome that is unknown
LOOK_AGAIN_S = 0.2


class Refused(Exception):
    """Nothing was changed, and why."""


class TooOld(Refused):
    """A node that runs could not read it."""


class Unknown(Exception):
    """It may or may not be in force, and the store does not say."""


class Applied(Struct, frozen=True):
    """A configuration in force. bootstrapped: it is this cluster's first."""

    config: Config
    bootstrapped: bool


class Operator:
    """Raises Refused, Unknown or StoreError (the store cannot be reached: nothing was done).

    `rng` makes nonces and the incarnation: give it a random.SystemRandom, or a seeded one in tests.
    """

    def __init__(self, store: Store, keys: Keys, rng: random.Random) -> None:
        self._store = store
        self._keys = keys
        self._rng = rng

    async def apply_config(self, config: Config, nodes: Sequence[NodeDoc], expect: int | None = None) -> Applied:
        """Put `config` in force as the next revision, and found the cluster if it has no incarnation yet.

        nodes: those that run now (none of them may be too old to read it); expect: the revision that the
        operator saw, to be refused if there is another by now (0 = none).
        """
        keys = self._keys
        too_old = sorted(node.node for node in nodes if node.reads_schema < SCHEMA)
        if too_old:
            raise TooOld(f"schema {SCHEMA} cannot be read by {', '.join(too_old)}: upgrade first")
        current, incarnation = await self._store.get(keys.config), await self._store.get(keys.incarnation)
        revision = decode(Config, current.value).revision if current else 0
        if expect is not None and revision != expect:
            raise Refused(f"revision {revision} is in force by now, not {expect}: look at the difference again")
        new = replace(config, revision=revision + 1)
        compare = [_unchanged(keys.config, current), _unchanged(keys.incarnation, incarnation)]
        then: list[Put | Delete] = [
            Put(keys.past_config(new.revision), encode(new)),
            Put(keys.config, encode(new)),
        ]
        if incarnation is None:
            then.append(Put(keys.incarnation, self._nonce().encode()))
        if not await self._write(compare, then, proof=then[0]):
            raise Refused("another configuration was applied meanwhile: look at the difference again")
        return Applied(new, bootstrapped=incarnation is None)

    async def config_of(self, revision: int) -> Config | None:
        """A configuration that is or was in force. None: it is not kept, or a newer version wrote it."""
        found = await self._store.get(self._keys.past_config(revision))
        try:
            return decode(Config, found.value) if found else None
        except (SchemaTooNew, msgspec.DecodeError):
            return None

    async def add_override(self, draft: Override, overrides_rev: int, replaces: Sequence[str] = ()) -> Override:
        """Store an override that was judged at `overrides_rev` (the mod revision of overrides/rev, 0 = absent), and
        delete those whose place it takes. Its id, order and op are filled in. Refused if another override came or
        went in between: preflight it again."""
        keys = self._keys
        found = await self._store.get(keys.overrides_rev)
        if (found.mod_rev if found else 0) != overrides_rev:
            raise Refused("the overrides have changed meanwhile: look at the plan again")
        n = decode(OverridesRev, found.value).next_id if found else 1
        override = replace(draft, id=f"ov-{n}", order=n, op=self._nonce())
        put = Put(keys.override(override.id), encode(override))
        rev = Put(keys.overrides_rev, _rewritten(found, OverridesRev(n + 1, override.op)))
        compare = [_unchanged(keys.overrides_rev, found), Compare(put.key, mod_rev=0)]
        gone = [Delete(keys.override(id_)) for id_ in replaces]
        if not await self._write(compare, [put, rev, *gone], proof=put):
            raise Refused("the overrides have changed meanwhile: look at the plan again")
        return override

    async def cancel_overrides(self, ids: Sequence[str], overrides_rev: int | None = None) -> None:
        """Delete overrides, all or none. Refused if one of them is not there (any more), or if the overrides
        are not those of `overrides_rev` any more (None: whatever they are)."""
        keys = self._keys
        found = await self._store.get(keys.overrides_rev)
        if overrides_rev is not None and (found.mod_rev if found else 0) != overrides_rev:
            raise Refused("the overrides have changed meanwhile: look at the plan again")
        there = [await self._store.get(keys.override(id_)) for id_ in ids]
        missing = [id_ for id_, kv in zip(ids, there, strict=True) if kv is None]
        if missing or found is None:
            raise Refused(f"no override {', '.join(missing or ids)}: cancelled before, or at its end")
        rev = Put(keys.overrides_rev, self._reissued(found))
        then: list[Put | Delete] = [rev, *(Delete(keys.override(id_)) for id_ in ids)]
        if not await self._write([_unchanged(keys.overrides_rev, found)], then, proof=rev):
            raise Refused("the overrides have changed meanwhile: look again")

    async def unfreeze(
        self, ids: Sequence[str] | None = None, rewound: str | None = None, overrides_rev: int | None = None
    ) -> tuple[str, ...]:
        """End these freezes, and the wait after the store was rewound. Returns what was ended: ids, "rewound".

        rewound: why that wait is, as the operator saw it ("" = there is none). None, for each: whatever there is.
        Refused if it is not what is there any more.
        """
        keys = self._keys
        snapshot = await self._store.range(keys.overrides)
        rev = next((kv for kv in snapshot.items if kv.key == keys.overrides_rev), None)
        overrides = [decode(Override, kv.value) for kv in snapshot.items if kv.key != keys.overrides_rev]
        freezes = sorted(override.id for override in overrides if override.verb == "freeze")
        marked = await self._store.get(keys.timers_governor)
        governor = decode(GovernorDoc, marked.value) if marked else GovernorDoc()
        seen = (sorted(freezes if ids is None else ids), governor.rewound if rewound is None else rewound)
        there = rev.mod_rev if rev else 0
        if seen != (freezes, governor.rewound) or overrides_rev not in (None, there):
            raise Refused("what is frozen has changed meanwhile: look at the plan again")
        if not freezes and not governor.rewound:
            raise Refused("nothing is frozen")
        compare = [_unchanged(keys.overrides_rev, rev)]
        # Rewritten also where no freeze ends: its nonce is how the write is recognised.
        then: list[Put | Delete] = [Put(keys.overrides_rev, self._reissued(rev))]
        then += [Delete(keys.override(id_)) for id_ in freezes]
        if governor.rewound:
            compare.append(_unchanged(keys.timers_governor, marked))
            then.append(Put(keys.timers_governor, _rewritten(marked, replace(governor, rewound=""))))
        if not await self._write(compare, then, proof=then[0]):
            raise Refused("something has changed meanwhile: look again")
        return (*freezes, *(("rewound",) if governor.rewound else ()))

    async def adopt(self, incarnations: Sequence[str], adoption: int | None = None) -> tuple[str, ...]:
        """Let the records of these foreign incarnations be overwritten (DESIGN 4.8). Returns them. Naming one again
        gives away again what was taken back since.

        It takes the place of the adoption before: a later one of others must not give away again what the first ones
        have taken back since. What that one had not reached yet is foreign again, which is an alarm.

        adoption: the mod revision of `adopted` as the operator saw it (0 = absent; None: whatever it is). Refused if
        it is another by now, and for the cluster's own incarnation.
        """
        keys = self._keys
        found, own = await self._store.get(keys.adopted), await self._store.get(keys.incarnation)
        if own is None or own.value.decode() in incarnations:
            raise Refused("that is this cluster's own incarnation" if own else "no configuration is applied yet")
        if adoption not in (None, found.mod_rev if found else 0):
            raise Refused("something else was adopted meanwhile: look again")
        document = AdoptedDoc(tuple(sorted({*incarnations})), self._nonce())
        put = Put(keys.adopted, _rewritten(found, document))
        compare = [_unchanged(keys.adopted, found), _unchanged(keys.incarnation, own)]
        if not await self._write(compare, [put], proof=put):
            raise Refused("something else was adopted meanwhile: look again")
        return document.incarnations

    # --- inside -----------------------------------------------------------------------------------------

    async def _write(self, compare: Sequence[Compare], then: Sequence[Put | Delete], proof: Put | Delete) -> bool:
        """False: refused by a comparison. An unknown outcome is looked for: `proof` is a Put of this write alone."""
        try:
            return (await self._store.txn(Txn(tuple(compare), tuple(then)))).ok
        except OutcomeUnknown as error:
            return await self._look_for(proof, str(error))

    async def _look_for(self, proof: Put | Delete, why: str) -> bool:
        """It is there, or Unknown: what was not found may still be on its way. why: it has to be looked for."""
        for _ in range(LOOKS):
            try:
                found = await self._store.get(proof.key)
            except StoreError:
                found = None
            if found is not None and isinstance(proof, Put) and found.value == proof.value:
                return True
            await asyncio.sleep(LOOK_AGAIN_S)
        raise Unknown(f"{why}; the store does not show whether it is in force")

    def _reissued(self, rev: KV | None) -> bytes:
        before = decode(OverridesRev, rev.value) if rev else OverridesRev(1, "")
        return _rewritten(rev, replace(before, op=self._nonce()))

    def _nonce(self) -> str:
        return f"{self._rng.getrandbits(64):016x}"


def _unchanged(key: str, kv: KV | None) -> Compare:
    return Compare(key, mod_rev=kv.mod_rev if kv else 0)


def _rewritten(before: KV | None, document: Struct) -> bytes:
    """With the fields that this version does not know carried along."""
    return encode_with(document, unknown_fields(type(document), before.value) if before else None)
