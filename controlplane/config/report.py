"""What `failoverctl check` prints, for people and for programs (DESIGN section 10)."""

from __future__ import annotations

from typing import Any

from controlplane.config.reading import Result
from controlplane.config.time_rules import phases
from policies.timing import WorstCase


def check_document(result: Result) -> dict[str, Any]:
    """{ok, problems: [...], services: {NAME: {worst_case_s, target_s, phases}}}; warnings alone are ok."""
    return {
        "ok": result.ok,
        "problems": [
            {
                "file": problem.file,
                "path": problem.path,
                "line": problem.line,
                "column": problem.column,
                "severity": problem.severity,
                "message": problem.message,
            }
            for problem in result.problems
        ],
        "services": {name: bound_document(bound) for name, bound in sorted(result.bounds.items())},
    }


def bound_document(bound: WorstCase) -> dict[str, Any]:
    """One service's worst case, in seconds."""
    return {
        "worst_case_s": bound.worst_case_s,
        "target_s": bound.target_s,
        "phases": {
            "detect_s": bound.detect_s,
            "publish_s": bound.publish_s,
            "takeover_s": bound.takeover_s,
            "decide_s": bound.decide_s,
            "apply_s": bound.apply_s,
            "ttl_s": bound.ttl_s,
        },
    }


def human_lines(result: Result) -> list[str]:
    """One line a problem, then the bound of each service (if there is no error), then a count."""
    lines = [str(problem) for problem in result.problems]
    if result.ok:
        width = max((len(name) for name in result.bounds), default=0)
        lines += [
            f"{name:<{width}}  worst case {bound.worst_case_s:.1f}s of {bound.target_s:g}s = {phases(bound)}"
            for name, bound in sorted(result.bounds.items())
        ]
    counts = [_count(len(result.errors), "error"), _count(len(result.warnings), "warning")]
    return [*lines, ", ".join(count for count in counts if count) or "no problems"]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}" if number else ""
