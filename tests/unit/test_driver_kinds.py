"""What is known of a driver before it is opened, and how an open one takes another configuration over."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from controlplane.dns import DRIVERS
from controlplane.dns.embedded import EmbeddedDriver, OwnServer
from controlplane.pools import DRIVERS as POOLS
from policies.topology import Config, DnsDriver, Policy, Region
from tests.support import run

ENTRY = DnsDriver(
    "embedded", "ns1", "site-a", ("example.org",), ("site-a",), 1.0, "freeze", (), '{"listen": ["127.0.1.1:0"]}'
)


def config(entry: DnsDriver) -> Config:
    return Config("acme", 60.0, {}, {"world": Region(default=True)}, {}, Policy(), dns=(entry,))


@pytest.mark.parametrize("name", [*DRIVERS, *POOLS])
def test_every_kind_describes_itself(name: str) -> None:
    kind = (DRIVERS | POOLS)[name]
    assert issubclass(kind.options, msgspec.Struct)
    assert kind.runs is ((kind.open_pool if name in POOLS else kind.open) is not None)


def test_an_open_embedded_driver_takes_another_configuration_over_in_place() -> None:
    async def main() -> None:
        kind = DRIVERS["embedded"]
        assert kind.open is not None
        opened = await kind.open(ENTRY, config(ENTRY))
        assert isinstance(opened, OwnServer)
        try:
            other = replace(ENTRY, zones=("other.org",))
            assert await kind.reconfigure(opened, other, config(other))
            assert list(opened.server.table.zones) == ["other.org"]
            bad = replace(ENTRY, options='{"listen": ["127.0.1.1:0"], "mmdb": "/nonexistent/geo.mmdb"}')
            with pytest.raises(OSError):
                await kind.reconfigure(opened, bad, config(bad))
            assert list(opened.server.table.zones) == ["other.org"]
        finally:
            await opened.aclose()

    run(main())


def test_what_has_no_server_of_its_own_is_opened_anew() -> None:
    async def main() -> None:
        shared = EmbeddedDriver("ns1", lambda: None)
        for kind in DRIVERS.values():
            assert not await kind.reconfigure(shared, ENTRY, config(ENTRY))

    run(main())
