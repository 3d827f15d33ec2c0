"""Records of drills that passed: kept by many writers, readable whatever happened to the file."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from chaos import ledger
from controlplane.config import read_config
from tests.unit.api_cluster import TEXT
from tests.unit.drill_world import failover, report

ONE = ledger.Passed(
    scenario="site-dark",
    scenario_sha256="ab",
    cluster="acme",
    config_rev=41,
    config_sha256="cd",
    version="0.1.0",
    world="sim",
    seed=7,
    at="2026-03-02T03:14:03Z",
    bound_s=32.4,
    measured_s=25.1,
)


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "state" / "drills.jsonl"
    assert ledger.read(file) == ([], 0)
    ledger.record(ONE, file)
    ledger.record(replace(ONE, seed=8), file)
    assert ledger.read(file) == ([ONE, replace(ONE, seed=8)], 0)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_damaged_line_costs_that_line_alone(tmp_path: Path) -> None:
    file = tmp_path / "drills.jsonl"
    ledger.record(ONE, file)
    with file.open("ab") as text:
        text.write(b'\xff\xfe\n{"scenario": 3}\n\n{"scenario":"cut sho')
    ledger.record(replace(ONE, seed=9), file)
    assert ledger.read(file) == ([ONE, replace(ONE, seed=9)], 3)


def _write(file: Path, writer: int) -> None:
    for n in range(50):
        ledger.record(replace(ONE, seed=1000 * writer + n), file)


def test_writers_at_the_same_time(tmp_path: Path) -> None:
    file = tmp_path / "drills.jsonl"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write, args=(file, n)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(50)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    found, damaged = ledger.read(file)
    assert damaged == 0
    assert {p.seed for p in found} == {1000 * w + n for w in range(3) for n in range(50)}


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ledger.LedgerError, match="not recorded"):
        ledger.record(ONE, tmp_path / "file" / "drills.jsonl")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(ledger.LedgerError):
        ledger.record(ONE, tmp_path / "link")


def test_where_it_is() -> None:
    assert ledger.path({"XDG_STATE_HOME": "/var/me"}) == Path("/var/me/failoverctl/drills.jsonl")
    assert ledger.path({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/failoverctl/drills.jsonl"


def test_an_applied_configuration_has_the_digest_of_its_file() -> None:
    config = read_config(TEXT.format(port=5300), "acme.yaml").config
    assert config is not None
    assert ledger.config_digest(replace(config, revision=41)) == ledger.config_digest(config)
    assert ledger.config_digest(replace(config, target_s=59.0)) != ledger.config_digest(config)


def test_the_failover_closest_to_its_bound() -> None:
    near, far = failover(outage_s=30.0, worst_case_s=32.0), failover(outage_s=31.0, worst_case_s=60.0)
    assert ledger.closest(report(failovers=(far, near, failover(outage_s=None)))) == (32.0, 30.0)
    assert ledger.closest(report(failovers=())) == (None, None)
