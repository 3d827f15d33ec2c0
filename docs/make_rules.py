"""Writes docs/rules.md from the tables in policies/: `python docs/make_rules.py`. A test compares the two."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from policies.standing import LADDER, RULES  # noqa: E402  (the path must be set first)
from policies.timers import TRANSITIONS  # noqa: E402

LADDER_WORDS = {
    "drained": "soft drains that are up",
    "flapping": "sites that failed again on their way back",
    "replies": "sites where something still replies, though not as it should",
    "held": "sites last seen up, now without quorum, that are not out",
    "drained held": "the same, softly drained",
    "last served": "what was served last: an answer is never taken away",
}

INTRO = """\
# The rules

This page is generated from the code (`python docs/make_rules.py`); a test compares the two.

## May this site serve this service?

Highest first; the first rule that applies decides, and `failoverctl explain` shows its name.

| rule | applies when | may serve |
| --- | --- | --- |
"""

LAST_RESORTS = """
## Last resorts

When no site may take more traffic, the first of these classes that has a site serves. Hard drains and stale copies
are never among them, except that what was served last stays. Each such move is an alarm.

| class | is |
| --- | --- |
"""

PHASES = """
## Coming back

What a site goes through before it gets its traffic back. Of the arrows that leave a phase, the first in this order
is taken:

```mermaid
stateDiagram-v2
    [*] --> new
"""


def rules() -> str:
    """The whole page, as Markdown."""
    page = INTRO
    page += "".join(f"| `{rule.name}` | {rule.when} | {rule.may_serve} |\n" for rule in RULES)
    page += LAST_RESORTS
    page += "".join(f"| {name} | {LADDER_WORDS[name]} |\n" for name in LADDER)
    page += PHASES
    phases = [t.source for t in TRANSITIONS] + [t.target for t in TRANSITIONS]
    for transition in TRANSITIONS:
        sources = [transition.source] if transition.source else dict.fromkeys(p for p in phases if p)
        for source in sources:
            if source != transition.target:
                page += f"    {source} --> {transition.target}: {transition.when}\n"
    return page + "```\n"


if __name__ == "__main__":
    (HERE / "rules.md").write_text(rules(), encoding="utf-8")
