"""Whatever a file says, reading it gives problems, never an exception."""

from __future__ import annotations

import copy
import io
import pathlib
from typing import Any

import jsonschema
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from controlplane.config import check_document, human_lines, read_config, render, schema
from controlplane.config.document import parse, plain
from controlplane.config.problems import Log

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
GOOD = [YAML(typ="safe", pure=True).load(file) for file in sorted(EXAMPLES.glob("*.yaml"))]
VALIDATOR = jsonschema.Draft202012Validator(schema())
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["site-a", "cloud", "20s", "0", "192.0.2.10", "www.example.org", "http", "all", "~", "1e999"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every node below the root."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in items:
        found += [(*at, key), *paths(item, (*at, key))]
    return found


def mutated(draw: st.DrawFn) -> Any:
    value = copy.deepcopy(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 4))):
        where = paths(value)
        if not where:
            break
        *parents, last = draw(st.sampled_from(where))
        holder = value
        for key in parents:
            holder = holder[key]
        verb = draw(st.sampled_from(["delete", "replace", "copy", "rename"]))
        if verb == "delete":
            del holder[last]
        elif verb == "rename" and isinstance(holder, dict):
            holder[draw(st.text(max_size=5))] = holder.pop(last)
        elif verb == "copy":
            source = value
            for key in draw(st.sampled_from(where)):
                source = source[key]
            holder[last] = copy.deepcopy(source)
        else:
            holder[last] = draw(JUNK)
    return value


def dumped(value: Any) -> str:
    out = io.StringIO()
    YAML(typ="safe", pure=True).dump(value, out)
    return out.getvalue()


@settings(max_examples=100, deadline=None)
@given(st.composite(mutated)())
def test_a_mutated_file_gives_problems(value: Any) -> None:
    text = dumped(value)
    result = read_config(text, "f")
    assert result.ok == (not result.errors)
    assert list(result.problems) == sorted(result.problems, key=lambda p: (p.line, p.column))
    assert all(problem.line >= 1 and problem.column >= 1 for problem in result.problems)
    check_document(result)
    human_lines(result)
    if result.config is not None:
        assert read_config(render(result.config)).config == result.config
        node = parse(text, Log("-"))
        assert node is not None
        assert not list(VALIDATOR.iter_errors(plain(node))), "the schema refuses what check accepts"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200))
@example("a: " + "9" * 5000)
@example("? ? ?")
@example("{" * 100)
@example("\ufeffversion: 1")
def test_any_bytes_give_problems(source: bytes | str) -> None:
    result = read_config(source, "f")
    assert not result.ok
    assert result.errors
