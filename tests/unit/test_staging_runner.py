"""A drill's runner when something that it needs goes away: it makes no further fault, and says why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from chaos.history import AnyRecord, Asked, Faulted
from chaos.scenario import Fault, Scenario
from chaos.worlds.staging import runner as runners
from chaos.worlds.staging.clients import Client
from chaos.worlds.staging.faults import Deed
from chaos.worlds.staging.file import Measured, Place, Staging
from chaos.worlds.staging.journal import Journal, Making
from chaos.worlds.staging.runner import Runner, Setup
from chaos.worlds.staging.toxiproxy import ToxiproxyError
from chaos.worlds.world import Say
from tests.support import run
from tests.unit.api_cluster import Cluster, running
from tests.unit.drill_world import config

NOBODY = "http://127.0.0.1:1"
CUT = Fault(verb="cut", at_s=0.1, for_s=20.0, one="site-a", other="*", text="cut site-a")


class FakeSwitch:
    """One that lives for so many words."""

    pid = 0

    def __init__(self, words: int) -> None:
        self.words = words

    def feed(self) -> bool:
        self.words -= 1
        return self.words >= 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("runner")) as (found, _):
        yield found


def drilled(
    monkeypatch: pytest.MonkeyPatch,
    api: tuple[str, ...],
    journal: Path,
    switch: FakeSwitch,
    say: Say = lambda record: None,
) -> tuple[str, list[AnyRecord]]:
    """(why it stopped, what was recorded) of a cut through a toxiproxy that is not there."""
    monkeypatch.setattr(runners, "WARM_S", 0.2)
    spec = Measured(service="www", region="rest", resolver="127.0.0.1:1", url=f"{NOBODY}/")
    scenario = Scenario(
        name="x", about="", config=config(), config_text="", duration_s=30.0, faults=(CUT,), expect=(), file="x.yaml"
    )
    setup = Setup(
        scenario=scenario,
        staging=Staging(cluster="acme", api=api, sites={"site-a": Place(NOBODY, {"www": ("www-a",)})}, clients=(spec,)),
        clients=(Client("www/rest", spec, {}, None),),
        allowed_s={},
        most=1.0,
        journal=Journal(journal),
        switch=switch,  # type: ignore[arg-type] # all that the runner needs of one
    )

    async def main() -> tuple[str, list[AnyRecord]]:
        found = Runner(setup, say)
        async with asyncio.timeout(25):
            await found.run()
        return found.stopped, found.records

    return run(main())


def faulted(records: list[AnyRecord]) -> list[tuple[bool, str]]:
    return [(record.began, record.left) for record in records if isinstance(record, Faulted)]


def test_without_the_control_plane_nothing_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stopped, records = drilled(monkeypatch, (NOBODY,), tmp_path / "x.jsonl", FakeSwitch(99))
    assert stopped.startswith("the control plane does not answer") and faulted(records) == []


def test_a_fault_that_cannot_be_made_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cluster: Cluster) -> None:
    stopped, records = drilled(monkeypatch, cluster.urls, tmp_path / "x.jsonl", FakeSwitch(99))
    assert stopped == f"cut site-a could not be made: toxiproxy {NOBODY} does not answer: connection refused"
    (began, _), (ended, left) = faulted(records)
    assert began and not ended, "what may have been half made is healed like the whole"
    assert left.startswith(f"toxiproxy {NOBODY} does not answer") and "failoverctl drill halt" in left
    making = [entry for entry in Journal(tmp_path / "x.jsonl").entries() if isinstance(entry, Making)]
    assert [entry.text for entry in making] == ["cut site-a"], "it was announced before it was made"
    assert next(record.failed for record in records if isinstance(record, Asked)) >= 1


def test_a_fault_has_begun_before_it_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cluster: Cluster) -> None:
    heard: list[AnyRecord] = []
    before: list[list[tuple[bool, str]]] = []

    def made(all_of: Iterable[Deed]) -> None:
        before.append(faulted(heard))
        raise ToxiproxyError("enough")

    monkeypatch.setattr(runners, "make", made)
    stopped, _ = drilled(monkeypatch, cluster.urls, tmp_path / "x.jsonl", FakeSwitch(99), heard.append)
    assert before == [[(True, "")]], "clients may fail of it from now on"
    assert stopped == "cut site-a could not be made: enough"


def test_without_its_switch_nothing_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cluster: Cluster) -> None:
    stopped, records = drilled(monkeypatch, cluster.urls, tmp_path / "x.jsonl", FakeSwitch(1))
    assert stopped == "the dead-man's switch ended, or gave this process up" and faulted(records) == []


def test_what_cannot_be_announced_is_not_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cluster: Cluster
) -> None:
    stopped, records = drilled(monkeypatch, cluster.urls, tmp_path / "gone" / "x.jsonl", FakeSwitch(99))
    assert stopped.startswith("the journal cannot be written, so cut site-a was not made") and faulted(records) == []
    assert not (tmp_path / "gone").exists()
