"""What each verb is through TCP proxies, how it is made, and how it is healed.

Healing needs to know nothing but which proxies are concerned: whatever a drill puts on one carries the PREFIX, and one
that it disables carries a marker, put there before (a `noop` toxic).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from chaos.scenario import CLIENTS, EVERYTHING, Fault, Scenario
from chaos.worlds.staging.file import Staging
from chaos.worlds.staging.toxiproxy import PREFIX, Proxy, Toxic, Toxiproxy, ToxiproxyError

_OFF = "-off"  # how the marker of a proxy that is disabled ends
VERBS = frozenset({"cut", "loss", "slow", "bandwidth", "reset", "stop", "operator"})


class Deed(Struct, frozen=True):
    """What a fault does to one proxy. off: it is disabled."""

    url: str
    proxy: str
    toxics: tuple[Toxic, ...]
    off: bool = False


def refusals(scenario: Scenario, staging: Staging) -> list[str]:
    """What of the scenario cannot be played there, each with file:line:column."""
    return [
        f"{scenario.file}:{fault.line}:{fault.column}: {why}"
        for fault in scenario.faults
        if (why := _refusal(fault, staging))
    ]


def _refusal(fault: Fault, staging: Staging) -> str:
    """Why, and what would do; "" = it can be played."""
    if fault.verb not in VERBS:
        can = ", ".join(sorted(VERBS))
        return f"{fault.verb}: the staging world cannot do it (it can {can}); play it with --world sim or lab"
    if fault.verb == "operator":
        return ""
    if fault.message:
        return (
            f"{fault.verb} of {fault.message}: a TCP proxy does not know messages; name two ends, such as [site-a, *]"
        )
    if fault.service:
        place = staging.sites.get(fault.site)
        if place is None or fault.service not in place.services:
            return f"{fault.verb}: {staging.file} names no proxy that fronts {fault.service} at {fault.site}"
        if fault.verb == "stop" and fault.how == "error":
            return "stop: a TCP proxy cannot answer with an error; write how: refuse, or how: hang"
        return ""
    site, other = _ends(fault)
    if other != EVERYTHING or site in (EVERYTHING, CLIENTS):
        return f'{fault.verb}: a TCP proxy cannot tell who connects; write [{site}, "*"]'
    if site not in staging.sites:
        return f"{fault.verb}: {staging.file} names no proxy of {site}"
    return ""


def _ends(fault: Fault) -> tuple[str, str]:
    """A site, if one is named, and the other end."""
    ends = (fault.one, fault.other)
    return (ends[1], ends[0]) if fault.one in (EVERYTHING, CLIENTS) else ends


def deeds(fault: Fault, index: int, staging: Staging) -> tuple[Deed, ...]:
    """Of a fault that `refusals` lets pass; () for a command."""
    if fault.verb == "operator":
        return ()
    place = staging.sites[fault.site or _ends(fault)[0]]
    proxies = place.services[fault.service] if fault.service else place.proxies
    name = f"{PREFIX}{index}"
    if fault.verb == "stop" and fault.how != "hang":
        return tuple(Deed(place.url, proxy, (Toxic(name + _OFF, "noop"),), off=True) for proxy in proxies)
    return tuple(Deed(place.url, proxy, _toxics(fault, name)) for proxy in proxies)


def touched(all_of: Iterable[Deed], staging: Staging) -> frozenset[str]:
    """The services whose clients may notice: those that a proxy fronts; all, if it fronts a store or a name server."""
    every = frozenset(service for place in staging.sites.values() for service in place.services)
    found: set[str] = set()
    for deed in all_of:
        for place in staging.sites.values():
            if place.url != deed.url:
                continue
            if deed.proxy in (*place.store, *place.dns):
                return every
            found.update(service for service, proxies in place.services.items() if deed.proxy in proxies)
    return frozenset(found)


def _toxics(fault: Fault, name: str) -> tuple[Toxic, ...]:
    if fault.verb in ("cut", "stop"):
        # Without an end (0) both ways: what is sent is dropped, nothing comes back, no connection is closed.
        return tuple(Toxic(f"{name}-{way}", "timeout", way, 1.0, {"timeout": 0}) for way in ("upstream", "downstream"))
    if fault.verb == "loss":
        # What the client says: what does not ask is not answered. (Of answers alone, the server's FIN would pass.)
        return (Toxic(name, "timeout", "upstream", fault.rate, {"timeout": 0}),)
    if fault.verb == "slow":
        return (Toxic(name, "latency", "downstream", 1.0, {"latency": round(fault.by_s * 1000), "jitter": 0}),)
    if fault.verb == "bandwidth":
        return (Toxic(name, "bandwidth", "downstream", 1.0, {"rate": max(1, round(fault.rate))}),)
    assert fault.verb == "reset", fault.verb
    return (Toxic(name, "reset_peer", "upstream", 1.0, {"timeout": 0}),)  # as soon as the client sends something


def make(all_of: Iterable[Deed]) -> None:
    """Raises ToxiproxyError; what was done by then is healed like the whole."""
    for deed in all_of:
        toxiproxy = Toxiproxy(deed.url)
        for toxic in deed.toxics:
            toxiproxy.add(deed.proxy, toxic)
        if deed.off:
            toxiproxy.enable(deed.proxy, False)


# ---- healing


def places_of(staging: Staging) -> dict[str, tuple[str, ...]]:
    """A toxiproxy's address -> its proxies of the file."""
    found: dict[str, dict[str, None]] = {}
    for place in staging.sites.values():
        found.setdefault(place.url, {}).update(dict.fromkeys(place.proxies))
    return {url: tuple(names) for url, names in found.items()}


def mine(index: int) -> Callable[[Toxic], bool]:
    """Does a toxic belong to the fault of this index?"""
    return lambda toxic: toxic.name == f"{PREFIX}{index}" or toxic.name.startswith(f"{PREFIX}{index}-")


class Healing(Struct, frozen=True):
    """healed: what there was to heal. left: what could not be healed, each with what to do. Lines for people."""

    healed: tuple[str, ...]
    left: tuple[str, ...]


def heal(places: Mapping[str, tuple[str, ...]], which: Callable[[Toxic], bool] = lambda toxic: toxic.ours) -> Healing:
    """Heal these proxies of these toxiproxies, all servers at once, and look again whether they are. Never raises for
    what a server does; a second time there is nothing to heal. Blocks for a few seconds where one does not answer."""
    if not places:
        return Healing((), ())
    with ThreadPoolExecutor(max_workers=len(places), thread_name_prefix="heal") as pool:
        found = list(pool.map(lambda place: _heal_server(place[0], place[1], which), places.items()))
    return Healing(tuple(h for each in found for h in each.healed), tuple(line for each in found for line in each.left))


def _heal_server(url: str, names: tuple[str, ...], which: Callable[[Toxic], bool]) -> Healing:
    toxiproxy = Toxiproxy(url)
    healed: list[str] = []
    try:
        for proxy in _named(toxiproxy, names):
            if any(which(toxic) for toxic in proxy.toxics):
                healed.append(f"{proxy.name} at {url}")
                _heal_proxy(toxiproxy, proxy, which)
        left = [line for proxy in _named(toxiproxy, names) for line in _still(url, proxy, which)]
    except ToxiproxyError as error:
        return Healing(tuple(healed), (f"{error}; {_remedy(url, names)}",))
    return Healing(tuple(healed), tuple(left))


def _named(toxiproxy: Toxiproxy, names: tuple[str, ...]) -> list[Proxy]:
    """Those that are there: one that was deleted has nothing to heal."""
    there = toxiproxy.proxies()
    return [there[name] for name in names if name in there]


def _heal_proxy(toxiproxy: Toxiproxy, proxy: Proxy, which: Callable[[Toxic], bool]) -> None:
    markers = [toxic for toxic in proxy.toxics if toxic.ours and toxic.name.endswith(_OFF)]
    if markers and all(which(marker) for marker in markers) and not proxy.enabled:
        toxiproxy.enable(proxy.name, True)
    for toxic in proxy.toxics:
        if which(toxic):
            toxiproxy.remove(proxy.name, toxic.name)


def _still(url: str, proxy: Proxy, which: Callable[[Toxic], bool]) -> Iterator[str]:
    """What is not healed after all."""
    for toxic in proxy.toxics:
        if which(toxic):
            remedy = f"curl -X DELETE {url}/proxies/{proxy.name}/toxics/{toxic.name}"
            yield f"{proxy.name} at {url} still has {toxic.name}: {remedy}"
    if not proxy.enabled and not any(toxic.name.endswith(_OFF) for toxic in proxy.toxics if toxic.ours):
        yield f"{proxy.name} at {url} is disabled, and no drill did it: {_enable(url, proxy.name)}"


def _remedy(url: str, names: tuple[str, ...]) -> str:
    return f"when it is back: failoverctl drill halt (its proxies of this drill: {', '.join(names)})"


def _enable(url: str, proxy: str) -> str:
    return f"""curl -X POST {url}/proxies/{proxy} -d '{{"enabled": true}}'"""
