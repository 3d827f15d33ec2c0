"""Each deed of the lab can be seen by those whom it hurts, and is over when it was healed."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.history import Answered, AnyRecord, Edited, Faulted, Operated, Served
from chaos.reading import read_scenario
from chaos.worlds.lab.play import LabWorld

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def records(lab_world: LabWorld) -> tuple[AnyRecord, ...]:
    scenario = read_scenario(HERE / "verbs.yaml").scenario
    assert scenario is not None
    return lab_world.play(scenario, 0, lambda record: None).records


def test_every_fault_begins_when_it_is_due_and_all_is_healed(records: tuple[AnyRecord, ...]) -> None:
    faults = [record for record in records if isinstance(record, Faulted)]
    assert [record.left for record in faults if record.left] == []
    began = {record.index: record.at for record in faults if record.began}
    ended = {record.index: record.at for record in faults if not record.began}
    assert sorted(began) == list(range(11))
    assert {index for index in began if index not in ended} == {0, 1, 5, 10}  # deeds
    assert 0 <= began[2] - 3 < 1
    assert 0 <= ended[2] - 6 < 1


def test_clients_meet_what_a_service_does(records: tuple[AnyRecord, ...]) -> None:
    errors = {(r.service, r.error) for r in records if isinstance(r, Served) and r.error and 2.9 < r.at < 6.5}
    assert ("shop", "status 500") in errors
    assert ("api", "timeout") in errors
    assert ("www", "ConnectionResetError") in errors
    assert not any(service == "search" for service, _ in errors)


def test_an_edit_is_seen_and_put_right_unless_it_is_marked(records: tuple[AnyRecord, ...]) -> None:
    edits = [(r.server, r.service, r.manual) for r in records if isinstance(r, Edited)]
    assert edits == [("site-b", "search", False), ("site-c", "search", True)]
    answers = {
        r.server: r.sites for r in records if isinstance(r, Answered) and r.service == "search" and r.region == "rest"
    }
    assert answers == {"site-a": ("site-a",), "site-b": ("site-a",), "site-c": ("site-c",)}


def test_a_name_server_that_clients_are_cut_off_from_is_not_reachable(records: tuple[AnyRecord, ...]) -> None:
    cut = [r for r in records if isinstance(r, Answered) and r.server == "site-b" and not r.reachable]
    assert {r.service for r in cut} == {"www", "shop", "search", "api"}
    assert all(8.5 < r.at < 12.5 for r in cut)


def test_an_operator_gets_the_exit_code_of_the_command(records: tuple[AnyRecord, ...]) -> None:
    assert [(r.argv[0], r.code) for r in records if isinstance(r, Operated)] == [("freeze", 0)]
