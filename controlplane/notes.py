"""What an agent says for the journal, and when an alarm is news."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from controlplane.documents import Applied
from policies.world import Desired

ALARMS = ("ahead", "manual", "foreign", "terminal")  # results that need somebody to look


class Note(Struct, frozen=True):
    """Something for the journal. kind: applied | repaired | seen | alarm | cleared; subject: driver or server;
    decision: the id of the one that it belongs to, or ""."""

    kind: str
    service: str
    subject: str
    text: str
    decision: str = ""


def written(driver: str, desired: Desired, again: bool) -> Note:
    """again: this generation had been written before."""
    text = f"generation {desired.generation} ({desired.stamp})"
    if again:
        text += ": somebody else had changed the answers, put right"
    return Note("repaired" if again else "applied", desired.service, driver, text, desired.decision)


class Alarms:
    """Of one driver: told when they begin and end, not with each pass."""

    def __init__(self) -> None:
        self._results: dict[str, str] = {}

    def look(self, driver: str, applied: Mapping[str, Applied]) -> list[Note]:
        notes = []
        for service, said in applied.items():
            bad = said.result if said.result in ALARMS else ""
            before = self._results.get(service, "")
            if bad and bad != before:
                text = f"{bad}: {said.reason}"
                notes.append(Note("alarm", service, driver, text, decision_of(said.decision)))
            elif before and not bad and said.result == "ok":
                notes.append(Note("cleared", service, driver, before, decision_of(said.decision)))
            if bad or said.result == "ok":
                self._results[service] = bad
        return notes


def decision_of(stamp: str) -> str:
    """The id in what a fence says of a decision: "d-7" of "d-7-3fd2a1"."""
    return "-".join(stamp.split("-")[:2])
