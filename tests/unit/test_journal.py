"""The journal: each decision once, incidents with what was measured, everything in the file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from chaos.worlds.loop import Kernel
from controlplane.documents import Applied, AppliedDoc, DecisionDoc
from controlplane.journal import Incident, Journal
from policies.world import Carried, Desired, Event, Slice

BEFORE = Desired("www", 4, {"world": {"a": 100}}, (), {})
AFTER = Desired("www", 5, {"world": {"b": 100}}, (), {}, decision="d-2")
LEFT = Event("move", "a", "failed", "world 100 -> 0; down", forced=True)


def decision(n: int = 2, *events: Event, before: Desired | None = BEFORE) -> DecisionDoc:
    slice_ = Slice("www", b"", (), {}, {}, "", 0.0, before)
    return DecisionDoc(
        f"d-{n}", f"nonce-{n}", "www", "at", "n1", 7, 1, slice_, Carried({}), AFTER, events, (), bool(events)
    )


def applied(writer: str, generation: int = 5, result: str = "ok") -> AppliedDoc:
    return AppliedDoc("a", "dns", writer, "r", 1, {"www": Applied(generation, result)}, {}, {})


def test_a_decision_is_kept_once() -> None:
    with Kernel() as kernel:
        journal = Journal(lambda: 0.0)

        async def main() -> None:
            journal.decision(decision(2), live=False)
            journal.decision(decision(2), live=True)
            journal.decision(decision(3), live=True)

        kernel.run(main())
        assert [d.id for d in journal.decisions] == ["d-2", "d-3"]
        assert not journal.incidents


def test_an_incident_is_measured(tmp_path: Path) -> None:
    with Kernel() as kernel:
        path = tmp_path / "log"
        journal = Journal(lambda: 1000.5, path)
        node = kernel.loop("n1")
        made = decision(2, LEFT)
        kernel.at(1.0, node.call_soon, journal.committed, made, 0.02)
        kernel.at(1.0, node.call_soon, journal.decision, made, True)
        kernel.at(1.1, node.call_soon, journal.applied, "a/dns/a", applied("a", 4))
        kernel.at(1.25, node.call_soon, journal.applied, "a/dns/a", applied("a"))
        kernel.at(1.5, node.call_soon, journal.applied, "b/dns/b", applied("b"))
        kernel.at(9.0, node.call_soon, journal.applied, "b/dns/b", applied("b"))
        journal_looked: dict[str, tuple[Incident, float]] = {}
        kernel.at(3.0, node.call_soon, lambda: journal_looked.update(journal.under_way()))
        kernel.run_for(10.0)
        (incident,) = journal.incidents
        assert (incident.id, incident.sites, incident.decide_s, incident.detect_s) == ("inc-2", ("a",), 0.02, None)
        (found, age_s) = journal_looked["www"]
        assert found is incident and age_s == 2.0
        assert incident.applied == {"a/dns/a": 0.25, "b/dns/b": 0.5} and incident.apply_s == 0.5
        journal.close()
        kinds = [msgspec.json.decode(line)["kind"] for line in path.read_text().splitlines()]
        assert kinds == ["decision", "incident", "incident", "incident"]


def test_no_incident_from_history_nor_from_other_moves() -> None:
    with Kernel() as kernel:
        journal = Journal(lambda: 0.0)

        async def main() -> None:
            journal.decision(decision(1, LEFT), live=False)
            journal.decision(decision(2, Event("move", "a", "out", "drain", forced=True)), live=True)
            journal.decision(decision(3, LEFT, before=None), live=True)

        kernel.run(main())
        assert len(journal.decisions) == 3 and not journal.incidents


def test_the_audit_trail_keeps_refused_ones_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    journal = Journal(lambda: 1_700_000_000.25, path)
    journal.audit("ana", "drain site-b", "refused", "capacity: 900 of 720")
    journal.audit("ana", "drain site-b --accept capacity", "ok", "ov-1")
    journal.close()
    assert [a.result for a in journal.audits] == ["refused", "ok"]
    assert journal.audits[0].at == "2023-11-14T22:13:20.250+00:00"
    lines = [msgspec.json.decode(line) for line in path.read_text().splitlines()]
    assert lines[1]["entry"]["author"] == "ana" and lines[0]["kind"] == "audit"
