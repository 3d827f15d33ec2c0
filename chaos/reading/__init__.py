"""Scenario files -> scenarios, or everything that is wrong with them; and the scenarios that ship."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

import chaos
from chaos.reading.expectations import Expectation
from chaos.reading.faults import FaultReader
from chaos.reading.rules import check
from chaos.scenario import MOST_MOVES, Resolvers, Scenario
from chaos.writing import worded
from controlplane.config import read_config
from controlplane.config.document import MAX_BYTES, Node, parse
from controlplane.config.problems import Log, Problem, did_you_mean
from controlplane.config.readers import BAD, Field, Scalar, Seq, Table, Wrong
from controlplane.config.scalars import DAY_S, duration, integer, string
from policies.topology import Config

SHIPPED = Path(chaos.__file__).parent / "scenarios"
LONGEST_S = 30 * DAY_S
_KEYS = ("name", "about", "config")


class Read(Struct, frozen=True):
    """scenario is None if there is any error. problems: of the scenario's file, then errors of the configuration's."""

    scenario: Scenario | None
    problems: tuple[Problem, ...]


class UnknownScenario(LookupError):
    """No scenario of that name ships, nor is there such a file; the message says what there is."""


def shipped() -> dict[str, Path]:
    """The scenarios that ship: name -> file, sorted."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}


def find(name_or_path: str) -> Path:
    """The file of a scenario that ships, by its name, else the file at that path. Raises UnknownScenario."""
    known = shipped()
    path = Path(name_or_path)
    if name_or_path in known:
        return known[name_or_path]
    if path.is_file():
        return path
    hint = did_you_mean(path.stem, known) or "; failoverctl drill list shows those that ship"
    raise UnknownScenario(f'no scenario "{name_or_path}" ships, and there is no such file{hint}')


def read_scenario(path: Path, instead: tuple[Config, str] | None = None) -> Read:
    """Read a file, and the configuration that it names; or take the configuration `instead` of that, and its text.
    Never raises for what is in them, or cannot be read."""
    log = Log(str(path))
    root = _root(path, log)
    if root is None:
        return Read(None, log.problems())
    config, config_text, theirs = (*instead, ()) if instead else _config(root, path.parent, log)
    data = _table().read(root, (), log)
    assert data is not BAD, "parse() gives a mapping"
    duration_s = 0.0 if log.broken(("duration",)) else data["duration"]
    check(data["faults"], data["expect"], duration_s, config, path.parent, log)
    if config is None or log.broken(()):
        return Read(None, (*log.problems(), *theirs))
    odd = data["resolvers"]
    scenario = Scenario(
        name=data["name"],
        about=data["about"],
        config=config,
        config_text=config_text,
        duration_s=duration_s,
        faults=tuple(sorted(data["faults"], key=lambda fault: fault.at_s)),  # stable: as written, at equal times
        expect=data["expect"],
        resolvers=Resolvers(odd["stretch"], odd["stretch_by"], odd["stale"], odd["stale_for"]),
        transfer_s=data["transfer"],
        most_moves=data["most_moves"],
        file=str(path),
    )
    return Read(worded(scenario), log.problems())


def _root(path: Path, log: Log) -> Node | None:
    try:
        with path.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)
    except OSError as error:
        log.at_line(1, 1, f"cannot read the file: {error.strerror}")
        return None
    return parse(text, log, "scenario", _KEYS)


def _config(root: Node, folder: Path, log: Log) -> tuple[Config | None, str, tuple[Problem, ...]]:
    """The configuration, its text, and its errors; a word about them in the scenario's own log."""
    entry = root.entries.get("config")
    if entry is None or not isinstance(entry.node.value, str) or not entry.node.value:
        return None, "", ()  # the table says what is wrong
    log.place(("config",), entry.place, entry.node.place)
    path = folder / entry.node.value
    result = read_config(path)
    if result.config is None:
        count = f"{len(result.errors)} error{'s' if len(result.errors) != 1 else ''}"
        log.error(("config",), f"cannot be used: {count} in {path}")
        return None, "", result.errors
    return result.config, path.read_text(encoding="utf-8-sig"), ()


def _table() -> Table:
    counts = integer(0, 20)
    default = Resolvers()
    resolvers = Table(
        {
            "stretch": Field(counts, default.stretch),
            "stretch_by": Field(duration(1.0, DAY_S), default.stretch_s),
            "stale": Field(counts, default.stale),
            "stale_for": Field(duration(1.0, DAY_S), default.stale_s),
        }
    )
    return Table(
        {
            "name": Field(_name()),
            "about": Field(_sentence()),
            "config": Field(string("the file of a configuration, from where this file is", least=1)),
            "duration": Field(duration(1.0, LONGEST_S)),
            "faults": Field(Seq(FaultReader(), what="faults", keep=True), ()),
            "expect": Field(Seq(Expectation(), at_least=1, what="expectations", keep=True)),
            "resolvers": Field(resolvers, resolvers.empty()),
            "transfer": Field(duration(0.0, 3600.0), 0.0),
            "most_moves": Field(integer(1, 1000), MOST_MOVES),
        },
        extra="x-",
    )


def _name() -> Scalar:
    expected = "a name of 1 to 64 lower-case letters, digits and inner hyphens"
    return string(expected, "[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?", most=64)


def _sentence() -> Scalar:
    """White space is made single, so that a folded text is the same as one on a line."""
    plain = string("a sentence that says which accident it is", most=500)

    def parse_sentence(value: str | int | float | bool | None) -> str:
        text = " ".join(str(plain.parse(value)).split())
        if not text:
            raise Wrong("expected a sentence that says which accident it is, got nothing")
        return text

    return Scalar(parse_sentence, "a sentence", plain.schema(), empty="")
