"""The table of a plug-in's options, derived from its Options struct: a new probe kind or driver needs no reader.

Field names are keys; a float field that ends in `_s` is a duration, and its key has no `_s`. Bounds come from
msgspec.Meta (ge, gt, le, lt, min_length, max_length, pattern), and Meta(description=...) says what is expected.
A text of a certain form has Meta(extra_json_schema={"format": ...}), one of FORMATS.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct, inspect

from controlplane.config import scalars
from controlplane.config.document import Node
from controlplane.config.problems import Log, Path
from controlplane.config.readers import BAD, REQUIRED, Either, Field, Map, Reader, Schema, Seq, Table, choice
from probes.kinds.base import Secret

_INT64 = 1 << 53


class SecretReader(Reader):
    """{env: NAME} or {file: PATH}; a value in clear is an error. literal: plain strings are allowed too."""

    _table = Table(
        {
            "env": Field(scalars.string("the name of an environment variable", "[A-Za-z_][A-Za-z0-9_]*"), ""),
            "file": Field(scalars.string("a path that begins with /", "/.*", most=4096), ""),
        }
    )

    def __init__(self, literal: Reader | None = None) -> None:
        self._literal = literal

    def read(self, node: Node, path: Path, log: Log) -> Any:
        if node.kind == "scalar" and self._literal:
            return self._literal.read(node, path, log)
        if node.kind != "map":
            log.error(path, "a secret in clear; write {env: NAME} or {file: PATH}")
            return BAD
        found = self._table.read(node, path, log)
        if found is not BAD and len(node.entries) != 1:
            log.error(path, f"expected exactly one of env and file, got {', '.join(node.entries) or 'neither'}")
            return BAD
        return BAD if log.broken(path) else found

    def schema(self) -> Schema:
        secret = self._table.schema() | {"minProperties": 1, "maxProperties": 1}
        return {"anyOf": [self._literal.schema(), secret]} if self._literal else secret

    def empty(self) -> Any:
        return ""


# Format -> its reader, and what several of them are called.
FORMATS: dict[str, tuple[Reader, str]] = {
    "address": (scalars.address(), "IP addresses"),
    "domain": (scalars.domain(), "domain names"),
    "listen": (scalars.socket_address(loopback=True), "address:port"),
}


def table(options: type[Struct]) -> Table:
    """The table of an Options struct, for `convert`: defaults are the struct's own, and None here.

    Raises TypeError for a field that no reader fits."""
    info = inspect.type_info(options)
    assert isinstance(info, inspect.StructType)
    known = keys(options)
    fields: dict[str, Field] = {}
    for field in info.fields:
        key = known[field.name]
        reader = _reader(field.type, duration=key != field.name)
        fields[key] = Field(reader, REQUIRED if field.required else None)
    return Table(fields)


@lru_cache(maxsize=256)
def keys(options: type[Struct]) -> Mapping[str, str]:
    """Field -> its key in the file: without the `_s` of a duration."""
    info = inspect.type_info(options)
    assert isinstance(info, inspect.StructType)
    found: dict[str, str] = {}
    for field in info.fields:
        base = field.type.type if isinstance(field.type, inspect.Metadata) else field.type
        duration = field.name.endswith("_s") and isinstance(base, inspect.FloatType)
        found[field.name] = field.name[:-2] if duration else field.name
    return MappingProxyType(found)


def convert(options: type[Struct], given: dict[str, Any]) -> Struct:
    """The struct of what a derived table has read (of the keys that are given). Defaults are filled in."""
    return msgspec.convert(_renamed(options, given), options)


def _renamed(options: type[Struct], given: dict[str, Any]) -> dict[str, Any]:
    named = {field: given.get(key) for field, key in keys(options).items()}
    return {field: value for field, value in named.items() if value is not None}


def _reader(info: inspect.Type, duration: bool = False) -> Reader:
    description = ""
    if _format(info):
        return FORMATS[_format(info)][0]
    if isinstance(info, inspect.Metadata):
        description = (info.extra_json_schema or {}).get("description", "")
        info = info.type
    if isinstance(info, inspect.UnionType):
        return _union([part for part in info.types if not isinstance(part, inspect.NoneType)], duration)
    if isinstance(info, inspect.BoolType):
        return scalars.boolean()
    if isinstance(info, inspect.IntType):
        return scalars.integer(info.ge if info.ge is not None else -_INT64, info.le if info.le is not None else _INT64)
    if isinstance(info, inspect.FloatType):
        return _float(info, duration)
    if isinstance(info, inspect.StrType):
        return scalars.string(
            description or "a string", info.pattern or "", info.max_length or 4096, info.min_length or 0
        )
    if isinstance(info, inspect.LiteralType):
        return choice(str(value) for value in info.values)
    return _compound(info)


def _format(info: inspect.Type) -> str:
    """Of a text, or ""."""
    extra = (info.extra_json_schema or {}) if isinstance(info, inspect.Metadata) else {}
    return str(extra.get("format", ""))


def _compound(info: inspect.Type) -> Reader:
    if isinstance(info, inspect.VarTupleType | inspect.ListType):
        what = FORMATS[_format(info.item_type)][1] if _format(info.item_type) else "values"
        return Seq(_reader(info.item_type), at_least=info.min_length or 0, unique=True, what=what)
    if isinstance(info, inspect.DictType):
        return Map(scalars.string("a name", least=1), _reader(info.value_type), keep=False)
    if isinstance(info, inspect.StructType):
        return SecretReader() if info.cls is Secret else _Nested(info.cls)
    raise TypeError(f"no reader for {info}")


def _float(info: inspect.FloatType, duration: bool) -> Reader:
    if duration:
        return scalars.duration(info.ge or 0.0, info.le if info.le is not None else 366 * scalars.DAY_S)
    low = info.ge if info.ge is not None else info.gt if info.gt is not None else -1e14
    high = info.le if info.le is not None else info.lt if info.lt is not None else 1e14
    return scalars.number(low, high, above=info.gt is not None, below=info.lt is not None)


def _union(parts: list[inspect.Type], duration: bool) -> Reader:
    """X or None; a string or a secret; a scalar or a struct; a string or a number that reads as one."""
    if len(parts) == 1:
        return _reader(parts[0], duration)
    structs = [part for part in parts if isinstance(part, inspect.StructType)]
    others = [part for part in parts if not isinstance(part, inspect.StructType)]
    bare = [part.type if isinstance(part, inspect.Metadata) else part for part in others]
    scalar = _StringOrNumber() if len(others) == 2 and _is_text(bare) else _reader(others[0]) if others else None
    if scalar is None or len(structs) > 1:
        raise TypeError(f"no reader for the union of {parts}")
    if not structs:
        return scalar
    if structs[0].cls is Secret:
        return SecretReader(literal=scalar)
    return Either({"scalar": scalar, "map": _Nested(structs[0].cls)}, f"{_of(bare[0])} or a mapping")


def _is_text(bare: list[inspect.Type]) -> bool:
    return {type(part) for part in bare} == {inspect.StrType, inspect.IntType}


def _of(info: inspect.Type) -> str:
    return {"BoolType": "true, false", "StrType": "a string", "IntType": "a whole number"}[type(info).__name__]


class _StringOrNumber(Reader):
    """`status: 200` is as good as `status: "200"`."""

    _string = scalars.string("a string or a whole number")

    def read(self, node: Node, path: Path, log: Log) -> Any:
        if isinstance(node.value, int) and not isinstance(node.value, bool):
            return node.value
        return self._string.read(node, path, log)

    def schema(self) -> Schema:
        return {"type": ["string", "integer"]}


class _Nested(Reader):
    """A struct within options -> the dict that msgspec.convert takes."""

    def __init__(self, options: type[Struct]) -> None:
        self._options = options
        self._table = table(options)

    def read(self, node: Node, path: Path, log: Log) -> Any:
        found = self._table.read(node, path, log)
        return BAD if found is BAD else _renamed(self._options, found)

    def schema(self) -> Schema:
        return self._table.schema()
