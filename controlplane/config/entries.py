"""Readers of list entries whose keys depend on one of them: checks (by kind) and drivers (by driver)."""

from __future__ import annotations

from typing import Any

from controlplane.config import derive, scalars
from controlplane.config.document import Node
from controlplane.config.policy_tables import PROBE
from controlplane.config.problems import Log, Path, did_you_mean
from controlplane.config.readers import BAD, Field, Reader, Schema, Seq, Table, show
from controlplane.drivers import Kind
from probes.kinds import KINDS


class CheckReader(Reader):
    """{kind: options}; the options include `name`, `sites` (of a service's check) and any key of policy.probe.
    These may also stand beside the kind. own: of a site or a vantage, which name the host to ask."""

    def __init__(self, own: bool) -> None:
        self._own = own
        common = {
            "name": Field(scalars.string("a name without blanks, / or @", "[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}"), "")
        }
        if not own:
            common["sites"] = Field(Seq(scalars.name("a site's name"), at_least=1, unique=True, what="sites"), ())
        common |= PROBE.partial().fields
        self._common = Table(common, partial=True)
        self._kinds = {kind: self._options(kind, common) for kind in KINDS}

    def _options(self, kind: str, common: dict[str, Field]) -> Table:
        table = derive.table(KINDS[kind].options)
        if self._own:
            return Table(table.fields | {"host": Field(scalars.host())} | common)
        if kind == "http" or "host" not in table.fields:  # of http, `host` is the header
            return Table(table.fields | common)
        fields = {name: field for name, field in table.fields.items() if name != "host"}
        return Table(fields | common, elsewhere={"host": "a service's check asks the service's endpoints"})

    def read(self, node: Node, path: Path, log: Log) -> Any:
        """{"kind", "options", "name", "sites", "probe" (what is given), "host"}, or BAD."""
        if node.kind != "map":
            log.error(path, f"expected a check such as http: {{port: 8080}}, got {show(node)}")
            return BAD
        for name, entry in node.entries.items():
            log.place((*path, name), entry.place, entry.node.place)
        kinds = [name for name in node.entries if name in KINDS]
        others = {name: entry for name, entry in node.entries.items() if name not in KINDS}
        unknown = [name for name in others if name not in self._common.fields]
        for name in unknown:
            hint = did_you_mean(name, [*KINDS, *self._common.fields]) or f"; kinds are {', '.join(KINDS)}"
            log.error(path, f'unknown kind of check "{name}"{hint}', at=(*path, name), key=True)
        if len(kinds) != 1:
            if not unknown:
                got = " and ".join(kinds) or "none"
                log.error(path, f"expected exactly one kind of check ({', '.join(KINDS)}), got {got}", key=True)
            return BAD
        kind = kinds[0]
        inner = node.entries[kind].node
        if inner.kind == "scalar" and inner.value is None:
            inner = Node("map", inner.line, inner.column)
        options = self._kinds[kind].read(inner, (*path, kind), log)
        known = {name: entry for name, entry in others.items() if name in self._common.fields}
        beside = self._common.read(Node("map", node.line, node.column, entries=known), path, log)
        if options is BAD:
            return BAD
        for name in beside:
            if name in inner.entries:
                log.error((*path, name), f'"{name}" is given twice: here and in {kind}', key=True)
        given = {name: value for name, value in options.items() if value is not None} | beside
        return {
            "kind": kind,
            "options": {name: options[name] for name in options if name not in self._common.fields},
            "name": given.get("name", ""),
            "sites": given.get("sites", ()),
            "probe": {name: given[name] for name in PROBE.fields if name in given},
            "host": options.get("host", "") if self._own else "",
        }

    def schema(self) -> Schema:
        common = self._common.schema()["properties"]
        kinds = []
        for kind, table in self._kinds.items():
            schema = table.schema()
            options = schema if schema.get("required") else {"anyOf": [schema, {"type": "null"}]}
            kinds.append(
                {
                    "type": "object",
                    "properties": {kind: options, **common},
                    "required": [kind],
                    "additionalProperties": False,
                }
            )
        return {"oneOf": kinds}


class DriverReader(Reader):
    """An entry of drivers.dns or drivers.pools: the fields that all have, and the options of its `driver`."""

    def __init__(self, kinds: dict[str, Kind], common: dict[str, Field]) -> None:
        self._which = common["driver"]
        self._common = common
        self._tables = {name: Table(common | derive.table(kind.options).fields) for name, kind in kinds.items()}

    def read(self, node: Node, path: Path, log: Log) -> Any:
        """The fields, the options under "options"; or BAD."""
        if node.kind != "map":
            log.error(path, f"expected a mapping with driver, ..., got {show(node)}")
            return BAD
        entry = node.entries.get("driver")
        if entry is None and isinstance(self._which.default, str):
            driver = self._which.default
        elif entry is None:
            log.error(path, 'missing key "driver"', key=True)
            return BAD
        else:
            log.place((*path, "driver"), entry.place, entry.node.place)
            driver = self._which.reader.read(entry.node, (*path, "driver"), log)
            if driver is BAD:
                return BAD
        found = self._tables[driver].read(node, path, log)
        fields = {name: value for name, value in found.items() if name in self._common}
        options = {name: value for name, value in found.items() if name not in self._common}
        return fields | {"driver": driver, "options": options}

    def schema(self) -> Schema:
        kinds = []
        for name, table in self._tables.items():
            schema = table.schema()
            schema["properties"]["driver"] = {"const": name}
            kinds.append(schema)
        return {"anyOf": kinds}
