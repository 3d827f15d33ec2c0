"""Bad configurations, and exactly what is said of each.

A file of the gallery begins with a comment block: the expected problems, one a line (without the file's name), and
what the JSON Schema says of it: `refuses`, `accepts` (what is wrong is a matter of meaning), or `not YAML`.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jsonschema
import pytest

from controlplane.config import human_lines, read_config, schema
from controlplane.config.document import parse, plain
from controlplane.config.problems import Log
from tests.unit.test_dns_regions import write_mmdb

FOLDER = pathlib.Path(__file__).parent / "bad_config"
GALLERY = sorted(FOLDER.glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(schema())


@pytest.fixture(autouse=True)
def maxmind(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the gallery's files are read: beside a MaxMind file, and one that is none."""
    write_mmdb(tmp_path / "test.mmdb", {"127.0.1.0/24": {"country": {"iso_code": "FR"}}})
    (tmp_path / "junk.mmdb").write_bytes(b"junk")
    monkeypatch.chdir(tmp_path)


def expected(raw: bytes) -> tuple[list[str], str]:
    """The problems, and what the schema says."""
    lines: list[str] = []
    for line in raw.splitlines():
        text = line.removeprefix(b"# ").decode()
        if text.startswith("schema: "):
            return lines, text.removeprefix("schema: ")
        lines.append(text)
    raise AssertionError('no "# schema: ..." line')


def data(raw: bytes) -> Any:
    node = parse(raw, Log("-"))
    return None if node is None else plain(node)


def test_the_gallery_is_as_large_as_promised() -> None:
    assert len(GALLERY) >= 45


@pytest.mark.parametrize("file", GALLERY, ids=lambda file: file.stem)
def test_bad_file(file: pathlib.Path) -> None:
    raw = file.read_bytes()
    problems, by_schema = expected(raw)
    result = read_config(raw, "f")
    assert [str(problem).removeprefix("f:") for problem in result.problems] == problems
    errors = [line for line in problems if ": error: " in line]
    assert result.ok == (not errors)
    found = data(raw)
    verdict = "not YAML" if found is None else "refuses" if list(VALIDATOR.iter_errors(found)) else "accepts"
    assert verdict == by_schema
    assert human_lines(result)[: len(problems)] == [f"f:{line}" for line in problems]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_too_large_a_file() -> None:
    result = read_config(b"# " + b"x" * (1 << 20), "big.yaml")
    assert [str(p) for p in result.problems] == [
        "big.yaml:1:1: error: the file has 1048578 bytes; at most 1048576 (1 MiB) are read"
    ]


def test_nesting_beyond_the_stack() -> None:
    result = read_config("[" * 20_000, "deep.yaml")
    assert [p.message for p in result.problems] == ["nested deeper than 32 levels"]


def test_a_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    result = read_config(tmp_path / "none.yaml")
    assert [str(p) for p in result.problems] == [
        f"{tmp_path}/none.yaml:1:1: error: cannot read the file: No such file or directory"
    ]
