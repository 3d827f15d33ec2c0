"""Scenarios as text: in a few words, for people, and as a file that reads back equal. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable

from msgspec.structs import replace

from chaos.scenario import CLIENTS, EVERYTHING, MOST_MOVES, VERBS, Condition, Expect, Fault, Resolvers, Scenario
from controlplane.config.scalars import seconds

_WORD = re.compile(r"[A-Za-z_/.][A-Za-z0-9_./@-]*")  # needs no quotes in a flow mapping, unless YAML knows it
_KNOWN = frozenset(("null", "true", "false", ".inf", ".nan"))  # in lower case
_SHORT_S = 180.0


def shown(value_s: float) -> str:
    """A moment or a duration for people: seconds while that is short ("120s"), else "20m", "-24h"."""
    if value_s < 0:
        return "-" + shown(-value_s)
    if value_s < _SHORT_S and value_s == int(value_s):
        return f"{int(value_s)}s"
    return seconds(value_s)


def percent(rate: float) -> str:
    """0.3 -> "30%"."""
    return f"{rate * 100:.10g}%"


def fault_text(fault: Fault) -> str:
    """A fault in the words of its file, without its times: "cut site-a", "stop www@site-a hang"."""
    place = f"{fault.service}@{fault.site}"
    ends = " ".join(end for end in (fault.one, fault.other) if end and end != EVERYTHING)
    match fault.verb:
        case "cut":
            words = ends
        case "cut_one_way":
            words = f"{_all(fault.one)} to {_all(fault.other)}"
        case "loss":
            words = f"{percent(fault.rate)} {fault.message or ends} {fault.node}"
        case "slow":
            words = f"{place if fault.service else ends} {shown(fault.by_s)}"
        case "delay":
            words = f"{fault.message} {fault.node} {shown(fault.by_s)}"
        case "stop":
            words = f"{place} {fault.how}"
        case "flaky":
            words = f"{place} {percent(fault.rate)}"
        case "bandwidth":
            words = f"{place} {fault.rate:g} KB/s"
        case "reset":
            words = place
        case "lag":
            words = f"{place} {shown(fault.by_s)}"
        case "lie":
            words = f"{fault.node} says {fault.says}"
        case "clock_step":
            words = f"{fault.node} {'' if fault.by_s < 0 else '+'}{shown(fault.by_s)}"
        case "store_rewind":
            words = f"to {shown(fault.by_s)}"
        case "edit_zone":
            words = f"{place} serves {fault.other}" + ("" if fault.how == "keep" else f", fence {fault.how}")
        case "operator":
            words = shlex.join(fault.argv)
        case _:
            words = fault.node or fault.site
    return " ".join(f"{fault.verb} {words}".split())


def expect_text(expect: Expect) -> str:
    """An expectation in a few words: "by 120s answer www=[site-b]", "outage www <= 60s"."""
    said = " ".join(_condition(condition) for condition in expect.conditions)
    match expect.kind:
        case "by":
            return f"by {shown(expect.from_s)} {said}"
        case "during":
            return f"{shown(expect.from_s)}-{shown(expect.to_s)} {said}"
        case "after_heal":
            return f"{said} within {shown(expect.from_s)} of heal"
        case "outage":
            return "outage " + ", ".join(f"{name} <= {shown(most_s)}" for name, most_s in expect.outages.items())
    return " ".join(expect.checkers)


def worded(scenario: Scenario) -> Scenario:
    """With the `text` of each fault and expectation: for those that no file has."""
    return replace(
        scenario,
        faults=tuple(replace(fault, text=fault_text(fault)) for fault in scenario.faults),
        expect=tuple(replace(expect, text=expect_text(expect)) for expect in scenario.expect),
    )


def scenario_text(scenario: Scenario, config_file: str) -> str:
    """The scenario as a file, which reads back equal if `config_file` (as it is to be named there) holds its
    configuration. Whole microseconds are kept of durations."""
    lines = [
        f"name: {_scalar(scenario.name)}",
        f"about: {_quoted(scenario.about)}",
        f"config: {_scalar(config_file)}",
        f"duration: {seconds(scenario.duration_s)}",
    ]
    if scenario.resolvers != Resolvers():
        kinds = scenario.resolvers
        lines.append(
            f"resolvers: {{stretch: {kinds.stretch}, stretch_by: {seconds(kinds.stretch_s)}, "
            f"stale: {kinds.stale}, stale_for: {seconds(kinds.stale_s)}}}"
        )
    if scenario.transfer_s:
        lines.append(f"transfer: {seconds(scenario.transfer_s)}")
    if scenario.most_moves != MOST_MOVES:
        lines.append(f"most_moves: {scenario.most_moves}")
    lines.append("faults:" if scenario.faults else "faults: []")
    lines += [f"  - {{{fault_entries(fault)}}}" for fault in scenario.faults]
    lines.append("expect:")
    lines += [f"  - {{{_expectation(expect)}}}" for expect in scenario.expect]
    return "\n".join(lines) + "\n"


def fault_entries(fault: Fault) -> str:
    """A fault as the file has it: 'at: 60s, cut: [site-a, "*"], for: 20m'."""
    entries = [f"at: {seconds(fault.at_s)}", f"{fault.verb}: {_arguments(fault)}"]
    if fault.code:
        entries.append(f"exit: {fault.code}")
    if fault.for_s is not None:
        entries.append(f"for: {seconds(fault.for_s)}")
    return ", ".join(entries)


def _arguments(fault: Fault) -> str:
    verb = VERBS[fault.verb]
    match verb.shape:
        case "flag":
            return "true"
        case "ends":
            return _between(fault)
        case "word":
            return _scalar(fault.node if verb.fields == ("node",) else fault.site)
        case "words":
            return "[" + ", ".join(_quoted(word) for word in fault.argv) + "]"
    entries = [(name, _argument(fault, name)) for name in (*verb.fields, *verb.optional)]
    return "{" + ", ".join(f"{name}: {value}" for name, value in entries if value) + "}"


def _argument(fault: Fault, name: str) -> str:
    """A field of a verb's mapping; "" if the fault has none."""
    match name:
        case "between":
            return _between(fault) if fault.one else ""
        case "rate":
            return f"{fault.rate:.10g}" if fault.verb == "bandwidth" else percent(fault.rate)
        case "by" | "for" | "age" | "to":
            return ("-" if fault.by_s < 0 else "") + seconds(abs(fault.by_s))
    here = {
        "vantage": fault.node,
        "serve": fault.other,
        "fence": fault.how,
        "service": fault.service,
        "site": fault.site,
        "node": fault.node,
        "message": fault.message,
        "says": fault.says,
        "how": fault.how,
    }[name]
    return _scalar(here) if here else ""


def _expectation(expect: Expect) -> str:
    match expect.kind:
        case "by" | "after_heal":
            return f"{expect.kind}: {seconds(expect.from_s)}, {_conditions(expect.conditions)}"
        case "during":
            return f"during: [{seconds(expect.from_s)}, {seconds(expect.to_s)}], {_conditions(expect.conditions)}"
        case "outage":
            bounds = ", ".join(f"{_scalar(name)}: {seconds(most_s)}" for name, most_s in expect.outages.items())
            return f"outage: {{{bounds}}}"
    return f"always: [{', '.join(expect.checkers)}]"


def _conditions(conditions: Iterable[Condition]) -> str:
    conditions = tuple(conditions)
    usual = _kinds(c for c in conditions if not c.never)
    never = _kinds(c for c in conditions if c.never)
    return ", ".join([*usual, f"never: {{{', '.join(never)}}}"] if never else usual)


def _kinds(conditions: Iterable[Condition]) -> list[str]:
    answers: list[str] = []
    serves: dict[str, list[str]] = {}
    converged = False
    for condition in conditions:
        sites = [_scalar(site) for site in condition.sites]
        if condition.kind == "answer":
            answers.append(f"{_scalar(condition.service)}: [{', '.join(sites)}]")
        elif condition.kind == "serves":
            serves.setdefault(_scalar(condition.service), []).extend(sites)
        else:
            converged = True
    served = [f"{name}: {_one_or_many(sites)}" for name, sites in serves.items()]
    kinds = [f"answer: {{{', '.join(answers)}}}"] if answers else []
    kinds += [f"serves: {{{', '.join(served)}}}"] if served else []
    return [*kinds, "converged: true"] if converged else kinds


def _one_or_many(sites: list[str]) -> str:
    return sites[0] if len(sites) == 1 else f"[{', '.join(sites)}]"


def _condition(condition: Condition) -> str:
    sites = ",".join(condition.sites)
    what = {
        "answer": f"answer {condition.service}=[{sites}]",
        "serves": f"serves {condition.service}={sites}",
        "converged": "converged",
    }[condition.kind]
    return f"never {what}" if condition.never else what


def _all(end: str) -> str:
    return "all" if end == EVERYTHING else end


def _between(fault: Fault) -> str:
    return f"[{_scalar(fault.one)}, {_scalar(fault.other)}]"


def _scalar(word: str) -> str:
    """A word, quoted where YAML would take it for something else."""
    plain = word == CLIENTS or (_WORD.fullmatch(word) and word.lower() not in _KNOWN and not word.startswith("."))
    return word if plain else _quoted(word)


def _quoted(text: str) -> str:
    """Double quotes, escaped so that any YAML 1.2 reader gives back the same (it knows no surrogate pairs)."""
    kept = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in kept)


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
