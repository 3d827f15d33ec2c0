"""One line of `expect` -> an Expect: what can be said of it without the configuration and the faults."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from chaos.checkers import CHECKERS
from chaos.scenario import Condition, Expect
from controlplane.config.document import Node
from controlplane.config.problems import Log, Path, did_you_mean
from controlplane.config.readers import BAD, Field, Map, OneOrMany, Reader, Seq, Table, choice, show
from controlplane.config.scalars import boolean, duration, string

_EXAMPLE = "{by: 120s, answer: {www: [site-b]}}"
_NAME = string("a name", least=1)
_MOMENT = duration()
_WHEN = ("by", "during", "after_heal")
_KINDS = (*_WHEN, "outage", "always")
_WHAT = ("answer", "serves", "converged")
_CONDITIONS = {
    "answer": Field(Map(_NAME, Seq(_NAME, at_least=1, unique=True, what="sites"), 1, what="service: [site]"), {}),
    "serves": Field(Map(_NAME, OneOrMany(_NAME, "sites"), 1, what="service: site"), {}),
    "converged": Field(boolean(), None),
}


class _Span(Reader):
    """[begin, end] -> both."""

    def read(self, node: Node, path: Path, log: Log) -> Any:
        if node.kind != "list" or len(node.items) != 2:
            log.error(path, f"expected two moments such as [120s, 20m], got {show(node)}")
            return BAD
        span = Seq(_MOMENT, keep=True).read(node, path, log)
        if None in span:
            return BAD
        if span[0] >= span[1]:
            log.error(path, f"must end after it begins, got {node.items[0].text} to {node.items[1].text}")
            return BAD
        return span


class Expectation(Reader):
    """-> Expect; what could not be read of it is left out, and its path is broken. BAD: its kind cannot be told."""

    def read(self, node: Node, path: Path, log: Log) -> Any:
        kind = _kind(node, path, log)
        if not kind:
            return BAD
        table = Table(
            {kind: Field(_READERS[kind])} | (_CONDITIONS | {"never": Field(_NEVER, {})} if kind in _WHEN else {})
        )
        found = table.read(node, path, log)
        value = None if log.broken((*path, kind)) else found[kind]
        here = Expect(kind=kind, line=node.line, column=node.column)
        if kind == "outage":
            return replace(here, outages=value or {})
        if kind == "always":
            return replace(here, checkers=value or ())
        for below in ((), ("never",)):
            if (found["never"] if below else found).get("converged") is False:
                log.error((*path, *below, "converged"), "write true, or never: {converged: true} for the opposite")
        conditions = (*_conditions(found, False), *_conditions(found["never"], True))
        if not conditions and not log.broken(path):
            log.error(path, f"expects nothing: add {', '.join(_WHAT)} or never")
        begins_s, ends_s = value if kind == "during" and value else (value or 0.0, 0.0)
        return replace(here, from_s=begins_s, to_s=ends_s, conditions=conditions)


def _kind(node: Node, path: Path, log: Log) -> str:
    """Which of the five kinds a line is; "" if that cannot be told (reported)."""
    if node.kind != "map":
        log.error(path, f"expected a mapping such as {_EXAMPLE}, got {show(node)}")
        return ""
    kinds = [name for name in node.entries if name in _KINDS]
    if len(kinds) == 1:
        return kinds[0]
    for name, entry in node.entries.items():
        log.place((*path, name), entry.place, entry.node.place)
    if kinds:
        said = f'"{kinds[0]}" and "{kinds[1]}": write one line for each'
        log.error((*path, kinds[1]), f"more than one kind of expectation in a line, {said}", key=True)
        return ""
    unknown = [name for name in node.entries if name not in (*_WHAT, "never")]
    for name in unknown:
        hint = did_you_mean(name, (*_KINDS, *_WHAT)) or f"; there are {', '.join(_KINDS)}"
        log.error((*path, name), f'unknown expectation "{name}"{hint}', key=True)
    if not unknown:
        log.error(path, f"does not say when: expected a mapping such as {_EXAMPLE}")
    return ""


def _conditions(found: dict[str, Any], never: bool) -> list[Condition]:
    conditions = [Condition("answer", name, sites, never) for name, sites in found.get("answer", {}).items()]
    for name, sites in found.get("serves", {}).items():
        conditions += [Condition("serves", name, (site,), never) for site in sites]
    if found.get("converged"):
        conditions.append(Condition("converged", never=never))
    return conditions


_NEVER = Table(_CONDITIONS)
_READERS: dict[str, Reader] = {
    "by": _MOMENT,
    "during": _Span(),
    "after_heal": _MOMENT,
    "outage": Map(_NAME, _MOMENT, 1, what="service: duration"),
    "always": Seq(choice(CHECKERS), at_least=1, unique=True, what="checkers"),
}
