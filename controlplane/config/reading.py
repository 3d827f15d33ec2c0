"""A file or text -> a checked configuration, or everything that is wrong with it."""

from __future__ import annotations

import pathlib

from msgspec import Struct

from controlplane.config import driver_rules, rules, time_rules
from controlplane.config.build import build
from controlplane.config.document import MAX_BYTES, parse
from controlplane.config.problems import Log, Problem
from controlplane.config.readers import BAD
from controlplane.config.tables import FILE
from policies.timing import WorstCase
from policies.topology import Config

_RULES = (
    rules.sites,
    rules.store,
    rules.regions,
    rules.services,
    driver_rules.drivers,
    driver_rules.references,
    driver_rules.locations,
)


class Result(Struct, frozen=True):
    """config is None if there is any error. bounds: worst case by service, as far as it could be computed."""

    config: Config | None
    problems: tuple[Problem, ...]
    bounds: dict[str, WorstCase]

    @property
    def ok(self) -> bool:
        return self.config is not None

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "warning")


def read_config(source: pathlib.Path | str | bytes, file: str = "") -> Result:
    """Read a file (a pathlib.Path), or text. `file` is the name in messages: by default the path, or "config".

    Never raises for what is in the file, nor for one that cannot be read: that is a problem like others.
    """
    log = Log(file or (str(source) if isinstance(source, pathlib.Path) else "config"))
    if isinstance(source, pathlib.Path):
        try:
            with source.open("rb") as opened:
                source = opened.read(MAX_BYTES + 1)
        except OSError as error:
            log.at_line(1, 1, f"cannot read the file: {error.strerror}")
            return Result(None, log.problems(), {})
    root = parse(source, log)
    if root is None:
        return Result(None, log.problems(), {})
    data = FILE.read(root, (), log)
    assert data is not BAD, "parse() gives a mapping"
    config = build(data, log)
    for rule in _RULES:
        rule(config, log)
    bounds = time_rules.worst_case_fits(config, log)
    if log.broken(()):
        return Result(None, log.problems(), bounds)
    driver_rules.expressible(config, log)  # of a sound configuration only
    return Result(config, log.problems(), bounds)
