"""What `failoverctl drill list`, `show` and `check` do: scenarios are read, nothing is played."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import typer
from rich.console import RenderableType
from rich.text import Text

from chaos import ledger
from chaos.drill import WORLDS, world_class
from chaos.reading import read_scenario, shipped
from chaos.scenario import VERBS, Scenario
from controlplane.cli.configuration import coloured
from controlplane.cli.context import Code, Run
from controlplane.cli.drill_files import as_document, load, passed_before, path_of
from controlplane.cli.output import lead, now, safe, seconds, table
from controlplane.config import bound_document
from controlplane.config.time_rules import phases
from policies.timing import worst_cases

Doc = dict[str, Any]


def list_all(run: Run) -> None:
    """The scenarios that ship, the worlds that can play them, and when they passed last."""
    last = {passed.scenario: passed for passed in passed_before(run)}
    docs = [_listed(scenario, last.get(scenario.name)) for scenario in load(sorted(shipped()))]
    run.document({"scenarios": docs})
    if run.json:
        return
    rows = [
        (Text(d["name"], style="bold"), Text(" ".join(d["worlds"])), safe(_when(d["last_passed"])), safe(d["about"]))
        for d in docs
    ]
    run.stdout.print(table(("SCENARIO", "WORLDS", "LAST PASSED", ""), rows))
    run.stdout.print(
        "Play one: failoverctl drill run NAME. Its parts: failoverctl drill show NAME.", style="bright_black"
    )


def _listed(scenario: Scenario, last: ledger.Passed | None) -> Doc:
    return {
        "name": scenario.name,
        "about": scenario.about,
        "file": scenario.file,
        "worlds": [name for name in WORLDS if _plays(name, scenario)],
        "duration_s": scenario.duration_s,
        "faults": len(scenario.faults),
        "last_passed": last,
    }


def _plays(world: str, scenario: Scenario) -> bool:
    """Can this world play it? Staging depends on the user's own file, too; here on the verbs alone."""
    found = world_class(world)
    verbs: frozenset[str] = getattr(found, "verbs", frozenset())
    if not {fault.verb for fault in scenario.faults} <= verbs:
        return False
    return world == "staging" or not found().check(scenario)


def _when(last: ledger.Passed | None) -> str:
    return "never" if last is None else f"{seconds(ledger.age_s(last, now()))} ago, {last.world}"


def show(run: Run, name: str) -> None:
    """One scenario, in words."""
    scenario = load([name])[0]
    bounds = worst_cases(scenario.config)
    run.document(
        {
            "name": scenario.name,
            "about": scenario.about,
            "file": scenario.file,
            "cluster": scenario.config.cluster,
            "duration_s": scenario.duration_s,
            "faults": [{"at_s": f.at_s, "for_s": f.for_s, "verb": f.verb, "text": f.text} for f in scenario.faults],
            "expect": [{"kind": expect.kind, "text": expect.text} for expect in scenario.expect],
            "services": {service: bound_document(bound) for service, bound in bounds.items()},
        }
    )
    if not run.json:
        for part in _shown(scenario):
            run.stdout.print(part)


def _shown(scenario: Scenario) -> Iterator[RenderableType]:
    yield lead(scenario.name).append(f"  {scenario.file}", style="not bold")
    yield safe(scenario.about)
    sites = ", ".join(scenario.config.sites)
    yield Text(f"{seconds(scenario.duration_s)} with cluster {scenario.config.cluster}: {sites}", style="bright_black")
    rows: list[tuple[str | Text, ...]] = []
    for fault in scenario.faults:
        length = "" if not VERBS[fault.verb].heals else "to the end" if fault.for_s is None else seconds(fault.for_s)
        rows.append((seconds(fault.at_s), length, fault.text, Text(VERBS[fault.verb].about, style="bright_black")))
    yield table(("AT", "FOR", "FAULT", ""), rows, right=("AT", "FOR"))
    yield lead("EXPECTED")
    for expect in scenario.expect:
        yield Text("  ").append_text(safe(expect.text))
    yield lead("WORST CASE")
    for service, bound in worst_cases(scenario.config).items():
        yield safe(f"  {service}  {bound.worst_case_s:.1f}s of {bound.target_s:g}s = {phases(bound)}")


def check(run: Run, names: Sequence[str]) -> None:
    """All that is wrong in scenario files."""
    reads = [read_scenario(path_of(name)) for name in names]
    problems = [problem for read in reads for problem in read.problems]
    ok = all(read.scenario is not None for read in reads)
    run.document({"ok": ok, "problems": [as_document(problem) for problem in problems]})
    if not run.json:
        for problem in problems:
            run.stdout.print(coloured(str(problem)), soft_wrap=True)
        good = sum(read.scenario is not None for read in reads)
        run.stdout.print(f"{good} of {len(reads)} can be played")
    if not ok:
        raise typer.Exit(int(Code.REFUSED))
