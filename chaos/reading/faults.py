"""One line of `faults` -> a Fault: what can be said of it without the configuration and the other lines."""

from __future__ import annotations

import re
import shlex
from typing import Any

from chaos.scenario import FENCES, HOW, MESSAGES, SAYS, VERBS, Fault, Verb
from controlplane.config.document import Node, Value
from controlplane.config.problems import Log, Path, closest, did_you_mean
from controlplane.config.readers import BAD, Field, Reader, Scalar, Seq, Table, Wrong, choice, show
from controlplane.config.scalars import DAY_S, boolean, duration, integer, number, string

_EXAMPLE = '{at: 60s, cut: [site-a, "*"], for: 20m}'
_MOMENT = duration()
_LENGTH = duration(0.001)
_WORD = string("a name", least=1)
_FIELDS = {"between": ("one", "other"), "serve": "other", "fence": "how", "vantage": "node"}
_TIMES = ("by", "for", "age", "to")


class FaultReader(Reader):
    """-> Fault; what could not be read of it has its default, and its path is broken. BAD: it has no single verb."""

    def read(self, node: Node, path: Path, log: Log) -> Any:
        if node.kind != "map":
            log.error(path, f"expected a mapping such as {_EXAMPLE}, got {show(node)}")
            return BAD
        for name, entry in node.entries.items():
            log.place((*path, name), entry.place, entry.node.place)
        verb = _verb(node, path, log)
        if not verb:
            return BAD
        at_s = _read(_MOMENT, node, "at", path, log)
        if "at" not in node.entries:
            log.error(path, 'missing key "at"', breaks=(*path, "at"))
        for_s = _read(_LENGTH, node, "for", path, log) if "for" in node.entries else None
        if "for" in node.entries and not VERBS[verb].heals:
            log.error((*path, "for"), f"{verb} is done at once, and nothing heals it: leave it out", key=True)
        fields = _arguments(verb, node.entries[verb].node, (*path, verb), log)
        if "exit" in node.entries:
            fields["code"] = _read(integer(0, 4), node, "exit", path, log) or 0
        return Fault(verb=verb, at_s=at_s or 0.0, for_s=for_s, line=node.line, column=node.column, **fields)


def _read(reader: Reader, node: Node, name: str, path: Path, log: Log) -> Any:
    """The value of an entry; None if there is none, or a bad one."""
    entry = node.entries.get(name)
    value = BAD if entry is None else reader.read(entry.node, (*path, name), log)
    return None if value is BAD else value


def _verb(node: Node, path: Path, log: Log) -> str:
    """The one verb of a fault; "" if that cannot be told (reported)."""
    verbs = [name for name in node.entries if name in VERBS]
    keys = ("at", "for", "exit") if verbs == ["operator"] else ("at", "for")
    unknown = [name for name in node.entries if name not in VERBS and name not in keys]
    for name in unknown:
        if verbs:
            hint = did_you_mean(name, (*keys, *verbs)) or f"; known here: {', '.join((*keys, *verbs))}"
            log.error((*path, name), f'unknown key "{name}"{hint}', key=True)
        elif closest(name, VERBS) or not closest(name, keys):
            hint = did_you_mean(name, VERBS) or f"; there are {', '.join(VERBS)}"
            log.error((*path, name), f'unknown verb "{name}"{hint}', key=True)
        else:
            log.error((*path, name), f'unknown key "{name}"{did_you_mean(name, keys)}', key=True)
    if len(verbs) > 1:
        said = f'"{verbs[0]}" and "{verbs[1]}": write one fault for each'
        log.error((*path, verbs[1]), f"more than one verb in a fault, {said}", key=True)
    elif not verbs and not unknown:
        log.error(path, f"has no verb: expected a mapping such as {_EXAMPLE}")
    return verbs[0] if len(verbs) == 1 else ""


def _arguments(verb: str, node: Node, path: Path, log: Log) -> dict[str, Any]:
    """The verb's fields of a Fault, as far as they could be read."""
    shape = VERBS[verb]
    if shape.shape == "flag":
        if boolean().read(node, path, log) is False:
            log.error(path, "a fault without effect: write true, or leave the line out")
        return {}
    if shape.shape == "map":
        return _mapping(verb, shape, node, path, log)
    reader: Reader = {"ends": _Ends(), "words": _CommandLine()}.get(shape.shape, _WORD)
    value = reader.read(node, path, log)
    if value is BAD:
        return {}
    return dict(zip(("one", "other"), value, strict=True)) if shape.shape == "ends" else {shape.fields[0]: value}


def _mapping(verb: str, shape: Verb, node: Node, path: Path, log: Log) -> dict[str, Any]:
    table = Table(
        {name: Field(_field(verb, name)) for name in shape.fields}
        | {name: Field(_field(verb, name), None) for name in shape.optional}
    )
    found = table.read(node, path, log)
    if found is BAD:
        return {}
    if verb in ("loss", "slow"):
        _one_way_to_say(verb, found, path, log)
    fields: dict[str, Any] = {}
    for name, value in found.items():
        if value is None or log.broken((*path, name)):
            continue
        if name == "between":
            fields["one"], fields["other"] = value
        else:
            fields["by_s" if name in _TIMES else _FIELDS.get(name, name)] = value
    if verb in ("stop", "edit_zone"):
        fields.setdefault("how", HOW[0] if verb == "stop" else FENCES[0])
    return fields


def _one_way_to_say(verb: str, found: dict[str, Any], path: Path, log: Log) -> None:
    """Of loss and slow: between two ends, or the other thing, not both."""
    other = "message" if verb == "loss" else "service"
    written = [name for name in ("between", other) if log.given((*path, name))]
    if len(written) != 1:
        log.error(path, f"expected either between: [site-a, site-b] or {other}, got {'both' if written else 'neither'}")
    beside = "node" if verb == "loss" else "site"
    if written == ["between"] and log.given((*path, beside)):
        log.error((*path, beside), f"{beside} has a meaning only beside {other}: leave it out", key=True)
    if verb == "slow" and written == ["service"] and found["site"] is None and not log.broken((*path, "site")):
        log.error(path, 'missing key "site"', breaks=(*path, "site"))


def _field(verb: str, name: str) -> Reader:
    if name == "between":
        return _Ends()
    if name in _TIMES:
        return {"clock_step": _step(), "store_rewind": _MOMENT}.get(verb, _LENGTH)
    words = {"message": MESSAGES, "says": SAYS, "how": HOW, "fence": FENCES}.get(name)
    if words is not None:
        return choice(words)
    if name == "rate":
        return number(above=True) if verb == "bandwidth" else _share()
    return _WORD


class _Ends(Reader):
    """[one, other] -> both."""

    def read(self, node: Node, path: Path, log: Log) -> Any:
        if node.kind != "list" or len(node.items) != 2:
            what = f"a list of {len(node.items)}" if node.kind == "list" else show(node)
            log.error(path, f'expected two ends such as [site-a, "*"] or [site-a, site-b], got {what}')
            return BAD
        ends = Seq(_WORD, keep=True).read(node, path, log)
        return BAD if None in ends else ends


class _CommandLine(Reader):
    """A command line, or a list of its words -> its words."""

    def read(self, node: Node, path: Path, log: Log) -> Any:
        value = (
            Seq(string(), what="words").read(node, path, log) if node.kind == "list" else _split().read(node, path, log)
        )
        if value is BAD:
            return BAD
        if value and value[0] == "failoverctl":
            log.error(path, 'leave "failoverctl" out: the line begins with its command')
            return BAD
        if not value:
            log.error(path, 'expected a command line such as "drain site-b --reason test", got an empty one')
            return BAD
        return value


def _split() -> Scalar:
    def parse(value: Value) -> tuple[str, ...]:
        if not isinstance(value, str):
            raise Wrong("")
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise Wrong(f"cannot be split into words: {str(error).lower()}") from None

    return Scalar(parse, 'a command line such as "drain site-b --reason test"', {"type": "string"})


def _share() -> Scalar:
    """30% or 0.3 -> 0.3."""
    plain = number(0.0, 1.0)

    def parse(value: Value) -> float:
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s?%", value) if isinstance(value, str) else None
        if match is None and isinstance(value, str):
            raise Wrong(f'expected a share such as 30% or 0.3, got "{value[:30]}"')
        share = float(match[1]) / 100 if match else float(plain.parse(value))
        if share > 1:
            raise Wrong(f"expected at most 100%, got {value}")
        if share == 0:
            raise Wrong("a rate of 0 is a fault without effect: leave the line out")
        return share

    return Scalar(parse, "a share such as 30%", {"type": ["string", "number"]})


def _step() -> Scalar:
    """24h or "-24h" -> seconds, not 0."""
    size = duration(0.001, 366 * DAY_S)

    def parse(value: Value) -> float:
        back = isinstance(value, str) and value.startswith("-")
        found = float(size.parse(value[1:] if back and isinstance(value, str) else value))
        return -found if back else found

    return Scalar(parse, 'a duration such as 24h or "-24h"', {"type": "string"})
