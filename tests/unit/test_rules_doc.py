"""The generated pages in docs/ say what the tables in the code say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from chaos.reading import shipped
from controlplane.telemetry.metrics import METRICS
from policies.standing import LADDER, RULES
from policies.timers import TRANSITIONS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def generator(name: str = "make_rules") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_page_is_the_generated_one() -> None:
    page = (DOCS / "rules.md").read_text(encoding="utf-8")
    assert page == generator().rules(), "run: python docs/make_rules.py"


def test_every_rule_class_and_transition_is_on_the_page() -> None:
    page = generator().rules()
    for rule in RULES:
        assert f"| `{rule.name}` | {rule.when} | {rule.may_serve} |" in page
    assert [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")] == [
        f"| `{rule.name}`" for rule in RULES
    ], "in the order of precedence"
    for name in LADDER:
        assert f"| {name} | " in page
    for transition in TRANSITIONS:
        assert f"{transition.source or 'ready'} --> {transition.target}: {transition.when}" in page


def test_rules_have_unique_names() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_the_page_of_metrics_is_the_generated_one() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert page == generator("make_metrics").page(), "run: python docs/make_metrics.py"
    assert all(f"| `{name}` | {metric.kind} |" in page for name, metric in METRICS.items())


def test_the_page_of_scenarios_is_the_generated_one() -> None:
    page = (DOCS / "scenarios.md").read_text(encoding="utf-8")
    assert page == generator("make_scenarios").page(), "run: python docs/make_scenarios.py"
    assert all(f"| `{name}` | " in page for name in shipped())
