"""A pool's fence that was edited into none on disk counts as absent; the other pools keep theirs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from controlplane.drivers import Fence
from controlplane.pools.shelf import shelf
from tests.support import run


@pytest.mark.parametrize(("field", "value"), [("op", "café"), ("generation", -1), ("generation", 10**18), ("op", "")])
def test_a_fence_edited_into_none(tmp_path: Path, field: str, value: object) -> None:
    sound = {"incarnation": "5f0c", "generation": 7, "op": "d-7.a-1"}
    pools = {"web": {"fence": {**sound, field: value}, "answers": []}, "api": {"fence": sound, "answers": []}}
    file = tmp_path / "haproxy.json"
    file.write_bytes(msgspec.json.encode({"pools": pools, "schema": 1}))
    held = run(shelf(file).read())
    assert {name: entry.fence for name, entry in held.items()} == {"api": Fence("5f0c", 7, "d-7.a-1")}
