"""The options of each DNS driver, as the configuration reader fills them in (CONFIG.md)."""

from __future__ import annotations

from msgspec import Struct


class EmbeddedOptions(Struct, frozen=True):
    listen: tuple[str, ...]  # "address:port"
    ns: tuple[str, ...] = ()  # () = "ns." and the zone
    mmdb: str = ""
    ecs: bool = True
