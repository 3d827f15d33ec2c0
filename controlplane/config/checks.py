"""What was read of a check -> topology.Check, with the kind's own defaults and problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from controlplane.config import derive
from controlplane.config.problems import Log, Path
from controlplane.config.scalars import seconds
from policies.topology import Check, ProbePolicy
from probes.kinds import KINDS

YIELD_LAG: frozenset[str] = frozenset()  # the kinds that a service's data.check may be: none yet
_FIELD = {"interval": "interval_s", "fast_interval": "fast_interval_s", "timeout": "timeout_s"}
_encoder = msgspec.json.Encoder(order="deterministic")


def canonical(options: msgspec.Struct) -> str:
    """Canonical JSON: equal options are equal strings."""
    return _encoder.encode(options).decode()


def check(read: Mapping[str, Any], path: Path, base: ProbePolicy, dns_name: str, log: Log) -> Check | None:
    """None if its options cannot be used (reported). dns_name "" = the service has none, or it is no service."""
    kind = KINDS[read["kind"]]
    here = (*path, read["kind"])
    try:
        options = kind.complete(derive.convert(kind.options, read["options"]), dns_name)
    except msgspec.ValidationError as error:
        if not log.broken(path):  # what the tables let through and the struct does not
            log.error(here, str(error))
        return None
    for problem in kind.problems(options):
        report = log.warn if problem.warning else log.error
        report((*here, *problem.path), problem.message)
    return Check(
        kind=read["kind"],
        name=read["name"] or kind.check_name(options),
        options=canonical(options),
        probe=probe(read["probe"], path, base, log),
        host=read["host"],
        sites=read["sites"],
    )


def checks(read: tuple[Any, ...], path: Path, base: ProbePolicy, dns_name: str, log: Log) -> tuple[Check, ...]:
    """All that can be used, each known by a name (and host) of its own."""
    found: list[Check] = []
    for index, item in enumerate(read):
        made = check(item, (*path, index), base, dns_name, log) if item else None
        if made is None:
            continue
        if any((made.name, made.host) == (other.name, other.host) for other in found):
            log.error((*path, index), f'two checks are named "{made.name}"; give one of them another name')
            continue
        found.append(made)
    return tuple(found)


def probe(given: Mapping[str, Any], path: Path, base: ProbePolicy, log: Log) -> ProbePolicy:
    """The base with what is given on top. Reports what does not go together, where it was given."""
    merged = msgspec.structs.replace(base, **{_FIELD.get(key, key): value for key, value in given.items()})
    if ("interval" in given or "fast_interval" in given) and merged.fast_interval_s > merged.interval_s:
        key = "fast_interval" if "fast_interval" in given else "interval"
        log.error(
            _place(path, key, log),
            f"fast_interval {seconds(merged.fast_interval_s)} is longer than interval {seconds(merged.interval_s)}",
        )
    if given.get("timeout", 1.0) < 1.0:
        message = f"{seconds(merged.timeout_s)} is below 1s: one lost SYN, which is sent again after 1s, fails a check"
        log.warn(_place(path, "timeout", log), message)
    if given.get("fall") == 1:
        log.warn(_place(path, "fall", log), "one lost packet is enough for DOWN; 2 or more damp that")
    return merged


def _place(path: Path, key: str, log: Log) -> Path:
    """The key may stand beside the check's kind or among its options."""
    inside = [(*path, kind, key) for kind in KINDS if log.given((*path, kind, key))]
    return inside[0] if inside else (*path, key)
