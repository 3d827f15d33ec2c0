"""What one writer says of one driver, put together from its shards."""

from __future__ import annotations

from msgspec import Struct

from controlplane.documents import Applied, AppliedDoc, Seen
from controlplane.view.mirror import Mirror


class Shards(Struct, frozen=True):
    """`names` of the documents, "<writer>/<site>/<driver>/<shard>"; `document`: all of them as one, without what is
    left of old TTLs, which depends on when each came."""

    names: tuple[str, ...]
    document: AppliedDoc


class Words:
    """By "<writer>/<site>/<driver>"; put together when somebody asks, and again only after a change."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._names: dict[str, dict[str, None]] = {}
        self._known: dict[str, Shards] = {}

    def take(self, name: str) -> None:
        """A document changed, came or went."""
        group = name.rpartition("/")[0]
        names = self._names.setdefault(group, {})
        self._known.pop(group, None)
        if name in self._mirror.applied:
            names[name] = None
        else:
            names.pop(name, None)
            if not names:
                del self._names[group]

    def all(self) -> list[Shards]:
        return [self.of(group) for group in sorted(self._names)]

    def of(self, group: str) -> Shards:
        """KeyError if that writer says nothing of that driver."""
        known = self._known.get(group)
        if known is None:
            known = self._known[group] = self._merged(list(self._names[group]))
        return known

    def _merged(self, names: list[str]) -> Shards:
        """The newest process speaks; while services move between shards, the newer document of two."""
        found = sorted((self._mirror.applied[name].n, name) for name in names)
        docs = [(name, self._mirror.applied[name]) for _, name in found]
        head = next((doc for _, doc in docs if doc.shard == 0), docs[-1][1])
        docs = [(name, doc) for name, doc in docs if doc.run == head.run]
        services: dict[str, Applied] = {}
        seen: dict[str, tuple[Seen, ...]] = {}
        for _, doc in docs:
            services |= doc.services
            seen |= doc.seen
        document = AppliedDoc(
            site=head.site,
            driver=head.driver,
            writer=head.writer,
            run=head.run,
            n=docs[-1][1].n,
            services=services,
            seen=seen,
            old_ttl_left_s={},
            unwritable=head.unwritable,
        )
        return Shards(tuple(name for name, _ in docs), document)
