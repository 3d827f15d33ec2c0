"""Readers: small objects that read one node, and know the JSON Schema of what they accept.

A reader returns the value, or BAD after it has reported why not. Tables (of fields) and lists go on after a BAD
value, with the field's default or without the item, so that every problem is found in one go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from controlplane.config.document import Node, Value
from controlplane.config.problems import Log, Path, closest, did_you_mean, listed

BAD: Final = object()
REQUIRED: Final = object()
Schema = dict[str, Any]


class Wrong(ValueError):
    """A scalar is not what it should be; the message says what would be right."""


class Reader:
    def read(self, node: Node, path: Path, log: Log) -> Any:
        """The value, or BAD (reported)."""
        raise NotImplementedError

    def schema(self) -> Schema:
        raise NotImplementedError

    def empty(self) -> Any:
        """What stands in for a required value that is not there, so that reading can go on."""
        return None


class Field(NamedTuple):
    reader: Reader
    default: Any = REQUIRED


def show(node: Node) -> str:
    """The node as it is quoted in messages."""
    if node.kind != "scalar":
        return "a list" if node.kind == "list" else "a mapping"
    if node.value is None:
        return "nothing"
    return cut(json.dumps(node.value, ensure_ascii=False) if isinstance(node.value, str) else node.text)


def cut(text: str) -> str:
    """As much of it as a message quotes."""
    return text if len(text) <= 60 else text[:57] + "..."


class Scalar(Reader):
    """`parse` turns the resolved value into what is wanted, or raises Wrong with a whole message. `expected` is for
    nodes that are no scalar at all, and for parse functions that raise Wrong("")."""

    def __init__(self, parse: Callable[[Value], Any], expected: str, schema: Schema, empty: Any = None) -> None:
        self.parse = parse
        self._expected = expected
        self._schema = schema
        self._empty = empty

    def read(self, node: Node, path: Path, log: Log) -> Any:
        try:
            if node.kind != "scalar" or node.value is None:
                raise Wrong("")
            return self.parse(node.value)
        except Wrong as wrong:
            log.error(path, str(wrong) or f"expected {self._expected}, got {show(node)}")
            return BAD

    def schema(self) -> Schema:
        return self._schema

    def empty(self) -> Any:
        return self._empty


class Seq(Reader):
    """A list -> a tuple. keep: a BAD item is None, so that paths can be told from indexes; else it is left out."""

    def __init__(
        self, item: Reader, at_least: int = 0, unique: bool = False, what: str = "items", keep: bool = False
    ) -> None:
        self._keep = keep
        self._item = item
        self._at_least = at_least
        self._unique = unique
        self._what = what

    def read(self, node: Node, path: Path, log: Log) -> Any:
        if node.kind != "list":
            log.error(path, f"expected a list of {self._what}, got {show(node)}")
            return BAD
        if len(node.items) < self._at_least:
            log.error(path, f"expected a list of {self._what}, got an empty one")
        found: list[Any] = []
        for index, item in enumerate(node.items):
            here = (*path, index)
            log.place(here, item.place, item.place)
            value = self._item.read(item, here, log)
            if value is BAD and self._keep:
                value = None
            if value is BAD:
                continue
            if self._unique and value in found:
                log.error(here, f"{show(item)} is in the list twice")
                continue
            log.place((*path, len(found)), item.place, item.place)  # of what is left, by its index there
            found.append(value)
        return tuple(found)

    def schema(self) -> Schema:
        bound = {"minItems": self._at_least} if self._at_least else {}
        return {"type": "array", "items": self._item.schema(), **bound}

    def empty(self) -> Any:
        return ()


class OneOrMany(Reader):
    """One value, or a list of them -> a tuple."""

    def __init__(self, item: Reader, what: str) -> None:
        self._one = item
        self._many = Seq(item, at_least=1, unique=True, what=what)

    def read(self, node: Node, path: Path, log: Log) -> Any:
        if node.kind == "list":
            return self._many.read(node, path, log)
        value = self._one.read(node, path, log)
        return BAD if value is BAD else (value,)

    def schema(self) -> Schema:
        return {"anyOf": [self._one.schema(), self._many.schema()]}

    def empty(self) -> Any:
        return ()


class Map(Reader):
    """A mapping with free keys -> a dict. keep: a key whose value is BAD stays, with the reader's empty value, so
    that the name is known to those who refer to it."""

    def __init__(self, key: Scalar, value: Reader, at_least: int = 0, what: str = "names", keep: bool = True) -> None:
        self._keep = keep
        self._key = key
        self._value = value
        self._at_least = at_least
        self._what = what

    def read(self, node: Node, path: Path, log: Log) -> Any:
        if node.kind != "map":
            log.error(path, f"expected a mapping of {self._what}, got {show(node)}")
            return BAD
        if len(node.entries) < self._at_least:
            log.error(path, f"expected a mapping of {self._what}, got an empty one")
        found: dict[str, Any] = {}
        for name, entry in node.entries.items():
            here = (*path, name)
            log.place(here, entry.place, entry.node.place)
            key = Node("scalar", entry.line, entry.column, value=name, text=name)
            log.place((*path, name), entry.place, entry.place)  # a bad key is shown where the key is
            if self._key.read(key, here, log) is BAD:
                continue
            log.place(here, entry.place, entry.node.place)
            value = self._value.read(entry.node, here, log)
            if value is not BAD or self._keep:
                found[name] = self._value.empty() if value is BAD else value
        return found

    def schema(self) -> Schema:
        schema = {
            "type": "object",
            "propertyNames": self._key.schema(),
            "additionalProperties": self._value.schema(),
        }
        return schema | ({"minProperties": self._at_least} if self._at_least else {})

    def empty(self) -> Any:
        return {}


class Table(Reader):
    """A mapping with known keys -> a dict with every field (partial: with those that are given, none required).

    extra: prefix of keys to ignore. elsewhere: keys that exist, but not here -> what to do instead.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        *,
        partial: bool = False,
        extra: str = "",
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        self.fields = dict(fields)
        self._partial = partial
        self._extra = extra
        self._elsewhere = dict(elsewhere or {})

    def read(self, node: Node, path: Path, log: Log) -> Any:
        if node.kind != "map":
            log.error(path, f"expected a mapping with {listed(list(self.fields)[:6])}, got {show(node)}")
            return BAD
        found: dict[str, Any] = {}
        meant: set[str] = set()  # what is misspelt is not missing too
        for name, entry in node.entries.items():
            here = (*path, name)
            log.place(here, entry.place, entry.node.place)
            if name in self.fields:
                value = self.fields[name].reader.read(entry.node, here, log)
                if value is not BAD:
                    found[name] = value
            elif not (self._extra and name.startswith(self._extra)):
                meant.add(self._unknown(name, path, log))
        for name in () if self._partial else self.fields:
            if self.fields[name].default is REQUIRED and name not in node.entries and name not in meant:
                log.error(path, f'missing key "{name}"', key=True, breaks=(*path, name))
        return found if self._partial else self.empty() | found

    def schema(self) -> Schema:
        required = [name for name, field in self.fields.items() if field.default is REQUIRED]
        schema: Schema = {
            "type": "object",
            "properties": {name: field.reader.schema() for name, field in self.fields.items()},
            "additionalProperties": False,
        }
        if self._extra:
            schema["patternProperties"] = {"^" + self._extra: {}}
        if required and not self._partial:
            schema["required"] = required
        return schema

    def empty(self) -> Any:
        if self._partial:
            return {}
        return {
            name: field.reader.empty() if field.default is REQUIRED else field.default
            for name, field in self.fields.items()
        }

    def partial(self, elsewhere: Mapping[str, str] | None = None) -> Table:
        """The same fields, none of them required or filled in, tables below likewise. Keys of `elsewhere` are
        left out: {"quorum.min_vantages": "set it in policy"}."""
        elsewhere = elsewhere or {}
        fields: dict[str, Field] = {}
        for name, field in self.fields.items():
            below = {key.partition(".")[2]: v for key, v in elsewhere.items() if key.startswith(name + ".")}
            reader = field.reader.partial(below) if isinstance(field.reader, Table) else field.reader
            if name not in elsewhere:
                fields[name] = Field(reader, None)
        here = {key: value for key, value in elsewhere.items() if "." not in key}
        return Table(fields, partial=True, elsewhere=here)

    def _unknown(self, name: str, path: Path, log: Log) -> str:
        """Report it; the key that was probably meant, or ""."""
        here = (*path, name)
        if name in self._elsewhere:
            log.error(path, f'"{name}" cannot be set here: {self._elsewhere[name]}', at=here, key=True, breaks=here)
            return ""
        meant = closest(name, self.fields)
        hint = f': did you mean "{meant}"?' if meant else f"; known here: {', '.join(self.fields)}"
        log.error(path, f'unknown key "{cut(name)}"{hint}', at=here, key=True, breaks=(*path, meant or name))
        return meant


class Either(Reader):
    """One reader for each kind of node: {"scalar": ..., "map": ...}."""

    def __init__(self, by_kind: Mapping[str, Reader], expected: str, empty: Any = None) -> None:
        self._by_kind = dict(by_kind)
        self._expected = expected
        self._empty = empty

    def read(self, node: Node, path: Path, log: Log) -> Any:
        reader = self._by_kind.get(node.kind)
        if reader is None or (node.kind == "scalar" and node.value is None):
            log.error(path, f"expected {self._expected}, got {show(node)}")
            return BAD
        return reader.read(node, path, log)

    def schema(self) -> Schema:
        return {"anyOf": [reader.schema() for reader in self._by_kind.values()]}

    def empty(self) -> Any:
        return self._empty


def choice(words: Iterable[str]) -> Scalar:
    """One of some words."""
    known = tuple(words)

    def parse(value: Value) -> str:
        if isinstance(value, str) and value in known:
            return value
        if isinstance(value, str):
            hint = did_you_mean(value, known)
            raise Wrong(f"expected {listed(known)}, got {json.dumps(value, ensure_ascii=False)[:60]}{hint}")
        raise Wrong("")

    return Scalar(parse, listed(known), {"enum": list(known)}, empty=known[0] if known else "")
