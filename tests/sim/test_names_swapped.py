"""Two services exchange their DNS names in one apply: each finds a fence of the other's, which nobody has lost."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from controlplane.documents import GovernorDoc, decode
from policies.topology import Config, Dns
from tests.sim.setting import NAME, SITES, Story, config

QUICK = config(soak_s=20.0, step_s=10.0, hold_s=5.0)
OTHER = "shop.example.org"


def named(www: str, shop: str) -> Config:
    one = QUICK.services["www"]
    return replace(QUICK, services={"www": replace(one, dns=Dns(www, 20)), "shop": replace(one, dns=Dns(shop, 20))})


def rewound(w: Story) -> str:
    value = w.entry(w.keys.timers_governor)
    return decode(GovernorDoc, value).rewound if value else ""


@pytest.mark.parametrize("moves", [0, 3])
def test_names_swapped_are_no_restored_store(moves: int) -> None:
    with Story(named(NAME, OTHER)) as w:
        w.warm_up()
        w.judged.remove("fenced")  # it speaks of services, and here names change hands
        for _ in range(moves):  # so that one is far ahead of the other
            w.begin("stopped", "site-a", "www")
            w.run(10.0)
            w.end("stopped", "site-a", "www")
            w.run(120.0)
        before = w.generations()
        w.apply(named(OTHER, NAME))
        w.run(30.0)
        assert rewound(w) == ""
        assert not any(node.view.rewound for node in w.nodes.values())
        for home in SITES:
            for name, service in ((OTHER, "www"), (NAME, "shop")):
                server = w.servers.of(service, home)
                assert server is not None
                there = server.primary.read(name)
                desired = w.nodes[home].view.desired[service]
                assert there is not None and there.fence is not None
                assert (there.fence.generation, there.fence.decision) == (desired.generation, desired.stamp)
        if moves:
            assert max(w.generations().values()) > max(before.values())
