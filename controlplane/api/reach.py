"""Which name servers and pools could be told something now: what a preflight shows beside its guards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controlplane.api.picture import words_of
from controlplane.api.propagation import Word
from controlplane.dns.verify import servers_of
from controlplane.view import View
from policies.topology import Config

Doc = dict[str, Any]


def reach(view: View, config: Config) -> Doc:
    """{dns, pools: {reachable, of, unreachable: [...]}}, as the agents say."""
    words = [word for word in words_of(view) if word.alive]
    servers = dict.fromkeys(server for driver in config.dns for server in servers_of(driver))
    pools = {f"{d.name} at {site}": (d.name, site) for d in config.pools for site in d.sites}
    good = {(w.doc.driver, w.doc.site) for w in words if w.doc.writer == w.doc.site and _answers(w)}
    return {
        "dns": _counted(servers, _answering(words, len(servers))),
        "pools": _counted(pools, {title for title, key in pools.items() if key in good}),
    }


def _answers(word: Word) -> bool:
    """Does that pool take commands? All of its backends are asked in one."""
    return not word.doc.unwritable and not any(
        done.gone or done.result == "transient" for done in word.doc.services.values()
    )


def _answering(words: Iterable[Word], of: int) -> set[str]:
    """Servers that answered somebody's last question."""
    found: set[str] = set()
    for word in words:
        for seen in word.doc.seen.values():
            found |= {each.server for each in seen if each.generation is not None}
            if len(found) >= of:
                return found
    return found


def _counted(there: Iterable[str], good: set[str]) -> Doc:
    missing = [name for name in there if name not in good]
    total = len(list(there))
    return {"reachable": total - len(missing), "of": total, "unreachable": missing}
