"""Name servers with a view for each region: nodes open them with their keys, and are told the truth."""

from __future__ import annotations

import base64

import pytest
from msgspec.structs import replace

from tests.sim.setting import SERVER, SITES, config, settled


def test_keys_open_the_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSIG_KEY", base64.b64encode(b"0" * 32).decode("ascii"))
    key = '{"name":"world","key":{"env":"TSIG_KEY","file":""},"algorithm":"hmac-sha256"}'
    plain = config()
    servers = tuple(
        replace(
            driver,
            options=f'{{"address":"{SERVER[driver.site]}","dialect":"bind","tsig":null,"views":{{"world":{key}}}}}',
        )
        for driver in plain.dns
    )
    with settled(replace(plain, dns=servers)) as story:
        story.run(30.0)
        seen = [
            row
            for site in SITES
            for checker in story.nodes[site].agent.checkers.values()
            for row in checker.seen.values()
        ]
        assert len(seen) == len(SITES) ** 2
        assert all(row.agrees for row in seen), seen
