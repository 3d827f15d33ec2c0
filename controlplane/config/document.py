"""YAML 1.2 text -> a tree of nodes with positions. Bounded, without constructors, duplicate keys reported.

ruamel.yaml composes the graph; scalars are resolved here by the core schema of YAML 1.2 (section 10.3.2), so that
NO is Norway and a date is a string.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as Raw

from controlplane.config.problems import Log

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000

Value = str | int | float | bool | None
_CORE = "tag:yaml.org,2002:"
_TAGS = {_CORE + name for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map", "merge", "value")}
_NULL = re.compile(r"|~|null|Null|NULL")
_BOOL = re.compile(r"(true|True|TRUE)|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,4000}|0o[0-7]{1,4000}|0x[0-9a-fA-F]{1,4000}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z][\w.-]*")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(slots=True)
class Node:
    """A scalar (`value`, and `text` as written), a list (`items`) or a mapping (`entries`)."""

    kind: str  # scalar | list | map
    line: int
    column: int
    value: Value = None
    text: str = ""
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)

    @property
    def place(self) -> tuple[int, int]:
        return self.line, self.column


@dataclass(slots=True)
class Entry:
    line: int
    column: int
    node: Node

    @property
    def place(self) -> tuple[int, int]:
        return self.line, self.column


class _Bound(Exception):
    """A bound was exceeded: nothing more is read."""


def parse(
    text: bytes | str,
    log: Log,
    what: str = "configuration",
    keys: tuple[str, str, str] = ("version", "cluster", "sites"),
) -> Node | None:
    """The document's root mapping; None if there is none to read (then the log says why).

    what, keys: for messages, what the file should be, and the keys that it begins with."""
    decoded = _decode(text, log)
    if decoded is None:
        return None
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False  # YAML 1.2 allows an anchor to be used again
    try:
        root = yaml.compose(decoded)
    except RecursionError:
        log.at_line(1, 1, f"nested deeper than {MAX_DEPTH} levels")
        return None
    except MarkedYAMLError as error:
        _syntax(error, log, what)
        return None
    except (YAMLError, ValueError, AssertionError) as error:  # ruamel's own, for text it cannot read
        log.at_line(1, 1, "not YAML: " + str(error).splitlines()[0])
        return None
    if root is None:
        log.at_line(1, 1, f"the file is empty; it needs at least {', '.join(keys[:-1])} and {keys[-1]}")
        return None
    try:
        node = _Converter(log).convert(root, 1)
    except _Bound as bound:
        line, column = bound.args[1]
        log.at_line(line, column, bound.args[0])
        return None
    if node.kind != "map" or (node.entries and not any(_WORD.fullmatch(key) for key in node.entries)):
        # Of another kind of file (/etc/shadow) nothing is quoted: it may be full of secrets, and messages end in logs.
        log.at_line(node.line, node.column, f"expected a mapping with {', '.join(keys)}, ...")
        return None
    return node


def plain(node: Node) -> object:
    """The node as plain Python values, as any YAML 1.2 reader would give it."""
    if node.kind == "list":
        return [plain(item) for item in node.items]
    if node.kind == "map":
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    return node.value


def _decode(text: bytes | str, log: Log) -> str | None:
    """The text, or None if it is too long, not UTF-8, not printable, or another YAML."""
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    if len(text) > MAX_BYTES:
        log.at_line(1, 1, f"the file has {len(text)} bytes; at most {MAX_BYTES} (1 MiB) are read")
        return None
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        log.at_line(*_line_column(text[: error.start].decode("utf-8", "replace")), "not UTF-8; save it as UTF-8")
        return None
    control = re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]", decoded)
    if control:
        log.at_line(*_line_column(decoded[: control.start()]), f"unprintable character U+{ord(control[0]):04X}")
        return None
    directive = re.match(r"(?:[ \t]*(?:#.*)?\n)*%YAML[ \t]+(?!1\.2[ \t\r\n])", decoded)
    if directive:
        log.at_line(*_line_column(directive[0].rstrip(" \t")[:-5]), "only YAML 1.2 is read; leave %YAML out")
        return None
    return decoded


def _line_column(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _syntax(error: MarkedYAMLError, log: Log, what: str) -> None:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if "found another document" in (error.problem or ""):
        log.at_line(line, column, f"a second document begins here; a {what} is one document")
        return
    context = f"{error.context}: " if error.context and "single document" not in error.context else ""
    remedy = '; a "*" that is a word stands in quotes' if error.context == "while scanning an alias" else ""
    log.at_line(line, column, f"not YAML: {context}{error.problem or error.context}{remedy}")


class _Converter:
    """Turns ruamel's graph into a tree. Aliases are expanded, so what it makes is counted."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._made = 0
        self._tagged: set[int] = set()  # raw nodes whose tag was reported: an alias repeats them

    def convert(self, raw: Raw, depth: int) -> Node:
        place = raw.start_mark.line + 1, raw.start_mark.column + 1
        self._made += 1
        if self._made > MAX_NODES:
            raise _Bound(f"more than {MAX_NODES} nodes after aliases are expanded", place)
        if depth > MAX_DEPTH:
            raise _Bound(f"nested deeper than {MAX_DEPTH} levels", place)
        tag = str(raw.tag)
        if tag not in _TAGS and id(raw) not in self._tagged:
            self._tagged.add(id(raw))
            self._log.at_line(*place, f"tag {tag.replace(_CORE, '!!')} is not known here; leave it out")
        if isinstance(raw, ScalarNode):
            return Node("scalar", *place, value=_resolve(raw), text=raw.value)
        if isinstance(raw, SequenceNode):
            return Node("list", *place, items=[self.convert(item, depth + 1) for item in raw.value])
        assert isinstance(raw, MappingNode)
        return self._mapping(raw, place, depth)

    def _mapping(self, raw: MappingNode, place: tuple[int, int], depth: int) -> Node:
        node = Node("map", *place)
        merged: list[Node] = []
        for key, value in raw.value:
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            child = self.convert(value, depth + 1)
            if not isinstance(key, ScalarNode):
                self._log.at_line(line, column, "a key must be a string")
            elif key.tag == _CORE + "merge" and key.style is None:
                merged += self._to_merge(child)
            elif key.value in node.entries:
                first = node.entries[key.value].line
                self._log.at_line(line, column, f'duplicate key "{key.value}" (lines {first} and {line})')
            else:
                node.entries[key.value] = Entry(line, column, child)
        for source in merged:  # the first one wins, and what is written out wins over both
            for name, entry in source.entries.items():
                node.entries.setdefault(name, entry)
        return node

    def _to_merge(self, child: Node) -> list[Node]:
        sources = child.items if child.kind == "list" else [child]
        for source in sources:
            if source.kind != "map":
                self._log.at_line(source.line, source.column, "<<: expected a mapping, or a list of mappings")
        return [source for source in sources if source.kind == "map"]


def _resolve(raw: ScalarNode) -> Value:
    """By the core schema: quoted and block scalars are strings."""
    text: str = raw.value
    if raw.style is not None or raw.tag == _CORE + "str":
        return text
    if _NULL.fullmatch(text):
        return None
    boolean = _BOOL.fullmatch(text)
    if boolean:
        return boolean[1] is not None
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "", 1) if _NOT_FINITE.fullmatch(text) else text)
    return text
