"""The promise: each service's worst case fits its target (DESIGN section 10)."""

from __future__ import annotations

from controlplane.config.problems import Log, Path
from policies.timing import WorstCase, worst_cases
from policies.topology import Config


def worst_case_fits(config: Config, log: Log) -> dict[str, WorstCase]:
    """The bound of each service that has checks; one over its target is an error."""
    bounds = {name: bound for name, bound in worst_cases(config).items() if config.services[name].checks}
    unsure = log.broken(("policy",), ("target",))
    for name, bound in bounds.items():
        path: Path = ("services", name)
        if bound.fits or unsure or log.broken(path):
            continue  # a value that could not be read stands in by a default, which proves nothing
        ttl: Path = (*path, "dns", "ttl")
        message = f"worst case {_s(bound.worst_case_s)} > target {bound.target_s:g}s = {phases(bound)}"
        place = ttl if log.given(ttl) else path
        log.error(path, f"{message}; {_remedy(bound)}", at=place, key=place == path)
    return bounds


def phases(bound: WorstCase) -> str:
    """max(detect 8.6 + publish 0.5, takeover 5.0) + decide 0.1 + apply 2.2 + ttl 21.0"""
    return (
        f"max(detect {bound.detect_s:.1f} + publish {bound.publish_s:.1f}, takeover {bound.takeover_s:.1f})"
        f" + decide {bound.decide_s:.1f} + apply {bound.apply_s:.1f} + ttl {bound.ttl_s:.1f}"
    )


def _s(seconds: float) -> str:
    return f"{seconds:.1f}s"


def _remedy(bound: WorstCase) -> str:
    if bound.ttl_s and bound.longest_ttl_s >= 1:
        return f"ttl {bound.longest_ttl_s}s or less fits"
    return f"{'no ttl fits: ' if bound.ttl_s else ''}shorten the checks' timeout, interval or fall, or raise target"
