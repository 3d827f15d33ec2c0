"""Bad scenario files, and exactly what is said of each.

A file of the gallery begins with the expected problems, one a comment line, without the file's own name.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from chaos.reading import read_scenario

FOLDER = Path(__file__).parent / "bad_scenarios"
GALLERY = sorted(FOLDER.glob("*.yaml"))


def test_the_gallery_is_as_large_as_promised() -> None:
    assert len(GALLERY) >= 35


@pytest.mark.parametrize("file", GALLERY, ids=lambda file: file.stem)
def test_bad_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    lines = itertools.takewhile(lambda line: line.startswith("# "), file.read_text().splitlines())
    expected = [line.removeprefix("# ") for line in lines]
    read = read_scenario(Path(file.name))
    assert [str(problem).removeprefix(f"{file.name}:") for problem in read.problems] == expected
    assert expected and read.scenario is None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    read = read_scenario(tmp_path / "none.yaml")
    assert read.scenario is None
    assert [str(p) for p in read.problems] == [
        f"{tmp_path}/none.yaml:1:1: error: cannot read the file: No such file or directory"
    ]


def test_too_large_a_file(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_text("# " + "x" * (1 << 20))
    assert [p.message for p in read_scenario(file).problems] == [
        "the file has 1048577 bytes; at most 1048576 (1 MiB) are read"
    ]
