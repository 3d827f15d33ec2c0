"""Knot DNS passes the contract of all DNS drivers, with plain records: what any server that takes UPDATE can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.worlds.servers.knot import Knot
from chaos.worlds.servers.process import free_port
from controlplane.dns.signing import Rejected
from tests.contract.dns_world import desired
from tests.contract.rfc2136_contract import Rfc2136Contract
from tests.contract.rfc2136_world import KEY, NS, READER, ZONE, Rfc2136Backend


class TestKnot(Rfc2136Contract):
    running: Knot

    @classmethod
    def build(cls, directory: Path) -> Knot:
        return Knot(directory, "127.0.0.1", free_port(), ZONE, ns=NS, key=KEY, reader=READER)

    def test_what_its_acl_forbids_is_refused_as_if_the_key_were_wrong_and_the_reason_says_so(self) -> None:
        async def body(backend: object, driver: object) -> None:
            assert isinstance(backend, Rfc2136Backend)
            with pytest.raises(Rejected, match=r"TSIG key reader: .* or the server's ACL does not let it"):
                await backend.driver_with(key=READER).probe_write()

        self.case(body)

    def test_it_says_that_it_knows_neither_regions_nor_weights(self) -> None:
        async def body(backend: object, driver: object) -> None:
            assert isinstance(backend, Rfc2136Backend)
            can = backend.driver_with().capabilities
            assert (can.geo, can.weights, can.cas, can.batch) == (False, False, True, 200)
            assert {a.region for a in desired(backend, 1, "192.0.2.1").answers} == {""}

        self.case(body)
