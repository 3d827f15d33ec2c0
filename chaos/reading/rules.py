"""What makes sense of a scenario's lines only together, or with its configuration: times, names, effects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as Folder

from msgspec.structs import replace

from chaos.reading.places import Places
from chaos.scenario import VERBS, Expect, Fault
from chaos.writing import fault_text
from controlplane.config.problems import Log, Path
from controlplane.config.scalars import seconds
from policies.topology import Config


def check(
    faults: Sequence[Fault | None],
    expect: Sequence[Expect | None],
    duration_s: float,
    config: Config | None,
    folder: Folder,
    log: Log,
) -> None:
    """Report what is wrong. None: a line that could not be read. duration_s 0, config None: not known, reported.
    folder: of the scenario's file."""
    places = None if config is None else Places(config, folder, log)
    for index, fault in enumerate(faults):
        path: Path = ("faults", index)
        if fault is None:
            continue
        if duration_s:
            _fault_times(fault, duration_s, path, log)
        if places is not None:
            places.fault(fault, (*path, fault.verb))
    _repeated(faults, duration_s, log)
    for index, line in enumerate(expect):
        if line is None:
            continue
        if duration_s:
            _expect_times(line, faults, duration_s, ("expect", index), log)
        if places is not None:
            places.expectation(line, ("expect", index))
    _said_twice(expect, log)


def _fault_times(fault: Fault, duration_s: float, path: Path, log: Log) -> None:
    end = seconds(duration_s)
    if fault.at_s >= duration_s:
        log.error((*path, "at"), f"is not before the end of the scenario; its duration is {end}")
        return
    if fault.ends_s is not None and fault.ends_s > duration_s:
        fits = seconds(duration_s - fault.at_s)
        what = f"would heal at {seconds(fault.ends_s)}, after the end of the scenario at {end}"
        log.error((*path, "for"), f"{what}; {fits} or less fits, or leave it out: then it lasts until the end")
    if fault.verb == "store_rewind" and not log.broken((*path, "at"), (*path, fault.verb)) and fault.by_s > fault.at_s:
        said = f"{seconds(fault.by_s)} is later than the fault itself, at {seconds(fault.at_s)}"
        log.error((*path, fault.verb, "to"), f"a backup cannot be from the future: {said}")


def _repeated(faults: Sequence[Fault | None], duration_s: float, log: Log) -> None:
    """The same fault must not begin while it is under way: what would its end heal?"""
    seen: list[tuple[int, Fault, Fault]] = []
    for index, fault in enumerate(faults):
        if fault is None or log.broken(("faults", index)):
            continue
        bare = replace(fault, at_s=0.0, for_s=None, line=0, column=0)
        for other, what, before in seen:
            first, second = sorted((before, fault), key=lambda f: f.at_s)
            until_s = (duration_s or float("inf")) if first.ends_s is None else first.ends_s
            if what == bare and ((VERBS[fault.verb].heals and second.at_s < until_s) or first.at_s == second.at_s):
                said = f"faults[{other}], in line {before.line}"
                log.error(("faults", index), f"{fault_text(fault)} is under way already at this time: {said}")
                break
        seen.append((index, bare, fault))


def _expect_times(line: Expect, faults: Sequence[Fault | None], duration_s: float, path: Path, log: Log) -> None:
    end = seconds(duration_s)
    if log.broken((*path, line.kind)):
        return
    if line.kind == "by" and line.from_s > duration_s:
        log.error((*path, "by"), f"is after the end of the scenario; its duration is {end}")
    elif line.kind == "during" and line.to_s > duration_s:
        log.error((*path, "during", 1), f"is after the end of the scenario; its duration is {end}")
    elif line.kind == "outage":
        for name, most_s in line.outages.items():
            if most_s >= duration_s:
                log.error((*path, "outage", name), f"can never fail: the scenario's duration is {end}")
    elif line.kind == "after_heal" and not log.broken(("faults",)):
        _after_heal(line, faults, duration_s, path, log)


def _after_heal(line: Expect, faults: Sequence[Fault | None], duration_s: float, path: Path, log: Log) -> None:
    if not faults:
        log.error((*path, "after_heal"), "no fault heals: there are none; write by")
        return
    for index, fault in enumerate(faults):
        if fault is not None and fault.for_s is None and VERBS[fault.verb].heals:
            said = f"faults[{index}], {fault_text(fault)}, lasts until the end: give it a `for`, or write by"
            log.error((*path, "after_heal"), said)
            return
    healed_s = max(fault.ends_s if fault.ends_s is not None else fault.at_s for fault in faults if fault is not None)
    if healed_s + line.from_s > duration_s:
        least = seconds(healed_s + line.from_s)
        said = f"is {least}, as the last fault ends at {seconds(healed_s)}: after the end of the scenario"
        log.error((*path, "after_heal"), f"{said}; a duration of {least} or more fits")


def _said_twice(expect: Sequence[Expect | None], log: Log) -> None:
    seen: list[Expect] = []
    for index, line in enumerate(expect):
        if line is None or log.broken(("expect", index)):
            continue
        bare = replace(line, line=0, column=0)
        if bare in seen:
            log.error(("expect", index), "is in the list twice")
        seen.append(bare)
