"""Writes docs/scenarios.md from chaos/: `python docs/make_scenarios.py`. A test compares the two."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from chaos.checkers import CHECKERS  # noqa: E402  (the path must be set first)
from chaos.drill import WORLDS, world_class  # noqa: E402
from chaos.reading import read_scenario, shipped  # noqa: E402
from chaos.scenario import HOW, MESSAGES, SAYS, VERBS, Verb  # noqa: E402

INTRO = """\
# Scenarios: verbs, checkers, what ships

This page is generated from the code (`python docs/make_scenarios.py`); a test compares the two. How drills are run, and
what a scenario file looks like: [drills.md](drills.md).

## Verbs

"""


def _form(name: str, verb: Verb) -> str:
    """As it is written in a file."""
    if verb.shape == "ends":
        return f'{name}: [SITE, SITE or "*"]'
    if verb.shape == "map":
        fields = [*verb.fields, *(f"{field}?" for field in verb.optional)]
        return f"{name}: {{{', '.join(fields)}}}"
    optional = "".join(f", {field}?" for field in verb.optional)
    return {"word": f"{name}: {verb.fields[0].upper() if verb.fields else ''}", "flag": f"{name}: true"}.get(
        verb.shape, f'{name}: "COMMAND"'
    ) + optional


def page() -> str:
    verbs = {world: world_class(world).verbs for world in WORLDS}  # type: ignore[attr-defined]
    lines = ["| verb | does | for | worlds |", "| --- | --- | --- | --- |"]
    for name, verb in VERBS.items():
        worlds = " ".join(world for world in WORLDS if name in verbs[world])
        lines.append(f"| `{_form(name, verb)}` | {verb.about} | {'yes' if verb.heals else '-'} | {worlds} |")
    lines += [
        "",
        f"`message`: {', '.join(f'`{m}`' for m in MESSAGES)}. `says`: {', '.join(f'`{s}`' for s in SAYS)}. "
        f"`how`: {', '.join(f'`{h}`' for h in HOW)}. A process is named by its site or witness, or as `leader` or "
        "`store_leader`: whoever is that when the fault begins.",
        "",
        "## Checkers",
        "",
        "| name | says |",
        "| --- | --- |",
    ]
    for name, checker in CHECKERS.items():
        lines.append(f"| `{name}` | {_first(checker.__doc__ or '')} |")
    lines += ["", "## What ships", "", "| scenario | which accident it is |", "| --- | --- |"]
    for name, file in shipped().items():
        scenario = read_scenario(file).scenario
        assert scenario is not None, f"{file} cannot be read"
        lines.append(f"| `{name}` | {scenario.about} |")
    return INTRO + "\n".join(lines) + "\n"


def _first(text: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(text.split("\n\n")[0].split())


if __name__ == "__main__":
    (HERE / "scenarios.md").write_text(page(), encoding="utf-8")
