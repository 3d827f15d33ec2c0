"""What a new configuration changes, path by path. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from policies.topology import Config

Doc = dict[str, Any]


def differences(before: Config | None, after: Config) -> list[Doc]:
    """[{path, before, after}], defaults included; None stands for what is not there. The revision is no change.
    Drivers and checks go by their names; lists of another length come whole."""
    old = _tree(before) if before else {}
    return list(_walk("", old, _tree(after)))


def _tree(config: Config) -> Doc:
    tree: Doc = msgspec.to_builtins(config)
    tree.pop("revision")
    tree.pop("schema")
    for key in ("dns", "pools", "references"):
        tree[key] = _named(tree[key])
    for owner in (*tree["sites"].values(), *tree["services"].values()):
        owner["checks"] = _named(owner["checks"])
        if owner.get("data"):
            owner["data"]["check"] = _open(owner["data"]["check"])
    return tree


def _named(entries: list[Doc]) -> Doc:
    """By name, and host: the checks of sites and vantages may go by their kind and port alone."""
    return {f"{entry['name']} {entry.get('host', '')}".strip(): _open(entry) for entry in entries}


def _open(entry: Doc) -> Doc:
    """A driver or a check, its options readable."""
    return entry | {"options": msgspec.json.decode(entry["options"])}


def _walk(path: str, before: Any, after: Any) -> Iterator[Doc]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            yield from _walk(f"{path}.{key}" if path else key, before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _walk(f"{path}[{index}]", old, new)
    else:
        yield {"path": path, "before": before, "after": after}
