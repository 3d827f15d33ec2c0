"""Load balancers looked at by somebody who does not run them."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.doctor import pools as doctor
from controlplane.doctor.finding import Severity
from controlplane.pools import DRIVERS
from controlplane.pools.survey import pools_asked
from policies.topology import Config, Policy, PoolDriver, Pools, Service
from tests.support import run

SERVICE = Service({}, {}, (), Policy(), 60.0, pools=Pools("bk_www", {"site-a": ("a",)}))


def config(tmp_path: Path) -> Config:
    entry = PoolDriver("haproxy", "haproxy", ("site-a",), f'{{"socket": "{tmp_path}/admin.sock"}}')
    return Config("acme", 60.0, {}, {}, {"www": SERVICE}, Policy(), pools=(entry,))


def test_without_a_directory_for_temporary_files_nothing_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", none)
    why = "no directory for temporary files: No usable temporary directory found"
    (line,) = run(pools_asked(config(tmp_path)))["www"]
    assert (line["reachable"], line["agrees"], line["reason"]) == (False, None, why)
    (finding,) = run(doctor.examine(config(tmp_path), "site-a")).all
    assert (finding.severity, finding.detail, finding.answered) == (Severity.UNKNOWN, why, None)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (line,) = run(pools_asked(config(tmp_path)))["www"]
    assert line["reason"].startswith("not reachable from here: ")
    assert [f.severity for f in run(doctor.examine(config(tmp_path), "site-a")).all] == [Severity.ERROR]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("timeout_s", [0.5, 2.0, 30.0])
def test_the_configured_timeout_is_what_ends_a_call(timeout_s: float) -> None:
    kind = DRIVERS["haproxy"]
    options = kind.options(socket="/run/h.sock", timeout_s=timeout_s)
    assert kind.capabilities(options).patience_s > timeout_s
